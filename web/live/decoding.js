// The picture follows its tokens. WebAssembly runs on the page's own thread, so a large picture is decoded in parts, and
// between two of them the page can answer; what somebody paints comes first.

const CORES = [64, 32, 16]; // sides of the parts, in tokens
const BEARABLE = 250; // milliseconds for one part
const SMALL = 24; // strokes that fit into a square of this side are decoded together

const pause = () => new Promise((resolve) => setTimeout(resolve));
const area = ([left, top, right, bottom]) => (right - left) * (bottom - top);
const union = (one, other) => [
  Math.min(one[0], other[0]),
  Math.min(one[1], other[1]),
  Math.max(one[2], other[2]),
  Math.max(one[3], other[3]),
];

export class Decoding {
  queue = [];
  busy = false;

  /** `onPart(sheet, pixels)`: a rectangle is decoded; `spare`: does further work, if there is any, and says so. */
  constructor({ onPart, onDone, onError, spare }) {
    Object.assign(this, { onPart, onDone, onError, spare });
  }

  /** Decode what depends on these tokens, [left, top, right, bottom]; by default on all of them. */
  want(sheet, rectangle) {
    sheet.fresh = false;
    const { model, dims } = sheet;
    if (!model.local) {
      this.queue = this.queue.filter((job) => job.sheet !== sheet);
      this.queue.push({ sheet });
    } else {
      const [rows, columns] = dims;
      const around = rectangle && grown(rectangle, model.reach, rows, columns);
      const first = this.queue[0];
      if (!around) {
        this.queue = this.queue.filter((job) => job.sheet !== sheet);
        this.queue.push({ sheet, part: [0, 0, columns, rows] });
      } else if (first?.sheet === sheet && area(union(first.part, around)) <= SMALL ** 2) {
        first.part = union(first.part, around);
      } else {
        this.queue.unshift({ sheet, part: around });
      }
    }
    this.run();
  }

  forget() {
    this.queue = [];
  }

  /** Look for something to do. */
  async run() {
    if (this.busy) return;
    this.busy = true;
    try {
      for (;;) {
        await pause();
        const job = this.queue.shift();
        if (job) await this.do(job);
        else if (!(await this.spare()) && !this.queue.length) break;
      }
    } catch (error) {
      this.queue = [];
      this.onError(error);
    } finally {
      this.busy = false;
    }
  }

  async do({ sheet, part }) {
    const { model, dims, height, width } = sheet;
    if (!part) {
      const { data } = await model.decode(sheet.indices, [1, ...dims], height, width);
      sheet.decoded.set(data);
      this.onPart(sheet, [0, 0, width, height]);
    } else {
      const core = CORES.find((side) => model.milliseconds * (side / CORES[0]) ** 2 <= BEARABLE) ?? CORES.at(-1);
      const [left, top, right, bottom] = part;
      const own = [left, top, Math.min(left + core, right), Math.min(top + core, bottom)];
      const rest = [
        [own[2], top, right, own[3]],
        [left, own[3], right, bottom],
      ].filter((each) => area(each) > 0);
      this.queue.unshift(...rest.map((each) => ({ sheet, part: each })));
      this.onPart(sheet, await decodePart(sheet, own));
    }
    if (this.queue.some((job) => job.sheet === sheet)) return;
    sheet.fresh = true;
    this.onDone(sheet);
  }
}

const grown = ([left, top, right, bottom], by, rows, columns) => [
  Math.max(0, left - by),
  Math.max(0, top - by),
  Math.min(columns, right + by),
  Math.min(rows, bottom + by),
];

/** Decode some tokens with all that reach into them, and keep their own pixels; returns where these lie. */
async function decodePart({ model, indices, dims, height, width, decoded }, part) {
  const [rows, columns, ...inner] = dims;
  const count = inner.reduce((product, size) => product * size, 1);
  const f = model.factor;
  const [left, top, right, bottom] = grown(part, model.reach, rows, columns);
  const window = new BigInt64Array((bottom - top) * (right - left) * count);
  for (let y = top; y < bottom; y++) {
    const from = (y * columns + left) * count;
    window.set(indices.subarray(from, from + (right - left) * count), (y - top) * (right - left) * count);
  }
  const size = [Math.min(height, bottom * f) - top * f, Math.min(width, right * f) - left * f];
  const { data } = await model.decode(window, [1, bottom - top, right - left, ...inner], ...size);
  const own = [part[0] * f, part[1] * f, Math.min(width, part[2] * f), Math.min(height, part[3] * f)];
  for (let c = 0; c < model.channels; c++) {
    for (let y = own[1]; y < own[3]; y++) {
      const from = (c * size[0] + y - top * f) * size[1] - left * f;
      decoded.set(data.subarray(from + own[0], from + own[2]), (c * height + y) * width + own[0]);
    }
  }
  return own;
}
