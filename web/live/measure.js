// What is measured, as Lexel measures it.

/** Mean squared error of pixels in [0, 1]. */
export function meanSquaredError(one, other) {
  let sum = 0;
  for (let i = 0; i < one.length; i++) sum += (one[i] - other[i]) ** 2;
  return sum / one.length;
}

/** Peak signal-to-noise ratio in dB; at most 100, for equal pictures. */
export const psnr = (error) => -10 * Math.log10(Math.max(error, 1e-10));

/** How often each code stands in a level of the tokens, by code. */
export function counts(indices, { rows, columns, start, stride }) {
  const found = new Map();
  for (let p = 0; p < rows * columns; p++) {
    const code = indices[start + p * stride];
    found.set(code, (found.get(code) ?? 0) + 1);
  }
  return found;
}

/** How many codes, all used alike, would be as varied as these. */
export function perplexity(found) {
  const total = [...found.values()].reduce((sum, count) => sum + count, 0);
  let entropy = 0;
  for (const count of found.values()) entropy -= (count / total) * Math.log(count / total);
  return Math.exp(entropy);
}

/** Bits of all tokens, each of log2 K. */
export const bits = (levels) =>
  levels.reduce((sum, { rows, columns, codes }) => sum + rows * columns * Math.log2(codes), 0);
