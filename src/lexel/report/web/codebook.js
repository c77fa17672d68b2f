// One codebook, as all its boards see it.

/**
 * What the page knows of a codebook's codes, and which of them is selected.
 *
 * The boards know a code by its place in the table of codes, where the most used stand first. Its index, which may be too
 * large for a number, is a string that they only show.
 */
class Codebook {
  constructor({ codes, atlas, grids, board }) {
    Object.assign(this, { codes, atlas, grids, board });
    this.size = codes.index.length;
    this.selected = null;
    this.boards = []; // functions to call with each newly selected code
    this.atlasRows = Math.ceil(this.size / atlas.columns);
  }

  isDead(code) {
    return this.codes.count[code] === 0;
  }

  /** How much of all positions hold a code, in words. */
  share(code) {
    const percent = (100 * this.codes.count[code]) / this.codes.total;
    return percent && percent < 0.01 ? "< 0.01 %" : `${+percent.toPrecision(3)} %`;
  }

  select(code) {
    this.selected = code;
    this.boards.forEach((show) => show(code));
  }

  /** Column and row of a code's patch in the picture of all patches. */
  place(code) {
    return [code % this.atlas.columns, Math.floor(code / this.atlas.columns)];
  }

  /** The style of all patches. It stands in the page once, since it holds the long address of their picture. */
  patchStyle() {
    const sheet = element("style");
    const size = `${100 * this.atlas.columns}% ${100 * this.atlasRows}%`;
    sheet.textContent = `.patch { background: url(${this.atlas.picture}) 0 0 / ${size} }`;
    return sheet;
  }

  patch(code) {
    const patch = element("span", { className: "patch" });
    const [column, row] = this.place(code);
    const [across, down] = [column / (this.atlas.columns - 1 || 1), row / (this.atlasRows - 1 || 1)];
    patch.style.backgroundPosition = `${100 * across}% ${100 * down}%`;
    return patch;
  }

  /** A button that shows a code. */
  swatch(code, onclick) {
    const index = this.codes.index[code];
    const button = element("button", { type: "button", onclick }, this.patch(code), element("span", { textContent: index }));
    button.dataset.code = index;
    button.ariaLabel = `code ${index}`;
    if (this.isDead(code)) button.classList.add("dead");
    return button;
  }
}
