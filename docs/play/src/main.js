// The pages: their heads, their scenes in order, and the two switches.

import { button, element, words } from "./controls.js";
import { inEveryLanguage, current, remember, recall, speak, text } from "./language.js";
import { averagesScene } from "./scenes/averages.js";
import { collapseScene } from "./scenes/collapse.js";
import { costScene } from "./scenes/cost.js";
import { nearestScene } from "./scenes/nearest.js";
import { playgroundScene } from "./scenes/playground.js";
import { ordersScene } from "./scenes/orders.js";
import { springsScene } from "./scenes/springs.js";
import { statementsScene } from "./scenes/statements.js";
import { straightThroughScene } from "./scenes/straight-through.js";
import { swappedScene } from "./scenes/swapped.js";

// Names of strings, and what stands below them. A page says which one it is with `data-page`.
const PAGES = {
  play: {
    words: "",
    scenes: [
      nearestScene,
      straightThroughScene,
      springsScene,
      swappedScene,
      averagesScene,
      collapseScene,
      costScene,
      playgroundScene,
    ],
  },
  statements: { words: "statements.", scenes: [statementsScene, ordersScene] },
};
const page = PAGES[document.documentElement.dataset.page];

function switches() {
  const root = document.documentElement;
  const dark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  if (recall("theme")) root.dataset.theme = recall("theme");
  const language = button("other-language", () => speak(current() === "en" ? "zh" : "en"), "switch");
  const theme = button("theme", () => remember("theme", (root.dataset.theme = dark() ? "light" : "dark")), "switch");
  inEveryLanguage(() => {
    root.lang = current() === "zh" ? "zh-CN" : "en";
    document.title = text(`${page.words}title`);
    language.lang = current() === "zh" ? "en" : "zh-CN";
    theme.setAttribute("aria-label", text("theme.label"));
  });
  return element("div", { className: "switches" }, language, theme);
}

const scenes = page.scenes.map((make) => make());
document.body.replaceChildren(
  element(
    "header",
    {},
    switches(),
    words("p", "overline", "overline"),
    words("h1", `${page.words}title`),
    words("p", `${page.words}lede`, "lede"),
    words("p", "hands", "hands"),
  ),
  element("main", {}, ...scenes.map((scene) => scene.element)),
  words("footer", `${page.words}footer`),
);
for (const scene of scenes) {
  scene.element.state = scene.state; // what the tests compare with the library
  inEveryLanguage(scene.draw);
}
document.getElementById(location.hash.slice(1))?.scrollIntoView(); // it was not there when the browser looked
