/* Activations with their derivatives, and LayerNorm forward and back; all in registers or L1. */
#ifndef EMBEDCACHE_BLOCK_SLOPES_H
#define EMBEDCACHE_BLOCK_SLOPES_H

#include "../encoder/functions.h"

namespace EC_ISA {

/* Phi(x) + x phi(x). Phi as gelu has it: 2e-7 off at most. */
static inline vf gelu_slope(vf x) {
  const vf z = (vf)((vi)x & 0x7FFFFFFF) * 0.707106781f, e = exp_of(-z * z), tail = normal_tail(z, e);
  return select(x < 0.0f, tail, 1.0f - tail) + x * e * 0.398942280f;
}

/* With s = 1 / (1 + e^-2y): s + x s (1 - s) d2y/dx. */
static inline vf gelu_tanh_slope(vf x) {
  const vf y2 = x * (1.59576912f + 0.0713548163f * x * x), d2 = 1.59576912f + 0.2140644489f * x * x;
  const vf e = exp_of((vf)((vi)y2 | (int32_t)0x80000000)), share = 1.0f / (1.0f + e);
  const vf s = select(y2 < 0.0f, e * share, share);
  return s + x * (e * share * share) * d2;
}

static inline vf activated(int activation, vf x) {
  return activation == EC_GELU ? gelu(x) : activation == EC_GELU_TANH ? gelu_tanh(x) : relu(x);
}

static inline vf activation_slope(int activation, vf x) {
  if (activation == EC_GELU) return gelu_slope(x);
  return activation == EC_GELU_TANH ? gelu_tanh_slope(x) : select(x > 0.0f, splat(1.0f), vf{});
}

/* x[n] to (x - mean) / sqrt(variance + epsilon) in place, zeros behind; returns 1 / sqrt(...). */
static float normalize_row(float* x, int64_t n, int64_t padded, float epsilon) {
  const int64_t whole = n / kLanes * kLanes;
  vf sums = {}, squares = {};
  for (int64_t i = 0; i < whole; i += kLanes) sums += load_unaligned(x + i);
  float sum = lane_sum(sums);
  for (int64_t i = whole; i < n; ++i) sum += x[i];
  const float mean = sum / (float)n;
  for (int64_t i = 0; i < whole; i += kLanes) {
    const vf d = load_unaligned(x + i) - mean;
    squares += d * d;
    store_unaligned(x + i, d);
  }
  float square = lane_sum(squares);
  for (int64_t i = whole; i < n; ++i) {
    x[i] -= mean;
    square += x[i] * x[i];
  }
  const float scale = 1.0f / sqrtf(square / (float)n + epsilon);
  clear_tail(x, n, padded);
  for (int64_t i = 0; i < padded; i += kLanes) store_unaligned(x + i, load_unaligned(x + i) * scale);
  return scale;
}

/* out = normal * weight + bias; all padded with zeros. */
static void scale_row(const float* normal, const float* weight, const float* bias, int64_t padded,
                      float* out) {
  for (int64_t i = 0; i < padded; i += kLanes)
    store_unaligned(out + i,
                    load_unaligned(normal + i) * load_unaligned(weight + i) + load_unaligned(bias + i));
}

/* The gradient by a LayerNorm's input, from g by its output: with h = g weight,
 * (h - mean(h) - normal mean(h normal)) scale. */
static void normalize_back(const float* g, const float* normal, const float* weight, float scale, int64_t n,
                           int64_t padded, float* out) {
  vf sums = {}, dots = {};
  for (int64_t i = 0; i < padded; i += kLanes) {
    const vf h = load_unaligned(g + i) * load_unaligned(weight + i);
    sums += h;
    dots += h * load_unaligned(normal + i);
  }
  const float mean = lane_sum(sums) / (float)n, dot = lane_sum(dots) / (float)n;
  for (int64_t i = 0; i < padded; i += kLanes) {
    const vf h = load_unaligned(g + i) * load_unaligned(weight + i);
    store_unaligned(out + i, (h - mean - load_unaligned(normal + i) * dot) * scale);
  }
  clear_tail(out, n, padded);
}

}  // namespace EC_ISA

#endif
