// The tree of prefixes. A branch is filled when it is opened for the first time.

class PrefixTree {
  constructor(tree, root) {
    Object.assign(this, tree);
    this.root = root;
    this.bySize = false;
    this.lower = this.items.names.map((name, i) => `${name} ${this.items.texts?.[i] ?? ""}`.toLowerCase());
    this.fill(root, -1, 0);
    root.addEventListener("keydown", (event) => this.walk(event));
  }

  /** The items under a node, as places in the order of all items: from, to. */
  span(level, node) {
    return level < 0 ? [0, this.count] : this.levels[level].starts.slice(node, node + 2);
  }

  /** Put into `place` what lies under a node: branches, or items. */
  fill(place, level, node) {
    if (place.childElementCount > (place === this.root ? 0 : 1)) return;
    const [from, to] = this.span(level, node);
    const { starts = [] } = this.levels[level + 1] ?? {};
    const nodes = [];
    for (let each = lowerBound(starts, from); starts[each] < to; each++) nodes.push(each);
    // Branches that would hold an item each are left out, and the items stand there.
    if (nodes.length && (level < 0 || nodes.length < to - from)) {
      const size = (each) => starts[each + 1] - starts[each];
      if (this.bySize) nodes.sort((a, b) => size(b) - size(a) || a - b);
      const largest = Math.max(...nodes.map(size));
      place.append(...nodes.map((each) => this.branch(level + 1, each, size(each) / largest)));
      return;
    }
    const [first, last] = [lowerBound(this.items.at, from), lowerBound(this.items.at, to)];
    const list = element("ul");
    for (let i = first; i < last; i++) list.append(this.leaf(i));
    const left = to - from - (last - first);
    if (left) list.append(element("li", { className: "note", textContent: `and ${counted(left, "item")} more` }));
    place.append(list);
  }

  branch(level, node, share) {
    const own = this.levels[level];
    const [from, to] = this.span(level, node);
    const bar = element("i", { className: "bar" });
    bar.style.width = `${5 * share}rem`;
    const summary = element(
      "summary",
      {},
      element("b", { textContent: own.codes[node] }),
      element("span", { className: "size", textContent: counted(to - from, "item") }),
      element("span", { className: "bars" }, bar),
    );
    if (own.classes) {
      const share = own.share[node];
      const text = `${this.classes[own.classes[node]]} ${share === 1 ? 100 : Math.min(Math.round(100 * share), 99)} %`;
      summary.append(element("span", { className: "class", textContent: text }));
    }
    summary.append(element("span", { className: "some", textContent: this.examples(from, to).join(" · ") }));
    const details = element("details", {}, summary);
    Object.assign(details, { level, node });
    details.addEventListener("toggle", () => details.open && this.fill(details, level, node));
    return details;
  }

  /** What some of the items of a span are called, from its beginning to its end. */
  examples(from, to) {
    const [first, last] = [lowerBound(this.items.at, from), lowerBound(this.items.at, to)];
    const most = Math.min(last - first, 4);
    return Array.from({ length: most }, (_, i) => this.called(first + Math.floor(((last - first) * i) / most)));
  }

  called(item) {
    return this.items.texts?.[item] || this.items.names[item];
  }

  leaf(item) {
    const { names, texts, codes, classes } = this.items;
    const line = element("li", { tabIndex: -1 }, element("b", { textContent: names[item] }));
    line.dataset.item = item;
    if (texts) line.append(" ", texts[item]);
    if (classes) line.append(element("span", { className: "class", textContent: this.classes[classes[item]] }));
    line.append(element("span", { className: "size", textContent: codes[item].join(" ") }));
    return line;
  }

  /** Open all branches above an item, and go there. */
  show(item) {
    let place = this.root;
    for (let level = 0; level < this.levels.length; level++) {
      const node = lowerBound(this.levels[level].starts, this.items.at[item] + 1) - 1;
      const branch = [...place.children].find((each) => each.node === node && each.level === level);
      if (!branch) break;
      place = branch;
      place.open = true;
      this.fill(place, level, node);
    }
    const line = place.querySelector(`[data-item="${item}"]`);
    line.scrollIntoView({ block: "center" });
    line.focus({ preventScroll: true });
  }

  find(text) {
    const found = [];
    const sought = text.trim().toLowerCase();
    for (let i = 0; sought && i < this.lower.length && found.length < 12; i++) {
      if (this.lower[i].includes(sought)) found.push(i);
    }
    return found;
  }

  reorder(bySize) {
    this.bySize = bySize;
    this.root.replaceChildren();
    this.fill(this.root, -1, 0);
  }

  walk(event) {
    const here = document.activeElement;
    const branch = here.closest("details");
    const lines = [...this.root.querySelectorAll("summary, li[data-item]")].filter((line) => line.checkVisibility());
    const at = lines.indexOf(here);
    let goal = null;
    if (event.key === "ArrowDown") goal = lines[at + 1];
    else if (event.key === "ArrowUp") goal = lines[at - 1];
    else if (event.key === "Home") [goal] = lines;
    else if (event.key === "End") goal = lines[lines.length - 1];
    else if (event.key === "ArrowRight" && here.tagName === "SUMMARY") {
      if (branch.open) goal = lines[at + 1];
      else branch.open = true;
    } else if (event.key === "ArrowLeft") {
      if (here.tagName === "SUMMARY" && branch.open) branch.open = false;
      else goal = (here.tagName === "SUMMARY" ? branch.parentElement.closest("details") : branch)?.firstElementChild;
    } else return;
    event.preventDefault();
    goal?.focus();
  }
}

/** The first place of a rising list whose value is not below `value`. */
function lowerBound(list, value) {
  let [low, high] = [0, list.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

{
  const tree = new PrefixTree(data.tree, byId("branches"));
  byId("order").addEventListener("change", (event) => tree.reorder(event.target.value === "size"));
  byId("seek").addEventListener("input", (event) => {
    const found = tree.find(event.target.value);
    const buttons = found.map((item) => {
      const button = element("button", { type: "button", textContent: tree.called(item) });
      button.addEventListener("click", () => tree.show(item));
      return button;
    });
    const none = event.target.value.trim() ? ["No item that the page names has that."] : [];
    byId("sought").replaceChildren(...(buttons.length ? buttons : none));
  });
}
