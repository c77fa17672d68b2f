// All of it together, with inputs of one's own.

import { Player, button, choice, element, number, readings, scene, slider, toggle, words } from "../../common/controls.js";
import { chart } from "../chart.js";
import { inEveryLanguage, text } from "../../common/language.js";
import { Plane } from "../plane.js";
import {
  D,
  REVIVAL,
  begin as untrained,
  descend,
  pick,
  generator,
  kmeansStart,
  meanSquaredError,
  nearest,
  perplexity,
  placeCode,
  take,
  trainingStep,
  usageCounts,
} from "../quantizer.js";
import { coloursOf, samples } from "../samples.js";

const [INPUTS, SEED] = [240, 11];
const MOST_PAINTED = 600;
const BETWEEN = 0.06; // painted inputs are at least so far apart

export function playgroundScene() {
  const settings = {
    source: "blobs",
    K: 16,
    learning: "gradient",
    rate: 1,
    decay: 0.9,
    beta: 0.25,
    batch: 64,
    free: false,
    revival: false,
  };
  let now; // inputs, colours, quantizer, turn, perplexity
  let image = null;
  let painted = new Float32Array(0);
  let fault = null;
  const plane = new Plane({
    label: "playground.picture",
    paints: () => settings.source === "painted",
    onPaint: (x, y) => paint(x, y),
    onMove: (kind, i, x, y) => {
      if (kind === "codes") placeCode(now.quantizer, i, x, y);
      else now.inputs.set([x, y], i * D);
      draw();
    },
  });
  const numbers = readings("steps", "perplexity", "used", "error", "playground.loss");
  const curve = chart();
  const change =
    (name, restart = false) =>
    (value) => {
      settings[name] = value;
      if (name === "source") fault = null;
      reveal();
      if (restart) player.restart();
      else player.show();
    };

  const file = element("input", {
    type: "file",
    accept: "image/*",
    onchange: () => file.files[0] && open(file.files[0]),
  });
  const opened = element("label", { className: "file" }, words("span", "image.choose"), file);
  const complaint = element("p", { className: "complaint", role: "alert" });
  const clear = button("playground.clear", () => ((painted = new Float32Array(0)), player.restart()));
  const controls = {
    source: choice("playground.source", {
      value: "blobs",
      onChange: change("source", true),
      options: ["blobs", "ring", "moons", "image", "painted"].map((own) => [own, `source.${own}`]),
    }),
    K: slider("K", { min: 2, max: 32, step: 1, value: 16, onChange: change("K", true) }),
    learning: choice("playground.learning", {
      value: "gradient",
      onChange: change("learning"),
      options: [
        ["gradient", "learning.gradient"],
        ["ema", "learning.ema"],
      ],
    }),
    rate: slider("rate", {
      min: 0.1,
      max: 3,
      step: 0.1,
      value: 1,
      format: (x) => x.toFixed(1),
      onChange: change("rate"),
    }),
    decay: slider("decay", {
      min: 0,
      max: 0.99,
      step: 0.01,
      value: 0.9,
      format: (x) => x.toFixed(2),
      onChange: change("decay"),
    }),
    beta: slider("beta", {
      min: 0,
      max: 2,
      step: 0.05,
      value: 0.25,
      format: (x) => x.toFixed(2),
      onChange: change("beta"),
    }),
    batch: slider("playground.batch", { min: 4, max: INPUTS, step: 4, value: 64, onChange: change("batch") }),
    free: toggle("playground.free", { onChange: change("free") }),
    revival: toggle("collapse.revival", { onChange: change("revival") }),
    kmeans: button("playground.kmeans", () =>
      player.advance(
        () => (now.quantizer = untrained(kmeansStart(now.inputs, settings.K, generator(SEED + now.turn)))),
      ),
    ),
  };

  function begin() {
    const uniform = generator(SEED);
    if (settings.source === "image")
      now = { inputs: image?.inputs.slice() ?? new Float32Array(0), colours: image?.colours };
    else if (settings.source === "painted") now = { inputs: painted.slice() };
    else now = { inputs: samples[settings.source](INPUTS, uniform) };
    const codes = Float32Array.from({ length: settings.K * D }, () => 0.6 * (uniform() - 0.5));
    now = { ...now, quantizer: untrained(codes), turn: 0 };
  }

  function step() {
    const total = now.inputs.length / D;
    if (!total) return;
    const chosen = pick(Math.min(settings.batch, total), total, generator(1000 * SEED + now.turn));
    const batch = take(now.inputs, chosen);
    const seen = trainingStep(now.quantizer, batch, { ...settings, revival: settings.revival ? REVIVAL : null });
    if (settings.free) {
      descend(batch, seen.gradients.inputs, 0.1 * chosen.length); // an encoder's own, larger steps
      chosen.forEach((i, place) => now.inputs.set(batch.subarray(place * D, place * D + D), i * D));
    }
    now.turn++;
  }

  function paint(x, y) {
    const last = now.inputs.length;
    const near = last && Math.hypot(now.inputs[last - 2] - x, now.inputs[last - 1] - y) < BETWEEN;
    if (near || last / D >= MOST_PAINTED) return;
    const inputs = new Float32Array(last + D);
    inputs.set(now.inputs);
    inputs.set([x, y], last);
    now.inputs = inputs;
    painted = Float32Array.from([...painted, x, y]);
    draw();
  }

  async function open(chosen) {
    player.pause();
    try {
      image = await coloursOf(chosen, INPUTS, generator(SEED));
      fault = null;
      settings.source = "image";
      controls.source.querySelector("[value=image]").checked = true;
      player.restart();
    } catch (error) {
      fault = error.message in { "image.none": 1, "image.large": 1 } ? error.message : "image.none";
    }
    reveal();
  }

  /** Show the controls that have an effect, and what went wrong. */
  function reveal() {
    opened.hidden = settings.source !== "image";
    clear.hidden = settings.source !== "painted";
    controls.rate.hidden = settings.learning !== "gradient";
    controls.decay.hidden = settings.learning !== "ema";
    complaint.hidden = !fault;
    complaint.textContent = fault ? text(fault) : "";
  }

  function state() {
    const indices = nearest(now.inputs, now.quantizer.codes);
    const counts = usageCounts(indices, settings.K);
    return {
      ...now,
      indices,
      counts,
      settings,
      perplexity: perplexity(counts),
      error: meanSquaredError(now.inputs, now.quantizer.codes, indices),
    };
  }

  function draw() {
    const found = state();
    const dead = new Set([...found.counts.keys()].filter((k) => found.counts[k] === 0));
    plane.draw({
      inputs: now.inputs,
      codes: now.quantizer.codes,
      indices: found.indices,
      dead,
      colours: now.colours,
      codeColours: now.colours && meanColours(now.colours, found.indices, settings.K),
      marks: now.inputs.length ? [] : [{ kind: "text", at: [0, -1.0], label: text(`empty.${settings.source}`) }],
    });
    const weighted = (settings.learning === "gradient" ? 1 : 0) + settings.beta;
    numbers.set({
      steps: now.turn,
      perplexity: number(found.perplexity, 2),
      used: `${settings.K - dead.size} / ${settings.K}`,
      error: number(found.error, 4),
      "playground.loss": number(weighted * found.error, 4),
    });
    now.perplexity = found.perplexity; // for the curve, when this is past
    curve.set(
      [...player.past, now].map((then) => then.perplexity),
      settings.K,
      text("collapse.limit", { K: settings.K }),
      text("collapse.curve"),
    );
    controls.kmeans.disabled = now.inputs.length / D < settings.K;
  }

  const player = new Player({ begin, step, state: () => now, restore: (past) => (now = past), draw, limit: 400 });
  const { source, kmeans, ...rest } = controls;
  const made = scene("playground", {
    picture: [plane.element, numbers, curve],
    tools: [source, opened, clear, complaint, player.element, kmeans, ...Object.values(rest)],
  });
  // Anywhere on the page: elsewhere a browser would leave it, to show the file.
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    if (!event.dataTransfer.files[0]) return;
    made.scrollIntoView();
    open(event.dataTransfer.files[0]);
  });
  inEveryLanguage(reveal);
  return { element: made, draw: () => player.show(), state };
}

/** The mean of the colours whose inputs chose each code; nothing for a dead one. */
function meanColours(colours, indices, K) {
  const sums = Array.from({ length: K }, () => [0, 0, 0, 0]);
  indices.forEach((k, i) => [...colours[i].match(/\d+/g), 1].forEach((value, c) => (sums[k][c] += Number(value))));
  return sums.map(
    ([red, green, blue, count]) =>
      count && `rgb(${[red, green, blue].map((sum) => Math.round(sum / count)).join(" ")})`,
  );
}
