// Line charts.

/** Round numbers between two values, about `most` of them. */
function ticks(low, high, most) {
  const rough = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const values = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) values.push(n * step);
  return values;
}

/** 1, 2 and 5 of each power of ten, or, of a wide range, the powers alone. */
function logTicks(low, high) {
  const values = [];
  for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10) {
    values.push(...[1, 2, 5].map((n) => n * power).filter((n) => n >= low && n <= high));
  }
  const powers = values.filter((n) => Math.abs(Math.log10(n) % 1) < 1e-6);
  return values.length > 6 && powers.length > 1 ? powers : values;
}

const short = (value) =>
  Math.abs(value) >= 1e4 ? Intl.NumberFormat("en-US", { notation: "compact" }).format(value) : String(+value.toPrecision(3));

/**
 * A line over x that tells its value under the pointer, or, with the arrow keys, at the next point.
 *
 * `levels` are values to compare with, [name, value] each, drawn as dotted lines.
 * `group` holds the charts that share their x: pointing at one of them points at all.
 */
class Chart {
  constructor(container, { title, x, y, xName, format = short, logY, zero, limit, most = Infinity, area, levels = [] }, group) {
    Object.assign(this, { title, x, y, xName, format, logY, zero, limit, most, area, levels, group });
    this.points = x.map((_, i) => i).filter((i) => y[i] !== null && (!logY || y[i] > 0));
    if (!this.points.length) return container.remove();
    this.first = this.points[0];
    this.last = this.points.at(-1);
    this.reading = element("output");
    this.picture = svg("svg", { tabindex: 0, role: "img", "aria-label": this.summary() });
    this.marks = [];
    const head = element("div", { className: "head" }, element("b", { textContent: title ?? "" }), this.reading);
    container.append(head, this.picture);
    group.push(this);
    this.listen();
    new ResizeObserver(() => this.draw()).observe(this.picture);
  }

  summary() {
    const at = (i) => `${this.format(this.y[i])} at ${this.xName} ${count(this.x[i])}`;
    return `${this.title ?? "share"}: ${at(this.first)}, ${at(this.last)}`;
  }

  listen() {
    let current = null;
    const point = (i) => {
      current = i;
      this.group.forEach((chart) => chart.point(i));
    };
    this.picture.addEventListener("pointermove", (event) => {
      const left = event.clientX - this.picture.getBoundingClientRect().left;
      const distance = (i) => Math.abs(this.across(this.x[i]) - left);
      point(this.points.reduce((best, i) => (distance(i) < distance(best) ? i : best)));
    });
    this.picture.addEventListener("pointerleave", () => point(null));
    this.picture.addEventListener("blur", () => point(null));
    this.picture.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = current === null ? this.points.length - 1 : this.points.indexOf(current) + step;
      point(this.points[Math.max(0, Math.min(this.points.length - 1, next))]);
    });
  }

  /** Mark the i-th point and tell its value; null for none. */
  point(i) {
    this.marks.forEach((mark) => mark.remove());
    this.marks = [];
    if (i === null) {
      this.reading.textContent = this.title ? this.format(this.y[this.last]) : "\u00a0";
      return;
    }
    if (this.y[i] === null || !this.across) return;
    this.reading.textContent = `${this.xName} ${count(this.x[i])}: ${this.format(this.y[i])}`;
    const [left, top] = [this.across(this.x[i]), this.up(this.y[i])];
    this.marks = [
      svg("line", { class: "cross", x1: left, x2: left, y1: 6, y2: this.picture.clientHeight - 20 }, this.picture),
      svg("circle", { cx: left, cy: top, r: 4 }, this.picture),
    ];
  }

  /** The lowest and the highest value that the chart has room for. */
  range() {
    const values = [...this.points.map((i) => this.y[i]), ...this.levels.map(([, value]) => value)];
    const highest = Math.max(...values);
    const low = this.zero ? 0 : Math.min(...values);
    const high = this.limit && this.limit < 3 * highest ? Math.max(highest, this.limit) : highest;
    if (low < high) return [low, high];
    const margin = (Math.abs(low) || 1) * 0.1; // the line is flat
    return this.zero ? [0, 1] : [low - margin, Math.min(high + margin, this.most)];
  }

  draw() {
    const [width, height] = [this.picture.clientWidth, this.picture.clientHeight];
    if (!width) return;
    const [low, high] = this.range();
    let levels = this.logY ? logTicks(low, high) : ticks(low, high, 4);
    if (levels.length < 2) levels = ticks(low, high, 4);
    const labels = levels.map((value) => this.format(value));
    const left = Math.max(44, 10 + 7 * Math.max(...labels.map((label) => label.length)));
    const [top, right, bottom] = [8, width - 10, height - 22];
    const scale = (value, from, to, start, end) => start + ((end - start) * (value - from)) / (to - from || 1);
    const bend = (value) => (this.logY ? Math.log10(value) : value);
    this.across = (value) => scale(value, this.x[0], this.x.at(-1), left, right);
    this.up = (value) => scale(bend(value), bend(low), bend(high), bottom, top);

    this.picture.replaceChildren();
    const rule = (name, value) =>
      svg("line", { class: name, x1: left, x2: right, y1: this.up(value), y2: this.up(value) }, this.picture);
    const text = (x, y, anchor, content) =>
      (svg("text", { x, y, "text-anchor": anchor }, this.picture).textContent = content);
    levels.forEach((value, i) => {
      rule("rule", value);
      text(left - 6, this.up(value) + 4, "end", labels[i]);
    });
    for (const value of ticks(this.x[0], this.x.at(-1), width / 90)) {
      text(this.across(value), height - 4, "middle", short(value));
    }
    if (this.limit >= low && this.limit <= high) rule("limit", this.limit);
    for (const [name, value] of this.levels) {
      rule("limit", value);
      text(right, this.up(value) - 4, "end", name);
    }
    this.drawLine(bottom);
    this.point(null);
  }

  drawLine(bottom) {
    const place = (i) => [this.across(this.x[i]), this.up(this.y[i])];
    const line = this.points.map((i) => place(i).map((n) => n.toFixed(1)).join(",")).join(" L");
    if (this.area) {
      const [start, end] = [this.first, this.last].map((i) => this.across(this.x[i]));
      svg("path", { class: "area", d: `M${start},${bottom} L${line} L${end},${bottom} Z` }, this.picture);
    }
    svg("path", { class: "line", d: `M${line}` }, this.picture);
    const [cx, cy] = place(this.last);
    if (this.points.length === 1) svg("circle", { cx, cy, r: 3 }, this.picture); // one point makes no line
  }
}
