// The bound on the error of the first pass: |s' - s| <= p*norm + q*residue + r + constant, where (p, q, r) belong to the
// row and (norm, residue, constant) to the group. docs/nearest-code-search.md derives every term; the numbers in the
// comments below are its steps.
#pragma once
#include <cmath>

#include "words.h"

namespace lexel {
namespace {

constexpr float U = 5.9604645e-8f;       // 2^-24: the rounding of a float32 operation
constexpr float U64 = 1.2e-16f;          // above 2^-53: the rounding of a float64 operation
constexpr float LOW_PRODUCT = 1.53e-5f;  // above 2^-16: the product lo*lo, relative to the norms
constexpr float FLUSHED = 1e-35f;        // what a term may lose where the processor takes tiny numbers for zero
constexpr float SMALLEST = 1.2e-38f;     // above 2^-126, below which float32 loses digits
constexpr float PAD = 1.02f;             // covers the rounding of the bounds themselves, and factors (1 + 2^-8)
constexpr float HUGE_NORM = 1.1e12f;     // 2^40: beyond it a row or code is left to the exact arithmetic
constexpr float LOWEST_BIAS = -1.3e30f;  // a score below any real one, for the codes that fill up the last group

// How many roundings a term of the first pass goes through, at most (step 4).
float roundings(Mode mode, int d) {
    switch (mode) {
        case SINGLE: return 34 + words_of(mode, d) / 16;  // a chain inside each tile operation, then one addition each
        case SPLIT: return 34 + words_of(mode, d) / 16 * 3 / 2;
        case JOINT: return 34 + words_of(mode, d) / 16;
        default: return 2 * d + 4;  // a chain; 2 for the level that has no fused multiply-add
    }
}

// The rounding of the decision's float64 sums (step 7).
float decision_rounding(int d) { return float(d + 8) * U64; }

// An upper bound of a norm from the computed sum of squares: squares below the smallest normal number may be lost.
float norm_above(float squares, int d) { return sqrtf(squares + float(d) * SMALLEST) * 1.002f; }

struct RowBound {
    float p, q, r;
};

// The row's part, from its squared norm and from that of what packing left out of it.
RowBound row_bound(const Problem& P, Mode mode, float norm2, float rest2) {
    const float norm = norm_above(norm2, P.d), gamma = roundings(mode, P.d) * U;
    const float eps = decision_rounding(P.d);
    return {PAD * (norm_above(rest2, P.d) + (gamma + U) * norm), PAD * norm,
            P.metric == EUCLIDEAN ? PAD * 2 * eps * norm * norm : 0};
}

// A code's part: the norm of what packing (step 2), centring (1), the decision (7) and flushing (6) take away from it,
// and of the product lo*lo that SPLIT and JOINT leave out (3). `length` bounds its norm, `rest2` is the squared norm of
// what packing left out, and the decision rounds relative to `raw_norm`.
float code_residue(Mode mode, int d, float length, float rest2, float raw_norm) {
    float r = norm_above(rest2, d) + U * length + decision_rounding(d) * raw_norm + float(d) * FLUSHED;
    if (mode == SPLIT || mode == JOINT) r += length * LOW_PRODUCT;
    return r;
}

// A group's part that no factor of the row goes with; `far` is infinite if a code is longer than HUGE_NORM.
float group_constant(Mode mode, int d, float norm, float far) {
    const float gamma = roundings(mode, d) * U;
    return far + PAD * norm * norm * (0.5f * gamma + 4 * U + 2 * decision_rounding(d)) +
           float(d) * FLUSHED * (1 + norm);
}

}  // namespace
}  // namespace lexel
