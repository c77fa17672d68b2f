// 4. The losses and the straight-through line in the wrong order: a codebook that never learns.

import { Player, choice, element, number, readings, scene } from "../../common/controls.js";
import { Plane } from "../plane.js";
import { D, descend, lossGradients, nearest, swappedGradients } from "../quantizer.js";

const RATE = 1;
const BETA = 0.25;
const SEARCH = "e = codebook[nearest(z, codebook)]";
const LOSSES = ["q_loss = mse_loss(e, z.detach())", "e_loss = mse_loss(e.detach(), z)"];
const THROUGH = "e = z + (e - z).detach()";
const DESCENT = ["(q_loss + 0.25 * e_loss).backward()", "optimizer.step(); optimizer.zero_grad()"];
const ORDERS = { right: [SEARCH, ...LOSSES, THROUGH, ...DESCENT], swapped: [SEARCH, THROUGH, ...LOSSES, ...DESCENT] };

export function swappedScene() {
  let order = "right";
  let now; // line: how many of the six lines have run
  const listing = element("ol", { className: "listing" });
  const plane = new Plane({
    label: "swapped.picture",
    onMove: (kind, i, x, y) => {
      player.pause();
      now[kind].set([x, y], i * D);
      Object.assign(now, { line: 0, gradients: null });
      draw();
    },
  });
  const numbers = readings("swapped.codebook", "swapped.inputs");
  const orders = choice("swapped.order", {
    options: [
      ["right", "swapped.right"],
      ["swapped", "swapped.wrong"],
    ],
    value: order,
    onChange: (chosen) => ((order = chosen), list(), player.restart()),
  });
  const begin = () => {
    now = {
      line: 0,
      gradients: null,
      indices: null,
      turns: 0,
      inputs: Float32Array.from([
        -1.1, 0.75, -0.75, 0.25, -0.45, 0.75, 0.35, -0.1, 0.8, 0.25, 1.2, -0.2, 0.75, -0.6, -0.5, -0.6,
      ]),
      codes: Float32Array.from([-0.35, 0.2, 0.5, 0.75, 0.15, -0.8]),
    };
  };
  const player = new Player({
    begin,
    state: () => now,
    restore: (past) => (now = past),
    draw: () => draw(),
    interval: 130,
    limit: 12 * 6,
    step: () => {
      const statement = ORDERS[order][now.line % 6];
      if (statement === SEARCH) Object.assign(now, { indices: nearest(now.inputs, now.codes), gradients: null });
      if (statement === DESCENT[0]) now.gradients = gradientsOf(now);
      if (statement === DESCENT[1]) {
        if (now.gradients.codes) descend(now.codes, now.gradients.codes, RATE);
        descend(now.inputs, now.gradients.inputs, RATE);
        now.turns++;
      }
      now.line = (now.line % 6) + 1;
    },
  });

  function gradientsOf({ inputs, codes, indices }) {
    return (order === "right" ? lossGradients : swappedGradients)(inputs, codes, indices, { commitment: BETA });
  }

  function list() {
    listing.replaceChildren(...ORDERS[order].map((line) => element("li", {}, element("code", { textContent: line }))));
    for (const line of listing.children) line.classList.toggle("moved", line.textContent === THROUGH);
  }

  function draw() {
    [...listing.children].forEach((line, i) => {
      line.classList.toggle("running", i === now.line - 1);
      if (i === now.line - 1) line.setAttribute("aria-current", "step");
      else line.removeAttribute("aria-current");
    });
    const arrows = (rows, gradient) =>
      !gradient || now.line !== 5
        ? []
        : Array.from({ length: rows.length / D }, (_, i) => {
            const at = [...rows.slice(i * D, i * D + D)];
            return { kind: "arrow", at, to: at.map((x, d) => x - 2.5 * gradient[i * D + d]), className: "strong" };
          });
    plane.draw({
      inputs: now.inputs,
      codes: now.codes,
      indices: nearest(now.inputs, now.codes),
      links: now.line > 0,
      below: [...arrows(now.inputs, now.gradients?.inputs), ...arrows(now.codes, now.gradients?.codes)],
    });
    const length = (gradient) => (gradient ? number(Math.hypot(...gradient)) : "None");
    numbers.set({
      "swapped.codebook": now.gradients ? length(now.gradients.codes) : "—",
      "swapped.inputs": now.gradients ? length(now.gradients.inputs) : "—",
    });
  }

  list();
  return {
    element: scene("swapped", { picture: [plane.element, numbers], tools: [listing, orders, player.element] }),
    draw: () => player.show(),
    state: () => ({ ...now, order, rate: RATE, beta: BETA }),
  };
}
