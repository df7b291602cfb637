/* The first layer: z = x w1' + b1, its gradient and AdamW, for one panel of 32 hidden units.
 *
 * Weights lie as [hidden / 32][dim][32]: a panel's 32 units are the lanes, so that both products read rows
 * of 32. Fused: the gradient tile dw = dz' x of the batch just done, AdamW on it in registers, and, while
 * those weights are in L1, the forward product of the *next* batch. The state (12 bytes a weight read, 12
 * written) so passes through the core once a step. Blocks of 64 inputs: 8 KiB of weights, 8 KiB of each batch
 * at 32 rows, which L1 holds. Bound: FMA units, 4 rows * dim * 32 multiply-adds, with the divider of AdamW
 * beside it. In pairs of bfloat16 half as many instructions, and half the bytes of x, dz and rounded weights.
 */
#ifndef EMBEDCACHE_CPU_FIRST_LAYER_H
#define EMBEDCACHE_CPU_FIRST_LAYER_H

#include "../../simd/pairs.h"
#include "adamw.h"
#include "tile.h"

namespace EC_ISA {

constexpr int kSpan = 2; /* blocks of 32 inputs between update and forward product */

template <class Word>
struct GradientTile {
  const Word *dz, *x;
  int64_t n;   /* words of rows */
  Parameter p; /* [32 inputs][32 units] */
  const ec_adamw& a;
  int strip;

  template <int R>
  inline __attribute__((always_inline)) void run(int64_t k) const {
    const Tile<R> gradient = tile_sum<R>(dz + strip, x + k, 1, kBlock, n);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      adamw_update(gradient.at[i][0], p.at((k + i) * kBlock + strip), a);
      adamw_update(gradient.at[i][1], p.at((k + i) * kBlock + strip + kLanes), a);
    }
  }
};

template <class Word>
struct ForwardTile {
  const Word* w; /* [span * 32 / kPer inputs][32 units] */
  const Batch<Word>& batch;
  int64_t first, span; /* blocks of inputs */
  float* z;            /* [rows][32], added to */
  int strip;

  template <int R>
  inline __attribute__((always_inline)) void run(int64_t b) const {
    constexpr int kInputs = kBlock / kPer<Word>;
    Tile<R> tile;
    float* out = z + b * kBlock + strip;
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      tile.at[i][0] = vf{};
      tile.at[i][1] = vf{};
    }
    for (int64_t block = 0; block < span; ++block)
      tile_product<R>(tile, w + block * kInputs * kBlock + strip,
                      batch.along_columns + batch.block(first + block) + b * kInputs, kInputs, 1, kInputs);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      store(out + i * kBlock, load(out + i * kBlock) + tile.at[i][0]);
      store(out + i * kBlock + kLanes, load(out + i * kBlock + kLanes) + tile.at[i][1]);
    }
  }
};

/* x[n][32] as an operand of Words, whose rows are summed over. */
template <class Word>
static const Word* operand(const float* x, int64_t n, Pair* scratch) {
  if constexpr (kPer<Word> == 1)
    return x;
  else
    return pair_rows(x, n, scratch), scratch;
}

/* One panel of weights [blocks * 32][32]. now NULL: no update, next NULL: no forward product.
 * dz [now rows / kPer][32]; z [next rows][32] must hold the bias. */
template <class Word>
static void first_layer_panel(Parameter panel, int64_t blocks, const Batch<Word>* now, const Word* dz,
                              const ec_adamw& a, const Batch<Word>* next, float* z) {
  alignas(64) Pair scratch[kSpan * kBlock * kBlock / 2];
  for (int64_t first = 0; first < blocks; first += kSpan) {
    const int64_t span = blocks - first < kSpan ? blocks - first : kSpan;
    const Parameter p = panel.at(first * kBlock * kBlock); /* [span * 32 inputs][32 units] */
    /* 1. Gradient tiles [some inputs][kStrip units], and AdamW on each while it is in registers. */
    for (int strip = 0; now && strip < kBlock; strip += kStrip)
      for (int64_t block = 0; block < span; ++block)
        for_tiles(kBlock, GradientTile<Word>{dz, now->along_rows + now->block(first + block),
                                             (now->rows + kPer<Word> - 1) / kPer<Word>,
                                             p.at(block * kBlock * kBlock), a, strip});
    if (!next) continue;
    /* 2. The same weights, which are in L1, times the next batch. */
    const Word* w = operand<Word>(p.w, span * kBlock, scratch);
    for (int strip = 0; strip < kBlock; strip += kStrip)
      for_tiles(next->rows, ForwardTile<Word>{w, *next, first, span, z, strip});
  }
}

}  // namespace EC_ISA

#endif
