// 6. Collapse, and what brings dead codes back.

import { Player, button, element, number, readings, scene, toggle } from "../../common/controls.js";
import { chart } from "../chart.js";
import { Plane } from "../plane.js";
import {
  D,
  REVIVAL,
  begin as untrained,
  generator,
  kmeansStart,
  meanSquaredError,
  nearest,
  perplexity,
  trainingStep,
  usageCounts,
} from "../quantizer.js";
import { samples } from "../samples.js";
import { text } from "../../common/language.js";

const [INPUTS, K, SEED, RATE] = [240, 16, 6, 1.5];

export function collapseScene() {
  const inputs = samples.moons(INPUTS, generator(SEED));
  const settings = { revival: false };
  let now;
  const plane = new Plane({
    label: "collapse.picture",
    movable: ["codes"],
    onMove: (kind, k, x, y) => {
      now.quantizer.codes.set([x, y], k * D);
      draw();
    },
  });
  const numbers = readings("steps", "perplexity", "used", "error");
  const curve = chart();
  const begin = () => {
    now = { quantizer: untrained(kmeansStart(inputs, K, generator(SEED))), turn: 0 };
  };
  const put = (codes) => player.advance(() => (now.quantizer = untrained(codes(generator(SEED + now.turn)))));
  const corner = (uniform) => Float32Array.from({ length: K * D }, (_, j) => (j % D ? -1.1 : -1.5) + 0.16 * uniform());
  const step = () => {
    trainingStep(now.quantizer, inputs, { rate: RATE, revival: settings.revival ? REVIVAL : null });
    now.turn++;
  };
  const player = new Player({
    begin,
    step,
    state: () => now,
    restore: (past) => (now = past),
    draw: () => draw(),
    limit: 300,
  });
  const tools = [
    element(
      "div",
      { className: "player" },
      button("collapse.corner", () => put(corner)),
      button("collapse.kmeans", () => put((uniform) => kmeansStart(inputs, K, uniform))),
    ),
    toggle("collapse.revival", { onChange: (x) => (settings.revival = x) }),
  ];

  function state() {
    const indices = nearest(inputs, now.quantizer.codes);
    const counts = usageCounts(indices, K);
    return {
      ...now,
      inputs,
      indices,
      counts,
      settings,
      rate: RATE,
      perplexity: perplexity(counts),
      error: meanSquaredError(inputs, now.quantizer.codes, indices),
    };
  }

  function draw() {
    const found = state();
    const dead = new Set([...found.counts.keys()].filter((k) => found.counts[k] === 0));
    plane.draw({ inputs, codes: now.quantizer.codes, indices: found.indices, dead, numbered: false });
    numbers.set({
      steps: now.turn,
      perplexity: number(found.perplexity, 2),
      used: `${K - dead.size} / ${K}`,
      error: number(found.error, 4),
    });
    now.perplexity = found.perplexity; // for the curve, when this is past
    curve.set(
      [...player.past, now].map((then) => then.perplexity),
      K,
      text("collapse.limit", { K }),
      text("collapse.curve"),
    );
  }

  return {
    element: scene("collapse", { picture: [plane.element, numbers, curve], tools: [player.element, ...tools] }),
    draw: () => player.show(),
    state,
  };
}
