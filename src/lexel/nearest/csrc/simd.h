// The few vector operations the search needs, over whatever width the unit is compiled for. Nothing here is shared
// between units: everything is static, so that no code compiled for a newer processor can be linked into an older path.
//
// max_or_second(a, b) is the larger one, and b when either is NaN. not_less(a, b) has a bit for every lane where a < b
// is false, NaN included. Together they make a score that is not a number count as "in doubt", never as "beaten".
#pragma once
#include <cstdint>

#if defined(__AVX512F__)
#include <immintrin.h>
#define LEXEL_LANES 16
#define LEXEL_VECTOR_REGISTER "v"
typedef __m512 Vec;
static inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
static inline void store(float* p, Vec a) { _mm512_storeu_ps(p, a); }
static inline Vec broadcast(float a) { return _mm512_set1_ps(a); }
static inline Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
static inline Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
static inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline Vec max_or_second(Vec a, Vec b) { return _mm512_max_ps(a, b); }
static inline unsigned not_less(Vec a, Vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_NLT_UQ); }

#elif defined(__AVX2__)
#include <immintrin.h>
#define LEXEL_LANES 8
#define LEXEL_VECTOR_REGISTER "x"
typedef __m256 Vec;
static inline Vec load(const float* p) { return _mm256_loadu_ps(p); }
static inline void store(float* p, Vec a) { _mm256_storeu_ps(p, a); }
static inline Vec broadcast(float a) { return _mm256_set1_ps(a); }
static inline Vec add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
static inline Vec sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
static inline Vec fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline Vec max_or_second(Vec a, Vec b) { return _mm256_max_ps(a, b); }
static inline unsigned not_less(Vec a, Vec b) { return _mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_NLT_UQ)); }

#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#define LEXEL_LANES 4
#define LEXEL_VECTOR_REGISTER "w"
typedef float32x4_t Vec;
static inline Vec load(const float* p) { return vld1q_f32(p); }
static inline void store(float* p, Vec a) { vst1q_f32(p, a); }
static inline Vec broadcast(float a) { return vdupq_n_f32(a); }
static inline Vec add(Vec a, Vec b) { return vaddq_f32(a, b); }
static inline Vec sub(Vec a, Vec b) { return vsubq_f32(a, b); }
static inline Vec fma(Vec a, Vec b, Vec c) { return vfmaq_f32(c, a, b); }
static inline Vec max_or_second(Vec a, Vec b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline unsigned not_less(Vec a, Vec b) {
    static const uint32_t bits[4] = {1, 2, 4, 8};
    return vaddvq_u32(vbicq_u32(vld1q_u32(bits), vcltq_f32(a, b)));
}

#else
#define LEXEL_LANES 4
typedef float Vec __attribute__((vector_size(16)));
static inline Vec load(const float* p) { Vec a; __builtin_memcpy(&a, p, 16); return a; }
static inline void store(float* p, Vec a) { __builtin_memcpy(p, &a, 16); }
static inline Vec broadcast(float a) { return Vec{a, a, a, a}; }
static inline Vec add(Vec a, Vec b) { return a + b; }
static inline Vec sub(Vec a, Vec b) { return a - b; }
static inline Vec fma(Vec a, Vec b, Vec c) { return a * b + c; }  // two roundings: the bound counts them
static inline Vec max_or_second(Vec a, Vec b) { return a > b ? a : b; }
static inline unsigned not_less(Vec a, Vec b) {
    unsigned bits = 0;
    for (int i = 0; i < 4; i++) bits |= unsigned(!(a[i] < b[i])) << i;
    return bits;
}
#endif

static constexpr int LANES = LEXEL_LANES;

// Keeps a value in a register: left alone, gcc reloads operands from memory at every use and spills others instead.
static inline void keep(Vec& a) {
#ifdef LEXEL_VECTOR_REGISTER
    __asm__("" : "+" LEXEL_VECTOR_REGISTER(a));
#else
    (void)a;
#endif
}
