// The map: every code's patch, where its vector lies on the plane.

const squaredDistance = ([x, y], [a, b]) => (x - a) ** 2 + (y - b) ** 2;

class CodeMap {
  constructor(codebook) {
    this.codebook = codebook;
    this.box = byId("map");
    this.canvas = this.box.firstElementChild;
    this.tip = element("div", { className: "tip", hidden: true });
    this.box.append(this.tip);
    this.hovered = null;
    this.spots = []; // the codes' places in pixels
    // Both coordinates from 0 to 1.
    this.coordinates = [0, 1].map((axis) => {
      const values = codebook.codes.xy.map((point) => point[axis]);
      const [low, high] = [Math.min(...values), Math.max(...values)];
      return values.map((value) => (value - low) / (high - low || 1));
    });
    this.highestCount = Math.max(...codebook.codes.count, 1);
    this.patches = new Image();
    this.patches.src = codebook.atlas.picture;
    const draw = () => this.draw();
    this.patches.addEventListener("load", draw);
    new ResizeObserver(draw).observe(this.box);
    redrawWithTheme(this.canvas, draw);
    codebook.boards.push(draw);
    this.listen();
  }

  listen() {
    this.canvas.addEventListener("pointermove", (event) => this.hover(this.under(event)));
    this.canvas.addEventListener("pointerleave", () => this.hover(null));
    this.canvas.addEventListener("click", (event) => {
      const code = this.under(event);
      if (code !== null) this.codebook.select(code);
    });
    this.box.addEventListener("keydown", (event) => {
      const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!direction) return;
      event.preventDefault();
      const next = this.ahead(direction);
      if (next !== null) this.codebook.select(next);
    });
  }

  /** The code near the pointer, or null. */
  under(event) {
    if (!this.spots.length) return null;
    const box = this.canvas.getBoundingClientRect();
    const pointer = [event.clientX - box.left, event.clientY - box.top];
    const distances = this.spots.map((spot) => squaredDistance(spot, pointer));
    const nearest = distances.reduce((best, distance, code) => (distance < distances[best] ? code : best), 0);
    return distances[nearest] < 30 ** 2 ? nearest : null;
  }

  /** The nearest of the codes that lie within 45 degrees of a direction, seen from the selected one; or null. */
  ahead([right, down]) {
    const from = this.spots[this.codebook.selected ?? 0];
    let nearest = null;
    this.spots.forEach((spot, code) => {
      const [dx, dy] = [spot[0] - from[0], spot[1] - from[1]];
      const forward = dx * right + dy * down;
      if (forward <= 0 || forward < Math.abs(dx * down + dy * right)) return;
      if (nearest === null || squaredDistance(spot, from) < squaredDistance(this.spots[nearest], from)) nearest = code;
    });
    return nearest;
  }

  hover(code) {
    this.hovered = code;
    this.tip.hidden = code === null;
    if (code !== null) {
      this.tip.replaceChildren(this.codebook.patch(code), this.codebook.codes.index[code]);
      const [x, y] = this.spots[code];
      this.tip.style.left = `${x > this.box.clientWidth - 90 ? x - 85 : x + 18}px`;
      this.tip.style.top = `${Math.max(4, Math.min(y - 40, this.box.clientHeight - 90))}px`;
    }
    this.draw();
  }

  /** The side of a code's patch: its area grows with how often the code is used. */
  side(code) {
    if (this.codebook.isDead(code)) return 5;
    return 6 + 16 * Math.sqrt(this.codebook.codes.count[code] / this.highestCount);
  }

  /** Fit the canvas to the page, and the codes into the canvas. */
  fit(width, height) {
    const ratio = devicePixelRatio || 1;
    if (this.canvas.width !== Math.round(width * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
      this.canvas.style.height = `${height}px`;
      this.spots = [];
    }
    if (!this.spots.length) {
      const [across, upward] = this.coordinates;
      const margin = 20;
      const along = (share, length) => margin + share * (length - 2 * margin);
      this.spots = across.map((x, code) => [along(x, width), along(1 - upward[code], height)]);
    }
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    return context;
  }

  draw() {
    if (!this.patches.complete || !this.box.clientWidth) return;
    const width = this.box.clientWidth;
    const context = this.fit(width, Math.round(Math.min(width * 0.66, 520)));
    const { color: ink, borderColor: rule } = getComputedStyle(this.box);
    const patchSide = this.patches.naturalWidth / this.codebook.atlas.columns;
    context.imageSmoothingEnabled = false;
    context.strokeStyle = rule;
    context.lineWidth = 0.75;
    // From the most used code, which is the largest, to the least: a small patch is drawn over a large one.
    this.spots.forEach(([x, y], code) => {
      const side = this.side(code);
      const from = this.codebook.place(code).map((n) => n * patchSide);
      context.globalAlpha = this.codebook.isDead(code) ? 0.5 : 1;
      context.drawImage(this.patches, ...from, patchSide, patchSide, x - side / 2, y - side / 2, side, side);
      strokeSquare(context, [x, y], side);
    });
    context.globalAlpha = 1;
    for (const [code, colour] of [[this.hovered, ink], [this.codebook.selected, "#ffd21f"]]) {
      if (code === null) continue;
      for (const [style, thick] of [["#000", 5], [colour, 2.5]]) {
        context.strokeStyle = style;
        context.lineWidth = thick;
        strokeSquare(context, this.spots[code], this.side(code) + 6);
      }
    }
  }
}
