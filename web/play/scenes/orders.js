// The puzzle, solved by experiment: the losses before the straight-through statement, and after it.

import { Player, button, element, number, scene, words } from "../../common/controls.js";
import { inEveryLanguage, text } from "../../common/language.js";
import { Plane } from "../plane.js";
import { D, descend, generator, lossGradients, nearest, squaredDistance, swappedGradients } from "../quantizer.js";

const [RATE, BETA, STEPS] = [0.4, 0.25, 16];
const Z = [-0.95, 0.6, 0.85, 0.7, 0.55, -0.75, -0.35, -0.3]; // four vectors, as above
const CODES = [-0.4, 0.2, 0.35, 0.25, 0.15, -0.3];
const LOSSES = [
  "q_latent_loss = F.mse_loss(quantized, z.detach())",
  "e_latent_loss = F.mse_loss(quantized.detach(), z)",
];
const THROUGH = "quantized = z + (quantized - z).detach()";
const ORDERS = { first: [...LOSSES, THROUGH], last: [THROUGH, ...LOSSES] };

export function ordersScene() {
  const runs = Object.keys(ORDERS).map((order) => experiment(order, () => judge()));
  const verdict = element("p", { className: "verdict", role: "status" });

  function judge() {
    const [first, last] = runs.map((run) => run.found());
    verdict.hidden = !(first.steps === STEPS && last.steps === STEPS);
    if (verdict.hidden) return;
    const values = {
      codes: number(first.codes, 2),
      gap: number(first.gap, 2),
      still: number(last.codes, 2),
      flight: number(last.gap, 2),
      before: number(first.before, 2),
    };
    verdict.innerHTML = text("orders.verdict", values);
  }

  const made = scene("orders", {
    picture: [element("div", { className: "pair" }, ...runs.map((run) => run.element)), verdict],
  });
  inEveryLanguage(() => judge());
  return {
    element: made,
    draw: () => runs.forEach((run) => run.draw()),
    state: () => ({ ...Object.fromEntries(runs.map((run) => [run.order, run.found()])), rate: RATE, beta: BETA }),
  };
}

function experiment(order, judge) {
  let now;
  const plane = new Plane({ label: `orders.${order}` });
  const begin = () => (now = { inputs: Float32Array.from(Z), codes: Float32Array.from(CODES) });
  const player = new Player({
    begin,
    state: () => now,
    restore: (past) => (now = past),
    limit: STEPS,
    interval: 120,
    draw: () => {
      draw();
      judge();
    },
    step: () => {
      const gradients = (order === "first" ? lossGradients : swappedGradients)(
        now.inputs,
        now.codes,
        nearest(now.inputs, now.codes),
        { commitment: BETA },
      );
      if (gradients.codes) descend(now.codes, gradients.codes, RATE);
      descend(now.inputs, gradients.inputs, RATE);
    },
  });
  const run = button(
    "orders.run",
    () => {
      player.restart();
      player.run();
    },
    "primary",
  );
  run.dataset.order = order;

  /** How far codes have moved on average, and how far inputs are from their codes, now and in the beginning. */
  function found() {
    const mean = (a, b, choose) =>
      Array.from({ length: a.length / D }, (_, i) =>
        Math.sqrt(squaredDistance(a, i, b, choose ? choose[i] : i)),
      ).reduce((x, y) => x + y) /
      (a.length / D);
    const gap = (inputs, codes) => mean(inputs, codes, nearest(inputs, codes));
    return {
      ...now,
      steps: player.steps,
      codes: mean(now.codes, Float32Array.from(CODES)),
      gap: gap(now.inputs, now.codes),
      before: gap(Float32Array.from(Z), Float32Array.from(CODES)),
      table: now.codes,
    };
  }

  function draw() {
    const trails = ["inputs", "codes"].flatMap((kind) =>
      rowsOf(now[kind]).map((at, i) => ({
        kind: "trail",
        through: player.past.map((past) => rowsOf(past[kind])[i]).concat([at]),
      })),
    );
    plane.draw({ ...now, indices: nearest(now.inputs, now.codes), links: true, below: trails, glide: false });
  }

  const listing = element(
    "ol",
    { className: "listing" },
    ...ORDERS[order].map((line) =>
      element("li", { className: line === THROUGH ? "moved" : "" }, element("code", { textContent: line })),
    ),
  );
  return {
    order,
    found,
    draw,
    element: element("div", {}, words("h3", `orders.${order}`), listing, plane.element, run),
  };
}

const rowsOf = (rows) => Array.from({ length: rows.length / D }, (_, i) => [rows[i * D], rows[i * D + 1]]);
