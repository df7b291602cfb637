/* Tiles by ARM's bfmmla and smmla: two columns times two rows, two words deep, in one instruction; twice what
 * bfdot and sdot do.
 *
 * Two rows of a tile lie as {column 0 of the one, of the other, column 1 of the one, of the other}, zipped
 * before the first step and unzipped after the last. bfmmla adds as two bfdot do, one word after the other,
 * and sums of int8 are exact: a row has the same bits in a tile of either kind. So an odd last word, and a
 * tile of one row, are left to pair_dot and quad_dot.
 */
#ifndef EMBEDCACHE_SIMD_MMLA_H
#define EMBEDCACHE_SIMD_MMLA_H

#include "pairs.h"

namespace EC_ISA {

/* Whether there is such an instruction for sums of this type: vf for pairs of bfloat16, vi for quads. */
template <class Sum>
constexpr bool kMatrix = false;

/* tile: [R][2] sums, R even; n steps of two words each, else as tile_steps (tile.h). One of the scalars'
 * strides is 1. */
template <int R, class Loads, class Sum>
static inline void matrix_steps(Sum (*tile)[2], const uint32_t* rows, ptrdiff_t row_step,
                                const uint32_t* scalars, ptrdiff_t scalar_row, ptrdiff_t scalar_step,
                                int64_t n);

#if EC_LANES == 4 && defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
template <>
constexpr bool kMatrix<vf> = true;
static inline vf matrix_dot(vf sum, vu columns, vu rows) {
  return (vf)vbfmmlaq_f32((float32x4_t)sum, as_bf16(columns), as_bf16(rows));
}
#endif
#if EC_LANES == 4 && defined(__ARM_FEATURE_MATMUL_INT8)
template <>
constexpr bool kMatrix<vi> = true;
static inline vi matrix_dot(vi sum, vu columns, vu rows) {
  return (vi)vmmlaq_s32((int32x4_t)sum, (int8x16_t)columns, (int8x16_t)rows);
}
#endif

#if EC_LANES == 4 && defined(__ARM_NEON)
static inline vu zip_low(vu x, vu y) { return (vu)vzip1q_u32((uint32x4_t)x, (uint32x4_t)y); }
static inline vu zip_high(vu x, vu y) { return (vu)vzip2q_u32((uint32x4_t)x, (uint32x4_t)y); }

/* Words 0 and 1 of rows i and i + 1 of R, {row i's two, row i + 1's two}, and the same of the next two rows.
 */
template <int R>
static inline __attribute__((always_inline)) void four_rows(const uint32_t* p, ptrdiff_t row, ptrdiff_t step,
                                                            int i, vu* two) {
  p += i * row;
  if (step == 1) {
    two[0] = (vu)vcombine_u32(vld1_u32(p), vld1_u32(p + row));
    if (i + 2 < R) two[1] = (vu)vcombine_u32(vld1_u32(p + 2 * row), vld1_u32(p + 3 * row));
  } else if (i + 2 < R) { /* row is 1 */
    const vu first = (vu)vld1q_u32(p), second = (vu)vld1q_u32(p + step);
    two[0] = zip_low(first, second);
    two[1] = zip_high(first, second);
  } else {
    const uint32x2_t none = {};
    two[0] = zip_low((vu)vcombine_u32(vld1_u32(p), none), (vu)vcombine_u32(vld1_u32(p + step), none));
  }
}

template <int R, class Loads, class Sum>
static inline __attribute__((always_inline)) void matrix_steps(Sum (*tile)[2], const uint32_t* rows,
                                                               ptrdiff_t row_step, const uint32_t* scalars,
                                                               ptrdiff_t scalar_row, ptrdiff_t scalar_step,
                                                               int64_t n) {
  Sum sum[R / 2][4];
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i) {
    const vu x = (vu)tile[i & ~1][i & 1], y = (vu)tile[i | 1][i & 1];
    sum[i / 2][2 * (i & 1)] = (Sum)zip_low(x, y);
    sum[i / 2][2 * (i & 1) + 1] = (Sum)zip_high(x, y);
  }
  for (int64_t r = 0; r < n; ++r, rows += 2 * row_step, scalars += 2 * scalar_step) {
    const uint32_t* next = rows + row_step;
    const vu low = Loads::take(rows), high = Loads::take(rows + kLanes);
    const vu low2 = Loads::take(next), high2 = Loads::take(next + kLanes);
    const vu columns[4] = {zip_low(low, low2), zip_high(low, low2), zip_low(high, high2),
                           zip_high(high, high2)};
#pragma GCC unroll 3
    for (int i = 0; i < R; i += 4) {
      vu two[2];
      four_rows<R>(scalars, scalar_row, scalar_step, i, two);
#pragma GCC unroll 2
      for (int j = 0; j < 2 && i + 2 * j < R; ++j)
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c) sum[i / 2 + j][c] = matrix_dot(sum[i / 2 + j][c], columns[c], two[j]);
    }
  }
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i) {
    const uint32x4_t x = (uint32x4_t)sum[i / 2][2 * (i & 1)], y = (uint32x4_t)sum[i / 2][2 * (i & 1) + 1];
    tile[i & ~1][i & 1] = (Sum)vuzp1q_u32(x, y);
    tile[i | 1][i & 1] = (Sum)vuzp2q_u32(x, y);
  }
}
#endif

}  // namespace EC_ISA

#endif
