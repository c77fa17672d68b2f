// 2. The decoder's gradient at the code, carried over to the input; beside it the rotation trick's.

import { choice, number, readings, scene } from "../../common/controls.js";
import { text } from "../../common/language.js";
import { Plane } from "../plane.js";
import { D, nearest, rotationTrick, straightThrough } from "../quantizer.js";

const SHOWN = 0.3; // length of an arrow for each unit of the step −∂L/∂·

export function straightThroughScene() {
  const codes = Float32Array.from([0.75, 0.6, -0.85, 0.55, -0.1, -0.75]);
  const inputs = Float32Array.from([0.95, -0.05]);
  const wish = [0.3, 0.95]; // where the decoder would like the output to be
  let estimator = "straight-through";
  const plane = new Plane({
    label: "straight.picture",
    onMove: (kind, i, x, y) => {
      (kind === "codes" ? codes : inputs).set([x, y], i * D);
      draw();
    },
  });
  const numbers = readings("straight.atCode", "straight.atInput", "straight.own", "straight.lie");
  const estimators = choice("straight.estimator", {
    options: [
      ["straight-through", "straight.copy"],
      ["rotation", "straight.rotation"],
    ],
    value: estimator,
    onChange: (chosen) => ((estimator = chosen), draw()),
  });

  /** Of the loss ‖q − wish‖², where q stands. */
  const taskGradient = (q) => Float32Array.from(q, (value, d) => 2 * (value - wish[d]));

  function compute() {
    const z = inputs.slice();
    const [index] = nearest(inputs, codes);
    const e = codes.slice(index * D, index * D + D);
    const atCode = taskGradient(e);
    const copied = straightThrough(z, e, atCode);
    const turned = rotationTrick(z, e, atCode);
    return {
      z,
      e,
      index,
      atCode,
      copied,
      turned,
      own: taskGradient(z),
      atInput: estimator === "rotation" ? turned : copied,
    };
  }

  function draw() {
    const { z, e, index, atCode, atInput, copied, own } = compute();
    const arrow = (at, gradient, className) => ({
      kind: "arrow",
      at: [...at],
      to: [...at].map((x, d) => x - SHOWN * gradient[d]),
      className,
    });
    const rotates = estimator === "rotation";
    plane.draw({
      inputs,
      codes,
      indices: [index],
      links: true,
      large: true,
      below: [
        { kind: "target", at: wish },
        { kind: "text", at: [wish[0], wish[1] + 0.08], label: text("straight.wish") },
        ...(rotates ? [z, e].map((end) => ({ kind: "line", at: [0, 0], to: [...end], className: "ray" })) : []),
        ...(rotates
          ? [
              { kind: "cross", at: [0, 0] },
              { kind: "text", at: [0, -0.13], label: text("straight.origin") },
            ]
          : []),
        arrow(z, own, "ghost"),
        ...(rotates ? [arrow(z, copied, "quiet")] : []),
        arrow(e, atCode, "strong"),
        arrow(z, atInput, "strong"),
      ],
    });
    const pair = (gradient) => `(${Array.from(gradient, (x) => number(x, 2)).join(", ")})`;
    numbers.set({
      "straight.atCode": pair(atCode),
      "straight.atInput": pair(atInput),
      "straight.own": pair(own),
      "straight.lie": number(Math.hypot(...atInput.map((g, d) => g - own[d])), 2),
    });
  }

  return {
    element: scene("straight", { picture: [plane.element, numbers], tools: [estimators] }),
    draw,
    state: () => ({ ...compute(), wish, codes }),
  };
}
