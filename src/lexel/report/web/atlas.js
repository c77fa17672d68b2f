// The atlas: the patches of all codes, the most used first.

function showAtlas(codebook) {
  const { codes } = codebook;
  const cells = codes.index.map((index, code) => {
    const dead = codebook.isDead(code);
    const cell = element("div", { role: "option", ariaSelected: "false" }, codebook.patch(code));
    cell.dataset.code = index;
    cell.title = dead ? `${index}: dead` : `${index}: ${codebook.share(code)}`;
    cell.ariaLabel = `code ${index}, ${dead ? "dead" : `used ${counted(codes.count[code], "time")}`}`;
    if (dead) cell.classList.add("dead");
    cell.addEventListener("click", () => cell.focus());
    return cell;
  });
  const side = codebook.size <= 300 ? 40 : codebook.size <= 1200 ? 24 : codebook.size <= 5000 ? 20 : 14;
  byId("atlas").style.setProperty("--cell", `${side}px`);
  byId("atlas").append(...cells);

  const columns = () => {
    const top = cells[0].offsetTop;
    const next = cells.findIndex((cell) => cell.offsetTop > top);
    return next < 0 ? cells.length : next;
  };
  walkByKeys(cells, columns, (code) => codebook.select(code));

  let selected = null;
  codebook.boards.push((code) => {
    if (selected !== null) cells[selected].ariaSelected = "false";
    cells[code].ariaSelected = "true";
    selected = code;
  });
}
