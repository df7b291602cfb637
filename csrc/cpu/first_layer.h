/* The first layer: z = x w1' + b1, its gradient and AdamW, for one panel of 32 hidden units.
 *
 * Weights lie as [hidden / 32][dim][32]: a panel's 32 units are the lanes, so that both products read rows
 * of 32. Fused: the gradient tile dw = dz' x of the batch just done, AdamW on it in registers, and, while
 * those weights are in L1, the forward product of the *next* batch. The state (12 bytes a weight read, 12
 * written) so passes through the core once a step. Blocks of 64 inputs: 8 KiB of weights, 8 KiB of each batch
 * at 32 rows, which L1 holds. Bound: FMA units, 4 rows * dim * 32 multiply-adds, with the divider of AdamW
 * beside it.
 */
#ifndef EMBEDCACHE_CPU_FIRST_LAYER_H
#define EMBEDCACHE_CPU_FIRST_LAYER_H

#include "adamw.h"
#include "tile.h"

namespace EC_ISA {

constexpr int kSpan = 2; /* blocks of 32 inputs between update and forward product */

/* A batch in blocks: 32 columns of it begin at x + block * capacity * 32. */
struct Batch {
  const float* x;
  int64_t rows, capacity;
  const float* block(int64_t i) const { return x + i * capacity * kBlock; }
};

struct GradientTile {
  const float *dz, *x;
  int64_t rows;
  Parameter p; /* [32 inputs][32 units] */
  const ec_adamw& a;
  int strip;

  template <int R>
  inline __attribute__((always_inline)) void run(int64_t k) const {
    const Tile<R> gradient = tile_sum<R>(dz + strip, x + k, 1, kBlock, rows);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      adamw_update(gradient.at[i][0], p.at((k + i) * kBlock + strip), a);
      adamw_update(gradient.at[i][1], p.at((k + i) * kBlock + strip + kLanes), a);
    }
  }
};

struct ForwardTile {
  const float* w; /* [span * 32 inputs][32 units] */
  const Batch& batch;
  int64_t first, span; /* blocks of inputs */
  float* z;            /* [rows][32], added to */
  int strip;

  template <int R>
  inline __attribute__((always_inline)) void run(int64_t b) const {
    Tile<R> tile;
    float* out = z + b * kBlock + strip;
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      tile.at[i][0] = vf{};
      tile.at[i][1] = vf{};
    }
    for (int64_t block = 0; block < span; ++block)
      tile_product<R>(tile, w + block * kBlock * kBlock + strip, batch.block(first + block) + b * kBlock,
                      kBlock, 1, kBlock);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      store(out + i * kBlock, load(out + i * kBlock) + tile.at[i][0]);
      store(out + i * kBlock + kLanes, load(out + i * kBlock + kLanes) + tile.at[i][1]);
    }
  }
};

/* One panel of weights [blocks * 32][32]. now NULL: no update, next NULL: no forward product.
 * dz [now rows][32]; z [next rows][32] must hold the bias. */
static void first_layer_panel(Parameter panel, int64_t blocks, const Batch* now, const float* dz,
                              const ec_adamw& a, const Batch* next, float* z) {
  for (int64_t first = 0; first < blocks; first += kSpan) {
    const int64_t span = blocks - first < kSpan ? blocks - first : kSpan;
    const Parameter p = panel.at(first * kBlock * kBlock);
    for (int strip = 0; strip < kBlock; strip += kStrip) {
      for (int64_t block = 0; now && block < span; ++block)
        for_tiles(kBlock, GradientTile{dz, now->block(first + block), now->rows,
                                       p.at(block * kBlock * kBlock), a, strip});
      if (next) for_tiles(next->rows, ForwardTile{p.w, *next, first, span, z, strip});
    }
  }
}

}  // namespace EC_ISA

#endif
