// The switches of language and of light and dark, which every page has in its upper right corner.

import { button, element } from "./controls.js";
import { current, inEveryLanguage, learn, recall, remember, speak, text } from "./language.js";
import { common } from "./strings.js";

/** Make both; `title` is the key of the page's title. */
export function switches(title) {
  learn(common);
  const root = document.documentElement;
  const dark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  if (recall("theme")) root.dataset.theme = recall("theme");
  const language = button("other-language", () => speak(current() === "en" ? "zh" : "en"), "switch");
  const theme = button("theme", () => remember("theme", (root.dataset.theme = dark() ? "light" : "dark")), "switch");
  inEveryLanguage(() => {
    root.lang = current() === "zh" ? "zh-CN" : "en";
    document.title = text(title);
    language.lang = current() === "zh" ? "en" : "zh-CN";
    theme.setAttribute("aria-label", text("theme.label"));
  });
  return element("div", { className: "switches" }, language, theme);
}
