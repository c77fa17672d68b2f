// What a code looks like: the middle of the picture that the decoder makes of a grid full of it.

const TOKENS = 4096; // decoded at once, at most
const SIDE = 16; // positions of the coarsest level, of models that have several

export class Patches {
  known = new Map(); // by level and code: {data, channels, side}
  wanted = [];

  constructor(model, onPatch) {
    Object.assign(this, { model, onPatch });
  }

  key = (level, code) => `${level} ${code}`;

  /** Ask for codes of a level of a sheet; in its other levels stand their most frequent codes. */
  want(sheet, level, codes) {
    const missing = codes.filter((code) => !this.known.has(this.key(level, code)));
    this.wanted = missing.map((code) => ({ sheet, level, code }));
  }

  /** Decode some; false if there are none. */
  async some() {
    if (!this.wanted.length) return false;
    const { sheet, level } = this.wanted[0];
    const { model } = this;
    const side = model.local ? 2 * model.reach + 1 : null;
    let [height, width] = side ? [side * model.factor, side * model.factor] : [sheet.height, sheet.width];
    let dims = side ? [side, side, ...sheet.dims.slice(2)] : sheet.dims;
    const factors = [model.facts.downsampling ?? []].flat();
    if (!side && !model.size && factors.length > 1) {
      height = width = SIDE * Math.max(...factors);
      const positions = model.grids(height, width).reduce((sum, [rows, columns]) => sum + rows * columns, 0);
      dims = [positions, ...sheet.dims.slice(1)];
    }
    const length = dims.reduce((product, size) => product * size, 1);
    const batch = this.wanted.splice(0, side ? Math.max(1, Math.floor(TOKENS / length)) : 1);
    const levels = model.levels(dims, height, width);
    const indices = new BigInt64Array(batch.length * length);
    levels.forEach((each, number) => {
      const usual = number === level ? null : mostFrequent(sheet, number);
      batch.forEach(({ code }, i) => {
        for (let p = 0; p < each.rows * each.columns; p++) {
          indices[i * length + each.start + p * each.stride] = usual ?? code;
        }
      });
    });
    const found = await model.decode(indices, [batch.length, ...dims], height, width);
    const extent = [Math.round(height / levels[level].rows), Math.round(width / levels[level].columns)];
    const corner = extent.map((own, axis) => own * Math.floor([levels[level].rows, levels[level].columns][axis] / 2));
    const channels = model.channels;
    batch.forEach(({ code }, i) => {
      const data = new Float32Array(channels * extent[0] * extent[1]);
      for (let c = 0; c < channels; c++) {
        for (let y = 0; y < extent[0]; y++) {
          const from = ((i * channels + c) * found.height + corner[0] + y) * found.width + corner[1];
          data.set(found.data.subarray(from, from + extent[1]), (c * extent[0] + y) * extent[1]);
        }
      }
      const patch = { data, channels, height: extent[0], width: extent[1] };
      this.known.set(this.key(level, code), patch);
      this.onPatch(level, code, patch);
    });
    return true;
  }
}

function mostFrequent(sheet, level) {
  const { rows, columns } = sheet.levels[level];
  const found = new Map();
  for (let p = 0; p < rows * columns; p++) {
    const code = sheet.code(level, p);
    found.set(code, (found.get(code) ?? 0) + 1);
  }
  return [...found].reduce((most, each) => (each[1] > most[1] ? each : most))[0];
}
