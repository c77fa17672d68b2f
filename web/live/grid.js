// The grid of tokens: a picture of coloured cells that a pointer or the keyboard paints on.

import { element } from "../common/controls.js";
import { colourOf } from "./colours.js";

const GAPS = 7; // pixels of a cell from which on there are gaps between cells
const NUMBERS = 24; // and numbers in them

export class Grid {
  cursor = [0, 0]; // column, row
  marked = null; // a rectangle, [left, top, right, bottom]
  brush = 1;

  /**
   * `hands.start`, `move`, `end` follow a stroke over cells; `look` a pointer or the cursor without one;
   * `press` is the space key, `pick` Enter, and `cancel` Escape.
   */
  constructor(hands) {
    this.hands = hands;
    this.element = element("canvas", { tabIndex: 0, className: "tokens" });
    this.element.setAttribute("role", "application");
    this.cells = element("canvas");
    this.follow(this.element);
    this.element.onkeydown = (event) => this.key(event);
    this.element.onfocus = () => this.draw();
    this.element.onblur = () => this.draw();
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  /** Let a stroke be made over a canvas that shows the whole picture, this one or another. */
  follow(canvas) {
    let held = null; // the pointer that makes a stroke
    const cell = (event) => {
      const { left, top, width, height } = canvas.getBoundingClientRect();
      const at = (part, count) => Math.min(count - 1, Math.max(0, Math.floor(part * count)));
      return [at((event.clientX - left) / width, this.columns), at((event.clientY - top) / height, this.rows)];
    };
    canvas.onpointerdown = (event) => {
      if (held !== null || event.button > 0 || !this.columns) return;
      held = event.pointerId;
      canvas.setPointerCapture(held);
      this.cursor = cell(event);
      this.hands.start(this.cursor);
      this.draw();
    };
    canvas.onpointermove = (event) => {
      if (!this.columns || (held !== null && event.pointerId !== held)) return;
      const way = held === null ? [event] : (event.getCoalescedEvents?.() ?? []);
      for (const each of way.length ? way : [event]) {
        this.cursor = cell(each);
        if (held !== null) this.hands.move(this.cursor);
      }
      this.hands.look(this.cursor);
      this.draw();
    };
    canvas.onpointerup = canvas.onpointercancel = canvas.onlostpointercapture = (event) => {
      if (event.pointerId !== held) return;
      held = null;
      if (!this.columns) return; // what the stroke went over has gone away
      this.hands.end(event.type !== "pointerup");
      this.hands.look(this.cursor);
    };
  }

  key(event) {
    if (!this.columns || event.ctrlKey || event.metaKey || event.altKey) return;
    const far = event.shiftKey ? 8 : 1;
    const steps = { ArrowLeft: [-far, 0], ArrowRight: [far, 0], ArrowUp: [0, -far], ArrowDown: [0, far] };
    if (event.key in steps) {
      const [x, y] = steps[event.key];
      this.cursor = [
        Math.min(this.columns - 1, Math.max(0, this.cursor[0] + x)),
        Math.min(this.rows - 1, Math.max(0, this.cursor[1] + y)),
      ];
      this.hands.look(this.cursor, true);
    } else if (event.key === " ") this.hands.press(this.cursor);
    else if (event.key === "Enter") this.hands.pick(this.cursor);
    else if (event.key === "Escape") this.hands.cancel();
    else return;
    event.preventDefault();
    this.draw();
  }

  /** Show the tokens of a level of a sheet. */
  show(sheet, level) {
    const { rows, columns } = sheet.levels[level];
    Object.assign(this, { sheet, level, rows, columns });
    Object.assign(this.cells, { width: columns, height: rows });
    this.cursor = [Math.min(this.cursor[0], columns - 1), Math.min(this.cursor[1], rows - 1)];
    this.element.style.setProperty("--aspect", sheet.width / sheet.height);
    this.element.hidden = false;
    this.refresh();
  }

  hide() {
    this.columns = this.rows = 0;
    this.element.hidden = true;
  }

  /** The tokens have changed. */
  refresh([left, top, right, bottom] = [0, 0, this.columns, this.rows]) {
    if (right <= left || bottom <= top) return;
    const image = new ImageData(right - left, bottom - top);
    let at = 0;
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++) {
        for (const part of colourOf(this.sheet.code(this.level, y * this.columns + x))) image.data[at++] = part;
        image.data[at++] = 255;
      }
    }
    this.cells.getContext("2d").putImageData(image, left, top);
    this.draw();
  }

  draw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = null;
      if (this.columns) this.drawNow();
    });
  }

  drawNow() {
    const canvas = this.element;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.round(side * devicePixelRatio));
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    const [w, h] = [width / this.columns, height / this.rows];
    context.imageSmoothingEnabled = false;
    context.drawImage(this.cells, 0, 0, width, height);
    const cell = Math.min(w, h) / devicePixelRatio;
    if (cell >= GAPS) {
      context.fillStyle = getComputedStyle(canvas).getPropertyValue("background-color");
      for (let x = 1; x < this.columns; x++) context.fillRect(Math.round(x * w), 0, devicePixelRatio, height);
      for (let y = 1; y < this.rows; y++) context.fillRect(0, Math.round(y * h), width, devicePixelRatio);
    }
    if (cell >= NUMBERS) {
      context.font = `${Math.min(13, cell / 2.4) * devicePixelRatio}px sans-serif`;
      context.fillStyle = "#000";
      context.textAlign = "center";
      context.textBaseline = "middle";
      for (let p = 0; p < this.rows * this.columns; p++) {
        const at = [((p % this.columns) + 0.5) * w, (Math.floor(p / this.columns) + 0.5) * h];
        context.fillText(this.sheet.code(this.level, p), ...at, w);
      }
    }
    const frame = ([left, top, right, bottom], dash) => {
      const box = [left * w, top * h, (right - left) * w, (bottom - top) * h];
      for (const [colour, thickness, own] of [
        ["#fff", 4, []],
        ["#000", 2, dash],
      ]) {
        context.strokeStyle = colour;
        context.lineWidth = thickness * devicePixelRatio;
        context.setLineDash(own.map((part) => part * devicePixelRatio));
        context.strokeRect(...box);
      }
    };
    if (this.marked) frame(this.marked, [5, 4]);
    if (document.activeElement === canvas || canvas.matches(":hover")) frame(this.footprint(this.cursor), []);
  }

  /** The tokens under the brush. */
  footprint([column, row]) {
    const [left, top] = [column - ((this.brush - 1) >> 1), row - ((this.brush - 1) >> 1)];
    return [
      Math.max(0, left),
      Math.max(0, top),
      Math.min(this.columns, left + this.brush),
      Math.min(this.rows, top + this.brush),
    ];
  }
}
