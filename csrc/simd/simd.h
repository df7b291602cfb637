/* Vectors of the instruction set that this file is compiled for; everything above is written once, over
 * these.
 *
 * head_avx512.cpp, head_avx2.cpp and head_plain.cpp define EC_ISA (a namespace, so that no two copies share a
 * symbol) and EC_LANES, and include head.h. The plain build uses the compiler's generic vectors, which are
 * SSE2 on x86-64 and NEON on ARM; what these have no word for is written in NEON's below. Nothing from the
 * C++ library is included here: an inline function of it, compiled for AVX-512, could be the copy that the
 * linker keeps for all.
 */
#ifndef EMBEDCACHE_CPU_SIMD_H
#define EMBEDCACHE_CPU_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../heads/numerics.h"

#if EC_LANES > 4
#if defined(__GNUC__) && !defined(__clang__) /* GCC 12 warns of its own header (PR 105593) */
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#endif

#if defined(__ARM_NEON)
#include <arm_neon.h>
#define EC_PLAIN_NAME "cpu-neon" /* what the build for any CPU is called there */
#else
#define EC_PLAIN_NAME "cpu-plain"
#endif

namespace EC_ISA {

constexpr int kLanes = EC_LANES;
constexpr int kBlock = 32; /* columns of every blocked matrix, whatever the vectors' width */

typedef float vf __attribute__((vector_size(4 * EC_LANES)));
typedef float vf_unaligned __attribute__((vector_size(4 * EC_LANES), aligned(4)));
typedef int32_t vi __attribute__((vector_size(4 * EC_LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * EC_LANES)));

static inline vf load(const float* p) { return *reinterpret_cast<const vf*>(p); }
static inline vf load_unaligned(const float* p) { return *reinterpret_cast<const vf_unaligned*>(p); }
static inline void store(float* p, vf x) { *reinterpret_cast<vf*>(p) = x; }
static inline vf splat(float x) { return vf{} + x; }

/* Each instruction set defines the same six:
 *   square_root     exactly rounded
 *   lane_sum        of all lanes, in a fixed order
 *   load_half       kLanes halves, converted
 *   load_int8       int8 to float32
 *   lanes_at_least  one bit per lane: x >= limit
 *   multiply_wide   both halves of the 64-bit products
 *   relu_scaled     max(x, 0) * scale where keep has the lane's bit, else 0
 * In relu_scaled NaN stays NaN (max gives its second operand), so that a head that overflows shows it in its
 * loss. */
#if EC_LANES == 16
static inline vf square_root(vf x) { return _mm512_sqrt_ps(x); }
static inline float lane_sum(vf x) { return _mm512_reduce_add_ps(x); }
static inline vf load_half(const uint16_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
static inline vf load_int8(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
static inline uint32_t lanes_at_least(vu x, uint32_t limit) {
  return _mm512_cmpge_epu32_mask((__m512i)x, _mm512_set1_epi32((int)limit));
}
static inline vf relu_scaled(vf x, uint32_t keep, vf scale) {
  return _mm512_maskz_mul_ps((__mmask16)keep, _mm512_max_ps(vf{}, x), scale);
}
static inline void multiply_wide(vu x, uint32_t factor, vu* high, vu* low) {
  const __m512i f = _mm512_set1_epi32((int)factor),
                odd = _mm512_mul_epu32(_mm512_srli_epi64((__m512i)x, 32), f);
  const __m512i even = _mm512_mul_epu32((__m512i)x, f);
  *high = (vu)_mm512_mask_blend_epi32(0xAAAA, _mm512_srli_epi64(even, 32), odd);
  *low = (vu)_mm512_mask_blend_epi32(0xAAAA, even, _mm512_slli_epi64(odd, 32));
}
#elif EC_LANES == 8
static inline vf square_root(vf x) { return _mm256_sqrt_ps(x); }
static inline float lane_sum(vf x) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline vf load_half(const uint16_t* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
static inline vf load_int8(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}
static inline uint32_t lanes_at_least(vu x, uint32_t limit) {
  const __m256i l = _mm256_set1_epi32((int)limit),
                at_least = _mm256_cmpeq_epi32(_mm256_max_epu32((__m256i)x, l), (__m256i)x);
  return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(at_least));
}
static inline vf relu_scaled(vf x, uint32_t keep, vf scale) {
  const __m256i bits = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  const __m256i kept = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)keep), bits), bits);
  return _mm256_and_ps(_mm256_mul_ps(_mm256_max_ps(vf{}, x), scale), _mm256_castsi256_ps(kept));
}
static inline void multiply_wide(vu x, uint32_t factor, vu* high, vu* low) {
  const __m256i f = _mm256_set1_epi32((int)factor),
                odd = _mm256_mul_epu32(_mm256_srli_epi64((__m256i)x, 32), f);
  const __m256i even = _mm256_mul_epu32((__m256i)x, f);
  *high = (vu)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
  *low = (vu)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
}
#elif defined(__ARM_NEON)
static inline vf square_root(vf x) { return (vf)vsqrtq_f32((float32x4_t)x); }
static inline float lane_sum(vf x) { return (x[0] + x[2]) + (x[1] + x[3]); }
static inline vf load_half(const uint16_t* p) { return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
static inline vf load_int8(const int8_t* p) {
  int32_t four;
  memcpy(&four, p, 4);
  return (vf)vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four))))));
}
static inline uint32_t lanes_at_least(vu x, uint32_t limit) {
  const uint32x4_t bits = {1, 2, 4, 8};
  return vaddvq_u32(vandq_u32(vcgeq_u32((uint32x4_t)x, vdupq_n_u32(limit)), bits));
}
static inline vf relu_scaled(vf x, uint32_t keep, vf scale) {
  const vi bits = {1, 2, 4, 8};
  const vi kept = ((vi{} + (int32_t)keep) & bits) == bits, off = x <= vf{};
  return (vf)((vi)(x * scale) & kept & ~off);
}
static inline void multiply_wide(vu x, uint32_t factor, vu* high, vu* low) {
  const uint32x2_t f = vdup_n_u32(factor);
  const uint32x4_t first = vreinterpretq_u32_u64(vmull_u32(vget_low_u32((uint32x4_t)x), f));
  const uint32x4_t second = vreinterpretq_u32_u64(vmull_u32(vget_high_u32((uint32x4_t)x), f));
  *high = (vu)vuzp2q_u32(first, second);
  *low = (vu)vuzp1q_u32(first, second);
}
#else
static inline vf square_root(vf x) {
  for (int i = 0; i < kLanes; ++i) x[i] = sqrtf(x[i]);
  return x;
}
static inline float lane_sum(vf x) { return (x[0] + x[2]) + (x[1] + x[3]); }
static inline vf load_half(const uint16_t* p) {
  vf x;
  for (int i = 0; i < kLanes; ++i) x[i] = ec_half_to_float(p[i]);
  return x;
}
static inline vf load_int8(const int8_t* p) {
  vf x;
  for (int i = 0; i < kLanes; ++i) x[i] = p[i];
  return x;
}
static inline uint32_t lanes_at_least(vu x, uint32_t limit) {
  uint32_t bits = 0;
  for (int i = 0; i < kLanes; ++i) bits |= (uint32_t)(x[i] >= limit) << i;
  return bits;
}
static inline vf relu_scaled(vf x, uint32_t keep, vf scale) {
  const vi bits = {1, 2, 4, 8};
  const vi kept = ((vi{} + (int32_t)keep) & bits) == bits, off = x <= vf{};
  return (vf)((vi)(x * scale) & kept & ~off);
}
static inline void multiply_wide(vu x, uint32_t factor, vu* high, vu* low) {
  for (int i = 0; i < kLanes; ++i) {
    const uint64_t product = (uint64_t)x[i] * factor;
    (*high)[i] = (uint32_t)(product >> 32);
    (*low)[i] = (uint32_t)product;
  }
}
#endif

/* x where `of` is above zero, else 0: the derivative of ReLU and dropout, read from their output. */
static inline vf where_positive(vf of, vf x) { return (vf)((vi)x & (vi)(of > vf{})); }

}  // namespace EC_ISA

#endif
