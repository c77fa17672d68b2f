// One level of the nearest-code search: packing, the first pass, and the decision. Compiled once for each instruction
// set (LEXEL_LEVEL names the table it exports); only static functions and no C++ library templates, so that the linker
// cannot merge code built for a newer processor into an older path. Built with -ffp-contract=off: a multiplication
// and an addition are one operation only where the source says fma, so every level decides with the same arithmetic.
//
// Scores. A row x and a code w (centred, scaled) score s = <x, w> - |w|^2 / 2 (without the last term for cosine and dot
// products); the nearest code has the largest. The first pass computes s inexactly and keeps, for 16 codes at a time,
// only their best. docs/nearest-code-search.md derives the bound |s' - s| <= p*norm + q*residue + constant + r with
// (p, q, r) of the row and (norm, residue, constant) of the group.
//
// Layout. Rows lie across vector lanes, codes in the unrolled dimension: the best of a group is then a vertical
// maximum, for as many rows at once as there are lanes, and the running best of those rows is one register.
#include "nearest.h"

#include <cmath>
#include <cstring>

#include "simd.h"

namespace lexel {
namespace {

constexpr int LANES = LEXEL_LANES;
constexpr float U = 5.9604645e-8f;      // 2^-24: float32 rounding
constexpr float PAD = 1.02f;            // covers the rounding of the bounds themselves, and factors (1 + 2^-8)
constexpr float HUGE_NORM = 1.1e12f;    // 2^40: beyond it a row or code is left to the exact arithmetic
constexpr float LOWEST_BIAS = -1.3e30f; // a score below any real one, for the codes that fill up the last group

int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

// 32-bit words of one packed row or code.
int64_t words_of(int mode, int d) {
    switch (mode) {
        case PAIRS: return (d + 1) / 2;
        case SINGLE: return round_up(d, 32) / 2;
        case SPLIT: return round_up(d, 32);
        case JOINT: return round_up(3 * d + 3, 32) / 2;
        default: return d;
    }
}
int64_t row_bytes(int mode, int d) { return words_of(mode, d) * 4; }
int64_t panel_bytes(int mode, int d) { return round_up(sizeof(Head) + words_of(mode, d) * 4 * GROUP, 64); }

// How many roundings a term of the first pass goes through, at most.
float roundings(int mode, int d) {
    switch (mode) {
        case SINGLE: return 34 + words_of(mode, d) / 16;  // a chain inside each tile operation, then one addition each
        case SPLIT: return 34 + words_of(mode, d) / 16 * 3 / 2;
        case JOINT: return 34 + words_of(mode, d) / 16;
        default: return 2 * d + 4;  // a chain; 2 for the level that has no fused multiply-add
    }
}

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

// Rounds v to bf16: hi[i], and if lo is given what is left of it: lo[i]. Returns the squared norm of what neither holds.
float halve(const float* v, int d, uint16_t* hi, uint16_t* lo) {
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

// Writes the words of one row or code; returns the squared norm of what they leave out.
float pack_words(int mode, bool code, const float* v, int d, float bias, uint32_t* out) {
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
        return halve(v, d, h, mode == SPLIT ? h + part : nullptr);
    }
    // rows: hi hi lo 1 1 1; codes: hi lo hi and the bias in three pieces
    float rest = halve(v, d, h, code ? h + d : h + 2 * d);
    memcpy(code ? h + 2 * d : h + d, h, 2 * size_t(d));
    for (int i = 3 * d; i < 3 * d + 3; i++) {
        h[i] = code ? to_bf16(bias) : 0x3f80;
        bias -= from_bf16(h[i]);
    }
    for (int64_t i = 3 * d + 3; i < size; i++) h[i] = 0;
    return rest;
}

// An upper bound of a norm from the computed sum of squares: squares below the smallest normal number may be lost.
float norm_above(float squares, int d) { return sqrtf(squares + float(d) * 1.2e-38f) * 1.002f; }

struct RowBound {
    float p, q, r;
};

// Row -> v (centred and scaled). Returns false if not finite. norm2 is inf if the row is too long for the first pass.
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

RowBound row_bound(const Problem& P, int mode, float norm2, float rest2) {
    const float norm = norm_above(norm2, P.d), gamma = roundings(mode, P.d) * U;
    const float eps = float(P.d + 8) * 1.2e-16f;
    return {PAD * (norm_above(rest2, P.d) + (gamma + U) * norm), PAD * norm,
            P.metric == EUCLIDEAN ? PAD * 2 * eps * norm * norm : 0};
}

int64_t code_id(const Problem& P, int64_t i) { return P.ids ? P.ids[i] : i; }

const float* code_row(const Problem& P, int64_t i, float* buffer) {
    const float* e = P.codes + code_id(P, i) * P.crow;
    if (P.ccol == 1) return e;
    for (int t = 0; t < P.d; t++) buffer[t] = e[t * P.ccol];
    return buffer;
}

typedef double Double8 __attribute__((vector_size(64)));
typedef float Float8 __attribute__((vector_size(32)));

// Sum over i of term(i) in double: eight partial sums and a fixed tree, the same on every level.
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

// P with the code `anchor` for its centre.
Problem around(Problem P, int64_t anchor, float* buffer) {
    P.centre = code_row(P, anchor, buffer);
    return P;
}

bool pack(const Problem& whole, int mode, int64_t g, int64_t anchor, char* panel, float* scratch) {
    const int d = whole.d;
    const int64_t words = words_of(mode, d);
    float *v = scratch, *raw = v + d, *centre = raw + d;
    const Problem P = anchor < 0 ? whole : around(whole, anchor, centre);
    uint32_t* line = reinterpret_cast<uint32_t*>(centre + d);
    Head* head = reinterpret_cast<Head*>(panel);
    uint32_t* out = reinterpret_cast<uint32_t*>(panel + sizeof(Head));
    const float gamma = roundings(mode, d) * U, eps = float(d + 8) * 1.2e-16f;
    float norm = 0, residue = 0, far = 0;
    bool finite = true;
    for (int j = 0; j < GROUP; j++) {
        int64_t i = g * GROUP + j;
        float bias = LOWEST_BIAS, rest2 = 0;
        double norm2 = 0;
        if (i < P.k) {
            const float* e = code_row(P, i, raw);
            double raw2 = 1;
            if (P.metric == COSINE) {
                double length = root(dot_exactly(e, e, d)), inverse = length > 0 ? 1 / length : 0;
                if (!(length < 1e300)) finite = false;
                for (int t = 0; t < d; t++) v[t] = float(e[t] * inverse);
            } else {
                float bad = 0;
#pragma omp simd reduction(+ : bad)
                for (int t = 0; t < d; t++) {
                    bad += e[t] * 0.0f;
                    v[t] = (e[t] - P.centre[t]) * P.scale;
                }
                if (bad != 0) finite = false;
                if (P.metric == DOT) raw2 = dot_exactly(e, e, d) * P.scale * P.scale;
            }
            norm2 = dot_exactly(v, v, d);
            if (!(norm2 < double(HUGE_NORM) * HUGE_NORM)) {  // the whole group is always in doubt
                far = INFINITY;
                norm2 = 0;
                memset(v, 0, 4 * size_t(d));
            }
            bias = P.metric == EUCLIDEAN ? float(-0.5 * norm2) : 0.0f;
            if (far > 0 && norm2 == 0) bias = LOWEST_BIAS;
            float length = norm_above(float(norm2), d);
            rest2 = pack_words(mode, true, v, d, bias, line);
            // centring; the sums of the decision; the product lo*lo that SPLIT and JOINT leave out
            float r = norm_above(rest2, d) + U * length + eps * (float)root(raw2) + float(d) * 1e-35f;
            if (mode == SPLIT || mode == JOINT) r += length * 1.53e-5f;
            if (length > norm) norm = length;
            if (r > residue) residue = r;
        } else {
            memset(v, 0, 4 * size_t(d));
            pack_words(mode, true, v, d, bias, line);
        }
        head->bias[j] = bias;
        if (mode == F32 || mode == PAIRS)
            for (int64_t t = 0; t < words; t++) out[t * GROUP + j] = line[t];
        else
            for (int64_t t = 0; t < words / 16; t++) memcpy(out + t * 256 + j * 16, line + t * 16, 64);
    }
    head->norm = norm;
    head->residue = residue;
    head->constant = far + PAD * norm * norm * (0.5f * gamma + 4 * U + 2 * eps) + float(d) * 1e-35f * (1 + norm);
    return finite;
}

// LANES rows of 32-bit words -> words of LANES rows, `step` words apart.
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

void sift_down_to(Entry* list, int& count, float best) {
    int kept = 0;
    for (int i = 0; i < count; i++)
        if (!(list[i].upper < best)) list[kept++] = list[i];
    count = kept;
}

// The k-th largest lower bound in the list: at least k codes score as much.
float kth_lower(const Entry* list, int count, int k, float* heap) {
    int held = 0;
    for (int i = 0; i < count; i++) {
        float a = list[i].lower;
        if (held == k && !(a > heap[k - 1])) continue;
        int j = held < k ? held++ : k - 1;
        for (; j > 0 && heap[j - 1] < a; j--) heap[j] = heap[j - 1];
        heap[j] = a;
    }
    return held == k ? heap[k - 1] : -NEVER;
}

void __attribute__((noinline)) make_room(const Problem& P, State& S, int64_t slot) {
    Entry* list = S.list + slot * S.capacity;
    if (P.topk > 1) {
        float heap[256];
        float bound = kth_lower(list, S.count[slot], P.topk, heap);
        if (bound > S.best[slot]) S.best[slot] = bound;
    }
    sift_down_to(list, S.count[slot], S.best[slot]);
    if (S.count[slot] > S.capacity * 3 / 4) {
        S.count[slot] = FULL;
        S.best[slot] = NEVER;
    }
}

struct Lanes {  // the bounds of the rows of a tile, by lane
    float *p, *q, *r;
};

// The best scores of a group for LANES rows: raise the running best, and list the group where it may hold the nearest.
inline void settle(const Problem& P, State& S, const Lanes& B, int64_t slot0, int64_t lane0, const Head* head, int64_t g,
                   Vec score) {
    float* best = S.best + slot0 + lane0;
    Vec error = fma(load(B.p + lane0), broadcast(head->norm),
                    fma(load(B.q + lane0), broadcast(head->residue), add(load(B.r + lane0), broadcast(head->constant))));
    Vec upper = add(score, error), before = load(best);
    unsigned hits = not_less(upper, before);
    if (__builtin_expect(!hits, 1)) return;
    Vec lower = sub(score, error);
    if (P.topk == 1) store(best, max_or_second(lower, before));
    float u[LANES], l[LANES];
    store(u, upper);
    store(l, lower);
    for (; hits; hits &= hits - 1) {
        int j = __builtin_ctz(hits);
        int64_t slot = slot0 + lane0 + j;
        if (S.count[slot] == S.capacity) make_room(P, S, slot);
        if (S.count[slot] >= 0) S.list[slot * S.capacity + S.count[slot]++] = {u[j], l[j], int32_t(g)};
        else S.best[slot] = NEVER;
    }
}

// -- the first pass with multiply-adds (F32) or bf16 pairs (PAIRS) ---------------------------------------------------
// CODES x NV accumulators, NV row vectors and one broadcast code fill the register file: 8*3 + 3 + 1 of 32, or
// 4*3 + 3 + 1 of 16. Each step loads NV + CODES operands for NV * CODES multiply-adds, so for d >= 16 or so the
// multipliers are the limit; the accumulators start at the bias, and their maximum never leaves the registers.
#if LEXEL_LANES == 16 || defined(__aarch64__)
constexpr int CODES = 8;
#else
constexpr int CODES = 4;
#endif
constexpr int STRIP = 3;

struct Multiply {
    static inline Vec code(const float* p) { return broadcast(*p); }
    static inline Vec step(Vec acc, Vec code, Vec x) { return fma(code, x, acc); }
};
#if LEXEL_LANES == 16 && defined(LEXEL_WITH_BF16)
#define LEXEL_PAIRS_TARGET __attribute__((target("avx512bf16")))
struct MultiplyPairs {  // a word is two bf16 numbers
    static inline Vec code(const float* p) { return broadcast(*p); }
    LEXEL_PAIRS_TARGET static inline Vec step(Vec acc, Vec code, Vec x) {
        return _mm512_dpbf16_ps(acc, (__m512bh)code, (__m512bh)x);
    }
};
#endif

// A macro, not a template over OP: the target attribute must be the same on everything that is inlined. The rows of
// NV vectors are interleaved word by word (see pass), so that the kernel reads one stream of rows and one of codes.
#define LEXEL_UNROLL _Pragma("GCC unroll 8")  // or gcc keeps the accumulators in memory, too
#define LEXEL_DEFINE_FMA_PASS(NAME, OP, TARGET)                                                                        \
    template <int NV>                                                                                                  \
    TARGET __attribute__((noinline)) void NAME##_best(const float* codes, const float* bias, const float* rows,        \
                                                      int64_t words, Vec* best) {                                      \
        for (int sub = 0; sub < GROUP; sub += CODES) {                                                                 \
            const float *code = codes + sub, *row = rows;                                                              \
            Vec acc[CODES][NV];                                                                                        \
            LEXEL_UNROLL for (int c = 0; c < CODES; c++)                                                               \
                LEXEL_UNROLL for (int v = 0; v < NV; v++) acc[c][v] = broadcast(bias[sub + c]);                        \
            /* unrolled: measured a tenth faster at depth 256 */                                                       \
            _Pragma("GCC unroll 4") for (int64_t t = 0; t < words; t++, code += GROUP, row += NV * LANES) {            \
                Vec in0 = load(row), in1 = load(row + (NV > 1) * LANES), in2 = load(row + (NV > 2) * 2 * LANES);       \
                keep(in0), keep(in1), keep(in2);                                                                       \
                for (int c = 0; c < CODES; c++) {                                                                      \
                    Vec w = OP::code(code + c);                                                                        \
                    keep(w);                                                                                           \
                    acc[c][0] = OP::step(acc[c][0], w, in0);                                                           \
                    if (NV > 1) acc[c][NV > 1] = OP::step(acc[c][NV > 1], w, in1);                                     \
                    if (NV > 2) acc[c][NV - 1] = OP::step(acc[c][NV - 1], w, in2);                                     \
                }                                                                                                      \
            }                                                                                                          \
            LEXEL_UNROLL for (int v = 0; v < NV; v++) {                                                                \
                Vec top = sub ? best[v] : acc[0][v];                                                                   \
                LEXEL_UNROLL for (int c = 0; c < CODES; c++) top = max_or_second(top, acc[c][v]);                      \
                best[v] = top;                                                                                         \
            }                                                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    TARGET void NAME(const Problem& P, const Panels& panels, State& S, int64_t s0, int64_t vecs, const Lanes& B,       \
                     const float* tile, int64_t words, int64_t g0, int64_t g1) {                                       \
        for (int64_t g = g0; g < g1; g++) {                                                                            \
            const char* panel = panels.data + (g - panels.begin) * panels.stride;                                      \
            const Head* head = reinterpret_cast<const Head*>(panel);                                                   \
            const float* codes = reinterpret_cast<const float*>(panel + sizeof(Head));                                 \
            for (int64_t v = 0; v < vecs; v += STRIP) {                                                                \
                Vec best[STRIP];                                                                                       \
                const float* x = tile + v * words * LANES;                                                             \
                const int nv = vecs - v < STRIP ? int(vecs - v) : STRIP;                                               \
                if (nv == 3) NAME##_best<3>(codes, head->bias, x, words, best);                                        \
                else if (nv == 2) NAME##_best<2>(codes, head->bias, x, words, best);                                   \
                else NAME##_best<1>(codes, head->bias, x, words, best);                                                \
                for (int i = 0; i < nv; i++) settle(P, S, B, s0, (v + i) * LANES, head, g, best[i]);                   \
            }                                                                                                          \
        }                                                                                                              \
    }
LEXEL_DEFINE_FMA_PASS(pass_f32, Multiply, )
#ifdef LEXEL_PAIRS_TARGET
LEXEL_DEFINE_FMA_PASS(pass_pairs, MultiplyPairs, LEXEL_PAIRS_TARGET)
#endif

// -- the first pass with AMX tiles -----------------------------------------------------------------------------------
// Codes are the left operand (a tile: 16 codes x 32 depths), rows the right one (16 depth pairs x 16 rows): a result
// tile then has rows in its columns, and a group's best is the vertical maximum of 16 vectors. One group by 32 rows is a
// block: three operand tiles for two products, which the loads keep up with.
#if LEXEL_LANES == 16 && defined(LEXEL_WITH_AMX)
#define LEXEL_AMX_TARGET __attribute__((target("amx-tile,amx-bf16")))
struct Run {  // products of code tiles a .. a+length with row tiles b .. b+length
    int64_t a, b, length;
};

struct Block {  // one group by two row vectors: where they are, and their scores
    int64_t group, vec[2];
    const Head* head;
    alignas(64) float scores[2][256];
};

// The vertical maximum of 16 codes, in four chains; the bias is in the products already (JOINT) or is added here.
template <bool JOINED>
inline Vec best_of_tile(const float* c, const float* bias) {
    Vec m[4];
    for (int j = 0; j < 16; j++) {
        Vec s = load(c + 16 * j);
        if (!JOINED) s = add(s, broadcast(bias[j]));
        m[j % 4] = j < 4 ? s : max_or_second(m[j % 4], s);
    }
    return max_or_second(max_or_second(m[0], m[1]), max_or_second(m[2], m[3]));
}

// result tiles C0, C1 = one group by two row vectors
#define LEXEL_MULTIPLY(C0, C1)                                                                                         \
    _tile_zero(C0);                                                                                                    \
    _tile_zero(C1);                                                                                                    \
    for (int r = 0; r < nruns; r++) {                                                                                  \
        const char *a = codes + runs[r].a * 1024, *b0 = x0 + runs[r].b * 1024, *b1 = x1 + runs[r].b * 1024;            \
        for (int64_t t = 0; t < runs[r].length * 1024; t += 1024) {                                                    \
            _tile_loadd(4, a + t, 64);                                                                                 \
            _tile_loadd(6, b0 + t, 64);                                                                                \
            _tile_loadd(7, b1 + t, 64);                                                                                \
            _tile_dpbf16ps(C0, 4, 6);                                                                                  \
            _tile_dpbf16ps(C1, 4, 7);                                                                                  \
        }                                                                                                              \
    }

template <bool JOINED>
LEXEL_AMX_TARGET void pass_tiles(const Problem& P, const Panels& panels, State& S, int64_t s0, int64_t vecs,
                                 const Lanes& B, const float* tile, int64_t words, int64_t g0, int64_t g1) {
    const int64_t all = words / 16, half = all / 2;
    const Run split[3] = {{0, 0, half}, {half, 0, half}, {0, half, half}}, whole[1] = {{0, 0, all}};
    const Run* runs = panels.mode == SPLIT ? split : whole;
    const int nruns = panels.mode == SPLIT ? 3 : 1;
    Block blocks[2];
    auto settle_block = [&](const Block& b) {
        for (int i = 0; i < 2; i++) {
            if (i && b.vec[1] == b.vec[0]) break;
            settle(P, S, B, s0, b.vec[i] * 16, b.head, b.group, best_of_tile<JOINED>(b.scores[i], b.head->bias));
        }
    };
    // The next panel is fetched while this one is used, a share with every block.
    const int64_t ahead = round_up((panels.stride + (vecs + 1) / 2 - 1) / ((vecs + 1) / 2), 64);
    int64_t step = 0;
    for (int64_t g = g0; g < g1; g++) {
        const char *panel = panels.data + (g - panels.begin) * panels.stride, *codes = panel + sizeof(Head);
        for (int64_t v = 0; v < vecs; v += 2, step++) {
            const int64_t u = v + 1 < vecs ? v + 1 : v;
            const char *x0 = reinterpret_cast<const char*>(tile + v * words * 16),
                       *x1 = reinterpret_cast<const char*>(tile + u * words * 16);
            // While the tile unit works on this block, the one before is stored and the one before that is looked at:
            // a result tile cannot be cleared before its store is done, so two pairs of them take turns.
            const bool odd = step & 1;
            for (int64_t i = v / 2 * ahead; i < (v / 2 + 1) * ahead && i < panels.stride; i += 64)
                __builtin_prefetch(panel + panels.stride + i);
            Block &here = blocks[odd], &before = blocks[!odd];
            if (odd) {
                LEXEL_MULTIPLY(2, 3)
            } else {
                LEXEL_MULTIPLY(0, 1)
            }
            if (step > 1) settle_block(here);
            if (odd) {
                _tile_stored(0, before.scores[0], 64);
                _tile_stored(1, before.scores[1], 64);
            } else if (step) {
                _tile_stored(2, before.scores[0], 64);
                _tile_stored(3, before.scores[1], 64);
            }
            here.group = g, here.vec[0] = v, here.vec[1] = u, here.head = reinterpret_cast<const Head*>(panel);
        }
    }
    if (step > 1) settle_block(blocks[step & 1]);
    if (step & 1) {
        _tile_stored(0, blocks[0].scores[0], 64);
        _tile_stored(1, blocks[0].scores[1], 64);
    } else {
        _tile_stored(2, blocks[1].scores[0], 64);
        _tile_stored(3, blocks[1].scores[1], 64);
    }
    if (step) settle_block(blocks[!(step & 1)]);
}

LEXEL_AMX_TARGET void begin(int mode) {
    if (mode < SINGLE) return;
    // palette 1; then for each of 8 tiles: 64 bytes a row, 16 rows. Static, since the intrinsic does not say it reads.
    alignas(64) static const uint8_t shape[64] = {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  //
                                                  64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0, 64, 0,
                                                  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,  //
                                                  16, 16, 16, 16, 16, 16, 16, 16};
    _tile_loadconfig(shape);
}
LEXEL_AMX_TARGET void end(int mode) {
    if (mode >= SINGLE) _tile_release();
}
#else
void begin(int) {}
void end(int) {}
#endif

bool pass(const Problem& P, const Panels& panels, State& S, int64_t s0, int64_t s1, int64_t g0, int64_t g1, char* scratch) {
    const int d = P.d, mode = panels.mode;
    const int64_t words = words_of(mode, d), vecs = (s1 - s0 + LANES - 1) / LANES, rows = vecs * LANES;
    float* tile = reinterpret_cast<float*>(scratch);
    uint32_t* lines = reinterpret_cast<uint32_t*>(tile + rows * words);
    float* v = reinterpret_cast<float*>(lines + LANES * words);
    Lanes B = {v + round_up(d, 16), v + round_up(d, 16) + rows, v + round_up(d, 16) + 2 * rows};
    bool finite = true;
    for (int64_t i = 0; i < rows; i++) {
        uint32_t* line = lines + (i % LANES) * words;
        B.p[i] = B.q[i] = B.r[i] = 0;
        if (s0 + i < s1) {
            int64_t row = S.which ? S.which[s0 + i] : S.first + s0 + i;
            float norm2;
            if (!prepare_row(P, row, v, &norm2)) finite = false;
            if (!(norm2 < HUGE_NORM * HUGE_NORM)) {
                S.count[s0 + i] = FULL;
                S.best[s0 + i] = NEVER;
                memset(line, 0, 4 * size_t(words));
            } else {
                RowBound b = row_bound(P, mode, norm2, pack_words(mode, false, v, d, 0, line));
                B.p[i] = b.p, B.q[i] = b.q, B.r[i] = b.r;
            }
        } else {
            memset(line, 0, 4 * size_t(words));
        }
        if (i % LANES == LANES - 1) {  // AMX reads vectors one by one, the other kernels strips of them
            const int64_t vec = i / LANES, first = mode >= SINGLE ? vec : vec / STRIP * STRIP;
            const int64_t together = mode >= SINGLE ? 1 : vecs - first < STRIP ? vecs - first : STRIP;
            transpose(lines, words, reinterpret_cast<uint32_t*>(tile) + (first * words + vec - first) * LANES,
                      together * LANES);
        }
    }
    if (!finite) return false;
    switch (mode) {
#ifdef LEXEL_AMX_TARGET
        case SINGLE:
        case SPLIT: pass_tiles<false>(P, panels, S, s0, vecs, B, tile, words, g0, g1); break;
        case JOINT: pass_tiles<true>(P, panels, S, s0, vecs, B, tile, words, g0, g1); break;
#endif
#ifdef LEXEL_PAIRS_TARGET
        case PAIRS: pass_pairs(P, panels, S, s0, vecs, B, tile, words, g0, g1); break;
#endif
        default: pass_f32(P, panels, S, s0, vecs, B, tile, words, g0, g1);
    }
    return true;
}

// -- the decision ----------------------------------------------------------------------------------------------------
struct Winners {  // the topk best so far, best first; the lower index on a tie
    double* score;
    int64_t* index;
    int held, size;
    void offer(double s, int64_t i) {
        if (held == size && !(s > score[size - 1] || (s == score[size - 1] && i < index[size - 1]))) return;
        int j = held < size ? held++ : size - 1;
        for (; j > 0 && (s > score[j - 1] || (s == score[j - 1] && i < index[j - 1])); j--) {
            score[j] = score[j - 1];
            index[j] = index[j - 1];
        }
        score[j] = s;
        index[j] = i;
    }
};

struct Desk {  // scratch of the decision
    float *x, *code, *v, *centre, *heap;
    Winners win;
    int64_t offered;
};
Desk make_desk(const Problem& P, float* scratch) {
    double* score = reinterpret_cast<double*>(scratch);
    int64_t* index = reinterpret_cast<int64_t*>(score + P.topk);
    float* x = reinterpret_cast<float*>(index + P.topk);
    return {x, x + P.d, x + 2 * P.d, x + 3 * P.d, x + 4 * P.d, {score, index, 0, P.topk}, 0};
}
const float* raw_row(const Problem& P, int64_t row, float* buffer) {
    const float* x = P.x + row * P.xrow;
    if (P.xcol == 1) return x;
    for (int t = 0; t < P.d; t++) buffer[t] = x[t * P.xcol];
    return buffer;
}

void write_out(const Problem& P, int64_t row, const float* x, const Winners& win) {
    double length = P.metric == COSINE && P.scores ? root(dot_exactly(x, x, P.d)) : 1;
    for (int j = 0; j < P.topk; j++) {
        P.indices[row * P.topk + j] = win.index[j];
        if (!P.scores) continue;
        double s = win.score[j];
        P.scores[row * P.topk + j] = float(P.metric == EUCLIDEAN ? -s : length > 0 ? s / length : 0.0);
    }
}

void offer_code(const Problem& P, Desk& desk, const float* x, int64_t i) {
    desk.win.offer(true_score(P, x, code_row(P, i, desk.code)), code_id(P, i));
    desk.offered++;
}

void brute(const Problem& P, int64_t row, float* scratch) {
    Desk desk = make_desk(P, scratch);
    const float* x = raw_row(P, row, desk.x);
    for (int64_t i = 0; i < P.k; i++) offer_code(P, desk, x, i);
    write_out(P, row, x, desk.win);
}

// The scores of COUNT groups in float32, from F32 panels: each broadcast of the row serves them all.
template <int COUNT>
void group_scores(const char* const* panels, const float* v, int d, float (*out)[GROUP]) {
    constexpr int NV = GROUP / LANES, CHAINS = COUNT * NV, WAYS = CHAINS >= 8 ? 1 : CHAINS >= 4 ? 2 : 4;
    Vec acc[WAYS][COUNT][NV];
    const float* codes[COUNT];
    for (int c = 0; c < COUNT; c++) {
        codes[c] = reinterpret_cast<const float*>(panels[c] + sizeof(Head));
        for (int n = 0; n < NV; n++) {
            acc[0][c][n] = load(reinterpret_cast<const Head*>(panels[c])->bias + n * LANES);
            for (int w = 1; w < WAYS; w++) acc[w][c][n] = broadcast(0);
        }
    }
    int t = 0;
    for (; t + WAYS <= d; t += WAYS)
        for (int w = 0; w < WAYS; w++) {
            Vec x = broadcast(v[t + w]);
            keep(x);
            for (int c = 0; c < COUNT; c++)
                for (int n = 0; n < NV; n++)
                    acc[w][c][n] = fma(x, load(codes[c] + (t + w) * GROUP + n * LANES), acc[w][c][n]);
        }
    for (; t < d; t++)
        for (int c = 0; c < COUNT; c++)
            for (int n = 0; n < NV; n++)
                acc[0][c][n] = fma(broadcast(v[t]), load(codes[c] + t * GROUP + n * LANES), acc[0][c][n]);
    for (int c = 0; c < COUNT; c++)
        for (int n = 0; n < NV; n++) {
            for (int w = 1; w < WAYS; w++) acc[0][c][n] = add(acc[0][c][n], acc[w][c][n]);
            store(out[c] + n * LANES, acc[0][c][n]);
        }
}

// What remains of a row's candidates, narrowed group by group. Around its own centre m a group's score is
// -|x - m|^2 / 2, the base, in float64, and a small rest, in float32: their error is relative to the small.
struct Narrowing {
    static constexpr int HELD = 64, BATCH = 4;
    const Problem& P;
    const Panels& fine;
    Desk& desk;
    const float* x;
    int64_t row;
    RowBound bound = {0, 0, 0};
    double base = 0, lower = -INFINITY, upper[HELD] = {};
    int64_t anchor = -2, code[HELD] = {};
    int held = 0, waiting = 0;
    int64_t groups[BATCH] = {};

    void add_group(int64_t g) {
        const int64_t wanted = fine.anchors ? fine.anchors[g] : -1;
        if (waiting == BATCH || anchor != wanted) look();
        if (anchor != wanted) {
            anchor = wanted;
            float norm2;
            prepare_row(anchor < 0 ? P : around(P, anchor, desk.centre), row, desk.v, &norm2);
            bound = row_bound(P, F32, norm2, 0);
            if (anchor >= 0) base = 0.5 * P.scale * P.scale * true_score(P, x, code_row(P, anchor, desk.code));
        }
        groups[waiting++] = g;
    }

    void look() {
        const char* panels[BATCH];
        alignas(64) float s[BATCH][GROUP];
        for (int i = 0; i < BATCH && waiting; i++)
            panels[i] = fine.data + (groups[i < waiting ? i : waiting - 1] - fine.begin) * fine.stride;
        if (waiting > 2) group_scores<4>(panels, desk.v, P.d, s);
        else if (waiting == 2) group_scores<2>(panels, desk.v, P.d, s);
        else if (waiting) group_scores<1>(panels, desk.v, P.d, s);
        for (int i = 0; i < waiting; i++) sift_group(groups[i], reinterpret_cast<const Head*>(panels[i]), s[i]);
        waiting = 0;
    }

    void sift_group(int64_t g, const Head* head, const float* s) {
        const float error = bound.p * head->norm + bound.q * head->residue + bound.r + head->constant;
        float top = s[0];
#pragma omp simd reduction(max : top)
        for (int t = 0; t < GROUP; t++) top = s[t] > top ? s[t] : top;
        if (base + top - error > lower) lower = base + top - error;
        float reach = float(lower - base) - error;
        reach -= 2 * U * (fabsf(reach) + error);
        unsigned hits = 0;
        for (int t = 0; t < GROUP; t += LANES) hits |= not_less(load(s + t), broadcast(reach)) << t;
        const int64_t first = g * GROUP;
        if (P.k - first < GROUP) hits &= (1u << (P.k - first)) - 1;
        for (; hits; hits &= hits - 1) {
            const int t = __builtin_ctz(hits);
            const char* soon = reinterpret_cast<const char*>(P.codes + code_id(P, first + t) * P.crow);
            for (int i = 0; i < P.d && i < 128; i += 16) __builtin_prefetch(soon + 4 * i * P.ccol);
            if (held == HELD) sift();
            if (held == HELD) offer_code(P, desk, x, first + t);
            else upper[held] = base + double(s[t]) + error, code[held++] = first + t;
        }
    }

    void sift() {
        int kept = 0;
        for (int h = 0; h < held; h++)
            if (!(upper[h] < lower)) upper[kept] = upper[h], code[kept++] = code[h];
        held = kept;
    }

    void finish() {
        look();
        sift();
        if (held == 1 && desk.win.held == 0 && !P.scores) {
            desk.win.held = 1, desk.win.index[0] = code_id(P, code[0]);
        } else {
            for (int h = 0; h < held; h++) offer_code(P, desk, x, code[h]);
        }
    }
};

void decide(const Problem& P, const Panels* fine, State* splits, int nsplits, int64_t s0, int64_t s1, float* scratch,
            bool only_count, Counts& counts) {
    for (int64_t slot = s0; slot < s1; slot++) {
        Desk desk = make_desk(P, scratch);
        const State& S = splits[0];
        const int64_t row = S.which ? S.which[slot] : S.first + slot;
        float best = -NEVER;
        bool full = false;
        for (int i = 0; i < nsplits; i++) {
            full |= splits[i].count[slot] == FULL;
            if (splits[i].best[slot] > best) best = splits[i].best[slot];
        }
        if (full) {
            splits[0].count[slot] = FULL;
            counts.full++;
            continue;
        }
        if (P.topk > 1)
            for (int i = 0; i < nsplits; i++) {
                float a = kth_lower(splits[i].list + slot * S.capacity, splits[i].count[slot], P.topk, desk.heap);
                if (a > best) best = a;
            }
        const float* x = raw_row(P, row, desk.x);
        auto every_listed = [&](auto&& visit) {
            for (int i = 0; i < nsplits; i++) {
                const Entry* list = splits[i].list + slot * S.capacity;
                for (int j = 0; j < splits[i].count[slot]; j++)
                    if (!(list[j].upper < best)) counts.groups++, visit(int64_t(list[j].group));
            }
        };
        if (only_count) {
            every_listed([](int64_t) {});
            continue;
        }
        if (fine && P.topk == 1) {
            Narrowing narrowing{P, *fine, desk, x, row};
            every_listed([&](int64_t g) { narrowing.add_group(g); });
            narrowing.finish();
        } else {
            every_listed([&](int64_t g) {
                for (int64_t i = g * GROUP; i < (g + 1) * GROUP && i < P.k; i++) offer_code(P, desk, x, i);
            });
        }
        counts.codes += desk.offered;
        write_out(P, row, x, desk.win);
    }
}

}  // namespace

#define LEXEL_CAT2(a, b) a##b
#define LEXEL_CAT(a, b) LEXEL_CAT2(a, b)
#define LEXEL_STR2(a) #a
#define LEXEL_STR(a) LEXEL_STR2(a)
extern const Level LEXEL_CAT(level_, LEXEL_LEVEL);
const Level LEXEL_CAT(level_, LEXEL_LEVEL) = {LEXEL_STR(LEXEL_LEVEL), LANES, begin, end, panel_bytes, row_bytes,
                                              pack, pass, decide, brute};

}  // namespace lexel
