/* Pairs of bfloat16: what the first layer's products read in the bfloat16 compute mode.
 *
 * A word holds two neighbours in the direction that a product sums over, the first one low, so that one
 * vdpbf16ps, or bfdot on ARM, does two multiply-adds a lane. Without such an instruction the same roundings,
 * and the sums in float32, are done step by step: results of the same kind, no faster than float32.
 */
#ifndef EMBEDCACHE_CPU_PAIRS_H
#define EMBEDCACHE_CPU_PAIRS_H

#include "simd.h"

namespace EC_ISA {

typedef uint32_t Pair;

static inline vu load(const Pair* p) { return *reinterpret_cast<const vu*>(p); }
static inline void store(Pair* p, vu x) { *reinterpret_cast<vu*>(p) = x; }

/* Rounding is to the nearest, ties to even.
 *   pairs_of_lanes   lane i: (first[i], second[i])
 *   pairs_in_order   x and then y, two neighbours a lane
 *   pair_dot         sum + both products of each lane, in float32 */
#if EC_LANES == 16 && defined(__AVX512BF16__)
static inline vu pairs_in_order(vf x, vf y) { return (vu)_mm512_cvtne2ps_pbh(y, x); }
static inline vu pairs_of_lanes(vf first, vf second) {
  vu order; /* as 16-bit lanes: 0, 16, 1, 17, ... */
  for (int i = 0; i < kLanes; ++i) order[i] = 0x00100000u + (uint32_t)i * 0x00010001u;
  return (vu)_mm512_permutexvar_epi16((__m512i)order, (__m512i)pairs_in_order(first, second));
}
static inline vf pair_dot(vf sum, vu a, vu b) { return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b); }
#elif EC_LANES == 4 && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
static inline bfloat16x8_t as_bf16(vu x) { return vreinterpretq_bf16_u32((uint32x4_t)x); }
static inline vu pairs_in_order(vf x, vf y) {
  const bfloat16x8_t low = vcvtq_low_bf16_f32((float32x4_t)x);
  return (vu)vreinterpretq_u32_bf16(vcvtq_high_bf16_f32(low, (float32x4_t)y));
}
static inline vu pairs_of_lanes(vf first, vf second) {
  const uint16x8_t x = vreinterpretq_u16_bf16(vcvtq_low_bf16_f32((float32x4_t)first)),
                   y = vreinterpretq_u16_bf16(vcvtq_low_bf16_f32((float32x4_t)second));
  return (vu)vreinterpretq_u32_u16(vzip1q_u16(x, y));
}
static inline vf pair_dot(vf sum, vu a, vu b) {
  return (vf)vbfdotq_f32((float32x4_t)sum, as_bf16(a), as_bf16(b));
}
#else
constexpr uint32_t kUpper = 0xFFFF0000;

/* The upper halves are x rounded, the lower ones whatever is left; NaN stays NaN. */
static inline vu round_upper(vf x) {
  const vu bits = (vu)x, nan = (vu)(x != x);
  return ((bits + 0x7FFF + (bits >> 16 & 1)) & ~nan) | ((bits | 0x400000) & nan);
}
static inline vu pairs_in_order(vf x, vf y) {
  const vu rounded[2] = {round_upper(x), round_upper(y)};
  vu out;
  for (int i = 0; i < kLanes; ++i) {
    const vu& from = rounded[i >= kLanes / 2];
    const int at = 2 * i % kLanes;
    out[i] = from[at] >> 16 | (from[at + 1] & kUpper);
  }
  return out;
}
static inline vu pairs_of_lanes(vf first, vf second) {
  return round_upper(first) >> 16 | (round_upper(second) & kUpper);
}
static inline vf pair_dot(vf sum, vu a, vu b) {
  sum += (vf)(a & kUpper) * (vf)(b & kUpper);
  return sum + (vf)(a << 16) * (vf)(b << 16);
}
#endif

/* [n / 2][32] pairs down the columns of x[n][32]; the partner of an odd last row is 0. */
static inline void pair_rows(const float* x, int64_t n, Pair* out) {
  for (int64_t r = 0; r < n; r += 2, x += 2 * kBlock, out += kBlock)
    for (int u = 0; u < kBlock; u += kLanes)
      store(out + u, pairs_of_lanes(load(x + u), r + 1 < n ? load(x + kBlock + u) : vf{}));
}

/* [n][16] pairs along the rows of x[n][32]. */
static inline void pair_columns(const float* x, int64_t n, Pair* out) {
  for (int64_t i = 0; i < n * kBlock; i += 2 * kLanes)
    store(out + i / 2, pairs_in_order(load(x + i), load(x + i + kLanes)));
}

/* Products of float32, or of pairs of bfloat16 along the sum's direction: how many numbers a Word holds. */
template <class Word>
constexpr int kPer = 1;
template <>
constexpr int kPer<Pair> = 2;

/* A batch in blocks of 32 columns, for the products that sum over columns (forward) and over rows (gradient).
 * For float32 both are the same memory. */
template <class Word>
struct Batch {
  Word* along_columns; /* [blocks][capacity][32 / kPer] */
  Word* along_rows;    /* [blocks][capacity / kPer][32] */
  int64_t rows, capacity;
  int64_t block(int64_t i) const { return i * (capacity * kBlock / kPer<Word>); }
};

}  // namespace EC_ISA

#endif
