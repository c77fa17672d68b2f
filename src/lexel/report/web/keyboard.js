// Grids and lists that the keyboard can walk through.

/** Tab reaches one of the items, arrow keys the others; `columns` returns how many stand in a row. */
function walkByKeys(items, columns, onFocus) {
  let current = 0;
  items.forEach((item, i) => {
    item.tabIndex = i ? -1 : 0;
    item.addEventListener("focus", () => {
      items[current].tabIndex = -1;
      item.tabIndex = 0;
      current = i;
      onFocus(i);
    });
    item.addEventListener("keydown", (event) => {
      const wide = columns();
      const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -wide, ArrowDown: wide }[event.key];
      const goal = { Home: 0, End: items.length - 1 }[event.key] ?? (step && i + step);
      if (goal === undefined) return;
      event.preventDefault();
      items[goal]?.focus();
    });
  });
}
