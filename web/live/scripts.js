// Models and photos arrive by script tags: a page that was opened from disk may load nothing by other means.

import { element } from "../common/controls.js";
import { Complaint } from "./complaint.js";

const PATIENCE = 8000; // milliseconds until the page says that it still waits
const arrived = new Map(); // what scripts brought, by kind and name

globalThis.lexelModel = (name, content) => arrived.set(`model ${name}`, content);
globalThis.lexelPhoto = (name, source) => arrived.set(`photo ${name}`, source);

/**
 * What the script of a model or photo brings; nothing, if it is damaged.
 *
 * A script may never arrive: after a while `onDelay` is called once, and the promise stays open, for it may come yet.
 */
export function fetched(kind, { name, title, source }, onDelay = () => {}) {
  const key = `${kind} ${name}`;
  if (arrived.has(key)) return Promise.resolve(arrived.get(key));
  return new Promise((resolve, reject) => {
    const tag = element("script", { src: source });
    const clock = setTimeout(onDelay, PATIENCE);
    const end = (settle, value) => {
      clearTimeout(clock);
      tag.remove();
      settle(value);
    };
    tag.onerror = () => end(reject, new Complaint(`${kind}.missing`, { title, source }));
    tag.onload = () => end(resolve, arrived.get(key));
    document.head.append(tag);
  });
}
