/* The functions between the products, on vectors: exp, the activations, LayerNorm. All in registers or L1. */
#ifndef EMBEDCACHE_ENCODER_FUNCTIONS_H
#define EMBEDCACHE_ENCODER_FUNCTIONS_H

#include "encoder.h"
#include "product.h"

namespace EC_ISA {

static inline vf select(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }
static inline vf larger(vf x, vf y) { return x > y ? x : y; } /* y where one is NaN */

static inline vf smaller(vf x, vf y) { return x < y ? x : y; }

/* Each instruction set defines the same five:
 *   reciprocal   1 / x to some 2^-22
 *   lane_max     the largest lane
 *   mix          lanes of x and y: lane i is lane at[i] of x, or lane at[i] - kLanes of y
 *   whole        the nearest whole number
 *   times_power_of_two   x 2^n of a whole n <= 0, x about 1; 0 where the result is below what is normal */
#if EC_LANES == 16
static inline float lane_max(vf x) { return _mm512_reduce_max_ps(x); }
static inline vu mix(vu x, vi at, vu y) {
  return (vu)_mm512_permutex2var_epi32((__m512i)x, (__m512i)at, (__m512i)y);
}
static inline vf reciprocal(vf x) {
  const vf y = _mm512_rcp14_ps(x);
  return y * (2.0f - x * y);
}
static inline vf whole(vf x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vf times_power_of_two(vf x, vf n) { return _mm512_scalef_ps(x, n); }
#else
static inline float lane_max(vf x) {
  float most = x[0];
  for (int i = 1; i < kLanes; ++i) most = x[i] > most ? x[i] : most;
  return most;
}
#ifdef __clang__ /* has no shuffle by a vector; where `at` is known, it makes one of this */
static inline vu mix(vu x, vi at, vu y) {
  vu lanes;
#pragma GCC unroll 8
  for (int i = 0; i < kLanes; ++i) lanes[i] = at[i] < kLanes ? x[at[i]] : y[at[i] - kLanes];
  return lanes;
}
#else
static inline vu mix(vu x, vi at, vu y) { return __builtin_shuffle(x, y, at); }
#endif
#if EC_LANES == 8
static inline vf reciprocal(vf x) {
  const vf y = _mm256_rcp_ps(x);
  return y * (2.0f - x * y);
}
#else
static inline vf reciprocal(vf x) { return 1.0f / x; }
#endif
static inline vf whole(vf x) { return (x + 0x1.8p23f) - 0x1.8p23f; }
static inline vf times_power_of_two(vf x, vf n) {
  const vi power = __builtin_convertvector(larger(splat(-150.0f), n), vi);
  return select(n < -125.0f, vf{}, (vf)((vi)x + (power << 23)));
}
#endif

/* e^x for x <= 0 (below -87 as there), 2e-7 off at most: 2^n e^r, |r| <= log(2) / 2, with the polynomial of
 * Cephes' expf (Moshier). NaN stays NaN. */
static inline vf exp_of(vf x) {
  constexpr float kRound = 0x1.8p23f; /* adding it leaves the nearest integer in the low bits */
  x = larger(splat(-87.0f), x);
  const vf shifted = x * 1.44269504f + kRound, n = shifted - kRound;
  const vf r = x - n * 0.693359375f - n * -2.12194440e-4f;
  vf sum = splat(1.9875691500e-4f);
  sum = sum * r + 1.3981999507e-3f;
  sum = sum * r + 8.3334519073e-3f;
  sum = sum * r + 4.1665795894e-2f;
  sum = sum * r + 1.6666665459e-1f;
  sum = sum * r + 5.0000001201e-1f;
  sum = sum * (r * r) + (r + 1.0f);
  return (vf)((vi)sum + ((vi)shifted << 23));
}

/* 1 - Phi(|x|) by formula 7.1.26 of Abramowitz and Stegun, z = |x| / sqrt(2), e = e^-zz. */
static inline vf normal_tail(vf z, vf e) {
  const vf t = reciprocal(z * 0.3275911f + 1.0f);
  vf sum = splat(1.061405429f);
  sum = sum * t - 1.453152027f;
  sum = sum * t + 1.421413741f;
  sum = sum * t - 0.284496736f;
  sum = sum * t + 0.254829592f;
  return 0.5f * sum * t * e;
}

/* x Phi(x): 2e-7 max(1, |x|) off at most. */
static inline vf gelu(vf x) {
  const vf z = (vf)((vi)x & 0x7FFFFFFF) * 0.707106781f, tail = normal_tail(z, exp_of(-z * z));
  return x * select(x < 0.0f, tail, 1.0f - tail);
}

/* x / 2 (1 + tanh(y)) with y = sqrt(2 / pi) (x + 0.044715 x^3): x / (1 + e^-2y). */
static inline vf gelu_tanh(vf x) {
  const vf y2 = x * (1.59576912f + 0.0713548163f * x * x);
  const vf e = exp_of((vf)((vi)y2 | (int32_t)0x80000000)), share = 1.0f / (1.0f + e); /* of |y| */
  return x * select(y2 < 0.0f, e * share, share);
}

static inline vf relu(vf x) { return select(x < 0.0f, vf{}, x); }

/* The two for what becomes int8, or shares of eight bits, next: as far off as neither can show.
 *
 * 2^x for x <= 0, 3e-6 of it off at most; 2^n p(r), |r| <= 1/2, p by minimax. NaN stays NaN. */
static inline vf exp2_near(vf x) {
  const vf n = whole(x), r = x - n;
  vf sum = splat(9.5827002e-3f);
  sum = sum * r + 5.5906877e-2f;
  sum = sum * r + 2.4024104e-1f;
  sum = sum * r + 6.9312412e-1f;
  return times_power_of_two(sum * r + 1.0f, n);
}

/* x Phi(x), 9e-5 off at most: Phi(x) = 1/2 + x p(x^2), minimax for |x| up to kEnd, where Phi is 0 or 1. */
static inline vf gelu_near(vf x) {
  constexpr float kEnd = 4.15f;
  constexpr float kPhi[] = {0.398495108f,   -0.0655765831f,  0.00932480581f, -0.000957479118f,
                            6.78162905e-5f, -3.10629775e-6f, 8.20098123e-8f, -9.41425493e-10f};
  const vf y = smaller(splat(kEnd), larger(splat(-kEnd), x)), s = y * y;
  vf sum = splat(kPhi[7]);
#pragma GCC unroll 7
  for (int i = 6; i >= 0; --i) sum = sum * s + kPhi[i];
  return x * (y * sum + 0.5f);
}

constexpr int kNoActivation = -1;

template <int Activation>
static inline vf activate(vf x) {
  if constexpr (Activation == kNoActivation) return x;
  return Activation == EC_GELU ? gelu(x) : Activation == EC_GELU_TANH ? gelu_tanh(x) : relu(x);
}

/* Transposes kLanes rows: first their halves change places, then the halves of the halves. */
template <int Size = kLanes / 2>
static inline void transpose(vu* rows) {
  vi upper, lower;
  for (int i = 0; i < kLanes; ++i) {
    upper[i] = i & Size ? i - Size + kLanes : i;
    lower[i] = i & Size ? i + kLanes : i + Size;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; ++i)
    if (!(i & Size)) {
      const vu x = rows[i], y = rows[i + Size];
      rows[i] = mix(x, upper, y);
      rows[i + Size] = mix(x, lower, y);
    }
  if constexpr (Size > 1) transpose<Size / 2>(rows);
}

/* All ones in the lanes below n. */
static inline vi first_lanes(int64_t n) {
  vi lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  return lane < (int32_t)n;
}

/* Zeroes [n, padded) of a row, so that vectors may run over its end. */
static inline void clear_tail(float* x, int64_t n, int64_t padded) {
  for (int64_t i = n; i < padded; ++i) x[i] = 0.0f;
}

struct Moments {
  float mean, scale; /* scale: 1 / sqrt(variance + epsilon) */
};

/* Of R rows x[n], `stride` apart: two passes, the variance from differences to the mean. RMSNorm's mean is 0.
 * A row's sums wait for each other; those of R rows run side by side, in the same order whatever R. */
template <int R>
static inline void moments_of(const float* x, int64_t stride, int64_t n, float epsilon, Moments* of,
                              bool rms = false) {
  const int64_t whole = n / kLanes * kLanes;
  vf sums[R] = {}, squares[R] = {};
  if (!rms)
    for (int64_t i = 0; i < whole; i += kLanes)
      for (int r = 0; r < R; ++r) sums[r] += load_unaligned(x + r * stride + i);
  for (int r = 0; r < R; ++r) {
    float sum = rms ? 0.0f : lane_sum(sums[r]);
    for (int64_t i = whole; !rms && i < n; ++i) sum += x[r * stride + i];
    of[r].mean = sum / (float)n;
  }
  for (int64_t i = 0; i < whole; i += kLanes)
    for (int r = 0; r < R; ++r) {
      const vf d = load_unaligned(x + r * stride + i) - of[r].mean;
      squares[r] += d * d;
    }
  for (int r = 0; r < R; ++r) {
    const float *row = x + r * stride, mean = of[r].mean;
    float square = lane_sum(squares[r]);
    for (int64_t i = whole; i < n; ++i) square += (row[i] - mean) * (row[i] - mean);
    of[r].scale = 1.0f / sqrtf(square / (float)n + epsilon);
  }
}

/* LayerNorm of R rows x[n] in place. */
template <int R>
[[maybe_unused]] static void layer_norm(float* x, int64_t stride, int64_t n, const ec_norm& norm,
                                        float epsilon) {
  const int64_t whole = n / kLanes * kLanes;
  Moments of[R];
  moments_of<R>(x, stride, n, epsilon, of);
  for (int64_t i = 0; i < whole; i += kLanes) {
    const vf weight = load_unaligned(norm.weight + i), bias = load_unaligned(norm.bias + i);
    for (int r = 0; r < R; ++r) {
      float* at = x + r * stride + i;
      store_unaligned(at, (load_unaligned(at) - of[r].mean) * of[r].scale * weight + bias);
    }
  }
  for (int64_t i = whole; i < n; ++i)
    for (int r = 0; r < R; ++r) {
      float* at = x + r * stride + i;
      *at = (*at - of[r].mean) * of[r].scale * norm.weight[i] + norm.bias[i];
    }
}

/* Rounded to the words of the next product; for float32 there is nothing to do. */
static inline void to_words(float*, const float*, int64_t) {}
static inline void to_words(Pair* out, const float* x, int64_t padded) {
  for (int64_t i = 0; i < padded; i += kStrip)
    store_numbers(out + i / 2, load_unaligned(x + i), load_unaligned(x + i + kLanes));
}

}  // namespace EC_ISA

#endif
