// Light and dark: the system's choice, until the button makes another.

const redraws = new Map();

/** Call `draw` after each change, for as long as the canvas is in the page: canvases do not follow the style sheet. */
const redrawWithTheme = (canvas, draw) => redraws.set(canvas, draw);

{
  const system = matchMedia("(prefers-color-scheme: dark)");
  const button = byId("theme");
  const isDark = () => (document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const follow = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    redraws.forEach((draw, canvas) => (canvas.isConnected ? draw() : redraws.delete(canvas)));
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    follow();
  });
  system.addEventListener("change", follow);
  follow();
}
