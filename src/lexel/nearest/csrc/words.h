// How a row or a code is written for each mode of the first pass: in 32-bit words, each of them one float32 number or
// two bf16 numbers.
#pragma once
#include <cstring>

#include "level.h"

namespace lexel {
namespace {

int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

// The words of one row or code.
int64_t words_of(Mode mode, int d) {
    switch (mode) {
        case PAIRS: return (d + 1) / 2;
        case SINGLE: return round_up(d, 32) / 2;
        case SPLIT: return round_up(d, 32);
        case JOINT: return round_up(3 * d + 3, 32) / 2;
        default: return d;
    }
}
int64_t row_bytes(Mode mode, int d) { return words_of(mode, d) * 4; }
int64_t panel_bytes(Mode mode, int d) { return round_up(sizeof(Head) + words_of(mode, d) * 4 * GROUP, 64); }

uint16_t to_bf16(float a) {  // nearest even; never flushes
    uint32_t u;
    memcpy(&u, &a, 4);
    return uint16_t((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
float from_bf16(uint16_t h) {
    uint32_t u = uint32_t(h) << 16;
    float a;
    memcpy(&a, &u, 4);
    return a;
}

// Writes v rounded to bf16 into hi and, unless lo is null, what that rounding left, rounded likewise, into lo. Returns
// the squared norm of what remains.
float round_to_bf16(const float* v, int d, uint16_t* hi, uint16_t* lo) {
    float rest = 0;
    if (!lo) {
#pragma omp simd reduction(+ : rest)
        for (int i = 0; i < d; i++) {
            hi[i] = to_bf16(v[i]);
            float r = v[i] - from_bf16(hi[i]);
            rest += r * r;
        }
    } else {
#pragma omp simd reduction(+ : rest)
        for (int i = 0; i < d; i++) {
            hi[i] = to_bf16(v[i]);
            float r = v[i] - from_bf16(hi[i]);
            lo[i] = to_bf16(r);
            r -= from_bf16(lo[i]);
            rest += r * r;
        }
    }
    return rest;
}

// Writes the words of one row or code. Returns the squared norm of what they leave out.
float pack_words(Mode mode, bool code, const float* v, int d, float bias, uint32_t* out) {
    if (mode == F32) {
        memcpy(out, v, 4 * size_t(d));
        return 0;
    }
    uint16_t* h = reinterpret_cast<uint16_t*>(out);
    int64_t size = 2 * words_of(mode, d);
    if (mode != JOINT) {
        int64_t part = mode == SPLIT ? size / 2 : size;
        for (int64_t i = d; i < part; i++) h[i] = 0;
        if (mode == SPLIT)
            for (int64_t i = part + d; i < size; i++) h[i] = 0;
        return round_to_bf16(v, d, h, mode == SPLIT ? h + part : nullptr);
    }
    // A row is laid out as hi hi lo 1 1 1, a code as hi lo hi and its bias in three pieces.
    float rest = round_to_bf16(v, d, h, code ? h + d : h + 2 * d);
    memcpy(code ? h + 2 * d : h + d, h, 2 * size_t(d));
    for (int i = 3 * d; i < 3 * d + 3; i++) {
        h[i] = code ? to_bf16(bias) : 0x3f80;
        bias -= from_bf16(h[i]);
    }
    for (int64_t i = 3 * d + 3; i < size; i++) h[i] = 0;
    return rest;
}

const char* panel_of(const Panels& panels, int64_t g) { return panels.data + (g - panels.begin) * panels.stride; }

}  // namespace
}  // namespace lexel
