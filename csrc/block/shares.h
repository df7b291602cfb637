/* A query's scores to shares, with dropout, and the way back; registers and L1.
 *
 * A dropped share stays as it was but for its sign: the way back needs both, and nothing else is kept.
 */
#ifndef EMBEDCACHE_BLOCK_SHARES_H
#define EMBEDCACHE_BLOCK_SHARES_H

#include "../encoder/functions.h"
#include "dropout.h"

namespace EC_ISA {

/* Scores [0, n) of a head to shares, zeros behind. */
static void softmax(float* s, int64_t n, int64_t stride, float scale, const float* relative) {
  for (int64_t j = n; j < stride; ++j) s[j] = -INFINITY;
  vf most = splat(-INFINITY), sums = {};
  for (int64_t j = 0; j < n; j += kLanes) {
    vf x = load_unaligned(s + j) * scale;
    store_unaligned(s + j, x);
  }
  for (int64_t j = 0; relative && j < n; ++j) s[j] += relative[j];
  for (int64_t j = 0; j < n; j += kLanes) most = larger(load_unaligned(s + j), most);
  const float top = lane_max(most);
  for (int64_t j = 0; j < n; j += kLanes) {
    const vf e = exp_of(load_unaligned(s + j) - top);
    store_unaligned(s + j, e);
  }
  clear_tail(s, n, stride);
  for (int64_t j = 0; j < n; j += kLanes) sums += load_unaligned(s + j);
  const float weight = 1.0f / lane_sum(sums);
  for (int64_t j = 0; j < n; j += kLanes) store_unaligned(s + j, load_unaligned(s + j) * weight);
}

static inline vf keep_sign(vf x, uint64_t kept) { /* below zero where not kept */
  return (vf)((vi)x | ((vi)where_kept((vf)(vi{} + (int32_t)0x80000000), kept) ^ (int32_t)0x80000000));
}

/* Shares with the dropped ones marked, and what is left of them, to `used`; returns the sum of `used`. */
static float drop_shares(const Dropout& drop, uint32_t step, int64_t row, float* shares, int64_t n,
                         float* used) {
  vf sums = {};
  for (int64_t j = 0; j < n; j += kLanes) {
    const uint64_t kept = kept_bits(drop, step, (uint32_t)row, j / 64) >> j % 64;
    const vf share = load_unaligned(shares + j), left = where_kept(share * drop.scale, kept);
    store_unaligned(used + j, left);
    store_unaligned(shares + j, keep_sign(share, kept));
    sums += left;
  }
  return lane_sum(sums);
}

/* What is left of marked shares [0, n), a multiple of lanes. */
static void used_shares(const Dropout& drop, const float* shares, int64_t n, float* used) {
  const vf scale = splat(drop.threshold ? drop.scale : 1.0f);
  for (int64_t j = 0; j < n; j += kLanes) {
    const vf share = load_unaligned(shares + j);
    store_unaligned(used + j, where_positive(share, share * scale));
  }
}

/* From the gradient by the shares, g, to that by the scores (times their scale): p (g - sum_j p_j g_j), g
 * being 0 where the share was dropped, and scaled where not. */
static void softmax_back(const float* shares, float* g, int64_t n, int64_t stride, float kept_scale,
                         float scale, float each) {
  vf sums = {};
  const vf zero = {};
  clear_tail(g, n, stride);
  for (int64_t j = 0; j < n; j += kLanes) {
    const vf marked = load_unaligned(shares + j), share = (vf)((vi)marked & 0x7FFFFFFF);
    const vf own = select((vi)marked < (vi)zero, zero, (load_unaligned(g + j) + each) * kept_scale);
    store_unaligned(g + j, own);
    sums += share * own;
  }
  const float sum = lane_sum(sums);
  for (int64_t j = 0; j < n; j += kLanes) {
    const vf share = (vf)((vi)load_unaligned(shares + j) & 0x7FFFFFFF);
    store_unaligned(g + j, share * (load_unaligned(g + j) - sum) * scale);
  }
  clear_tail(g, n, stride);
}

}  // namespace EC_ISA

#endif
