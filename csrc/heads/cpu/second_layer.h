/* The second layer: logits = a w2' + b2, the way back to a, its gradient and AdamW, for one block of 32
 * hidden units.
 *
 * The activations lie in blocks [rows][32], the weights as [hidden / 32][classes][32], so a block of them
 * belongs to one block of units and to the thread that owns it. The gradient is never stored: AdamW in the
 * tile's epilogue. Bound: for few classes, the loads of a and w2.
 */
#ifndef EMBEDCACHE_CPU_SECOND_LAYER_H
#define EMBEDCACHE_CPU_SECOND_LAYER_H

#include "adamw.h"
#include "tile.h"

namespace EC_ISA {

/* logits[b][c] += a[b] . w2[c] over 32 inputs. */
static void add_logits(const float* a, int64_t rows, const float* w2, int64_t classes, float* logits) {
  for (int64_t b = 0; b < rows; ++b, a += kBlock, logits += classes)
    for (int64_t c = 0; c < classes; ++c) {
      vf sum = load(a) * load(w2 + c * kBlock);
#pragma GCC unroll 8
      for (int u = kLanes; u < kBlock; u += kLanes) sum += load(a + u) * load(w2 + c * kBlock + u);
      logits[c] += lane_sum(sum);
    }
}

struct BackTile {
  const float *w2, *dlogits, *a;
  int64_t classes;
  float* dz;
  vf scale;
  int strip;

  template <int R>
  inline __attribute__((always_inline)) void run(int64_t b) const {
    const Tile<R> da = tile_sum<R>(w2 + strip, dlogits + b * classes, classes, 1, classes);
    for (int i = 0; i < R; ++i)
      for (int half = 0; half < 2; ++half) {
        const int64_t at = (b + i) * kBlock + strip + half * kLanes;
        store(dz + at, where_positive(load(a + at), da.at[i][half] * scale));
      }
  }
};

/* dz[b][32]: back through w2, dropout and ReLU. A unit was on and kept exactly where its activation is above
 * 0. */
static void back_to_hidden(const float* w2, const float* dlogits, int64_t classes, const float* a,
                           int64_t rows, float scale, float* dz) {
  for (int strip = 0; strip < kBlock; strip += kStrip)
    for_tiles(rows, BackTile{w2, dlogits, a, classes, dz, splat(scale), strip});
}

struct SecondGradientTile {
  const float *a, *dlogits;
  int64_t rows, classes;
  Parameter p;
  const ec_adamw& adamw;
  int strip;

  template <int R>
  inline __attribute__((always_inline)) void run(int64_t c) const {
    const Tile<R> gradient = tile_sum<R>(a + strip, dlogits + c, 1, classes, rows);
    for (int i = 0; i < R; ++i)
      for (int half = 0; half < 2; ++half)
        adamw_update(gradient.at[i][half], p.at((c + i) * kBlock + strip + half * kLanes), adamw);
  }
};

static void second_layer_update(Parameter w2, const float* dlogits, int64_t classes, const float* a,
                                int64_t rows, const ec_adamw& adamw) {
  for (int strip = 0; strip < kBlock; strip += kStrip)
    for_tiles(classes, SecondGradientTile{a, dlogits, rows, classes, w2, adamw, strip});
}

/* AdamW on the bias of 32 units, whose gradient is the sum of dz over the batch. */
static void first_bias_update(Parameter b1, const float* dz, int64_t rows, const ec_adamw& a) {
  for (int u = 0; u < kBlock; u += kLanes) {
    vf sum = {};
    for (int64_t b = 0; b < rows; ++b) sum += load(dz + b * kBlock + u);
    adamw_update(sum, b1.at(u), a);
  }
}

static void second_bias_update(Parameter b2, const float* dlogits, int64_t rows, int64_t classes,
                               const ec_adamw& a) {
  for (int64_t c = 0; c < classes; ++c) {
    double sum = 0;
    for (int64_t b = 0; b < rows; ++b) sum += dlogits[b * classes + c];
    ec_adamw_update((float)sum, b2.w + c, b2.m + c, b2.v + c, a);
  }
}

}  // namespace EC_ISA

#endif
