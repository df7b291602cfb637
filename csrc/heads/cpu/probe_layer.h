/* The one layer of linear probes: logits = x w' + b, its gradient and AdamW, for up to 8 outputs at a time.
 *
 * The outputs may belong to several probes: what is loaded of x serves them all. The weights lie as
 * [outputs / 8][dim / 32][8][32]; the lanes are columns of x, for both products, so that two classes fill the
 * vectors as well as 500 do. Fused: the gradient tile and AdamW in its epilogue; the outputs' weights, 24 KiB
 * at 768 columns, are still in L1 when the forward product of the next batch reads them. Bound: the FMA units
 * where outputs fill a tile, L2 (x, once for each product) where they do not.
 */
#ifndef EMBEDCACHE_CPU_PROBE_LAYER_H
#define EMBEDCACHE_CPU_PROBE_LAYER_H

#include "adamw.h"
#include "tile.h"

namespace EC_ISA {

constexpr int kPanel = 8;                  /* outputs whose weights lie together */
constexpr int64_t kStep = kPanel * kBlock; /* from one block of 32 columns to the next */

struct ProbeGradientTile {
  const float *x, *gradient; /* [rows][32]; [outputs][stride], of the logits */
  int64_t rows, stride;
  Parameter p; /* [outputs][32] */
  const ec_adamw* adamw;
  int strip;

  template <int R>
  inline __attribute__((always_inline)) void run(int64_t c) const {
    const Tile<R> sum = tile_sum<R>(x + strip, gradient + c * stride, stride, 1, rows);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i)
      for (int half = 0; half < 2; ++half)
        adamw_update(sum.at[i][half], p.at((c + i) * kBlock + strip + half * kLanes), adamw[c + i]);
  }
};

/* One step of n outputs' weights, from the gradient of their logits [n][stride]. */
static void probe_update(Parameter p, int64_t n, const Batch<float>& batch, int64_t blocks,
                         const float* gradient, int64_t stride, const ec_adamw* adamw) {
  for (int64_t block = 0; block < blocks; ++block)
    for (int strip = 0; strip < kBlock; strip += kStrip)
      for_tiles(n, ProbeGradientTile{batch.along_rows + batch.block(block), gradient, batch.rows, stride,
                                     p.at(block * kStep), adamw, strip});
}

struct ProbeForwardTile {
  const float *w, *b; /* [blocks][8][32], [outputs] */
  const Batch<float>& batch;
  int64_t blocks;
  float* logits; /* [outputs][stride] */
  int64_t stride;

  /* R outputs of B rows: 2 kTile sums in registers. */
  template <int R, int B>
  inline __attribute__((always_inline)) void tile(int64_t c, int64_t row) const {
    vf sum[R][B] = {};
    for (int64_t block = 0; block < blocks; ++block) {
      const float *x_row = batch.along_columns + batch.block(block) + row * kBlock,
                  *w_row = w + block * kStep + c * kBlock;
      for (int u = 0; u < kBlock; u += kLanes)
#pragma GCC unroll 16
        for (int j = 0; j < B; ++j) {
          const vf value = load(x_row + j * kBlock + u);
#pragma GCC unroll 8
          for (int i = 0; i < R; ++i) sum[i][j] += value * load(w_row + i * kBlock + u);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < B; ++j) logits[(c + i) * stride + row + j] = b[c + i] + lane_sum(sum[i][j]);
  }

  template <int R>
  inline __attribute__((always_inline)) void run(int64_t c) const {
    constexpr int kRows = R == 1 ? kTile : 2 * kTile / R;
    int64_t row = 0;
    for (; row + kRows <= batch.rows; row += kRows) tile<R, kRows>(c, row);
    for (; row < batch.rows; ++row) tile<R, 1>(c, row);
  }
};

static void probe_forward(const float* w, const float* b, int64_t n, const Batch<float>& batch,
                          int64_t blocks, float* logits, int64_t stride) {
  for_tiles(n, ProbeForwardTile{w, b, batch, blocks, logits, stride});
}

/* The biases' gradient is the sum over the batch. */
static void probe_bias_update(Parameter b, int64_t n, const float* gradient, int64_t stride, int64_t rows,
                              const ec_adamw* adamw) {
  for (int64_t c = 0; c < n; ++c) {
    double sum = 0;
    for (int64_t row = 0; row < rows; ++row) sum += gradient[c * stride + row];
    ec_adamw_update((float)sum, b.w + c, b.m + c, b.v + c, adamw[c]);
  }
}

}  // namespace EC_ISA

#endif
