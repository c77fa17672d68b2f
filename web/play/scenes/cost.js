// 7. What the matrix of distances weighs, and where the expanded distance picks wrong codes.

import { element, number, readings, scene, slider, toggle, words } from "../../common/controls.js";
import { Plane } from "../plane.js";
import { D, expandedDistance, generator, nearest } from "../quantizer.js";
import { samples } from "../samples.js";
import { inEveryLanguage, text } from "../../common/language.js";

const [INPUTS, K, SEED] = [150, 9, 8];

export function costScene() {
  const uniform = generator(SEED);
  const inputs = samples.blobs(INPUTS, uniform);
  const codes = Float32Array.from({ length: K * D }, (_, j) => (j % D ? 2.1 : 2.8) * (uniform() - 0.5));
  const settings = { shift: 0, exact: false, N: 14, K: 14 };
  const plane = new Plane({ label: "cost.picture" });
  const numbers = readings("cost.wrong", "cost.exactWrong");
  const tools = [
    slider("cost.shift", {
      min: 0,
      max: 4,
      step: 0.05,
      value: 0,
      format: (x) => distance(x).toLocaleString("en"),
      onChange: (x) => ((settings.shift = distance(x)), draw()),
    }),
    toggle("cost.exact", { onChange: (x) => ((settings.exact = x), draw()) }),
  ];
  const matrix = element("p", { className: "matrix" });
  const sizes = ["N", "K"].map((name) =>
    slider(`cost.${name}`, {
      min: 4,
      max: 20,
      step: 1,
      value: 14,
      format: (x) => (2 ** x).toLocaleString("en"),
      onChange: (x) => ((settings[name] = x), weigh()),
    }),
  );
  inEveryLanguage(() => weigh());

  function state() {
    const shifted = (rows) => Float32Array.from(rows, (x) => x + settings.shift);
    const [z, e] = [shifted(inputs), shifted(codes)];
    return { z, e, settings, exact: nearest(z, e), expanded: nearest(z, e, expandedDistance) };
  }

  function draw() {
    const { z, e, exact, expanded } = state();
    const back = (rows) => Float64Array.from(rows, (x) => x - settings.shift);
    const indices = settings.exact ? exact : expanded;
    const wrong = new Set([...indices.keys()].filter((i) => indices[i] !== exact[i]));
    plane.draw({ inputs: back(z), codes: back(e), indices, wrong, glide: false });
    numbers.set({
      "cost.wrong": `${[...expanded].filter((k, i) => k !== exact[i]).length} / ${INPUTS}`,
      "cost.exactWrong": `0 / ${INPUTS}`,
    });
  }

  function weigh() {
    const bytes = 4 * 2 ** (settings.N + settings.K);
    matrix.innerHTML = text("cost.matrix", { weight: weight(bytes), least: weight(8 * 2 ** settings.N) });
  }

  const table = element("div", { className: "table" }, words("h3", "cost.table"), ...sizes, matrix);
  return { element: scene("cost", { picture: [plane.element, numbers], tools: [...tools, table] }), draw, state };
}

const distance = (exponent) => (exponent === 0 ? 0 : Math.round(10 ** exponent));

function weight(bytes) {
  const power = Math.min(4, Math.floor(Math.log2(bytes) / 10));
  return `${Math.round(bytes / 2 ** (10 * power))} ${["bytes", "KiB", "MiB", "GiB", "TiB"][power]}`;
}
