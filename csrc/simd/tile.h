/* The register tile of every product, of heads and of encoders: tile[i][lane] += rows[r][lane] * scalar(i, r)
 * for r = 0, 1, ... n - 1, one after the other.
 *
 * Both vectors of a strip are loaded once for R rows of the tile, whose sums stay in registers: a step loads
 * two vectors, broadcasts R scalars and does 2 R fused multiply-adds. Words are float32 or pairs of bfloat16.
 * Where the machine multiplies small matrices, pairs go through mmla.h.
 */
#ifndef EMBEDCACHE_SIMD_TILE_H
#define EMBEDCACHE_SIMD_TILE_H

#include "mmla.h"

namespace EC_ISA {

constexpr int kStrip = 2 * kLanes; /* columns of a tile; a block of 32 columns is 1, 2 or 4 strips */

template <int R>
struct Tile {
  vf at[R][2];
};

static inline __attribute__((always_inline)) vf multiply_add(vf sum, vf row, float scalar) {
  return sum + row * scalar;
}
static inline __attribute__((always_inline)) vf multiply_add(vf sum, vu row, Pair scalar) {
  return pair_dot(sum, row, vu{} + scalar);
}

typedef uint32_t vu_unaligned __attribute__((vector_size(4 * EC_LANES), aligned(4)));

static inline vf load_words(const float* p) { return load_unaligned(p); }
static inline vu load_words(const Pair* p) { return *reinterpret_cast<const vu_unaligned*>(p); }

/* How rows are loaded. */
struct Aligned {
  template <class Word>
  static inline __attribute__((always_inline)) auto take(const Word* p) {
    return load(p);
  }
};
struct Unaligned {
  template <class Word>
  static inline __attribute__((always_inline)) auto take(const Word* p) {
    return load_words(p);
  }
};

/* n steps; rows: [n][row_step], scalar(i, r) at scalars[i * scalar_row + r * scalar_step]. */
template <int R, class Loads, class Word>
static inline __attribute__((always_inline)) void tile_steps(Tile<R>& tile, const Word* rows,
                                                             ptrdiff_t row_step, const Word* scalars,
                                                             ptrdiff_t scalar_row, ptrdiff_t scalar_step,
                                                             int64_t n) {
  int64_t r = 0;
  if constexpr (kMatrix<vf> && kPer<Word> == 2 && R % 2 == 0) {
    matrix_steps<R, Loads>(tile.at, rows, row_step, scalars, scalar_row, scalar_step, n / 2);
    r = n / 2 * 2;
    rows += r * row_step;
    scalars += r * scalar_step;
  }
  for (; r < n; ++r) {
    const auto low = Loads::take(rows), high = Loads::take(rows + kLanes);
    const Word* scalar = scalars;
#pragma GCC unroll 12
    for (int i = 0; i < R; ++i, scalar += scalar_row) {
      tile.at[i][0] = multiply_add(tile.at[i][0], low, *scalar);
      tile.at[i][1] = multiply_add(tile.at[i][1], high, *scalar);
    }
    rows += row_step;
    scalars += scalar_step;
  }
}

}  // namespace EC_ISA

#endif
