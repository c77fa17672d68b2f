// 3. The two losses as two springs of one length, each with another end held fast.

import { Player, number, readings, scene, slider, toggle } from "../../common/controls.js";
import { text } from "../../common/language.js";
import { Plane } from "../plane.js";
import { D, descend, lossGradients, meanSquaredError } from "../quantizer.js";

const RATE = 0.1;
const TRAIL = 150; // steps that leave a trace

/** A task that wants the input elsewhere all the time: its gradient turns, with the same length. */
const tug = (turn) => [-0.4 * Math.sin(turn / 16), -0.4 * Math.cos(turn / 16)];

export function springsScene() {
  const only = [0]; // the input has one code to choose
  const settings = { beta: 0.25, codebook: true, commitment: true, tug: false };
  let start, now;
  const plane = new Plane({
    label: "springs.picture",
    onMove: (kind, i, x, y) => {
      player.pause();
      now[kind].set([x, y]);
      start = { inputs: now.inputs.slice(), codes: now.codes.slice() };
      draw();
    },
  });
  const numbers = readings("springs.codebook", "springs.commitment", "springs.codePath", "springs.inputPath");
  const change = (name) => (value) => ((settings[name] = value), draw());
  const tools = [
    toggle("springs.withCodebook", { value: true, onChange: change("codebook") }),
    toggle("springs.withCommitment", { value: true, onChange: change("commitment") }),
    toggle("springs.tug", { onChange: change("tug") }),
    slider("beta", { min: 0, max: 2, step: 0.05, value: 0.25, format: (x) => x.toFixed(2), onChange: change("beta") }),
  ];
  const weights = () => ({ codebook: Number(settings.codebook), commitment: settings.commitment ? settings.beta : 0 });
  const begin = () => {
    start = { inputs: Float32Array.from([-0.95, -0.35]), codes: Float32Array.from([0.95, 0.4]) };
    now = { ...structuredClone(start), turn: 0 };
  };
  const player = new Player({
    begin,
    state: () => now,
    restore: (past) => (now = past),
    draw: () => draw(),
    limit: 300,
    step: () => {
      const gradients = lossGradients(now.inputs, now.codes, only, weights());
      descend(now.codes, gradients.codes, RATE);
      descend(now.inputs, gradients.inputs, RATE);
      if (settings.tug) descend(now.inputs, tug(now.turn), RATE);
      now.turn++;
    },
  });

  function draw() {
    const [z, e] = [[...now.inputs], [...now.codes]];
    const { codes, inputs } = lossGradients(now.inputs, now.codes, only, weights());
    const arrow = (at, gradient) => ({
      kind: "arrow",
      at,
      to: at.map((x, d) => x - 0.35 * gradient[d]),
      className: "strong",
    });
    plane.draw({
      inputs: now.inputs,
      codes: now.codes,
      indices: only,
      cells: false,
      large: true,
      glide: false,
      below: [
        ...["inputs", "codes"].map((kind) => ({
          kind: "trail",
          through: player.past
            .slice(-TRAIL)
            .map((past) => past[kind])
            .concat([now[kind]]),
        })),
        ...(settings.codebook
          ? [{ kind: "spring", at: z, to: e, className: "moves-code", label: text("springs.codebook") }]
          : []),
        ...(settings.commitment
          ? [{ kind: "spring", at: e, to: z, className: "moves-input", label: text("springs.commitment") }]
          : []),
        arrow(e, codes),
        arrow(z, inputs),
      ],
    });
    const error = number(meanSquaredError(now.inputs, now.codes, only));
    const path = (kind) => number(Math.hypot(...now[kind].map((x, d) => x - start[kind][d])), 2);
    numbers.set({
      "springs.codebook": settings.codebook ? error : "—",
      "springs.commitment": settings.commitment ? error : "—",
      "springs.codePath": path("codes"),
      "springs.inputPath": path("inputs"),
    });
  }

  return {
    element: scene("springs", { picture: [plane.element, numbers], tools: [player.element, ...tools] }),
    draw: () => player.show(),
    state: () => ({ ...now, start, settings, rate: RATE, steps: player.steps }),
  };
}
