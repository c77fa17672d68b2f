// Packing: rows and codes are centred and scaled, written in the words of a mode, and given what the bound needs.
#pragma once
#include <cmath>
#include <cstring>

#include "bound.h"
#include "exact.h"

namespace lexel {
namespace {

// Row -> v, centred and scaled. Returns false if a number is not finite; *norm2 is then anything, and it is inf or NaN
// if the row is too long for the first pass.
bool prepare_row(const Problem& P, int64_t row, float* v, float* norm2) {
    const float* x = P.x + row * P.xrow;
    const int d = P.d;
    float sum = 0, bad = 0;
    if (P.xcol != 1) {
        for (int i = 0; i < d; i++) v[i] = x[i * P.xcol];
        x = v;
    }
    if (P.metric == EUCLIDEAN) {
        const float* c = P.centre;
        const float scale = P.scale;
#pragma omp simd reduction(+ : sum, bad)
        for (int i = 0; i < d; i++) {
            bad += x[i] * 0.0f;
            v[i] = (x[i] - c[i]) * scale;
            sum += v[i] * v[i];
        }
    } else {  // the order of a row's scores does not depend on its length
        float top = 0;
        for (int i = 0; i < d; i++) {
            bad += x[i] * 0.0f;
            top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
        }
        int e = 0;
        frexpf(top, &e);
        e = e < -126 ? -126 : e > 126 ? 126 : e;
        const float scale = ldexpf(1.0f, -e);
#pragma omp simd reduction(+ : sum)
        for (int i = 0; i < d; i++) {
            v[i] = x[i] * scale;
            sum += v[i] * v[i];
        }
    }
    *norm2 = sum;
    return bad == 0;
}

// A code that is ready to be packed.
struct ReadyCode {
    double norm2;  // the squared norm of its numbers
    double raw2;   // the decision rounds relative to the root of this
    bool finite;
};

// The i-th code -> v: centred and scaled, or of length 1 for cosines. `raw` is d floats of scratch.
ReadyCode prepare_code(const Problem& P, int64_t i, float* raw, float* v) {
    const int d = P.d;
    const float* e = code_row(P, i, raw);
    ReadyCode code = {0, 1, true};
    if (P.metric == COSINE) {
        double length = root(dot_exactly(e, e, d)), inverse = length > 0 ? 1 / length : 0;
        if (!(length < 1e300)) code.finite = false;
        for (int t = 0; t < d; t++) v[t] = float(e[t] * inverse);
    } else {
        float bad = 0;
#pragma omp simd reduction(+ : bad)
        for (int t = 0; t < d; t++) {
            bad += e[t] * 0.0f;
            v[t] = (e[t] - P.centre[t]) * P.scale;
        }
        if (bad != 0) code.finite = false;
        if (P.metric == DOT) code.raw2 = dot_exactly(e, e, d) * P.scale * P.scale;
    }
    code.norm2 = dot_exactly(v, v, d);
    return code;
}

// The same problem with the code `anchor` for its centre; `buffer` is d floats of scratch.
Problem around(Problem P, int64_t anchor, float* buffer) {
    P.centre = code_row(P, anchor, buffer);
    return P;
}
// Writes the words of the j-th code of a group where the first pass expects them: beside those of its neighbours for
// multiply-adds, in rows of 16 words for tiles.
void place_code(Mode mode, const uint32_t* line, int64_t words, int j, uint32_t* out) {
    if (mode == F32 || mode == PAIRS)
        for (int64_t t = 0; t < words; t++) out[t * GROUP + j] = line[t];
    else
        for (int64_t t = 0; t < words / 16; t++) memcpy(out + t * 256 + j * 16, line + t * 16, 64);
}

// Three vectors of d floats and the words of a code.
int64_t pack_scratch_bytes(Mode mode, int d) { return 4 * (3 * int64_t(d) + words_of(mode, d)); }

bool pack(const Problem& whole, Mode mode, int64_t g, int64_t anchor, char* panel, char* scratch) {
    const int d = whole.d;
    const int64_t words = words_of(mode, d);
    float *v = reinterpret_cast<float*>(scratch), *raw = v + d, *centre = raw + d;
    uint32_t* line = reinterpret_cast<uint32_t*>(centre + d);
    const Problem P = anchor < 0 ? whole : around(whole, anchor, centre);
    Head* head = reinterpret_cast<Head*>(panel);
    float norm = 0, residue = 0, far = 0;
    bool finite = true;
    for (int j = 0; j < GROUP; j++) {
        const int64_t i = g * GROUP + j;
        float bias = LOWEST_BIAS;
        if (i < P.k) {
            ReadyCode code = prepare_code(P, i, raw, v);
            finite &= code.finite;
            if (!(code.norm2 < double(HUGE_NORM) * HUGE_NORM)) {  // the whole group is always in doubt
                far = INFINITY;
                code.norm2 = 0;
                memset(v, 0, 4 * size_t(d));
            }
            if (!(far > 0 && code.norm2 == 0)) bias = P.metric == EUCLIDEAN ? float(-0.5 * code.norm2) : 0.0f;
            const float length = norm_above(float(code.norm2), d);
            const float rest2 = pack_words(mode, true, v, d, bias, line);
            const float r = code_residue(mode, d, length, rest2, float(root(code.raw2)));
            if (length > norm) norm = length;
            if (r > residue) residue = r;
        } else {
            memset(v, 0, 4 * size_t(d));
            pack_words(mode, true, v, d, bias, line);
        }
        head->bias[j] = bias;
        place_code(mode, line, words, j, reinterpret_cast<uint32_t*>(panel + sizeof(Head)));
    }
    head->norm = norm;
    head->residue = residue;
    head->constant = group_constant(mode, d, norm, far);
    return finite;
}

// Turns LANES rows of `words` words into `words` vectors of LANES rows, `step` words apart.
void transpose(const uint32_t* in, int64_t words, uint32_t* out, int64_t step) {
    int64_t t = 0;
#if LEXEL_LANES == 16
    for (; t + 16 <= words; t += 16) {
        __m512i a[16], b[16];
        for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(in + i * words + t);
        for (int i = 0; i < 16; i += 2) {
            b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
            b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
        }
        for (int i = 0; i < 16; i += 4)
            for (int j = 0; j < 2; j++) {
                a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + j + 2]);
                a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + j + 2]);
            }
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < 2; j++) {
                b[i + 8 * j] = _mm512_shuffle_i32x4(a[i + 8 * j], a[i + 8 * j + 4], 0x88);
                b[i + 8 * j + 4] = _mm512_shuffle_i32x4(a[i + 8 * j], a[i + 8 * j + 4], 0xdd);
            }
        for (int i = 0; i < 8; i++) {
            _mm512_storeu_si512(out + (t + i) * step, _mm512_shuffle_i32x4(b[i], b[i + 8], 0x88));
            _mm512_storeu_si512(out + (t + i + 8) * step, _mm512_shuffle_i32x4(b[i], b[i + 8], 0xdd));
        }
    }
#endif
    for (; t < words; t++)
        for (int j = 0; j < LANES; j++) out[t * step + j] = in[j * words + t];
}

}  // namespace
}  // namespace lexel
