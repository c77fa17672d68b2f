// The arithmetic of this page, and all of it: what Lexel's VectorQuantizer does, for vectors of two numbers.
//
// Points are rows of a Float32Array, [x0, y0, x1, y1, …], as Lexel's tensors are float32. Sums are taken in double and
// rounded when they are stored, so results agree with Lexel's to the rounding of float32. tests/play compares them.

export const D = 2;
const LEAST_LENGTH = 1e-6; // a shorter vector has no direction
const f32 = Math.fround;

/** Uniform numbers in [0, 1) from a seed: mulberry32 (Tommy Ettinger, 2017), the same in every browser. */
export function generator(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** `count` different numbers below `total`, in random order. */
export function pick(count, total, uniform) {
  const numbers = Array.from({ length: total }, (_, i) => i);
  for (let i = 0; i < count; i++) {
    const j = i + Math.floor(uniform() * (total - i));
    [numbers[i], numbers[j]] = [numbers[j], numbers[i]];
  }
  return numbers.slice(0, count);
}

/** Some of the rows. */
export function take(rows, numbers) {
  return Float32Array.from({ length: numbers.length * D }, (_, i) => rows[numbers[Math.floor(i / D)] * D + (i % D)]);
}

// The search

export function squaredDistance(a, i, b, j) {
  const x = a[i * D] - b[j * D];
  const y = a[i * D + 1] - b[j * D + 1];
  return x * x + y * y;
}

/** ‖z‖² + ‖e‖² − 2⟨z, e⟩ in float32, every operation rounded: what one matrix product computes for all pairs. */
export function expandedDistance(z, i, codes, k) {
  const product = (a, m, b, n) => f32(f32(a[m * D] * b[n * D]) + f32(a[m * D + 1] * b[n * D + 1]));
  return f32(f32(product(z, i, z, i) + product(codes, k, codes, k)) - f32(2 * product(z, i, codes, k)));
}

/** The index of the nearest code for each input; the lowest on a tie. */
export function nearest(z, codes, distance = squaredDistance) {
  return Int32Array.from({ length: z.length / D }, (_, i) => {
    let best = 0;
    for (let k = 1, least = distance(z, i, codes, 0); k < codes.length / D; k++) {
      const d = distance(z, i, codes, k);
      if (d < least) [best, least] = [k, d];
    }
    return best;
  });
}

// Usage

export function usageCounts(indices, K) {
  const counts = new Float32Array(K);
  for (const k of indices) counts[k]++;
  return counts;
}

/** exp(−Σ p log(p + 1e-10)): as evenly used as so many equally popular codes. */
export function perplexity(counts) {
  const total = Math.max(
    1,
    counts.reduce((a, b) => a + b, 0),
  );
  return f32(Math.exp(-counts.reduce((sum, n) => sum + (n / total) * Math.log(n / total + 1e-10), 0)));
}

// The losses and their gradients

/** Mean of (z − e)² over all elements: the value of the codebook loss and of the commitment loss alike. */
export function meanSquaredError(z, codes, indices) {
  let sum = 0;
  for (let i = 0; i < indices.length; i++) sum += squaredDistance(z, i, codes, indices[i]);
  return f32(sum / Math.max(1, z.length));
}

/**
 * What the two losses pull at: `codes` is the gradient of ‖sg[z] − e‖², `inputs` that of β ‖z − sg[e]‖².
 * A loss that is left out has the weight 0.
 */
export function lossGradients(z, codes, indices, { codebook = 1, commitment = 0.25 } = {}) {
  const gradients = { codes: new Float64Array(codes.length), inputs: new Float32Array(z.length) };
  indices.forEach((k, i) => {
    for (let d = 0; d < D; d++) {
      const pull = (2 / z.length) * (codes[k * D + d] - z[i * D + d]);
      gradients.codes[k * D + d] += codebook * pull;
      gradients.inputs[i * D + d] = -commitment * pull;
    }
  });
  return { codes: Float32Array.from(gradients.codes), inputs: gradients.inputs };
}

/**
 * The same if `e = z + sg[e − z]` comes before the losses. That e is the input plus a constant, so the codebook loss
 * reaches the input, and pushes it away; no path leads to the codes, whose gradient is null.
 */
export function swappedGradients(z, codes, indices, { codebook = 1, commitment = 0.25 } = {}) {
  return { codes: null, inputs: lossGradients(z, codes, indices, { commitment: commitment - codebook }).inputs };
}

/** One step of gradient descent, in place. */
export function descend(rows, gradient, rate) {
  for (let i = 0; i < rows.length; i++) rows[i] -= rate * gradient[i];
}

// Estimators: the gradient that an input gets for the one at its code

export function straightThrough(z, e, gradient) {
  return Float32Array.from(gradient);
}

/** The gradient turned and stretched as the input is to become its code (Fifty et al. 2024). */
export function rotationTrick(z, e, gradient) {
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1];
  const unit = (a) => Array.from(a, (x) => x / Math.max(Math.hypot(...a), 1e-12));
  const [zUnit, eUnit] = [unit(z), unit(e)];
  const r = unit([zUnit[0] + eUnit[0], zUnit[1] + eUnit[1]]);
  const stretch = Math.hypot(...z) > LEAST_LENGTH ? Math.hypot(...e) / Math.hypot(...z) : 1;
  const [alongR, alongE] = [dot(r, gradient), dot(eUnit, gradient)];
  return Float32Array.from(gradient, (g, d) => stretch * (g - 2 * r[d] * alongR + 2 * zUnit[d] * alongE));
}

// Learning without a gradient

/** Moving averages: N ← γN + (1 − γ)n, m ← γm + (1 − γ)Σz, e ← m / N̂. In place. */
export function averageStep(state, z, indices, { decay = 0.99, epsilon = 1e-5 } = {}) {
  const K = state.count.length;
  const sums = new Float64Array(K * D);
  indices.forEach((k, i) => {
    for (let d = 0; d < D; d++) sums[k * D + d] += z[i * D + d];
  });
  const mix = (old, now) => old + (1 - decay) * (now - old);
  const counts = usageCounts(indices, K);
  state.count.forEach((n, k) => (state.count[k] = mix(n, counts[k])));
  state.sum.forEach((m, j) => (state.sum[j] = mix(m, sums[j])));
  const total = state.count.reduce((a, b) => a + b, 0);
  state.count.forEach((n, k) => {
    const smoothed = ((n + epsilon) / (total + K * epsilon)) * total;
    for (let d = 0; d < D; d++) state.codes[k * D + d] = state.sum[k * D + d] / smoothed;
  });
}

/** Lloyd's iterations: each code becomes the mean of its inputs. A code without inputs stays. */
export function kmeans(z, codes, iterations) {
  const centres = Float32Array.from(codes);
  for (let turn = 0; turn < iterations; turn++) {
    const indices = nearest(z, centres);
    const counts = usageCounts(indices, centres.length / D);
    const sums = new Float64Array(centres.length);
    indices.forEach((k, i) => {
      for (let d = 0; d < D; d++) sums[k * D + d] += z[i * D + d];
    });
    sums.forEach((sum, j) => {
      const count = counts[Math.floor(j / D)];
      if (count) centres[j] = sum / count;
    });
  }
  return centres;
}

/** Codes to start from: different inputs, then ten of Lloyd's iterations. */
export function kmeansStart(z, K, uniform) {
  return kmeans(z, take(z, pick(K, z.length / D, uniform)), 10);
}

// Revival of dead codes (SoundStream), with Lexel's own choice of inputs

const PRIME = 2n ** 31n - 1n;

function randomInteger(counter, key) {
  let x = (((BigInt(counter) % PRIME) + 1n) * ((BigInt(key) % PRIME) + 12345n)) % PRIME;
  for (const multiplier of [48271n, 1583458089n, 784588716n]) x = ((x ^ (x >> 15n)) * multiplier) % PRIME;
  return x;
}

export const REVIVAL = { threshold: 0.01, decay: 0.9, seed: 0 };

/** Replace codes whose usage fell below the threshold by inputs of the batch; returns which, in order. */
export function revive(state, z, { threshold, seed } = REVIVAL) {
  const total = z.length / D;
  const turn = Number(randomInteger(state.turn, seed) % BigInt(Math.max(1, total)));
  state.turn += total > 0 ? 1 : 0;
  const dead = [...state.usage.keys()].filter((k) => state.usage[k] < f32(threshold)).slice(0, total);
  dead.forEach((k, place) => {
    const from = Math.floor((place * total + turn) / dead.length);
    state.usage[k] = 1;
    placeCode(state, k, z[from * D], z[from * D + 1]);
  });
  return dead;
}

/** Take note of how often each code was chosen in a step. */
function observe(state, counts, { decay } = REVIVAL) {
  const K = counts.length;
  const total = counts.reduce((a, b) => a + b, 0);
  const step = 1 - decay ** Math.min(1, total / K);
  counts.forEach((n, k) => (state.usage[k] += step * ((n * K) / Math.max(1, total) - state.usage[k])));
}

// Training

/** A codebook that has not been trained: all that a training step reads and writes. */
export function begin(codes) {
  const K = codes.length / D;
  return {
    codes: Float32Array.from(codes),
    count: new Float32Array(K).fill(1), // as if each code had been chosen once, by an input equal to itself
    sum: Float32Array.from(codes),
    usage: new Float32Array(K).fill(1),
    turn: 0,
  };
}

/** Put one code somewhere; its averages start afresh. */
export function placeCode(state, k, x, y) {
  state.codes.set([x, y], k * D);
  state.sum.set([x, y], k * D);
  state.count[k] = 1;
}

/**
 * One training step on a batch: upkeep, search, losses, and the codes move, by gradient or as averages.
 * Returns what the step saw: the losses and indices are those before the move.
 */
export function trainingStep(state, z, { learning = "gradient", rate = 1, decay, beta = 0.25, revival = null }) {
  const revived = revival ? revive(state, z, revival) : [];
  const indices = nearest(z, state.codes);
  const counts = usageCounts(indices, state.count.length);
  const error = meanSquaredError(z, state.codes, indices);
  const gradients = lossGradients(z, state.codes, indices, { commitment: beta });
  if (learning === "ema") averageStep(state, z, indices, { decay });
  else descend(state.codes, gradients.codes, rate);
  observe(state, counts, revival ?? REVIVAL);
  return { indices, counts, error, gradients, revived, perplexity: perplexity(counts) };
}
