// What a reader can press, slide and read. Native elements, so that mouse, touch and keyboard work alike.

import { inEveryLanguage, show } from "./language.js";

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function words(tag, key, className = "") {
  return show(element(tag, { className }), key);
}

export function button(key, onPress, className = "") {
  const made = show(element("button", { type: "button", className, onclick: onPress }), key);
  made.dataset.action = key;
  return made;
}

/** A slider with its name and value. `format` writes the value; `onChange` gets it. */
export function slider(key, { min, max, step, value, format = String, onChange }) {
  const input = element("input", { type: "range", min, max, step, value });
  const output = element("output");
  const write = () => {
    output.textContent = format(Number(input.value));
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.oninput = () => {
    write();
    onChange(Number(input.value));
  };
  inEveryLanguage(write);
  const made = element("label", { className: "slider" }, words("span", key), output, input);
  made.dataset.control = key;
  made.set = (now) => {
    input.value = now;
    write();
  };
  return made;
}

export function toggle(key, { value = false, onChange }) {
  const input = element("input", { type: "checkbox", checked: value, onchange: () => onChange(input.checked) });
  const made = element("label", { className: "toggle" }, input, words("span", key));
  made.dataset.control = key;
  return made;
}

/** One of several: `options` are [value, key]. */
export function choice(key, { options, value, onChange }) {
  const legend = words("legend", key);
  const made = element("fieldset", { className: "choice" }, legend);
  const group = `choice-${(choice.count = (choice.count ?? 0) + 1)}`;
  for (const [own, label] of options) {
    const input = element("input", { type: "radio", name: group, value: own, checked: own === value });
    input.onchange = () => onChange(own);
    made.append(element("label", {}, input, words("span", label)));
  }
  made.dataset.control = key;
  return made;
}

/** Numbers with their names; call `set` with what they are now. */
export function readings(...keys) {
  const made = element("dl", { className: "readings" });
  const outputs = {};
  for (const key of keys) {
    outputs[key] = element("dd");
    outputs[key].dataset.number = key;
    made.append(element("div", {}, words("dt", key), outputs[key]));
  }
  made.set = (values) => {
    for (const [key, value] of Object.entries(values)) outputs[key].textContent = value;
  };
  return made;
}

/** Three decimals, with a real minus sign. */
export function number(value, digits = 3) {
  const written = value.toFixed(digits);
  return (Number(written) === 0 ? written.replace("-", "") : written).replace("-", "−");
}

/**
 * Run, step, step back, start again. `state()` is what a step changes, as something that structuredClone copies;
 * `restore` puts such a copy back; `step` makes one step; `draw` shows it; `begin` makes the first state.
 */
export class Player {
  constructor({ begin, step, state, restore, draw, interval = 50, limit = 400 }) {
    Object.assign(this, { begin, step, state, restore, draw, interval, limit, past: [], timer: null });
    this.runs = button("run", () => (this.timer ? this.pause() : this.run()), "primary");
    this.back = button("back", () => this.rewind());
    this.forward = button("step", () => (this.pause(), this.advance()));
    this.again = button("again", () => this.restart());
    this.element = element("div", { className: "player" }, this.runs, this.forward, this.back, this.again);
    this.begin();
  }

  get steps() {
    return this.past.length;
  }

  /** Make a step, or another change that can be taken back. */
  advance(change = this.step) {
    this.past.push(structuredClone(this.state()));
    change();
    this.show();
  }

  rewind() {
    this.pause();
    if (this.past.length) this.restore(this.past.pop());
    this.show();
  }

  restart() {
    this.pause();
    this.past = [];
    this.begin();
    this.show();
  }

  run() {
    const until = this.steps + this.limit;
    this.timer = setInterval(() => (this.steps < until ? this.advance() : this.pause()), this.interval);
    this.show();
  }

  pause() {
    clearInterval(this.timer);
    this.timer = null;
    this.show();
  }

  show() {
    const key = this.timer ? "pause" : "run";
    if (this.runs.dataset.action !== key) show(this.runs, (this.runs.dataset.action = key));
    this.back.disabled = !this.past.length;
    this.draw();
  }
}

/** The frame that all scenes share: words, a picture with its numbers, what to do, and what can be set. */
export function scene(id, { picture, tools = [] }) {
  const heading = words("h2", `${id}.title`);
  heading.id = `${id}-title`;
  const said = element("div", { className: "words" }, heading, words("p", `${id}.say`, "say"));
  const hands = element("div", { className: "tools" }, words("p", `${id}.do`, "do"), ...tools);
  const seen = element("div", { className: "picture" }, ...picture);
  const made = element("section", { id, className: "scene" }, said, seen, hands);
  made.setAttribute("aria-labelledby", heading.id);
  return made;
}
