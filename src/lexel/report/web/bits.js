// The curves of a prior's training: bits of tokens that it learns from, and of those that it does not.

if (byId("curves")) {
  const { metrics, codes, exact } = data.bits;
  const steps = metrics.step.map((step) => step + 1);
  const group = [];
  const held = metrics.validation_bits_per_token;
  for (const [title, y, levels] of [
    [`held-out tokens, bits each${exact ? "" : " at most"}`, held, codes],
    ["training loss, bits per token", metrics.loss.map((nats) => (nats === null ? null : nats / Math.LN2)), []],
  ]) {
    if (!y) continue;
    const container = element("div", { className: "chart" });
    byId("curves").append(container);
    new Chart(container, { title, x: steps, y, xName: "step", levels }, group);
  }
}
