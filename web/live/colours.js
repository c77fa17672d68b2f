// A colour for each code, the same on every visit: hues a golden angle apart, in three lightnesses.

import { element } from "../common/controls.js";

const known = new Map();
const context = element("canvas", { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });

/** [red, green, blue] of a code. */
export function colourOf(code) {
  let found = known.get(code);
  if (!found) {
    const number = Number(code % 9973n);
    context.fillStyle = `oklch(${[0.62, 0.76, 0.5][number % 3]} 0.13 ${(number * 137.508) % 360})`;
    context.fillRect(0, 0, 1, 1);
    found = [...context.getImageData(0, 0, 1, 1).data.slice(0, 3)];
    known.set(code, found);
  }
  return found;
}

export const cssOf = (code) => `rgb(${colourOf(code).join(" ")})`;
