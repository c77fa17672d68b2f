// The forward pass, one statement at a time, on four vectors and three codes.

import { button, element, number, scene } from "../../common/controls.js";
import { show } from "../../common/language.js";
import { Plane } from "../plane.js";
import {
  D,
  generator,
  lossGradients,
  meanSquaredError,
  nearest,
  perplexity,
  squaredDistance,
  usageCounts,
} from "../quantizer.js";

const K = 3;
const BETA = 0.25;
const START = [-0.95, 0.6, 0.85, 0.7, 0.55, -0.75, -0.35, -0.3]; // four vectors
const TASK = [0.7, 0.5, -0.6, 0.6, 0.5, -0.5, -0.4, -0.7]; // the gradient that some decoder has at their codes

const rows = (values, width = D) =>
  Array.from({ length: values.length / width }, (_, i) => [...values.slice(i * width, (i + 1) * width)]);
const channels = (pairs) =>
  [0, 1].map((c) => [
    [pairs[0][c], pairs[1][c]],
    [pairs[2][c], pairs[3][c]],
  ]);

/**
 * Each statement: its key, its code, the tensor it makes as `value` (a number, a row, rows, or a list of tables), the
 * name and shape of that, and what the picture shows.
 */
const STATEMENTS = [
  {
    key: "codebook",
    code: "codebook = nn.Embedding(3, 2)\nnn.init.uniform_(codebook.weight, -1/3, 1/3)",
    name: "codebook.weight",
    shape: "(3, 2)",
    value: (s) => rows(s.codes),
    picture: () => ({ indices: null, cells: false, below: [box(1 / K)] }),
  },
  {
    key: "permute",
    code: "z = inputs.permute(0, 2, 3, 1).contiguous()",
    name: "inputs, z",
    shape: "(1, 2, 2, 2)",
    value: (s) => channels(rows(s.inputs)),
    picture: () => ({ codes: [], indices: null }),
  },
  {
    key: "view",
    code: "flat = z.view(-1, 2)",
    name: "flat",
    shape: "(4, 2)",
    value: (s) => rows(s.inputs),
    picture: () => ({ codes: [], indices: null }),
  },
  {
    key: "distances",
    code: "distances = (\n    (flat**2).sum(1, keepdim=True)\n    + (codebook.weight**2).sum(1)\n    - 2 * flat @ codebook.weight.t()\n)",
    name: "distances",
    shape: "(4, 3)",
    value: (s) => rows(s.inputs).map((_, i) => rows(s.codes).map((_, k) => squaredDistance(s.inputs, i, s.codes, k))),
    picture: (s) => ({
      cells: false,
      indices: null,
      below: rows(s.inputs).flatMap((at) => rows(s.codes).map((to) => ({ kind: "line", at, to, className: "thread" }))),
    }),
  },
  {
    key: "argmin",
    code: "indices = distances.argmin(1)",
    name: "indices",
    shape: "(4,)",
    value: (s) => [...s.indices],
    picture: () => ({ links: true }),
  },
  {
    key: "onehot",
    code: "encodings = F.one_hot(indices, 3).float()",
    name: "encodings",
    shape: "(4, 3)",
    value: (s) => oneHot(s),
    picture: () => ({ links: true }),
  },
  {
    key: "quantized",
    code: "quantized = (encodings @ codebook.weight).view(z.shape)",
    name: "quantized",
    shape: "(1, 2, 2, 2)",
    value: (s) => rows(s.indices, 1).map(([k]) => rows(s.codes)[k]),
    picture: (s) => ({ below: pairs(s).map(([at, to]) => ({ kind: "arrow", at, to, className: "ghost" })) }),
  },
  {
    key: "commitment",
    code: "e_latent_loss = F.mse_loss(quantized.detach(), z)",
    name: "e_latent_loss",
    shape: "()",
    value: (s) => s.error,
    picture: (s) => ({
      below: pairs(s).map(([z, e]) => ({ kind: "spring", at: e, to: z, className: "moves-input" })),
    }),
  },
  {
    key: "codebookLoss",
    code: "q_latent_loss = F.mse_loss(quantized, z.detach())",
    name: "q_latent_loss",
    shape: "()",
    value: (s) => s.error,
    picture: (s) => ({
      below: pairs(s).map(([z, e]) => ({ kind: "spring", at: z, to: e, className: "moves-code" })),
    }),
  },
  {
    key: "loss",
    code: "loss = q_latent_loss + 0.25 * e_latent_loss",
    name: "loss",
    shape: "()",
    value: (s) => s.error * (1 + BETA),
    picture: (s) => {
      const { inputs, codes } = lossGradients(s.inputs, s.codes, s.indices, { commitment: BETA });
      return { links: true, below: [...arrows(s.inputs, inputs, 2.2), ...arrows(s.codes, codes, 2.2)] };
    },
  },
  {
    key: "through",
    code: "quantized = z + (quantized - z).detach()",
    name: "quantized",
    shape: "(1, 2, 2, 2)",
    value: (s) => rows(s.indices, 1).map(([k]) => rows(s.codes)[k]),
    picture: (s) => ({
      links: true,
      below: [
        ...pairs(s).flatMap(([, e], i) => arrows(e, TASK.slice(i * D, i * D + D), 0.32, "ghost")),
        ...arrows(s.inputs, TASK, 0.32),
      ],
    }),
  },
  {
    key: "usage",
    code: "usage = encodings.mean(0)",
    name: "usage",
    shape: "(3,)",
    value: (s) => [...s.counts].map((n) => n / 4),
    picture: () => ({ links: true }),
  },
  {
    key: "perplexity",
    code: "perplexity = torch.exp(-(usage * torch.log(usage + 1e-10)).sum())",
    name: "perplexity",
    shape: "()",
    value: (s) => perplexity(s.counts),
    picture: () => ({ links: true }),
  },
  {
    key: "output",
    code: "output = quantized.permute(0, 3, 1, 2).contiguous()",
    name: "output",
    shape: "(1, 2, 2, 2)",
    value: (s) => channels(rows(s.indices, 1).map(([k]) => rows(s.codes)[k])),
    picture: () => ({ links: true }),
  },
];

const pairs = ({ inputs, codes, indices }) => rows(inputs).map((z, i) => [z, rows(codes)[indices[i]]]);
const oneHot = ({ indices }) => [...indices].map((own) => Array.from({ length: K }, (_, k) => (k === own ? 1 : 0)));
const arrows = (points, gradient, scale, className = "strong") =>
  rows(points).map((at, i) => ({
    kind: "arrow",
    at,
    to: at.map((x, d) => x - scale * gradient[i * D + d]),
    className,
  }));
const box = (half) => ({
  kind: "trail",
  through: [
    [-half, -half],
    [half, -half],
    [half, half],
    [-half, half],
    [-half, -half],
  ],
});

export function statementsScene() {
  const uniform = generator(2);
  const inputs = Float32Array.from(START);
  const codes = Float32Array.from({ length: K * D }, () => (2 * uniform() - 1) / K);
  let at = 0;
  const plane = new Plane({
    label: "statements.picture",
    onMove: (kind, i, x, y) => {
      (kind === "codes" ? codes : inputs).set([x, y], i * D);
      draw();
    },
  });
  const before = button("statements.before", () => go(at - 1));
  const after = button("statements.after", () => go(at + 1), "primary");
  const lines = STATEMENTS.map((statement, i) =>
    element(
      "li",
      {},
      element(
        "button",
        { type: "button", className: "statement", onclick: () => go(i) },
        element("code", { textContent: statement.code }),
      ),
    ),
  );
  const explanation = element("p", { className: "explanation" });
  const tensor = element("div", { className: "tensor" });
  const opened = element("div", { className: "opened" }, explanation, tensor);
  const made = scene("forward", {
    picture: [plane.element],
    tools: [
      element("div", { className: "player" }, after, before),
      element("ol", { className: "statements" }, ...lines),
    ],
  });

  function state() {
    const indices = nearest(inputs, codes);
    const found = {
      inputs,
      codes,
      indices,
      counts: usageCounts(indices, K),
      error: meanSquaredError(inputs, codes, indices),
      task: TASK,
    };
    return { ...found, at, value: STATEMENTS[at].value(found) };
  }

  function go(to) {
    at = Math.max(0, Math.min(STATEMENTS.length - 1, to));
    draw();
  }

  function draw() {
    const found = state();
    const { key, name, shape, picture } = STATEMENTS[at];
    plane.draw({ inputs, codes, indices: found.indices, ...picture(found) });
    lines.forEach((line, i) => {
      line.classList.toggle("done", i < at);
      if (i === at) line.firstChild.setAttribute("aria-current", "step");
      else line.firstChild.removeAttribute("aria-current");
    });
    if (opened.parentElement !== lines[at]) lines[at].append(opened);
    show(explanation, `statement.${key}`);
    tensor.replaceChildren(
      element("code", { className: "name", textContent: `${name}  ${shape}` }),
      ...tables(found.value),
    );
    before.disabled = at === 0;
    after.disabled = at === STATEMENTS.length - 1;
  }

  return { element: made, draw, state };
}

/** A number, a row, rows, or several tables, as tables. */
function tables(value) {
  const several = Array.isArray(value) && Array.isArray(value[0]) && Array.isArray(value[0][0]) ? value : [value];
  return several.map((one) => {
    const grid = !Array.isArray(one) ? [[one]] : Array.isArray(one[0]) ? one : [one];
    return element(
      "table",
      {},
      ...grid.map((row) =>
        element(
          "tr",
          {},
          ...row.map((cell) => element("td", { textContent: Number.isInteger(cell) ? cell : number(cell, 3) })),
        ),
      ),
    );
  });
}
