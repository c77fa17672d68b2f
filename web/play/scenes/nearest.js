// 1. The nearest code, and the border where the choice jumps.

import { number, readings, scene } from "../../common/controls.js";
import { Plane, calm } from "../plane.js";
import { D, nearest, squaredDistance } from "../quantizer.js";

export function nearestScene() {
  const codes = Float32Array.from([-0.9, 0.55, 0.2, 0.8, 1.05, 0.1, -0.35, -0.45, 0.7, -0.8]);
  const inputs = Float32Array.from([-0.45, 0.3]);
  const plane = new Plane({
    label: "nearest.picture",
    onMove: (kind, i, x, y) => {
      (kind === "codes" ? codes : inputs).set([x, y], i * D);
      draw();
    },
  });
  const numbers = readings("nearest.index", "nearest.distance", "nearest.next");
  let before = null;

  function draw() {
    const indices = nearest(inputs, codes);
    const distances = Array.from({ length: codes.length / D }, (_, k) => squaredDistance(inputs, 0, codes, k));
    const others = distances.filter((_, k) => k !== indices[0]);
    const next = distances.indexOf(Math.min(...others));
    plane.draw({
      inputs,
      codes,
      indices,
      links: true,
      large: true,
      below: [{ kind: "line", at: [...inputs], to: [...codes.slice(next * D, next * D + D)], className: "thread" }],
    });
    numbers.set({
      "nearest.index": indices[0],
      "nearest.distance": number(distances[indices[0]]),
      "nearest.next": number(distances[next]),
    });
    if (before !== null && before !== indices[0]) flash(plane.layers.cells.children[indices[0]]);
    before = indices[0];
  }

  return { element: scene("nearest", { picture: [plane.element, numbers] }), draw, state: () => ({ inputs, codes }) };
}

/** The cell that takes over lights up for a moment. */
function flash(cell) {
  if (!calm.matches)
    cell?.animate([{ fillOpacity: 0.55 }, { fillOpacity: 0.16 }], { duration: 450, easing: "ease-out" });
}
