"use strict";
// Everything that moves on the page. A code is known here by its place in the table of codes, the most used first; its
// index, which may be too large for a number, is a string that is only shown.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const count = (n) => n.toLocaleString("en-US");
const things = (n, thing) => `${count(n)} ${thing}${n === 1 ? "" : "s"}`;

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function svg(name, attributes, parent) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}

/* ---- light and dark ---- */

const onTheme = []; // canvases know no style sheet: they are drawn anew
{
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const button = byId("theme");
  const isDark = () => (document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light")) === "dark";
  const changed = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    onTheme.forEach((draw) => draw());
  };
  button.hidden = false;
  button.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    changed();
  });
  dark.addEventListener("change", changed);
  changed();
}

/* ---- charts ---- */

function ticks(low, high, most) {
  const rough = (high - low) / most || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n++) found.push(n * step);
  return found;
}

const short = (value) =>
  Math.abs(value) >= 1e4 ? Intl.NumberFormat("en-US", { notation: "compact" }).format(value) : String(+value.toPrecision(3));

/** 1, 2 and 5 of each power of ten, or of a wide range the powers alone. */
function logTicks(low, high) {
  const found = [];
  for (let power = 10 ** Math.floor(Math.log10(low)); power <= high; power *= 10) {
    found.push(...[1, 2, 5].map((n) => n * power).filter((n) => n >= low && n <= high));
  }
  const powers = found.filter((n) => Math.abs(Math.log10(n) % 1) < 1e-6);
  return found.length > 6 && powers.length > 1 ? powers : found;
}

/**
 * A line over x, with the value under the pointer; left and right do the same from the keyboard.
 * `group` are charts that share their x: pointing at one points at all.
 */
function chart(container, { title, x, y, xName, format = short, logY, zero, limit, area }, group) {
  const points = x.map((_, i) => i).filter((i) => y[i] !== null && (!logY || y[i] > 0));
  if (!points.length) return container.remove();
  const name = element("b", { textContent: title ?? "" });
  const reading = element("output");
  const picture = svg("svg", { tabindex: 0, role: "img" });
  container.append(element("div", { className: "head" }, name, reading), picture);
  const last = points.at(-1);
  picture.setAttribute(
    "aria-label",
    `${title ?? "share"}: ${format(y[points[0]])} at ${xName} ${count(x[points[0]])}, ${format(y[last])} at ${xName} ${count(x[last])}`,
  );
  let marks = [];
  let place = () => [0, 0];

  const point = (i) => {
    marks.forEach((mark) => mark.remove());
    marks = [];
    if (i !== null && y[i] === null) return;
    reading.textContent = i === null ? (title ? format(y[last]) : "\u00a0") : `${xName} ${count(x[i])}: ${format(y[i])}`;
    if (i === null) return;
    const [left, top] = place(i);
    marks = [
      svg("line", { class: "cross", x1: left, x2: left, y1: 6, y2: picture.clientHeight - 20 }, picture),
      svg("circle", { cx: left, cy: top, r: 4 }, picture),
    ];
  };
  group.push(point);

  const draw = () => {
    const width = picture.clientWidth;
    const height = picture.clientHeight;
    if (!width) return;
    const values = points.map((i) => y[i]);
    let low = zero ? 0 : Math.min(...values);
    let high = Math.max(...values, ...(limit && limit < 3 * Math.max(...values) ? [limit] : []));
    if (low === high) [low, high] = zero ? [0, 1] : [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
    const bend = (value) => (logY ? Math.log10(value) : value);
    let levels = logY ? logTicks(low, high) : ticks(low, high, 4);
    if (levels.length < 2) levels = ticks(low, high, 4);
    const labels = levels.map((value) => format(value));
    const [l, t, r, b] = [Math.max(44, 10 + 7 * Math.max(...labels.map((label) => label.length))), 8, 10, 22];
    const scale = (value, from, to, start, length) => start + (length * (value - from)) / (to - from || 1);
    const across = (value) => scale(value, x[0], x.at(-1), l, width - l - r);
    const up = (value) => scale(bend(value), bend(low), bend(high), height - b, t + b - height);
    place = (i) => [across(x[i]), up(y[i])];
    picture.replaceChildren();
    for (const [i, value] of levels.entries()) {
      svg("line", { class: "rule", x1: l, x2: width - r, y1: up(value), y2: up(value) }, picture);
      svg("text", { x: l - 6, y: up(value) + 4, "text-anchor": "end" }, picture).textContent = labels[i];
    }
    for (const value of ticks(x[0], x.at(-1), width / 90)) {
      svg("text", { x: across(value), y: height - 4, "text-anchor": "middle" }, picture).textContent = short(value);
    }
    if (limit >= low && limit <= high) {
      svg("line", { class: "limit", x1: l, x2: width - r, y1: up(limit), y2: up(limit) }, picture);
    }
    const line = points.map((i) => place(i).map((n) => n.toFixed(1)).join(",")).join(" L");
    if (area) {
      const [first, end] = [points[0], last].map((i) => across(x[i]));
      svg("path", { class: "area", d: `M${first},${height - b} L${line} L${end},${height - b} Z` }, picture);
    }
    svg("path", { class: "line", d: `M${line}` }, picture);
    if (points.length === 1) svg("circle", { cx: place(last)[0], cy: place(last)[1], r: 3 }, picture); // no line yet
    point(null);
  };
  new ResizeObserver(draw).observe(picture);

  let at = null;
  const show = (i) => {
    at = i;
    group.forEach((each) => each(i));
  };
  picture.addEventListener("pointermove", (event) => {
    const left = event.clientX - picture.getBoundingClientRect().left;
    show(points.reduce((best, i) => (Math.abs(place(i)[0] - left) < Math.abs(place(best)[0] - left) ? i : best)));
  });
  picture.addEventListener("pointerleave", () => show(null));
  picture.addEventListener("blur", () => show(null));
  picture.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const i = at === null ? points.length - 1 : points.indexOf(at) + step;
    show(points[Math.max(0, Math.min(points.length - 1, i))]);
  });
}

if (byId("curves")) {
  const { metrics } = data;
  const steps = metrics.step.map((step) => step + 1);
  const percent = (value) => `${+(100 * value).toPrecision(3)} %`;
  const group = [];
  for (const [column, title, options] of [
    ["psnr", "PSNR, dB", {}],
    ["loss", "loss", { logY: true }],
    ["distortion", "distortion of the codes", { logY: true }],
    ["usage", "codes in use", { format: percent, zero: true, limit: 1 }],
    ["perplexity", "perplexity", { zero: true, limit: data.books.length ? +data.books[0].codes.of : undefined }],
    ["dead_codes", "dead codes", { zero: true }],
  ]) {
    if (!(column in metrics)) continue;
    const container = element("div", { className: "chart" });
    byId("curves").append(container);
    chart(container, { title, x: steps, y: metrics[column], xName: "step", ...options }, group);
  }
}

/* ---- codes ---- */

/** Everything of one codebook is made from its template; what was there goes, with all that listened to it. */
function showBook(number) {
  onTheme.length = 0;
  byId("book").replaceChildren(byId(`book-${number}`).content.cloneNode(true));
  showCodes(data.books[number]);
}
document.querySelectorAll("#books input").forEach((input, number) => {
  input.checked = number === 0; // browsers remember another one over a reload
  input.addEventListener("change", () => showBook(number));
});
if (data.books.length) showBook(0);

function showCodes({ codes, atlas, grids, board }) {
  const many = codes.index.length;
  const rows = Math.ceil(many / atlas.columns);
  const isDead = (code) => codes.count[code] === 0;
  const share = (code) => {
    const percent = (100 * codes.count[code]) / codes.total;
    return percent && percent < 0.01 ? "< 0.01 %" : `${+percent.toPrecision(3)} %`;
  };

  // One rule for all patches: the long address of the atlas is in the page once.
  const sheet = element("style");
  sheet.textContent = `.patch { background: url(${atlas.picture}) 0 0 / ${100 * atlas.columns}% ${100 * rows}% }`;
  byId("book").append(sheet);
  const patch = (code) => {
    const made = element("span", { className: "patch" });
    const [column, row] = [code % atlas.columns, Math.floor(code / atlas.columns)];
    made.style.backgroundPosition = `${(100 * column) / (atlas.columns - 1 || 1)}% ${(100 * row) / (rows - 1 || 1)}%`;
    return made;
  };
  const swatch = (code, onClick, text = codes.index[code]) => {
    const made = element("button", { type: "button", onclick: onClick }, patch(code), element("span", { textContent: text }));
    made.dataset.code = codes.index[code];
    made.ariaLabel = `code ${codes.index[code]}`;
    if (isDead(code)) made.classList.add("dead");
    return made;
  };

  /** One of many is reached by Tab, the others from it by arrow keys; `columns` tells how many stand in a row. */
  function walk(items, columns, onFocus) {
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
        const moved = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -wide, ArrowDown: wide }[event.key];
        const goal = { Home: 0, End: items.length - 1 }[event.key] ?? (moved && i + moved);
        if (goal === undefined) return;
        event.preventDefault();
        items[goal]?.focus();
      });
    });
  }

  /* ---- atlas ---- */

  const cells = codes.index.map((index, code) => {
    const cell = element("div", { role: "option", ariaSelected: "false" }, patch(code));
    cell.dataset.code = index;
    cell.title = isDead(code) ? `${index}: dead` : `${index}: ${share(code)}`;
    cell.ariaLabel = `code ${index}, ${isDead(code) ? "dead" : `used ${things(codes.count[code], "time")}`}`;
    if (isDead(code)) cell.classList.add("dead");
    cell.addEventListener("click", () => cell.focus());
    return cell;
  });
  const list = byId("atlas");
  list.style.setProperty("--cell", many <= 300 ? "40px" : many <= 1200 ? "24px" : many <= 5000 ? "20px" : "14px");
  list.append(...cells);
  const perRow = () => {
    const top = cells[0].offsetTop;
    const next = cells.findIndex((cell) => cell.offsetTop > top);
    return next < 0 ? many : next;
  };
  walk(cells, perRow, select);

  /* ---- what is known of a code ---- */

  let selected = null;
  function select(code) {
    if (selected !== null) cells[selected].ariaSelected = "false";
    selected = code;
    cells[code].ariaSelected = "true";
    inspect(code);
    drawMap();
  }

  const pictures = [...document.querySelectorAll(".gallery figure")].map((figure) => figure.querySelector("img"));

  function inspect(code) {
    const rank = isDead(code) ? "dead: not once in these images" : `rank ${count(code + 1)} of ${count(codes.used)}`;
    const used = isDead(code) ? "" : `used ${things(codes.count[code], "time")}, ${share(code)}`;
    const large = element("span", {}, patch(code));
    if (isDead(code)) large.className = "dead";
    const near = element("div", { className: "swatches" });
    near.append(...codes.near[code].map((other) => swatch(other, () => select(other))));
    const places = element("div", { className: pictures.length > 4 ? "places many" : "places" });
    let found = 0;
    grids.forEach((grid, i) => {
      const shown = element("canvas", { width: 320, height: Math.round((320 * grid.length) / grid[0].length) });
      found += mark(shown, grid, code);
      places.append(element("div", {}, element("img", { src: pictures[i].src, alt: "" }), shown));
    });
    byId("inspector").replaceChildren(
      element(
        "div",
        { className: "identity" },
        large,
        element("span", {}, element("b", { textContent: `Code ${codes.index[code]}` }),
          element("span", { textContent: rank }), element("span", { textContent: used })),
      ),
      ...(codes.near[code].length ? [element("p", { className: "label", textContent: "The nearest codes" }), near] : []),
      element("p", { className: "label", textContent: `${things(found, "place")} in the ${things(grids.length, "image")} above` }),
      places,
    );
  }

  /** Darken an image but for the positions that hold a code, and return how many those are. */
  function mark(canvas, grid, code) {
    const context = canvas.getContext("2d");
    const [high, wide] = [canvas.height / grid.length, canvas.width / grid[0].length];
    context.fillStyle = "rgb(0 0 0 / 0.65)";
    context.fillRect(0, 0, canvas.width, canvas.height);
    const found = grid.flat().filter((other) => other === code).length;
    const least = found < 20 ? 12 : 5; // of small squares only the place can be seen
    grid.forEach((row, y) => row.forEach((other, x) => {
      if (other !== code) return;
      const [w, h] = [Math.max(wide, least), Math.max(high, least)];
      const [left, top] = [(x + 0.5) * wide - w / 2, (y + 0.5) * high - h / 2];
      context.strokeStyle = context.fillStyle = "#ffd21f";
      context.lineWidth = 2;
      if (found > 200) return context.fillRect(x * wide, y * high, wide, high);
      if (wide < least) return context.fillRect(left, top, w, h);
      context.clearRect(left, top, w, h);
      context.strokeRect(left, top, w, h);
    }));
    return found;
  }

  /* ---- ranks ---- */

  chart(
    byId("ranks"),
    {
      x: codes.count.map((_, i) => i + 1),
      y: codes.count.map((n) => n / codes.total || null),
      xName: "rank",
      format: (value) => `${+(100 * value).toPrecision(2)} %`,
      logY: true,
      area: true,
    },
    [],
  );

  /* ---- map ---- */

  const map = byId("map");
  const canvas = map.firstElementChild;
  const tip = element("div", { className: "tip", hidden: true });
  map.append(tip);
  const sheetOfPatches = new Image();
  sheetOfPatches.src = atlas.picture;
  const [across, upward] = [0, 1].map((axis) => {
    const values = codes.xy.map((point) => point[axis]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return values.map((value) => (value - low) / (high - low || 1));
  });
  const largest = Math.max(...codes.count, 1);
  let hovered = null;

  const sizeOf = (code) => (isDead(code) ? 5 : 6 + 16 * Math.sqrt(codes.count[code] / largest));
  let spots = [];

  function drawMap() {
    if (!sheetOfPatches.complete || !map.clientWidth) return;
    const ratio = devicePixelRatio || 1;
    const [width, height] = [map.clientWidth, Math.round(Math.min(map.clientWidth * 0.66, 520))];
    if (canvas.width !== Math.round(width * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
      canvas.style.height = `${height}px`;
      spots = [];
    }
    if (!spots.length) {
      const along = (share, length) => 20 + share * (length - 40);
      spots = codes.index.map((_, code) => [along(across[code], width), along(1 - upward[code], height)]);
    }
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = false;
    const side = sheetOfPatches.naturalWidth / atlas.columns;
    const { color: ink, borderColor: rule } = getComputedStyle(map);
    context.strokeStyle = rule;
    context.lineWidth = 0.75;
    // The frequent ones are large: the others are drawn on top of them.
    spots.forEach(([x, y], code) => {
      const size = sizeOf(code);
      const [column, row] = [code % atlas.columns, Math.floor(code / atlas.columns)];
      context.globalAlpha = isDead(code) ? 0.5 : 1;
      context.drawImage(sheetOfPatches, column * side, row * side, side, side, x - size / 2, y - size / 2, size, size);
      context.strokeRect(x - size / 2, y - size / 2, size, size);
    });
    context.globalAlpha = 1;
    for (const [code, colour] of [[hovered, ink], [selected, "#ffd21f"]]) {
      if (code === null) continue;
      const [[x, y], size] = [spots[code], sizeOf(code) + 6];
      for (const [style, thick] of [["#000", 5], [colour, 2.5]]) {
        context.strokeStyle = style;
        context.lineWidth = thick;
        context.strokeRect(x - size / 2, y - size / 2, size, size);
      }
    }
  }
  sheetOfPatches.addEventListener("load", drawMap);
  new ResizeObserver(drawMap).observe(map);
  onTheme.push(drawMap);

  const squared = ([x, y], [a, b]) => (x - a) ** 2 + (y - b) ** 2;
  function under(event) {
    const box = canvas.getBoundingClientRect();
    const at = [event.clientX - box.left, event.clientY - box.top];
    const best = spots.reduce((best, place, code) => (squared(place, at) < squared(spots[best], at) ? code : best), 0);
    return spots.length && squared(spots[best], at) < 30 ** 2 ? best : null;
  }
  canvas.addEventListener("pointermove", (event) => {
    hovered = under(event);
    tip.hidden = hovered === null;
    if (hovered !== null) {
      tip.replaceChildren(patch(hovered), `${codes.index[hovered]}`);
      const [x, y] = spots[hovered];
      tip.style.left = `${x > map.clientWidth - 90 ? x - 85 : x + 18}px`;
      tip.style.top = `${Math.max(4, Math.min(y - 40, map.clientHeight - 90))}px`;
    }
    drawMap();
  });
  canvas.addEventListener("pointerleave", () => {
    hovered = null;
    tip.hidden = true;
    drawMap();
  });
  canvas.addEventListener("click", (event) => {
    const code = under(event);
    if (code !== null) select(code);
  });
  map.addEventListener("keydown", (event) => {
    const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!direction) return;
    event.preventDefault();
    // The nearest code of those that lie within 45 degrees of the arrow.
    const from = spots[selected ?? 0];
    const ahead = spots.map((_, code) => code).filter((code) => {
      const [dx, dy] = [spots[code][0] - from[0], spots[code][1] - from[1]];
      const forward = dx * direction[0] + dy * direction[1];
      return forward > 0 && forward >= Math.abs(dx * direction[1] + dy * direction[0]);
    });
    if (ahead.length) select(ahead.reduce((a, b) => (squared(spots[a], from) <= squared(spots[b], from) ? a : b)));
  });

  /* ---- tokens ---- */

  showBoard();
  select(0);

  function showBoard() {
    const { side, factor, reach, choices } = board;
    if (!choices[0].length) return byId("tokens").remove(); // there is one code only
    const shown = byId("board").querySelector("canvas");
    const overlay = byId("board").querySelector(".cells");
    shown.width = shown.height = side * factor;
    overlay.style.gridTemplate = `repeat(${side}, 1fr) / repeat(${side}, 1fr)`;
    const context = shown.getContext("2d", { willReadFrequently: true });
    const tile = (2 * reach + 1) * factor;
    const scratch = element("canvas", { width: tile, height: tile }).getContext("2d", { willReadFrequently: true });
    const [base, changes] = [new Image(), new Image()];
    let untouched = null;
    const edits = new Map(); // position → which of its choices; in the order in which they were made
    const history = [];
    const current = [...board.codes];
    let chosen = 0;

    const squares = board.codes.map((_, position) => {
      const square = element("button", { type: "button", role: "gridcell" });
      square.addEventListener("pointerenter", () => light(position));
      square.addEventListener("click", () => {
        choose(position);
        byId("palette").querySelector("button")?.focus({ preventScroll: true });
      });
      return square;
    });
    for (let y = 0; y < side; y++) {
      const row = element("div", { role: "row" });
      row.append(...squares.slice(y * side, (y + 1) * side));
      overlay.append(row);
    }
    walk(squares, () => side, (position) => {
      choose(position);
      light(position);
    });
    overlay.addEventListener("pointerleave", () => light(null));
    overlay.addEventListener("focusout", () => light(null));

    /** Show which positions hold the same code as this one. */
    function light(position) {
      overlay.classList.toggle("lit", position !== null);
      squares.forEach((square, i) => square.classList.toggle("same", position !== null && current[i] === current[position]));
      tell(position ?? chosen);
    }

    function tell(position) {
      const code = current[position];
      const here = current.filter((other) => other === code).length;
      byId("token").replaceChildren(
        element("b", { textContent: `Code ${codes.index[code]}` }),
        ` at row ${Math.floor(position / side) + 1}, column ${(position % side) + 1}; ` +
          `${things(here, "time")} in this part, ${share(code)} of all positions.`,
      );
    }

    function choose(position) {
      squares[chosen].classList.remove("here");
      chosen = position;
      squares[chosen].classList.add("here");
      const own = board.codes[position];
      const options = (title, offered) => [
        element("p", { className: "label", textContent: title }),
        element("div", { className: "swatches" }, ...offered.map(([code, which]) => {
          const made = swatch(code, () => put(position, which));
          made.ariaPressed = String((edits.get(position) ?? null) === which);
          return made;
        })),
      ];
      const numbered = choices[position].map((code, which) => [code, which]);
      byId("palette").replaceChildren(
        ...options("Its own code", [[own, null]]),
        ...options("Most like it", numbered.slice(0, board.similar)),
        ...(numbered.length > board.similar ? options("Most frequent", numbered.slice(board.similar)) : []),
      );
      tell(position);
    }

    function put(position, which, remember = true) {
      const before = edits.get(position) ?? null;
      if (before === which) return;
      if (remember) history.push([position, before]);
      edits.delete(position);
      if (which !== null) edits.set(position, which);
      current[position] = which === null ? board.codes[position] : choices[position][which];
      squares[position].classList.toggle("changed", which !== null);
      const held = byId("palette").contains(document.activeElement) && document.activeElement.dataset.code;
      choose(position);
      // The buttons are new ones: whoever works with the keyboard stays on theirs.
      if (held) byId("palette").querySelector(`[data-code="${held}"]`)?.focus({ preventScroll: true });
      label();
      draw();
    }

    function label() {
      squares.forEach((square, i) => {
        square.dataset.code = codes.index[current[i]];
        square.ariaLabel = `row ${Math.floor(i / side) + 1}, column ${(i % side) + 1}: code ${square.dataset.code}`;
      });
      byId("undo").disabled = !history.length;
      byId("reset").disabled = !edits.size;
    }

    function draw() {
      if (!untouched) return;
      const sum = Int16Array.from(untouched.data);
      for (const [position, which] of edits) {
        const [row, column] = [Math.floor(position / side), position % side];
        scratch.clearRect(0, 0, tile, tile);
        scratch.drawImage(
          changes, column * tile, (row * choices[0].length + which) * tile, tile, tile, 0, 0, tile, tile,
        );
        const change = scratch.getImageData(0, 0, tile, tile).data;
        for (let y = 0; y < tile; y++) {
          const down = (row - reach) * factor + y;
          if (down < 0 || down >= shown.height) continue;
          for (let x = 0; x < tile; x++) {
            const right = (column - reach) * factor + x;
            if (right < 0 || right >= shown.width) continue;
            const to = 4 * (down * shown.width + right);
            const from = 4 * (y * tile + x);
            // Kept modulo 256: with the old value the new one is known, and so is the difference.
            for (let c = 0; c < 3; c++) {
              const old = untouched.data[to + c];
              sum[to + c] += ((old + change[from + c]) & 255) - old;
            }
          }
        }
      }
      const result = new ImageData(shown.width, shown.height);
      result.data.set(sum); // clamps
      context.putImageData(result, 0, 0);
      byId("board").dataset.drawn = String(edits.size);
    }

    byId("undo").addEventListener("click", () => {
      const [position, which] = history.pop();
      put(position, which, false);
    });
    byId("reset").addEventListener("click", () => {
      history.length = 0;
      [...edits.keys()].forEach((position) => put(position, null, false));
    });
    byId("lines").addEventListener("change", (event) => overlay.classList.toggle("lines", event.target.checked));

    base.src = board.picture;
    changes.src = board.changes;
    Promise.all([base.decode(), changes.decode()]).then(() => {
      context.drawImage(base, 0, 0);
      untouched = context.getImageData(0, 0, shown.width, shown.height);
      draw();
    });
    const [high, wide] = [grids[0].length, grids[0][0].length];
    const frame = element("i");
    const percent = { left: board.left / wide, top: board.top / high, width: side / wide, height: side / high };
    for (const [name, part] of Object.entries(percent)) frame.style[name] = `${100 * part}%`;
    byId("where").append(element("img", { src: pictures[0].src, alt: "Where in the image this part lies" }), frame);

    label();
    choose(Math.floor(side / 2) * side + Math.floor(side / 2));
  }
}
