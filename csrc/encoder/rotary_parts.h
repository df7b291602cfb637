/* Between the products of a rotary encoder: norms, the turn of queries and keys, the gate. All in registers
 * or L1. */
#ifndef EMBEDCACHE_ENCODER_ROTARY_PARTS_H
#define EMBEDCACHE_ENCODER_ROTARY_PARTS_H

#include "rotary_model.h"

namespace EC_ISA {

/* LayerNorm of x[n] to out[n], or RMSNorm, which subtracts no mean; out may be x. */
static void norm_row(float* out, const float* x, int64_t n, const ec_norm& norm, float epsilon, bool rms) {
  const int64_t whole = n / kLanes * kLanes;
  Moments of;
  moments_of<1>(x, 0, n, epsilon, &of, rms);
  const auto [mean, scale] = of;
  for (int64_t i = 0; i < whole; i += kLanes) {
    const vf y = (load_unaligned(x + i) - mean) * scale * load_unaligned(norm.weight + i);
    store_unaligned(out + i, norm.bias ? y + load_unaligned(norm.bias + i) : y);
  }
  for (int64_t i = whole; i < n; ++i)
    out[i] = (x[i] - mean) * scale * norm.weight[i] + (norm.bias ? norm.bias[i] : 0.0f);
}

/* n numbers, up to a multiple of a strip, as words. */
static inline void put_words(float* out, const float* x, int64_t n) {
  memcpy(out, x, (size_t)n * sizeof(float));
}
static inline void put_words(Pair* out, const float* x, int64_t n) { to_words(out, x, n); }

/* One head of a query or a key, in place: normed if it has a norm, turned by its position's angles, scaled.
 */
static void turn_head(float* x, int64_t head, const ec_norm& norm, float epsilon, bool rms,
                      const float* cosine, const float* sine, float scale) {
  if (norm.weight) norm_row(x, x, head, norm, epsilon, rms);
  const int64_t half = head / 2, whole = half / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    const vf a = load_unaligned(x + i), b = load_unaligned(x + half + i);
    const vf c = load_unaligned(cosine + i) * scale, s = load_unaligned(sine + i) * scale;
    store_unaligned(x + i, a * c - b * s);
    store_unaligned(x + half + i, b * c + a * s);
  }
  for (int64_t i = whole; i < half; ++i) {
    const float a = x[i], b = x[half + i], c = cosine[i] * scale, s = sine[i] * scale;
    x[i] = a * c - b * s;
    x[half + i] = b * c + a * s;
  }
}

/* x / (1 + e^-x). */
static inline vf silu(vf x) {
  const vf e = exp_of((vf)((vi)x | (int32_t)0x80000000)), share = 1.0f / (1.0f + e); /* of |x| */
  return x * select(x < 0.0f, e * share, share);
}

template <int Activation>
static inline vf gate_of(vf x) {
  if constexpr (Activation == EC_SILU)
    return silu(x);
  else
    return activate<Activation>(x);
}

/* kLanes neighbouring numbers as words. */
static inline void store_lanes(float* p, vf x) { store_unaligned(p, x); }
static inline void store_lanes(Pair* p, vf x) {
  const vu words = pairs_in_order(x, x);
  memcpy(p, &words, sizeof(words) / 2);
}

/* A strip's first vector holds gates, its second the values that they gate: kLanes numbers of the inner row.
 */
template <class Word, int Activation>
struct StoreGated {
  Word* out;
  int64_t stride;
  const float* bias;
  template <int R>
  void take(const Tile<R>& tile, int64_t row, int64_t column) const {
    const vf gate = load_unaligned(bias + column), up = load_unaligned(bias + column + kLanes);
    for (int i = 0; i < R; ++i)
      store_lanes(out + (row + i) * stride + column / 2 / kPer<Word>,
                  gate_of<Activation>(tile.at[i][0] + gate) * (tile.at[i][1] + up));
  }
};

}  // namespace EC_ISA

#endif
