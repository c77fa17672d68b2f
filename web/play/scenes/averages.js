// 5. EMA is k-means in small steps; decay is memory.

import { Player, element, number, readings, scene, slider, toggle } from "../../common/controls.js";
import { svg } from "../marks.js";
import { Plane } from "../plane.js";
import {
  D,
  averageStep,
  begin as untrained,
  pick,
  generator,
  kmeans,
  meanSquaredError,
  nearest,
  placeCode,
  squaredDistance,
  take,
} from "../quantizer.js";
import { samples } from "../samples.js";
import { inEveryLanguage, text } from "../../common/language.js";

const [INPUTS, BATCH, SEED] = [150, 12, 3];
const START = Float32Array.from([-0.1, 0.25, 0.25, 0.1, 0.0, -0.15]);

export function averagesScene() {
  const inputs = samples.blobs(INPUTS, generator(SEED));
  const settings = { decay: 0, whole: true };
  let now;
  const plane = new Plane({
    label: "averages.picture",
    movable: ["codes"],
    onMove: (kind, k, x, y) => {
      player.pause();
      placeCode(now.quantizer, k, x, y);
      now.trails[k] = [[x, y]];
      draw();
    },
  });
  const numbers = readings("steps", "error", "averages.kmeans");
  const memory = svg("svg", { class: "memory", viewBox: "0 0 300 44", role: "img" });
  const tools = [
    slider("decay", {
      min: 0,
      max: 0.99,
      step: 0.01,
      value: 0,
      format: (x) => x.toFixed(2),
      onChange: (x) => ((settings.decay = x), draw()),
    }),
    toggle("averages.whole", { value: true, onChange: (x) => ((settings.whole = x), draw()) }),
  ];
  const begin = () => {
    now = { quantizer: untrained(START), turn: 0, batch: null, trails: [] };
    now.trails = [...now.quantizer.count.keys()].map((k) => [place(k)]);
  };
  const place = (k) => [...now.quantizer.codes.slice(k * D, k * D + D)];
  const player = new Player({
    begin,
    state: () => now,
    restore: (past) => (now = past),
    draw: () => draw(),
    interval: 240,
    limit: 60,
    step: () => {
      const chosen = settings.whole
        ? [...Array(INPUTS).keys()]
        : pick(BATCH, INPUTS, generator(1000 * SEED + now.turn));
      const batch = take(inputs, chosen);
      now.batch = settings.whole ? null : new Set(chosen);
      averageStep(now.quantizer, batch, nearest(batch, now.quantizer.codes), { decay: settings.decay });
      now.trails.forEach((trail, k) => trail.push(place(k)));
      now.turn++;
    },
  });

  /** With the means of all inputs of each code, where one step of k-means would put it. */
  function state() {
    const { codes } = now.quantizer;
    const indices = nearest(inputs, codes);
    return { ...now, inputs, indices, settings, means: kmeans(inputs, codes, 1) };
  }

  function draw() {
    const { quantizer, trails, batch, means, indices } = state();
    plane.draw({
      inputs,
      codes: quantizer.codes,
      indices,
      batch,
      below: trails.map((trail) => ({ kind: "trail", through: trail })),
      marks: Array.from({ length: quantizer.count.length }, (_, k) => ({
        kind: "ring",
        at: [...means.slice(k * D, k * D + D)],
      })),
    });
    const away = Math.max(...quantizer.count.map((_, k) => Math.sqrt(squaredDistance(means, k, quantizer.codes, k))));
    const error = meanSquaredError(inputs, quantizer.codes, indices);
    numbers.set({ steps: now.turn, error: number(error, 4), "averages.kmeans": number(away) });
    remember();
  }

  /** How much each of the last thirty batches weighs: (1 − γ) γ^t. */
  function remember() {
    const weights = Array.from({ length: 30 }, (_, t) => (1 - settings.decay) * settings.decay ** t);
    memory.replaceChildren(
      ...weights.map((weight, t) => {
        const height = 2 + (40 * weight) / weights[0];
        return svg("rect", {
          x: 290 - t * 10,
          y: 43 - height,
          width: 7,
          height,
          rx: 1.5,
          opacity: weight / weights[0] < 0.004 ? 0.18 : 1,
        });
      }),
    );
    memory.setAttribute("aria-label", text("averages.memory"));
  }

  const caption = element("p", { className: "caption" });
  inEveryLanguage(() => (caption.textContent = text("averages.memory")));
  return {
    element: scene("averages", {
      picture: [plane.element, numbers],
      tools: [player.element, ...tools, element("figure", { className: "memories" }, memory, caption)],
    }),
    draw: () => player.show(),
    state,
  };
}
