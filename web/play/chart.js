// One line over the steps, between 0 and a limit that has a name.

import { svg } from "./marks.js";

const HEIGHT = 104;
const TOP = 22; // of the limit; its name stands above

export function chart() {
  const parts = {
    limit: svg("path", { class: "limit" }),
    floor: svg("path", { class: "floor" }),
    name: svg("text", { x: 0, y: TOP - 7, class: "limit-name" }),
    line: svg("path", { class: "line" }),
    end: svg("circle", { r: 3.5, class: "end" }),
  };
  const made = svg("svg", { class: "chart", height: HEIGHT, role: "img" }, ...Object.values(parts));
  let shown = [[], 1];

  function draw() {
    const [values, top] = shown;
    const width = made.clientWidth - 5;
    const span = Math.max(60, values.length - 1);
    const at = (value, i) => [width * (i / span), HEIGHT - 1 - (HEIGHT - 1 - TOP) * Math.min(1, value / top)];
    parts.limit.setAttribute("d", `M0 ${TOP}H${width}`);
    parts.floor.setAttribute("d", `M0 ${HEIGHT - 1}H${width}`);
    parts.line.setAttribute("d", values.map((value, i) => `${i ? "L" : "M"}${at(value, i).join(" ")}`).join(""));
    const [cx, cy] = at(values.at(-1) ?? 0, values.length - 1);
    for (const [name, value] of Object.entries({ cx, cy })) parts.end.setAttribute(name, value);
  }

  /** Show values; the last one has a dot. */
  made.set = (values, top, topName, label) => {
    shown = [values, top];
    parts.name.textContent = topName;
    made.setAttribute("aria-label", label);
    draw();
  };
  new ResizeObserver(draw).observe(made);
  return made;
}
