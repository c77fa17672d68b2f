// The codes of a picture: each as the decoder shows it, with its colour in the grid, its number and how often it stands there.

import { element } from "../common/controls.js";
import { text } from "../common/language.js";
import { cssOf } from "./colours.js";
import { paintPixels } from "./photo.js";

const MOST = 1024; // codes of a codebook whose unused codes are shown too

export class Palette {
  options = new Map(); // by code

  constructor(onChoice) {
    this.onChoice = onChoice;
    this.element = element("div", { className: "palette", onkeydown: (event) => this.travel(event) });
    this.element.setAttribute("role", "radiogroup");
  }

  /** Show all codes of a level, the most frequent first; returns them. */
  show(found, codes) {
    const used = [...found].sort((one, other) => other[1] - one[1] || Number(one[0] - other[0])).map(([code]) => code);
    const all = codes > MOST ? [] : Array.from({ length: codes }, (_, k) => BigInt(k));
    const order = [...used, ...all.filter((code) => !found.has(code))];
    this.options.clear();
    for (const code of order) {
      const canvas = element("canvas", { width: 1, height: 1 });
      const band = element("i");
      band.style.background = cssOf(code);
      const made = element("button", { type: "button", tabIndex: -1, onclick: () => this.onChoice(code) });
      made.setAttribute("role", "radio");
      made.append(canvas, band, element("b", { textContent: code }), element("span"));
      made.dataset.code = code;
      this.options.set(code, made);
    }
    this.element.replaceChildren(...this.options.values());
    this.count(found);
    this.choose(order.includes(this.chosen) ? this.chosen : order[0]);
    return order;
  }

  count(found) {
    for (const [code, made] of this.options) {
      const times = found.get(code) ?? 0;
      made.lastChild.textContent = `×${times}`;
      made.classList.toggle("unused", !times);
      made.setAttribute("aria-label", text("palette.code", { code, times }));
    }
  }

  choose(code) {
    this.chosen = code;
    for (const [each, made] of this.options) {
      made.setAttribute("aria-checked", each === code);
      made.tabIndex = each === code ? 0 : -1;
    }
    const made = this.options.get(code);
    if (!made) return;
    const { offsetTop: top, offsetHeight: height } = made;
    const { scrollTop, clientHeight } = this.element;
    if (top < scrollTop || top + height > scrollTop + clientHeight) this.element.scrollTop = top - clientHeight / 2;
  }

  patch(code, { data, channels, height, width }) {
    const canvas = this.options.get(code)?.firstChild;
    if (!canvas) return;
    Object.assign(canvas, { width, height });
    paintPixels(canvas, data, channels, width, height);
  }

  /** The arrow keys go from code to code. */
  travel(event) {
    const order = [...this.options.keys()];
    const made = this.options.get(order[0]);
    if (!made) return;
    const columns = Math.max(1, Math.floor(this.element.clientWidth / made.offsetWidth));
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const ends = { Home: 0, End: order.length - 1 };
    if (!(event.key in steps) && !(event.key in ends)) return;
    event.preventDefault();
    const at = ends[event.key] ?? order.indexOf(this.chosen) + steps[event.key];
    const code = order[Math.min(order.length - 1, Math.max(0, at))];
    this.onChoice(code);
    this.options.get(code).focus();
  }
}
