// The page: a photo goes through a model, and somebody moves its tokens.

import { button, choice, element, number, readings, slider, words } from "../common/controls.js";
import { current, inEveryLanguage, learn, text } from "../common/language.js";
import { switches } from "../common/switches.js";
import { cssOf } from "./colours.js";
import { Complaint } from "./complaint.js";
import { Decoding } from "./decoding.js";
import { Grid } from "./grid.js";
import { counts } from "./measure.js";
import { load } from "./model.js";
import { Palette } from "./palette.js";
import { Patches } from "./patches.js";
import { SIZES, paintPixels, read } from "./photo.js";
import { save, tokensAsJson } from "./save.js";
import { fetched } from "./scripts.js";
import { Edit, Sheet } from "./sheet.js";
import { strings } from "./strings.js";

learn(strings);
const { models = [], photos = [] } = globalThis.lexelModels ?? {};
const titled = (entry) => entry.title?.[current()] ?? entry.title?.en ?? entry.title ?? entry.name;
const grouped = (value) => value.toLocaleString(current() === "zh" ? "zh-CN" : "en");
const written = (values) =>
  Object.fromEntries(
    Object.entries(values).map(([name, value]) => [name, typeof value === "number" ? grouped(value) : value]),
  );

const state = {
  number: models.length >> 1, // of the model that is shown
  level: 0,
  tool: "paint",
  code: null,
  megapixels: 0.4,
  files: { first: null, second: null }, // {blob, name}
  photos: { first: null, second: null },
  results: new Map(), // by number: {first, second, edits}
};
const loading = new Map(); // promises of models, by number
const patches = new Map(); // by model

// Sentences that say how things stand, and one that says what went wrong.

const status = element("p", { className: "status" });
const complaint = element("p", { className: "complaint" });
status.setAttribute("role", "status");
complaint.setAttribute("role", "alert");
let remarks = [];
let trouble = null;

function tell(...found) {
  remarks = found;
  status.textContent = remarks.map(([key, values]) => text(key, written(values ?? {}))).join(" ");
}

function complain(error) {
  trouble = error;
  if (error && !(error instanceof Complaint)) trouble = new Complaint("unexpected", { reason: String(error) });
  complaint.textContent = trouble ? text(trouble.key, written(trouble.values)) : "";
}

// What is seen.

const grid = new Grid({ start, move, end, look, press, pick: (cell) => pick(cell), cancel: unmark });
const seen = {
  photo: element("canvas"),
  tokens: grid.element,
  decoded: element("canvas", { className: "follows" }),
  second: element("canvas"),
};
grid.follow(seen.decoded);
const captions = {};
const figures = Object.entries(seen).map(([name, canvas]) => {
  captions[name] = element("span");
  const caption = element("figcaption", { className: "caption" }, words("b", `${name}.name`), " ", captions[name]);
  if (name !== "tokens") canvas.setAttribute("role", "img");
  return element("figure", { className: name }, canvas, caption);
});
const hovered = element("p", { className: "hovered" });
hovered.setAttribute("aria-live", "polite");
figures[1].append(hovered);
const READINGS = ["error", "psnr", "bits", "pixelBits", "perplexity", "used"];
const numbers = readings(...READINGS);
const speed = element("p", { className: "caption speed" });
const bench = element("section", { className: "bench", id: "bench", hidden: true });
const table = element("table", { className: "compared" });
const palette = new Palette((code) => choose(code));

const decoding = new Decoding({
  onPart: (sheet, part) => drawPart(sheet, part),
  onDone: (sheet) => sheet === shown()?.first && showNumbers(),
  onError: complain,
  spare: () => patches.get(shown()?.first?.model)?.some() ?? false,
});

const shown = () => state.results.get(state.number);

function drawPart(sheet, part) {
  const { first, second } = shown() ?? {};
  const canvas = sheet === first ? seen.decoded : sheet === second ? seen.second : null;
  if (canvas) paintPixels(canvas, sheet.decoded, sheet.model.channels, sheet.width, sheet.height, part);
}

function lay(canvas, { width, height }) {
  Object.assign(canvas, { width, height });
  canvas.style.setProperty("--aspect", width / height);
}

/** Show the result of the model that is chosen. */
function present() {
  const result = shown();
  bench.hidden = !result;
  compare.hidden = !result || models.length < 2;
  if (!result) return grid.hide();
  const { first, second } = result;
  state.level = Math.min(state.level, Math.max(0, first.levels.length - 1));
  lay(seen.photo, first);
  paintPixels(seen.photo, first.pixels, first.model.channels, first.width, first.height);
  lay(seen.decoded, first);
  drawPart(first, [0, 0, first.width, first.height]);
  figures[3].hidden = !second;
  bench.classList.toggle("two", Boolean(second));
  if (second) {
    lay(seen.second, second);
    drawPart(second, [0, 0, second.width, second.height]);
  }
  for (const sheet of [first, second]) if (sheet && !sheet.fresh) decoding.want(sheet);
  figures[1].hidden = repaint.hidden = !first.levels.length;
  if (first.levels.length) {
    grid.show(first, state.level);
    showLevels(first);
    showPalette(first);
  } else grid.hide();
  showTools();
  showNumbers();
  showCaptions();
}

function showCaptions() {
  const { first, second } = shown() ?? {};
  if (!first) return;
  const { rows, columns } = first.levels[state.level] ?? {};
  captions.photo.textContent = `${first.width} × ${first.height}`;
  captions.tokens.textContent = rows ? `${columns} × ${rows}` : "";
  captions.decoded.textContent = text("decoded.caption");
  captions.second.textContent = second ? second.photo.name : "";
  seen.photo.setAttribute("aria-label", text("photo.label", { name: first.photo.name }));
  seen.decoded.setAttribute("aria-label", text("decoded.label"));
  seen.second.setAttribute("aria-label", text("second.label"));
  grid.element.setAttribute("aria-label", text("tokens.label", { rows, columns }));
  const { milliseconds, local, size } = first.model;
  speed.textContent = milliseconds ? text("speed", { milliseconds: grouped(Math.round(milliseconds)) }) : "";
  const kinds = [];
  if (!first.levels.length) kinds.push("model.strange");
  else if (first.levels.length > 1) kinds.push("model.levels");
  if (size) kinds.push("model.size");
  if (!local) kinds.push("model.whole");
  about.textContent = kinds
    .map((key) => text(key, { levels: first.levels.length, height: size?.[0], width: size?.[1] }))
    .join(" ");
}

function showNumbers() {
  const result = shown();
  if (!result) return;
  const { first } = result;
  if (first.fresh) result.figures = first.figures(state.level);
  const found = first.fresh ? result.figures : null;
  const used = found?.used ? `${grouped(found.used)} / ${grouped(found.codes)}` : "–";
  numbers.set(found ? { ...figured(found), used } : Object.fromEntries(READINGS.map((key) => [key, "…"])));
  sum.textContent = found
    ? text("sum", {
        tokens: grouped(found.tokens),
        each: grouped(Math.round((100 * found.bits) / found.tokens) / 100),
        times: grouped(Math.round((10 * found.pixelBits) / found.bits) / 10),
      })
    : "";
  showTable();
}

/** The figures of a result as they are written. */
const figured = (found) => ({
  error: found.error.toFixed(5),
  psnr: `${number(found.psnr, 2)} dB`,
  bits: grouped(Math.ceil(found.bits)),
  pixelBits: grouped(found.pixelBits),
  perplexity: found.used ? found.perplexity.toFixed(1) : "–",
  used: grouped(found.used),
});

const COLUMNS = ["error", "psnr", "bits", "perplexity", "used"];

function showTable() {
  const cell = (tag, content, properties = {}) => element(tag, { textContent: content, ...properties });
  const head = element("tr", {}, ...["codes", ...COLUMNS].map((key) => cell("th", text(`table.${key}`), { scope: "col" })));
  const rows = models.map((entry, i) => {
    const found = state.results.get(i)?.figures;
    const row = element("tr", {}, cell("th", `${grouped(entry.codes)}`, { scope: "row", title: titled(entry) }));
    const values = found && figured(found);
    row.append(...COLUMNS.map((key) => cell("td", values ? values[key] : "–")));
    if (i === state.number) row.setAttribute("aria-current", "true");
    return row;
  });
  table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
}

// Photos and models come in.

let turn = 0; // of the last wish: what an earlier one brings is kept, but not shown

async function refresh() {
  const mine = ++turn;
  complain(null);
  const entry = models[state.number];
  if (!entry) return complain(new Complaint("models.none"));
  try {
    present();
    const title = titled(entry);
    tell(["loading", { title }]);
    await settled();
    const model = await opened(state.number, () => mine === turn && tell(["model.waits", { title }]));
    if (mine !== turn) return;
    for (const which of ["first", "second"]) {
      const file = state.files[which];
      if (!file || (which === "second" && !state.photos.first)) continue;
      const photo = state.photos[which] ?? (await read(file.blob, file.name, state.megapixels));
      if (mine !== turn) return;
      state.photos[which] = photo;
      const result = state.results.get(state.number) ?? { edits: [] };
      if (result[which]) continue;
      tell(["encoding", { name: file.name }]);
      await settled();
      const fitted =
        which === "second" ? state.photos.second.covering(result.first.height, result.first.width) : state.photos.first;
      const sheet = await Sheet.of(model, fitted);
      if (mine !== turn) return;
      result[which] = sheet;
      state.results.set(state.number, result);
      if (!patches.has(model)) patches.set(model, new Patches(model, showPatch));
      present();
    }
    tell(...(state.photos.first ? [...state.files.first.remarks, ...state.photos.first.remarks] : [["ready"]]));
  } catch (error) {
    if (mine !== turn) return;
    tell();
    complain(error);
  }
}

/** What has just been written is on the screen. */
const settled = () => new Promise((resolve) => setTimeout(resolve, 30));

function opened(i, onDelay) {
  if (!loading.has(i)) {
    const entry = models[i];
    const promise = load({ ...entry, title: titled(entry) }, onDelay);
    loading.set(i, promise);
    promise.catch(() => loading.delete(i));
  }
  return loading.get(i);
}

const wishes = { first: 0, second: 0 }; // for photos: one that takes long to read does not replace a later one

/** Take a file as the first or the second photo; what is there stays until the new one is read. */
async function take(blob, name, which, found = [], mine = ++wishes[which]) {
  try {
    const photo = await read(blob, name, state.megapixels);
    if (mine !== wishes[which]) return;
    letGo();
    state.files[which] = { blob, name, remarks: found };
    state.photos[which] = photo;
    decoding.forget();
    if (which === "first") {
      state.results.clear();
      grid.cursor = [0, 0];
    } else for (const result of state.results.values()) dropSecond(result);
    await refresh();
  } catch (error) {
    if (mine === wishes[which]) complain(error);
  }
}

/** Let go of the second photo; what was painted on the first one can still be taken back. */
function dropSecond(result) {
  for (const edit of result.edits) edit.before.delete(result.second);
  result.edits = result.edits.filter((edit) => edit.before.size);
  result.second = null;
}

function takeFiles(files, which) {
  const [file] = files;
  if (!file) return complain(new Complaint("drop.nothing"));
  const several = files.length > 1 ? [["drop.several", { count: files.length, name: file.name }]] : [];
  return take(file, file.name, which, several);
}

async function takeExample(entry, which) {
  const title = titled(entry);
  const mine = ++wishes[which];
  try {
    complain(null);
    const source = await fetched("photo", { ...entry, title }, () => tell(["photo.waits", { title }]));
    const [, type, content] = /^data:(image\/[\w.+-]+);base64,(.*)$/s.exec(source) ?? [];
    if (!content) throw new Complaint("photo.damaged", { name: title });
    let bytes;
    try {
      bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
    } catch {
      throw new Complaint("photo.damaged", { name: title });
    }
    if (mine === wishes[which]) await take(new Blob([bytes], { type }), title, which, [], mine);
  } catch (error) {
    if (mine === wishes[which]) complain(error);
  }
}

function chooser(which) {
  const input = element("input", { type: "file", accept: "image/*", className: "chosen" });
  input.onchange = () => {
    takeFiles([...input.files], which);
    input.value = "";
  };
  const label = element("label", { className: "file" }, words("span", `choose.${which}`), input);
  input.dataset.action = `choose.${which}`;
  const examples = photos.map((entry) => {
    const made = element("button", { type: "button", onclick: () => takeExample(entry, which) });
    made.dataset.example = entry.name;
    inEveryLanguage(() => (made.textContent = titled(entry)));
    return made;
  });
  return element("div", { className: "row" }, label, ...examples);
}

// Somebody moves tokens.

let edit = null;
let last = null; // cell of the stroke
let corner = null; // of a rectangle

function start(cell) {
  finish(); // the space key may come in the middle of a stroke
  if (state.tool === "pick") return;
  if (state.tool === "rectangle") {
    corner = cell;
    grid.marked = box(corner, cell);
    return;
  }
  edit = new Edit();
  last = cell;
  stroke(cell);
}

function move(cell) {
  if (state.tool === "rectangle" && corner) grid.marked = box(corner, cell);
  if (!edit) return;
  const [dx, dy] = [cell[0] - last[0], cell[1] - last[1]];
  const steps = Math.max(Math.abs(dx), Math.abs(dy), 1);
  for (let i = 1; i <= steps; i++) {
    stroke([Math.round(last[0] + (dx * i) / steps), Math.round(last[1] + (dy * i) / steps)]);
  }
  last = cell;
}

function end(cancelled) {
  if (state.tool === "pick" && !cancelled) return pick(grid.cursor, true);
  if (corner && !cancelled) swap(grid.marked);
  unmark();
  finish();
}

/** The rectangle with these two cells in opposite corners. */
const box = ([x, y], [column, row]) => [Math.min(x, column), Math.min(y, row), Math.max(x, column) + 1, Math.max(y, row) + 1];

function unmark() {
  corner = grid.marked = null;
  grid.draw();
}

/** The space key: it paints, picks, or sets a corner. */
function press(cell) {
  if (state.tool === "pick") return pick(cell, true);
  if (state.tool !== "rectangle") {
    start(cell);
    return end(false);
  }
  if (corner) return end(false);
  start(cell);
}

/** Put the code, or what the other photo has there, under the brush. */
function stroke(cell) {
  const { first, second } = shown();
  const place = grid.footprint(cell);
  const levels = state.tool === "stamp" ? first.beside(state.level) : [first.levels[state.level]];
  change(first, place, levels, (index) => (state.tool === "stamp" ? second.indices[index] : state.code));
}

function change(sheet, [left, top, right, bottom], levels, codeOf) {
  let changed = false;
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++) {
      for (const { start, stride, columns } of levels) {
        const index = start + (y * columns + x) * stride;
        changed = edit.set(sheet, index, codeOf(index)) || changed;
      }
    }
  }
  if (!changed) return;
  decoding.want(sheet, [left, top, right, bottom]);
  if (sheet === shown().first) {
    grid.refresh([left, top, right, bottom]);
    recount();
  }
}

/** The two photos exchange what they have in a rectangle, or everything. */
function swap(place) {
  const { first, second } = shown();
  if (!second) return;
  edit ??= new Edit();
  const levels = place ? first.beside(state.level) : first.levels;
  const before = first.indices.slice();
  for (const each of place ? [levels] : levels.map((level) => [level])) {
    const whole = place ?? [0, 0, each[0].columns, each[0].rows];
    change(first, whole, each, (index) => second.indices[index]);
    change(second, whole, each, (index) => before[index]);
  }
  grid.refresh();
}

/** End what the hand is doing, before that which it does it to goes away. */
function letGo() {
  finish();
  unmark();
}

function finish() {
  if (edit?.before.size) shown()?.edits.push(edit);
  edit = null;
  showTools();
}

function undo() {
  letGo(); // the end of a stroke comes before that of the one before it
  const { first, edits } = shown() ?? {};
  const taken = edits?.pop();
  if (!taken) return;
  taken.undo();
  for (const sheet of taken.before.keys()) decoding.want(sheet);
  if (taken.before.has(first)) {
    grid.refresh();
    recount();
  }
  showTools();
}

function reset() {
  letGo();
  edit = new Edit();
  for (const sheet of [shown().first, shown().second]) {
    sheet?.original.forEach((code, index) => edit.set(sheet, index, code));
    if (edit.before.has(sheet)) decoding.want(sheet);
  }
  grid.refresh();
  recount();
  finish();
}

function pick([column, row], back = false) {
  const { first } = shown();
  choose(first.code(state.level, row * grid.columns + column));
  if (back) useTool("paint");
}

function choose(code) {
  state.code = code;
  palette.choose(code);
  showChosen();
}

function showChosen() {
  chosen.textContent = state.code === null ? "" : text("chosen", { code: state.code });
}

/** Say what stands at a place. */
function look([column, row]) {
  if (corner) grid.marked = box(corner, [column, row]);
  const { first, second } = shown() ?? {};
  if (!first?.levels.length) return;
  const position = row * grid.columns + column;
  const code = first.code(state.level, position);
  const own = recounted.get(code) ?? 0;
  const other = second ? text("hovered.other", { code: second.code(state.level, position) }) : "";
  const swatch = element("i");
  swatch.style.background = cssOf(code);
  const said = text("hovered", { column: column + 1, row: row + 1, code, count: grouped(own) });
  hovered.replaceChildren(swatch, `${said}${other}`);
  at = [column, row];
}
let at = null;

// What can be used.

let recounted = new Map();

function showPalette(first) {
  recounted = counts(first.indices, first.levels[state.level]);
  const own = patches.get(first.model);
  const order = palette.show(recounted, first.levels[state.level].codes);
  const missing = order.filter((code) => !own.known.has(own.key(state.level, code)));
  for (const code of order) {
    const known = own.known.get(own.key(state.level, code));
    if (known) palette.patch(code, known);
  }
  own.want(first, state.level, missing);
  state.code = palette.chosen;
  showChosen();
  decoding.run();
}

function showPatch(level, code, patch) {
  if (level === state.level) palette.patch(code, patch);
}

let counting = null;

function recount() {
  counting ??= requestAnimationFrame(() => {
    counting = null;
    const { first } = shown() ?? {};
    if (!first?.levels.length) return;
    recounted = counts(first.indices, first.levels[state.level]);
    palette.count(recounted);
    if (at) look(at);
  });
}

const tools = choice("tool", {
  options: ["paint", "pick", "stamp", "rectangle"].map((name) => [name, `tool.${name}`]),
  value: "paint",
  onChange: useTool,
});
const brush = slider("brush", { min: 1, max: 15, step: 2, value: 3, onChange: (side) => (grid.brush = side) });
grid.brush = 3;
const levels = element("div");
const chosen = element("p", { className: "caption" });
const undoes = button("undo", undo);
const resets = button("reset", reset);
const swapAll = button("swapAll", () => {
  swap();
  finish();
});
const about = element("p", { className: "caption about" });
const sum = element("p", { className: "sum" });

function useTool(name) {
  state.tool = name;
  for (const input of tools.querySelectorAll("input")) input.checked = input.value === name;
  for (const canvas of [grid.element, seen.decoded]) canvas.dataset.tool = name;
  letGo();
}

function showTools() {
  const { second, edits = [] } = shown() ?? {};
  undoes.disabled = !edits.length;
  resets.disabled = !edits.length;
  swapAll.disabled = !second;
  for (const input of tools.querySelectorAll("input")) {
    input.disabled = !second && ["stamp", "rectangle"].includes(input.value);
    if (input.disabled && input.checked) return useTool("paint");
  }
  toolHelp.textContent = text(`help.${state.tool}`);
}
const toolHelp = element("p", { className: "caption" });

function showLevels(first) {
  levels.replaceChildren();
  if (first.levels.length < 2) return;
  levels.append(
    choice("level", {
      options: first.levels.map((_, i) => [String(i), "level.number"]),
      value: String(state.level),
      onChange: (value) => {
        letGo();
        state.level = Number(value);
        present();
      },
    }),
  );
  levels.querySelectorAll("span").forEach((span, i) => (span.textContent = i + 1));
}

const repaint = element(
  "div",
  { className: "group" },
  words("h2", "repaint.title"),
  words("p", "repaint.do", "do"),
  element("div", { className: "named" }, words("h3", "palette"), chosen),
  palette.element,
  words("p", "palette.say", "caption"),
  levels,
  tools,
  toolHelp,
  brush,
  element("div", { className: "row" }, undoes, resets),
);
const pair = element(
  "div",
  { className: "group" },
  words("h2", "pair.title"),
  words("p", "pair.say", "say"),
  chooser("second"),
  element("div", { className: "row" }, swapAll),
);
const keep = element(
  "div",
  { className: "group" },
  words("h2", "keep.title"),
  words("p", "keep.say", "say"),
  element(
    "div",
    { className: "row" },
    button("keep.picture", async () => {
      const { first } = shown();
      while (!first.fresh && decoding.busy) await settled(); // until the picture is what the tokens say
      if (first !== shown()?.first) return;
      const { name } = first.photo;
      seen.decoded.toBlob((blob) => save(blob, name, "png"), "image/png");
    }),
    button("keep.tokens", () => {
      const { first } = shown();
      save(new Blob([tokensAsJson(first)], { type: "application/json" }), first.photo.name, "json");
    }),
  ),
);
const compare = element(
  "section",
  { className: "compare", id: "compare", hidden: true },
  words("h2", "compare.title"),
  words("p", "compare.say", "say"),
  element("div", { className: "scrolled" }, table),
);
bench.append(
  element("div", { className: "tools" }, repaint, pair, keep),
  element("div", { className: "picture" }, ...figures, numbers, element("div", { className: "notes" }, sum, speed, about)),
);

let sliding = null;
const choosesModel = models.length
  ? slider("K", {
      min: 0,
      max: models.length - 1,
      step: 1,
      value: state.number,
      format: (i) => {
        const [title, codes] = [titled(models[i]), models[i].codes];
        return title.includes(String(codes)) ? title : `${grouped(codes)} · ${title}`;
      },
      onChange: (i) => {
        clearTimeout(sliding); // on its way to a model, the slider passes others
        sliding = setTimeout(() => {
          letGo();
          state.number = i;
          state.level = 0;
          refresh();
        }, 150);
      },
    })
  : "";
const several = models.length > 1;
if (choosesModel) choosesModel.querySelector("input").hidden = !several;

const sizes = choice("size", {
  options: SIZES.map((size) => [String(size), `size.${size}`]),
  value: String(state.megapixels),
  onChange: (value) => {
    letGo();
    state.megapixels = Number(value);
    state.photos = { first: null, second: null };
    state.results.clear();
    decoding.forget();
    refresh();
  },
});

const drop = element(
  "div",
  { className: "drop" },
  chooser("first"),
  words("p", "drop", "caption"),
);
document.body.replaceChildren(
  element(
    "header",
    {},
    switches("title"),
    words("p", "overline", "overline"),
    words("h1", "title"),
    words("p", "lede", "lede"),
    words("p", "private", "hands"),
  ),
  element(
    "main",
    {},
    element(
      "section",
      { className: "start", id: "start" },
      element("div", {}, words("h2", "start.title"), words("p", several ? "start.say" : "start.one", "say")),
      element("div", {}, drop, sizes, choosesModel, status, complaint),
    ),
    bench,
    compare,
  ),
  words("footer", "footer"),
);

for (const kind of ["dragover", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind === "drop") takeFiles([...event.dataTransfer.files], "first");
  });
}
document.addEventListener("dragleave", (event) => event.relatedTarget || drop.classList.remove("over"));
document.addEventListener("paste", (event) => takeFiles([...event.clipboardData.files], "first"));
document.addEventListener("keydown", (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.key !== "z" || event.shiftKey) return;
  event.preventDefault();
  undo();
});

inEveryLanguage(() => {
  tell(...remarks);
  complain(trouble);
  if (!shown()) return;
  palette.element.setAttribute("aria-label", text("palette"));
  palette.count(recounted);
  showChosen();
  showTools();
  showNumbers();
  showCaptions();
  if (at) look(at);
});
useTool("paint");
if (photos.length) takeExample(photos[0], "first");
else refresh();
globalThis.live = { state, shown, decoding, grid, refresh }; // what the tests compare with the library
