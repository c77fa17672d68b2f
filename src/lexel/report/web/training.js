// The curves of training: one chart for each figure, all of which point at the same step.

if (byId("curves")) {
  const { metrics, limit } = data.training;
  const steps = metrics.step.map((step) => step + 1);
  const percent = (value) => `${+(100 * value).toPrecision(3)} %`;
  const group = [];
  for (const [column, title, settings] of [
    ["psnr", "PSNR, dB", {}],
    ["loss", "loss", { logY: true }],
    ["distortion", "distortion of the codes", { logY: true }],
    ["relative_error", "squared error, relative to the variance", { logY: true }],
    ["usage", "codes in use", { format: percent, zero: true, limit: 1 }],
    ["perplexity", "perplexity", { zero: true, limit: limit ?? undefined }],
    ["dead_codes", "dead codes", { zero: true }],
  ]) {
    if (!(column in metrics)) continue;
    const container = element("div", { className: "chart" });
    byId("curves").append(container);
    new Chart(container, { title, x: steps, y: metrics[column], xName: "step", ...settings }, group);
  }
}
