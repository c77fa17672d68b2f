// A model: its two graphs, where its tokens lie, and how far the decoder carries the change of one token.

import { Complaint } from "./complaint.js";
import { fetched } from "./scripts.js";

const TRIALS = [17, 33]; // sides of the grids on which the reach is measured
const TIMED = 64; // tokens in a row and in a column of the grid whose decoding is timed

export async function runtime() {
  if (typeof WebAssembly === "undefined") throw new Complaint("runtime.off");
  // It is the largest script and comes last, so that the page is there while it is on its way.
  if (!globalThis.lexelRuntime && document.readyState !== "complete") {
    await new Promise((resolve) => addEventListener("load", resolve, { once: true }));
  }
  if (!globalThis.lexelRuntime) throw new Complaint("runtime.missing");
  try {
    return await globalThis.lexelRuntime.ready;
  } catch {
    throw new Complaint("runtime.broken");
  }
}

/** Load a model of the folder, and learn what the page must know of it. */
export async function load(entry, onDelay) {
  const ort = await runtime();
  const { facts, encoder, decoder } = (await fetched("model", { ...entry, source: entry.script }, onDelay)) ?? {};
  const title = entry.title;
  let found;
  try {
    const [first, second] = [await sound(encoder, facts.encoder), await sound(decoder, facts.decoder)];
    found = new Model(ort, facts, await start(ort, first), await start(ort, second));
    await found.probe();
  } catch (error) {
    throw new Complaint("model.damaged", { title, reason: String(error) });
  }
  return found;
}

// Further optimization moves axes so that a bicubic Resize, which some quantizers have, does not run any more.
const SETTINGS = { executionProviders: ["wasm"], graphOptimizationLevel: "basic", logSeverityLevel: 4 };

const start = (ort, bytes) => ort.InferenceSession.create(bytes, SETTINGS);

/** The bytes of a graph, if they are those that were exported; only a page from a safe place can compute that. */
async function sound(text, { sha256 }) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  if (!globalThis.crypto?.subtle || !sha256) return bytes;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const written = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (written !== sha256) throw new Error(`SHA-256 ${written}`);
  return bytes;
}

export class Model {
  constructor(ort, facts, encoder, decoder) {
    Object.assign(this, { ort, facts, encoder, decoder });
    const [image] = facts.encoder.inputs;
    const [, channels, height, width] = image.shape;
    this.channels = channels;
    this.size = Number.isInteger(height) ? [height, width] : null; // of all images, where it takes one size
    this.grid = facts.decoder.inputs[0].shape; // of the indices
    this.local = false;
  }

  async encode(pixels, height, width) {
    const [{ name }] = this.facts.encoder.inputs;
    const images = new this.ort.Tensor("float32", pixels, [1, this.channels, height, width]);
    const found = (await this.encoder.run({ [name]: images }))[this.facts.encoder.outputs[0].name];
    return { indices: BigInt64Array.from(found.data), dims: found.dims.slice(1) };
  }

  /** Images (batch, channels, height, width), of indices (batch, …dims). */
  async decode(indices, dims, height, width) {
    const [first, ...sizes] = this.facts.decoder.inputs;
    const feeds = { [first.name]: new this.ort.Tensor("int64", indices, dims) };
    for (const { name } of sizes) {
      feeds[name] = new this.ort.Tensor("int64", [BigInt(name === "height" ? height : width)], []);
    }
    const found = (await this.decoder.run(feeds))[this.facts.decoder.outputs[0].name];
    return { data: found.data, height: found.dims[2], width: found.dims[3] };
  }

  /**
   * The levels of the tokens of an image: each is a grid, and the token of its position p has the index
   * `start + p · stride`. Empty, where nothing says how they lie.
   */
  levels(dims, height, width) {
    const sizes = this.facts.codebook_sizes;
    const same = (grid) => dims[0] === grid[0] && dims[1] === grid[1];
    const grids = this.grid[1] === "rows" ? [dims] : (this.facts.grids ?? this.grids(height, width));
    const flat = !same(grids[0] ?? []);
    const inner = dims.slice(flat ? 1 : 2).reduce((product, size) => product * size, 1); // indices of a position
    const positions = grids.reduce((sum, [rows, columns]) => sum + rows * columns, 0);
    if (flat && positions !== dims[0]) return [];
    let before = 0;
    return grids.flatMap(([rows, columns]) => {
      const first = before * inner;
      before += rows * columns;
      return Array.from({ length: inner }, (_, place) => ({
        rows,
        columns,
        start: first + place,
        stride: inner,
        codes: sizes[place] ?? sizes[0],
      }));
    });
  }

  /** The grids of a model of several levels, from the factor by which each of them is smaller than the image. */
  grids(height, width) {
    const factors = [this.facts.downsampling ?? []].flat();
    const most = Math.max(...factors);
    const whole = (side) => Math.ceil(side / most) * most;
    return factors.map((factor) => [whole(height) / factor, whole(width) / factor]);
  }

  /**
   * Learn the pixels of a token, whether and how far the decoder carries the change of a token (`reach`, in tokens), so
   * that a part of the picture can be decoded alone, and how long a decoding takes.
   */
  async probe() {
    if (this.size || this.grid[1] !== "rows") return;
    const inner = this.grid.slice(3);
    const one = await this.decode(this.draw(1, 1), [1, 1, 1, ...inner], 1 << 12, 1 << 12);
    this.factor = one.height;
    for (const side of TRIALS) {
      this.reach = await this.measureReach(side, inner);
      this.local = this.reach < (side - 1) / 2;
      if (this.local) break;
    }
    const begun = performance.now();
    await this.decode(this.draw(TIMED * TIMED, 2), [1, TIMED, TIMED, ...inner], TIMED * this.factor, TIMED * this.factor);
    this.milliseconds = performance.now() - begun;
  }

  /**
   * How far from a border pixels change when all tokens beyond it do: from all four sides, on tokens without an order.
   * A single token would not do, since a unit of the network may be silent just where it lies.
   */
  async measureReach(side, inner) {
    const count = inner.reduce((product, size) => product * size, 1);
    const middle = (side - 1) / 2;
    const beyond = [(x) => middle - x, (x) => x - middle, (x, y) => middle - y, (x, y) => y - middle];
    const extent = side * this.factor;
    let reach = 0;
    for (const seed of [1, 2]) {
      const [grid, other] = [this.draw(side * side, seed), this.draw(side * side, seed + 100)];
      const indices = new BigInt64Array((beyond.length + 1) * grid.length);
      indices.set(grid);
      beyond.forEach((distance, i) => {
        const changed = grid.map((code, at) => {
          const position = Math.floor(at / count);
          return distance(position % side, Math.floor(position / side)) > 0 ? code : other[at];
        });
        indices.set(changed, (i + 1) * grid.length);
      });
      const { data } = await this.decode(indices, [beyond.length + 1, side, side, ...inner], extent, extent);
      const size = data.length / (beyond.length + 1);
      beyond.forEach((distance, i) => {
        for (let at = 0; at < size; at++) {
          if (data[at] === data[(i + 1) * size + at]) continue;
          const [x, y] = [at % extent, Math.floor((at % (extent * extent)) / extent)];
          reach = Math.max(reach, distance(Math.floor(x / this.factor), Math.floor(y / this.factor)));
        }
      });
    }
    return reach;
  }

  /** Indices of so many positions, without an order that one could see, and always the same. */
  draw(positions, seed) {
    const sizes = this.facts.codebook_sizes;
    const count = this.grid.slice(3).reduce((product, size) => product * size, 1);
    return BigInt64Array.from({ length: positions * count }, (_, i) => {
      const mixed = Math.imul(i + 1, 0x9e3779b1) ^ Math.imul(seed, 0x85ebca6b);
      return BigInt((Math.imul(mixed ^ (mixed >>> 15), 0xc2b2ae35) >>> 1) % (sizes[i % count] ?? sizes[0]));
    });
  }
}
