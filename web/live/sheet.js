// The tokens of one photo by one model, what they were before somebody repainted them, and the picture decoded from them.

import { bits, counts, meanSquaredError, perplexity, psnr } from "./measure.js";

export class Sheet {
  /** Encode a photo; a model of one size gets it in this size. */
  static async of(model, photo) {
    const [height, width] = model.size ?? [photo.height, photo.width];
    const fitted = photo.covering(height, width);
    const pixels = fitted.pixels(model.channels);
    const { indices, dims } = await model.encode(pixels, height, width);
    return new Sheet(model, fitted, pixels, indices, dims);
  }

  constructor(model, photo, pixels, indices, dims) {
    Object.assign(this, { model, photo, pixels, dims, indices, original: indices.slice() });
    this.height = photo.height;
    this.width = photo.width;
    this.levels = model.levels(dims, this.height, this.width);
    this.decoded = new Float32Array(pixels.length);
    this.fresh = false; // whether `decoded` is what the tokens say
  }

  code(level, position) {
    const { start, stride } = this.levels[level];
    return this.indices[start + position * stride];
  }

  /** Levels whose grids are that of this one: what stands at a place is the tokens of all of them. */
  beside(level) {
    const { rows, columns } = this.levels[level];
    return this.levels.filter((each) => each.rows === rows && each.columns === columns);
  }

  figures(level) {
    const error = meanSquaredError(this.pixels, this.decoded);
    const found = this.levels.length ? counts(this.indices, this.levels[level]) : new Map();
    return {
      error,
      psnr: psnr(error),
      bits: bits(this.levels),
      pixelBits: this.height * this.width * 8 * this.model.channels,
      tokens: this.levels.reduce((sum, { rows, columns }) => sum + rows * columns, 0),
      perplexity: perplexity(found),
      used: found.size,
      codes: this.levels[level]?.codes,
    };
  }
}

/** Tokens that change together, and how to take the change back. */
export class Edit {
  before = new Map(); // of each sheet, by index

  set(sheet, index, code) {
    if (sheet.indices[index] === code) return false;
    if (!this.before.has(sheet)) this.before.set(sheet, new Map());
    const own = this.before.get(sheet);
    if (!own.has(index)) own.set(index, sheet.indices[index]);
    sheet.indices[index] = code;
    return true;
  }

  undo() {
    for (const [sheet, own] of this.before) for (const [index, code] of own) sheet.indices[index] = code;
  }
}
