// The picture that all scenes share: inputs as dots, codes as discs with their cells, in a plane that can be dragged.

import { Delaunay } from "d3-delaunay";
import { text } from "../common/language.js";
import { elementsOf, svg } from "./marks.js";

export const HALF = { x: 1.6, y: 1.2 };
const GLIDE = 220; // milliseconds
const REACH = { mouse: 16, pen: 20, touch: 30 }; // how near a pointer must come to take hold, in pixels
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
export const calm = matchMedia("(prefers-reduced-motion: reduce)");

/** Neighbouring numbers get hues far apart. */
export function hue(k) {
  return `--hue: ${(25 + k * 137.508) % 360}`;
}

export class Plane {
  /**
   * `onMove(kind, i, x, y)` is called while "codes" or "inputs" are moved; without it nothing can be. `onPaint(x, y)`
   * is called where a pointer draws, if `paints()`.
   */
  constructor({ label, onMove = null, movable = ["codes", "inputs"], paints = () => false, onPaint = null }) {
    Object.assign(this, { onMove, movable: onMove ? movable : [], paints, onPaint, view: null, places: null });
    this.layers = Object.fromEntries(
      ["cells", "links", "below", "inputs", "codes", "above", "cursor"].map((name) => [
        name,
        svg("g", { class: name }),
      ]),
    );
    this.element = svg("svg", { class: "plane", role: "group" }, ...Object.values(this.layers));
    this.label = label;
    this.cursor = [0, 0];
    this.listen();
    new ResizeObserver(() => this.resize()).observe(this.element);
    this.resize();
  }

  resize() {
    const width = this.element.clientWidth || 640;
    this.scale = width / (2 * HALF.x);
    this.size = [width, 2 * HALF.y * this.scale];
    this.element.setAttribute("viewBox", `0 0 ${this.size.join(" ")}`);
    if (this.view) this.paint();
  }

  /** From the plane to pixels, and back. */
  at([x, y]) {
    return [(x + HALF.x) * this.scale, (HALF.y - y) * this.scale];
  }

  from([x, y]) {
    return [x / this.scale - HALF.x, HALF.y - y / this.scale];
  }

  point(kind, i) {
    return [this.view[kind][2 * i], this.view[kind][2 * i + 1]];
  }

  /**
   * Show inputs and codes: `indices` colours the inputs by their codes, `cells` and `links` are drawn if asked for,
   * `dead` codes are hollow, `colours` and `codeColours` take the place of the hues, `batch` makes other inputs faint, `wrong` inputs get a ring; `marks` lie above, `below` below.
   */
  draw(view) {
    this.view = { inputs: [], codes: [], marks: [], below: [], cells: true, ...view };
    const { kind, i, paint } = this.grip ?? {};
    if (i >= this.view[kind]?.length / 2 || (paint && !this.paints())) this.release(); // what was held is there no more
    this.element.setAttribute("aria-label", text(this.label));
    const glides =
      this.places?.length === this.view.codes.length && !this.grip && !calm.matches && view.glide !== false;
    if (!glides) {
      cancelAnimationFrame(this.frame);
      this.frame = null;
      this.places = Float64Array.from(this.view.codes);
      this.paint();
      return;
    }
    this.origin = Float64Array.from(this.places);
    this.since = performance.now();
    this.frame ??= requestAnimationFrame(() => this.glide());
    this.paint();
  }

  glide() {
    const part = Math.min(1, (performance.now() - this.since) / GLIDE);
    const eased = 1 - (1 - part) ** 3;
    this.places = this.places.map((_, j) => this.origin[j] + eased * (this.view.codes[j] - this.origin[j]));
    this.paint();
    this.frame = part < 1 ? requestAnimationFrame(() => this.glide()) : null;
  }

  paint() {
    const { inputs, codes, indices, cells, links, marks, below } = this.view;
    const places = Array.from({ length: codes.length / 2 }, (_, k) =>
      this.at([this.places[2 * k], this.places[2 * k + 1]]),
    );
    this.layers.cells.replaceChildren(...(cells && places.length ? this.cells(places) : []));
    this.layers.links.replaceChildren(
      ...(links ? Array.from(indices, (k, i) => this.line(this.at(this.point("inputs", i)), places[k], hue(k))) : []),
    );
    this.paintInputs(inputs, indices);
    this.paintCodes(places);
    this.layers.below.replaceChildren(...below.flatMap((mark) => elementsOf(mark, (point) => this.at(point))));
    this.layers.above.replaceChildren(...marks.flatMap((mark) => elementsOf(mark, (point) => this.at(point))));
    const painting = this.paints();
    this.element.classList.toggle("painting", painting);
    this.element.tabIndex = painting ? 0 : -1;
    const [x, y] = this.at(this.cursor);
    this.layers.cursor.replaceChildren(
      ...(painting ? [svg("path", { d: `M${x - 9} ${y}h18M${x} ${y - 9}v18`, class: "crosshair" })] : []),
    );
  }

  cells(places) {
    const voronoi = Delaunay.from(places).voronoi([-1, -1, this.size[0] + 1, this.size[1] + 1]);
    return places.map((_, k) => svg("path", { d: voronoi.renderCell(k) ?? "", style: this.tone(k) }));
  }

  tone(k) {
    const own = this.view.codeColours?.[k];
    return own ? `--own: ${own}` : hue(k);
  }

  line([x1, y1], [x2, y2], style) {
    return svg("line", { x1, y1, x2, y2, style });
  }

  paintInputs(inputs, indices) {
    const { batch, wrong, colours, large } = this.view;
    const circles = this.handles("inputs", inputs.length / 2, () => svg("circle"));
    circles.forEach((circle, i) => {
      const [cx, cy] = this.at(this.point("inputs", i));
      const faint = batch && !batch.has(i);
      circle.setAttribute("cx", cx);
      circle.setAttribute("cy", cy);
      circle.setAttribute("r", large ? 7.5 : wrong?.has(i) ? 5 : circles.length > 60 ? 3.2 : 4.5);
      circle.setAttribute("style", colours ? `--own: ${colours[i]}` : indices ? hue(indices[i]) : "");
      circle.setAttribute(
        "class",
        ["input", faint && "faint", wrong?.has(i) && "wrong", large && "large"].filter(Boolean).join(" "),
      );
      this.describe(circle, "inputs", i);
    });
  }

  paintCodes(places) {
    const { dead, numbered = places.length <= 12 } = this.view;
    const groups = this.handles("codes", places.length, () =>
      svg("g", {}, svg("circle", { class: "hit" }), svg("circle"), svg("text")),
    );
    groups.forEach((group, k) => {
      const [hit, disc, label] = group.children;
      group.setAttribute("transform", `translate(${places[k].join(" ")})`);
      group.setAttribute("style", this.tone(k));
      group.setAttribute("class", `code${dead?.has(k) ? " dead" : ""}`);
      hit.setAttribute("r", 20);
      disc.setAttribute("r", numbered ? 11 : 7);
      label.setAttribute("dy", "0.36em");
      label.textContent = numbered ? k : "";
      this.describe(group, "codes", k);
    });
  }

  /** The elements of a kind, made or removed until there are `count`. */
  handles(kind, count, make) {
    const layer = this.layers[kind];
    while (layer.children.length > count) layer.lastChild.remove();
    while (layer.children.length < count) {
      const made = make();
      const i = layer.children.length;
      if (this.movable.includes(kind)) {
        made.setAttribute("role", "button");
        made.addEventListener("keydown", (event) => this.key(event, kind, i));
      } else made.setAttribute("aria-hidden", "true");
      layer.append(made);
    }
    layer.classList.toggle("movable", this.movable.includes(kind) && !this.paints());
    return [...layer.children];
  }

  /** Up to eight points are stops of the Tab key; of more, one is, and Page Up and Page Down go to the others. */
  describe(handle, kind, i) {
    if (!this.movable.includes(kind)) return;
    const count = this.view[kind].length / 2;
    this.stop ??= { codes: 0, inputs: 0 };
    handle.setAttribute("tabindex", count <= 8 || i === Math.min(this.stop[kind], count - 1) ? 0 : -1);
    const [x, y] = this.point(kind, i).map((value) => value.toFixed(2).replace("-", "−"));
    handle.setAttribute("aria-label", text(kind === "codes" ? "handle.code" : "handle.input", { i, x, y }));
  }

  key(event, kind, i) {
    if (event.altKey || event.ctrlKey || event.metaKey) return; // the browser's
    const turn = { PageUp: -1, PageDown: 1 }[event.key];
    const arrow = KEYS[event.key];
    if (!turn && !arrow) return;
    event.preventDefault();
    if (turn) {
      const count = this.view[kind].length / 2;
      this.stop[kind] = (i + turn + count) % count;
      this.paint();
      this.layers[kind].children[this.stop[kind]].focus();
      return;
    }
    const stride = event.shiftKey ? 0.2 : 0.04;
    const [x, y] = this.point(kind, i);
    this.grip = true;
    this.move(kind, i, x + stride * arrow[0], y + stride * arrow[1]);
    this.grip = false;
  }

  move(kind, i, x, y) {
    this.onMove(kind, i, Math.max(-HALF.x, Math.min(HALF.x, x)), Math.max(-HALF.y, Math.min(HALF.y, y)));
  }

  listen() {
    const place = (event) => {
      const box = this.element.getBoundingClientRect();
      return [
        ((event.clientX - box.left) * this.size[0]) / box.width,
        ((event.clientY - box.top) * this.size[1]) / box.height,
      ];
    };
    this.element.addEventListener("pointerdown", (event) => {
      if (event.button !== 0 || !this.view || this.grip) return; // one pointer at a time
      this.grip = this.paints() ? { paint: true } : this.grasp(place(event), REACH[event.pointerType] ?? 16);
      if (!this.grip) return;
      this.grip.pointer = event.pointerId;
      event.preventDefault();
      this.element.setPointerCapture(event.pointerId);
      this.element.classList.add("held");
      if (this.grip.paint) this.onPaint(...this.from(place(event)));
      else this.layers[this.grip.kind].children[this.grip.i].focus({ preventScroll: true });
    });
    // A finger that holds a point does not scroll the page; any other does. `touch-action` of shapes is not heeded by all.
    this.element.addEventListener("touchstart", (event) => this.grip && event.preventDefault(), { passive: false });
    this.element.addEventListener("pointermove", (event) => {
      if (this.grip?.pointer !== event.pointerId) return;
      const [x, y] = this.from(place(event));
      if (!this.grip.paint) this.move(this.grip.kind, this.grip.i, x + this.grip.offset[0], y + this.grip.offset[1]);
      else if (Math.abs(x) <= HALF.x && Math.abs(y) <= HALF.y) this.onPaint(x, y);
    });
    const end = (event) => this.grip?.pointer === event.pointerId && this.release();
    for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) this.element.addEventListener(name, end);
    this.element.addEventListener("keydown", (event) => this.paintByKey(event));
  }

  release() {
    this.grip = null;
    this.element.classList.remove("held");
  }

  paintByKey(event) {
    if (!this.paints() || event.target !== this.element || event.altKey || event.ctrlKey || event.metaKey) return;
    const arrow = KEYS[event.key];
    if (arrow) {
      this.cursor = this.cursor.map((value, d) =>
        Math.max(-[HALF.x, HALF.y][d], Math.min([HALF.x, HALF.y][d], value + 0.08 * arrow[d])),
      );
    } else if (event.key === " " || event.key === "Enter") this.onPaint(...this.cursor);
    else return;
    event.preventDefault();
    this.paint();
  }

  /** What a pointer at a pixel takes hold of: the nearest movable point within reach; codes lie above inputs. */
  grasp(pixel, reach) {
    for (const kind of ["codes", "inputs"].filter((own) => this.movable.includes(own))) {
      let best = null;
      for (let i = 0, least = reach; i < this.view[kind].length / 2; i++) {
        const [x, y] = this.at(this.point(kind, i));
        const distance = Math.hypot(x - pixel[0], y - pixel[1]);
        if (distance <= least) [best, least] = [i, distance];
      }
      if (best === null) continue;
      const [[x, y], [px, py]] = [this.point(kind, best), this.from(pixel)];
      return { kind, i: best, offset: [x - px, y - py] };
    }
    return null;
  }
}
