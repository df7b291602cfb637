/* The engine's arithmetic, one scalar at a time: Philox streams, AdamW, log-softmax, half to float.
 *
 * g++ and nvcc both compile this file, so the CPU and the CUDA engine cannot drift apart. It is also the
 * slow, plain reference of the vectorized kernels, and embedcache/heads/engine_torch.py repeats its random
 * streams in torch.
 */
/* clang-format off */
/* Random streams. Key = the head's 64-bit seed (low word first). A counter is four 32-bit words; the last is
 * the domain, so that initial weights, shuffle and dropout never share a number:
 *
 *   stream           counter                                                     word
 *   initial weights  (element / 4 low,             element / 4 high,  tensor,  0)  element % 4
 *   shuffle          (position / 4,                0,                 epoch,   1)  position % 4
 *   dropout          (unit / 64 * 16 + unit % 16,  row,               step,    2)  unit % 64 / 16
 *   of a block's (csrc/block) attention output 3, feed-forward output 4: as dropout, with that domain
 *   of its shares    (token / 64 * 16 + token % 16, row * heads + head, step,  5)  token % 64 / 16
 *   of a block's layer k below its last one the same, with 16 k more than that domain
 *
 * `element` counts row-major; `position` is that of a row in its view; `row` is the row's place in its batch (of a
 * layer that is computed for every token: the token's place among those of the batch);
 * `step` counts the head's steps from 0 over all epochs. The dropout order lets 16 SIMD lanes hold 16
 * neighbouring units for each of the four words.
 */
/* clang-format on */
#ifndef EMBEDCACHE_NUMERICS_H
#define EMBEDCACHE_NUMERICS_H

#include <math.h>
#include <stdint.h>

#include "heads.h"

#ifdef __CUDACC__
#define EC_FN static __host__ __device__ __forceinline__
#define EC_FAR static __host__ __device__ __noinline__ /* where a kernel lacks the registers */
#else
#define EC_FN static inline
#define EC_FAR static inline
#endif

/* ---- Elements of an ec_matrix ---- */

EC_FN int64_t ec_size_of(int32_t dtype) { return dtype == EC_FLOAT32 ? 4 : dtype == EC_FLOAT16 ? 2 : 1; }

/* ---- Philox4x32-10 (Salmon et al., 2011) ---- */

#define EC_PHILOX_M0 0xD2511F53u
#define EC_PHILOX_M1 0xCD9E8D57u
#define EC_PHILOX_W0 0x9E3779B9u
#define EC_PHILOX_W1 0xBB67AE85u
#define EC_PHILOX_ROUNDS 10

enum { EC_DOMAIN_INIT = 0, EC_DOMAIN_SHUFFLE = 1, EC_DOMAIN_DROPOUT = 2 };
/* Dropout in a block's last layer; EC_DOMAINS more for each layer further below. */
enum { EC_DOMAIN_ATTENTION = 3, EC_DOMAIN_FEED_FORWARD = 4, EC_DOMAIN_SHARES = 5, EC_DOMAINS = 16 };
enum { EC_TENSOR_W1 = 0, EC_TENSOR_B1 = 1, EC_TENSOR_W2 = 2, EC_TENSOR_B2 = 3 };

typedef struct {
  uint32_t word[4];
} ec_words;

EC_FN ec_words ec_philox(uint64_t seed, uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3) {
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  for (int round = 0; round < EC_PHILOX_ROUNDS; ++round) {
    const uint64_t p0 = (uint64_t)EC_PHILOX_M0 * c0, p1 = (uint64_t)EC_PHILOX_M1 * c2;
    c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
    c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
    c1 = (uint32_t)p1;
    c3 = (uint32_t)p0;
    k0 += EC_PHILOX_W0;
    k1 += EC_PHILOX_W1;
  }
  ec_words words;
  words.word[0] = c0;
  words.word[1] = c1;
  words.word[2] = c2;
  words.word[3] = c3;
  return words;
}

/* ---- Initial weights: U(-bound, bound) with bound = 1 / sqrt(fan_in), as torch.nn.Linear ----
 *
 * Of heads with a hidden layer, whose units must differ. A linear probe's loss is convex: it starts at zero,
 * so that what it has not learned is nothing, rather than noise; its biases start where ec_head.start says.
 */

EC_FN float ec_init_bound(int64_t fan_in) { return (float)(1.0 / sqrt((double)fan_in)); }

/* 24 random bits on a grid of 2^-23 over [-1, 1), which float32 holds exactly; one rounding, in the product.
 */
EC_FN float ec_init_from_word(uint32_t word, float bound) {
  return ((float)(word >> 8) * 0x1p-23f - 1.0f) * bound;
}

EC_FN float ec_init_value(uint64_t seed, uint32_t tensor, uint64_t element, float bound) {
  const uint64_t block = element / 4;
  const ec_words words = ec_philox(seed, (uint32_t)block, (uint32_t)(block >> 32), tensor, EC_DOMAIN_INIT);
  return ec_init_from_word(words.word[element % 4], bound);
}

/* ---- Shuffle: an epoch visits the positions 0..n-1 of its view in the order of (key, position) ---- */

EC_FN uint32_t ec_shuffle_key(uint64_t seed, uint32_t epoch, uint32_t position) {
  return ec_philox(seed, position / 4, 0, epoch, EC_DOMAIN_SHUFFLE).word[position % 4];
}

/* ---- Dropout: a unit is kept where its word is not below the threshold, and then scaled ---- */

EC_FN uint32_t ec_dropout_threshold(double dropout) { return (uint32_t)(dropout * 4294967296.0); }

EC_FN float ec_dropout_scale(double dropout) { return (float)(1.0 / (1.0 - dropout)); }

EC_FN uint32_t ec_dropout_word(uint64_t seed, uint32_t step, uint32_t row, uint32_t unit) {
  return ec_philox(seed, unit / 64 * 16 + unit % 16, row, step, EC_DOMAIN_DROPOUT).word[unit % 64 / 16];
}

/* ---- AdamW as torch.optim.AdamW, the decay on every parameter ----
 *
 * torch:  w -= lr wd w;  m += (1 - b1)(g - m);  v = b2 v + (1 - b2) g g
 *         w -= lr / c1 * m / (sqrt(v) / sqrt(c2) + eps),  c1 = 1 - b1^t,  c2 = 1 - b2^t
 *
 * Here both sides of the fraction are multiplied by sqrt(c2), b2 v is v - (1 - b2) v and w moves by one sum,
 * so that no constant close to 1 is ever rounded to float: closer to float64 than the formulas above, and no
 * slower. v + (1 - b2)(g g - v) would lose a small g beside an old large v where b2 is 0. */

typedef struct {
  float m_rate; /* 1 - beta1 */
  float v_rate; /* 1 - beta2 */
  float rate;   /* lr sqrt(c2) / c1 */
  float eps;    /* eps sqrt(c2) */
  float decay;  /* lr weight_decay */
} ec_adamw;

/* The constants of step t = 1, 2, ... */
EC_FN ec_adamw ec_adamw_at(double lr, double beta1, double beta2, double eps, double weight_decay,
                           int64_t t) {
  const double c1 = 1.0 - pow(beta1, (double)t), root_c2 = sqrt(1.0 - pow(beta2, (double)t));
  ec_adamw a;
  a.m_rate = (float)(1.0 - beta1);
  a.v_rate = (float)(1.0 - beta2);
  a.rate = (float)(lr * root_c2 / c1);
  a.eps = (float)(eps * root_c2);
  a.decay = (float)(lr * weight_decay);
  return a;
}

EC_FN void ec_adamw_update(float gradient, float* w, float* m, float* v, ec_adamw a) {
  *m = fmaf(a.m_rate, gradient - *m, *m);
  *v = fmaf(a.v_rate * gradient, gradient, fmaf(-a.v_rate, *v, *v));
  *w -= fmaf(a.decay, *w, a.rate * *m / (sqrtf(*v) + a.eps));
}

/* ---- Schedules of the learning rate, as transformers' get_..._schedule_with_warmup ----
 *
 * The factor of step t = 0, 1, ... of T, W of which are the warm-up: t / W up to W, then 1 (constant),
 * (T - t) / (T - W) (linear) or (1 + cos(pi (t - W) / (T - W))) / 2 (cosine). */

EC_FN int64_t ec_warmup_steps(double warmup, int64_t total) { return (int64_t)ceil(warmup * (double)total); }

EC_FN double ec_lr_factor(int32_t schedule, double warmup, int64_t step, int64_t total) {
  const int64_t first = ec_warmup_steps(warmup, total);
  if (step < first) return (double)step / (double)first;
  if (schedule == EC_SCHEDULE_CONSTANT) return 1.0;
  const double done = (double)(step - first) / (double)(total > first ? total - first : 1);
  return schedule == EC_SCHEDULE_LINEAR ? 1.0 - done : 0.5 * (1.0 + cos(3.141592653589793 * done));
}

/* ---- What losses (losses/) and scores are made of, in double ---- */

EC_FN double ec_log_sum_exp(const float* logits, int64_t n) {
  float top = logits[0];
  for (int64_t c = 1; c < n; ++c) top = logits[c] > top ? logits[c] : top;
  double sum = 0;
  for (int64_t c = 0; c < n; ++c) sum += exp((double)logits[c] - (double)top);
  return (double)top + log(sum);
}

/* F1 of a class: rows of it, rows predicted as it, and both at once. A class in neither has none. */
EC_FN double ec_f1(int64_t actual, int64_t predicted, int64_t both) {
  return 2.0 * (double)both / (double)(actual + predicted);
}

/* ---- Which epoch of a head is kept: ec_options.choose ----
 *
 * A score that does not exist (NaN: regression, no label anywhere) is below every other, so that the loss
 * decides. A loss that is not finite is never better. */

EC_FN double ec_chosen_score(int32_t choose, double accuracy, double f1) {
  const double score = choose == EC_CHOOSE_ACCURACY ? accuracy : choose == EC_CHOOSE_F1 ? f1 : 0.0;
  return score >= 0.0 ? score : -1.0;
}

EC_FN int ec_is_better(double score, double loss, double best_score, double best_loss) {
  return loss < INFINITY && (score > best_score || (score == best_score && loss < best_loss));
}

/* ---- IEEE half precision to float, for machines without an instruction for it ----
 *
 * No step goes through a subnormal float: the CPU engine's threads flush those to zero. */

EC_FN float ec_half_to_float(uint16_t half) {
  const uint32_t sign = (uint32_t)(half & 0x8000u) << 16, magnitude = half & 0x7FFFu;
  union {
    uint32_t bits;
    float value;
  } out;
  if (magnitude < 0x400u) { /* zero, subnormal */
    out.value = (float)magnitude * 0x1p-24f;
  } else if (magnitude < 0x7C00u) {
    out.bits = (magnitude << 13) + 0x38000000u; /* the exponent's bias: 127 - 15 */
  } else {                                      /* inf, NaN */
    out.bits = 0x7F800000u | (magnitude & 0x3FFu) << 13;
  }
  out.bits |= sign;
  return out.value;
}

#endif
