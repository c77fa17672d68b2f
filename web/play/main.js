// The pages: their heads, and their scenes in order.

import { element, words } from "../common/controls.js";
import { inEveryLanguage, learn } from "../common/language.js";
import { switches } from "../common/switches.js";
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
import { strings } from "./strings.js";

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

learn(strings);
const scenes = page.scenes.map((make) => make());
document.body.replaceChildren(
  element(
    "header",
    {},
    switches(`${page.words}title`),
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
