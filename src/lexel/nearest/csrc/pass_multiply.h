// The first pass with multiply-adds of float32 numbers (F32) or of pairs of bf16 numbers (PAIRS).
#pragma once
#include "lists.h"
#include "words.h"

namespace lexel {
namespace {

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
// NV vectors are interleaved word by word (see pass.h), so that the kernel reads one stream of rows and one of codes.
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
    TARGET void NAME(const Problem& P, const Panels& panels, State& S, const Tile& T, int64_t g0, int64_t g1) {        \
        const int64_t words = T.words, vecs = T.vecs;                                                                  \
        for (int64_t g = g0; g < g1; g++) {                                                                            \
            const char* panel = panel_of(panels, g);                                                                   \
            const Head* head = reinterpret_cast<const Head*>(panel);                                                   \
            const float* codes = reinterpret_cast<const float*>(panel + sizeof(Head));                                 \
            for (int64_t v = 0; v < vecs; v += STRIP) {                                                                \
                Vec best[STRIP];                                                                                       \
                const float* x = T.rows + v * words * LANES;                                                           \
                const int nv = vecs - v < STRIP ? int(vecs - v) : STRIP;                                               \
                if (nv == 3) NAME##_best<3>(codes, head->bias, x, words, best);                                        \
                else if (nv == 2) NAME##_best<2>(codes, head->bias, x, words, best);                                   \
                else NAME##_best<1>(codes, head->bias, x, words, best);                                                \
                for (int i = 0; i < nv; i++) settle(P, S, T, (v + i) * LANES, head, g, best[i]);                       \
            }                                                                                                          \
        }                                                                                                              \
    }
LEXEL_DEFINE_FMA_PASS(pass_f32, Multiply, )
#ifdef LEXEL_PAIRS_TARGET
LEXEL_DEFINE_FMA_PASS(pass_pairs, MultiplyPairs, LEXEL_PAIRS_TARGET)
#endif

}  // namespace
}  // namespace lexel
