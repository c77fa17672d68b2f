// The boards of one codebook at a time.

/** Fill the page's place for a codebook from its template; what stood there goes, with all that listened to it. */
function showCodebook(number) {
  const place = byId("codebook");
  place.replaceChildren(byId(`codebook-${number}`).content.cloneNode(true));
  const codebook = new Codebook(data.codebooks[number]);
  place.append(codebook.patchStyle());
  showAtlas(codebook);
  showInspector(codebook);
  showRanks(codebook);
  new CodeMap(codebook);
  showTokens(codebook);
  codebook.select(0);
}

document.querySelectorAll("#choose-codebook input").forEach((input, number) => {
  input.checked = number === 0; // browsers remember another one over a reload
  input.addEventListener("change", () => showCodebook(number));
});
if (data.codebooks.length) showCodebook(0);
