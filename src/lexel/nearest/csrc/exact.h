// True scores, in float64: eight partial sums and a fixed tree, so that every level computes the same bits.
#pragma once
#include <cstring>

#include "level.h"
#include "simd.h"

namespace lexel {
namespace {

// The number, in the caller's codebook, of the i-th code that is searched.
int64_t code_id(const Problem& P, int64_t i) { return P.ids ? P.ids[i] : i; }

// The i-th code that is searched; it is gathered into `buffer` where its numbers do not lie side by side.
const float* code_row(const Problem& P, int64_t i, float* buffer) {
    const float* e = P.codes + code_id(P, i) * P.crow;
    if (P.ccol == 1) return e;
    for (int t = 0; t < P.d; t++) buffer[t] = e[t * P.ccol];
    return buffer;
}

// A row of x as it came, likewise.
const float* raw_row(const Problem& P, int64_t row, float* buffer) {
    const float* x = P.x + row * P.xrow;
    if (P.xcol == 1) return x;
    for (int t = 0; t < P.d; t++) buffer[t] = x[t * P.xcol];
    return buffer;
}

typedef double Double8 __attribute__((vector_size(64)));
typedef float Float8 __attribute__((vector_size(32)));

// The sum over i of one(i); eight(i) holds the terms i .. i + 7.
template <class Eight, class One>
double ordered_sum(int d, Eight eight, One one) {
    Double8 acc = {0, 0, 0, 0, 0, 0, 0, 0};
    int i = 0;
    for (; i + 8 <= d; i += 8) acc += eight(i);
    double a[8];
    memcpy(a, &acc, 64);
    for (int j = 0; i < d; i++, j++) a[j] += one(i);
    return ((a[0] + a[1]) + (a[2] + a[3])) + ((a[4] + a[5]) + (a[6] + a[7]));
}
Double8 wide(const float* p) {
#if LEXEL_LANES == 16
    return _mm512_cvtps_pd(_mm256_loadu_ps(p));  // gcc converts by halves
#else
    Float8 f;
    memcpy(&f, p, 32);
    return __builtin_convertvector(f, Double8);
#endif
}
double dot_exactly(const float* a, const float* b, int d) {
    return ordered_sum(
        d, [=](int i) { return wide(a + i) * wide(b + i); }, [=](int i) { return double(a[i]) * double(b[i]); });
}
double square_exactly(const float* a, const float* b, int d) {
    return ordered_sum(
        d,
        [=](int i) {
            Double8 t = wide(a + i) - wide(b + i);
            return t * t;
        },
        [=](int i) {
            double t = double(a[i]) - double(b[i]);
            return t * t;
        });
}
double root(double a) { return __builtin_sqrt(a); }

// The true score in double, larger is nearer: -|x - e|^2, <x, e>, or <x, e> / |e|.
double true_score(const Problem& P, const float* x, const float* e) {
    if (P.metric == EUCLIDEAN) return -square_exactly(x, e, P.d);
    double dot = dot_exactly(x, e, P.d);
    if (P.metric == DOT) return dot;
    double norm = root(dot_exactly(e, e, P.d));
    return norm > 0 ? dot / norm : 0.0;
}

}  // namespace
}  // namespace lexel
