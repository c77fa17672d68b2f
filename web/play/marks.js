// Arrows, springs and the like: what scenes draw into a plane beside inputs and codes.

const SVG = "http://www.w3.org/2000/svg";
const ASIDE = 26; // how far a spring lies from the line between its ends at most, in pixels
const TURNS = 9; // of a spring
const NAMED = 130; // a shorter spring has no room for its name

export function svg(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** Pixels along the way between two points and to its left, counted from the first of them. */
function way([x, y], [tx, ty]) {
  const length = Math.hypot(tx - x, ty - y);
  const [ux, uy] = length ? [(tx - x) / length, (ty - y) / length] : [1, 0];
  const on = (along, left) => `${x + ux * along + uy * left} ${y + uy * along - ux * left}`;
  return { length, on, angle: (Math.atan2(uy, ux) * 180) / Math.PI };
}

const MARKS = {
  cross: ({ at: [x, y] }) => [svg("path", { d: `M${x - 6} ${y}h12M${x} ${y - 6}v12`, class: "cross" })],
  ring: ({ at: [cx, cy] }) => [svg("circle", { cx, cy, r: 13, class: "ring" })],
  target: ({ at: [cx, cy] }) => [svg("circle", { cx, cy, r: 5, class: "target" })],
  text: ({ at: [x, y], label }) => [svg("text", { x, y, class: "note" }, label)],
  trail: ({ through }) => [svg("path", { d: `M${through.map((point) => point.join(" ")).join("L")}`, class: "trail" })],
  line: ({ at, to, className }) => [svg("path", { d: `M${at.join(" ")}L${to.join(" ")}`, class: className })],

  arrow({ at, to, className }) {
    const { length, on } = way(at, to);
    if (length < 1) return [];
    const head = Math.min(9, length);
    const [neck, half] = [length - head, head * 0.45];
    return [
      svg("path", { d: `M${on(0, 0)}L${on(neck, 0)}`, class: `arrow ${className}` }),
      svg("path", { d: `M${on(length, 0)}L${on(neck, half)}L${on(neck, -half)}Z`, class: `head ${className}` }),
    ];
  },

  /** Nailed to a wall beside `at`, pulling at `to`; on the left of the way there. */
  spring({ at, to, className, label }) {
    const { length, on, angle } = way(at, to);
    if (length < 1) return [];
    const aside = Math.min(ASIDE, 10 + length / 6);
    const coil = Array.from({ length: 2 * TURNS }, (_, j) =>
      on(length * (0.12 + (0.76 * (j + 0.5)) / (2 * TURNS)), aside + (j % 2 ? 7 : -7)),
    );
    const line = [
      on(0, aside),
      on(length * 0.1, aside),
      ...coil,
      on(length * 0.9, aside),
      on(length, aside),
      to.join(" "),
    ];
    const parts = [
      svg("path", { d: `M${line.join("L")}`, class: `spring ${className}` }),
      svg("path", { d: `M${on(0, aside - 9)}L${on(0, aside + 9)}`, class: "wall" }),
    ];
    if (label && length > NAMED) {
      const upright = Math.abs(angle) > 90 ? angle + 180 : angle;
      const transform = `translate(${on(length / 2, aside + 20)}) rotate(${upright})`;
      parts.push(svg("text", { class: "note", transform, dy: "0.35em" }, label));
    }
    return parts;
  },
};

/** The elements of a mark, whose points `at`, `to` and `through` are in the coordinates that `pixel` takes. */
export function elementsOf({ kind, at, to, through, className = "", label }, pixel) {
  const place = (point) => point && pixel(point);
  return MARKS[kind]({ at: place(at), to: place(to), through: through?.map(place), className, label });
}
