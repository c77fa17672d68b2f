// Two languages. An element that shows a string of the table shows it anew when the language changes.

export const LANGUAGES = ["en", "zh"];
const strings = {}; // by key, one for each language
const keys = new Map(); // of the elements that show a string
const listeners = [];
let language = first();

function first() {
  const asked = new URLSearchParams(location.search).get("lang") ?? recall("language") ?? navigator.language;
  return asked.startsWith("zh") ? "zh" : "en";
}

/** What the browser keeps between visits; nothing, where it may not. */
export function recall(name) {
  try {
    return localStorage.getItem(`lexel.${name}`);
  } catch {
    return null;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(`lexel.${name}`, value);
  } catch {
    // a private window: the choice lasts as long as the page
  }
}

export function current() {
  return language;
}

/** Add the strings of a page: before it shows one. */
export function learn(table) {
  Object.assign(strings, table);
}

/** A string of the table in the language of the page, with `{name}` replaced. */
export function text(key, values = {}) {
  return strings[key][LANGUAGES.indexOf(language)].replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/** Let an element show a string; those of the table may hold markup. */
export function show(element, key) {
  keys.set(element, key);
  element.innerHTML = text(key);
  return element;
}

/** Call now, and whenever the language changes. */
export function inEveryLanguage(listener) {
  listeners.push(listener);
  listener();
}

export function speak(chosen) {
  language = chosen;
  remember("language", chosen);
  for (const [element, key] of keys) element.innerHTML = text(key);
  for (const listener of listeners) listener();
}
