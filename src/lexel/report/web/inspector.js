// The inspector: what is known of the selected code, and where in the images it stands.

function showInspector(codebook) {
  const { codes, grids } = codebook;
  const pictures = [...document.querySelectorAll(".gallery figure")].map((figure) => figure.querySelector("img"));

  const identity = (code) => {
    const dead = codebook.isDead(code);
    const line = (text) => element("span", { textContent: text });
    return element(
      "div",
      { className: "identity" },
      element("span", dead ? { className: "dead" } : {}, codebook.patch(code)),
      element(
        "span",
        {},
        element("b", { textContent: `Code ${codes.index[code]}` }),
        line(dead ? "dead: these images never use it" : `rank ${count(code + 1)} of ${count(codes.used)}`),
        line(dead ? "" : `used ${counted(codes.count[code], "time")}, ${codebook.share(code)}`),
      ),
    );
  };
  const label = (text) => element("p", { className: "label", textContent: text });

  codebook.boards.push((code) => {
    const parts = [identity(code)];
    if (codes.near[code].length) {
      const swatches = codes.near[code].map((other) => codebook.swatch(other, () => codebook.select(other)));
      parts.push(label("The nearest codes"), element("div", { className: "swatches" }, ...swatches));
    }
    const places = element("div", { className: pictures.length > 4 ? "places many" : "places" });
    let total = 0;
    grids.forEach((grid, i) => {
      const overlay = element("canvas", { width: 320, height: Math.round((320 * grid.length) / grid[0].length) });
      total += markPositions(overlay, grid, code);
      places.append(element("div", {}, element("img", { src: pictures[i].src, alt: "" }), overlay));
    });
    parts.push(label(`${counted(total, "place")} in the ${counted(grids.length, "image")} above`), places);
    byId("inspector").replaceChildren(...parts);
  });
}

/** Darken an image but for the positions that hold a code, and return how many those are. */
function markPositions(canvas, grid, code) {
  const context = canvas.getContext("2d");
  const [high, wide] = [canvas.height / grid.length, canvas.width / grid[0].length];
  context.fillStyle = "rgb(0 0 0 / 0.65)";
  context.fillRect(0, 0, canvas.width, canvas.height);
  const total = grid.flat().filter((other) => other === code).length;
  const least = total < 20 ? 12 : 5; // a smaller square could not be seen
  context.strokeStyle = context.fillStyle = "#ffd21f";
  context.lineWidth = 2;
  grid.forEach((row, y) => row.forEach((other, x) => {
    if (other !== code) return;
    if (total > 200) return context.fillRect(x * wide, y * high, wide, high);
    const [w, h] = [Math.max(wide, least), Math.max(high, least)];
    const [left, top] = [(x + 0.5) * wide - w / 2, (y + 0.5) * high - h / 2];
    if (wide < least) return context.fillRect(left, top, w, h);
    context.clearRect(left, top, w, h);
    context.strokeRect(left, top, w, h);
  }));
  return total;
}
