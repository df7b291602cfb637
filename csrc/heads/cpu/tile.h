/* The product kernel: the tile of ../../simd/tile.h over `rows` [n][32].
 *
 * It is every product of the engine but the logits, for any two strides of the scalars:
 *   forward          z[b][unit]    rows = weights [k][unit],   scalar = x[b][k]
 *   first gradient   dw[k][unit]   rows = dz [b][unit],        scalar = x[b][k]
 *   second gradient  dw2[c][unit]  rows = a [b][unit],         scalar = dlogits[b][c]
 *   back             da[b][unit]   rows = w2 [c][unit],        scalar = dlogits[b][c]
 *   probe's gradient dw[c][k]      rows = x [b][k],            scalar = dlogits[c][b]
 *
 * kTile rows of two vectors stay in registers: with operands in L1 the FMA units are the bound. Sums of more
 * than kChain steps are cut, which bounds the rounding error of a long chain. Both products of the first
 * layer come in pairs of bfloat16 too (pairs.h): n is then the number of pairs.
 */
#ifndef EMBEDCACHE_CPU_TILE_H
#define EMBEDCACHE_CPU_TILE_H

#include "../../simd/tile.h"

namespace EC_ISA {

#if defined(__ARM_NEON)
constexpr int kTile = 8; /* 32 registers, as with AVX-512 */
#else
constexpr int kTile = EC_LANES == 16 ? 8 : 4;
#endif
constexpr int64_t kChain = 256;

template <int R, class Word>
static inline __attribute__((always_inline)) void tile_product(Tile<R>& tile, const Word* rows,
                                                               const Word* scalars, ptrdiff_t scalar_row,
                                                               ptrdiff_t scalar_step, int64_t n) {
  tile_steps<R, Aligned>(tile, rows, kBlock, scalars, scalar_row, scalar_step, n);
}

/* The same from zero, long sums in pieces of kChain. */
template <int R, class Word>
static inline __attribute__((always_inline)) Tile<R> tile_sum(const Word* rows, const Word* scalars,
                                                              ptrdiff_t scalar_row, ptrdiff_t scalar_step,
                                                              int64_t n) {
  Tile<R> total = {};
  tile_product<R>(total, rows, scalars, scalar_row, scalar_step, n < kChain ? n : kChain);
  for (int64_t r = kChain; r < n; r += kChain) {
    Tile<R> part = {};
    tile_product<R>(part, rows + r * kBlock, scalars + r * scalar_step, scalar_row, scalar_step,
                    n - r < kChain ? n - r : kChain);
    for (int i = 0; i < R; ++i) {
      total.at[i][0] += part.at[i][0];
      total.at[i][1] += part.at[i][1];
    }
  }
  return total;
}

/* Calls body.template run<R>(i) for all of 0..n in tiles of kTile, then of 4, 2 and 1. */
template <class Body>
static inline __attribute__((always_inline)) void for_tiles(int64_t n, const Body& body) {
  int64_t i = 0;
  for (; i + kTile <= n; i += kTile) body.template run<kTile>(i);
  if (kTile > 4 && i + 4 <= n) body.template run<4>(i), i += 4;
  if (i + 2 <= n) body.template run<2>(i), i += 2;
  if (i < n) body.template run<1>(i);
}

}  // namespace EC_ISA

#endif
