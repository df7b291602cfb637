/* Attention of one row's query, head by head, forward and back, over its cached states.
 *
 * Forward reads a row's states x once for the scores and once for their sums by the shares; back again once
 * each, for the gradients by the shares and by what the states were multiplied by. Nothing is asked of the
 * states' own gradient. Each time the row is read from where it lies and converted: 2 L D bytes, which then
 * stay in L2. 2 H L D multiply-adds forward, as many back.
 */
#ifndef EMBEDCACHE_BLOCK_ATTENTION_H
#define EMBEDCACHE_BLOCK_ATTENTION_H

#include "memory.h"

namespace EC_ISA {

/* A token's state, float32, zeros behind. */
static void load_token(const ec_states& states, int64_t token, int64_t padded, float* out) {
  const int64_t dim = states.dim, whole = dim / kLanes * kLanes, at = token * dim;
  if (states.dtype == EC_FLOAT32) {
    memcpy(out, static_cast<const float*>(states.values) + at, (size_t)dim * sizeof(float));
  } else {
    const uint16_t* halves = static_cast<const uint16_t*>(states.values) + at;
    for (int64_t k = 0; k < whole; k += kLanes) store_unaligned(out + k, load_half(halves + k));
    for (int64_t k = whole; k < dim; ++k) out[k] = ec_half_to_float(halves[k]);
  }
  clear_tail(out, dim, padded);
}

static inline const float* tokens_of(const Member& me, const float*) { return me.x; }
static inline const Pair* tokens_of(const Member& me, const Pair*) { return me.x_columns; }
static inline const float* token_pairs_of(const Member& me, const float*) { return me.x; }
static inline const Pair* token_pairs_of(const Member& me, const Pair*) { return me.x_rows; }

/* All tokens of a row as words, along columns and (bfloat16) along tokens; returns how many. */
template <class Word>
static int64_t load_row(const Trainee& t, const Member& me, int64_t row) {
  const int64_t start = t.states.begins[row], n = length_of(t, row), stride = row_stride(t.padded);
  for (int64_t j = 0; j < n; ++j) {
    const int64_t at = kPer<Word> == 1 ? j : j % 2;
    load_token(t.states, start + j, t.padded, me.x + at * stride);
    if (kPer<Word> == 2 && (at == 1 || j + 1 == n)) {
      words_along_columns(me.x, stride, at + 1, t.padded, me.x_columns + (j - at) * row_stride(t.padded / 2),
                          row_stride(t.padded / 2));
      words_along_rows(me.x, stride, at + 1, t.padded, me.x_rows + j / 2 * stride, stride);
    }
  }
  return n;
}

/* out[h][j] = by[h] . x_j for the row that is loaded. */
template <class Word>
static void by_tokens(const Trainee& t, const Member& me, Rows<float> by, int64_t n, float* out) {
  const int64_t stride = row_stride(t.padded / kPer<Word>);
  const Lines<Word> tokens = {tokens_of(me, (const Word*)nullptr), stride, 1, 1};
  if constexpr (kPer<Word> == 1) {
    dots(by, t.heads, tokens, n, t.padded, out, share_stride(t));
  } else {
    words_along_columns(by.data, by.stride, t.heads, t.padded, me.score_words, stride);
    dots(Rows<Pair>{me.score_words, stride}, t.heads, tokens, n, t.padded / 2, out, share_stride(t));
  }
}

/* out[h] = sum_j weights[h][j] x_j. */
template <class Word>
static void sum_tokens(const Trainee& t, const Member& me, const float* weights, int64_t n, float* out) {
  const int64_t stride = share_stride(t), row = row_stride(t.padded);
  const Panels<Word> tokens = {token_pairs_of(me, (const Word*)nullptr), kBlock, row};
  if constexpr (kPer<Word> == 1) {
    product(Rows<float>{weights, stride}, t.heads, tokens, t.padded, n, Store{out, row});
  } else {
    words_along_columns(weights, stride, t.heads, n, me.score_words, stride);
    product(Rows<Pair>{me.score_words, stride}, t.heads, tokens, t.padded, (n + 1) / 2, Store{out, row});
  }
}

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
static float drop_shares(const Trainee& t, uint32_t step, int64_t row, float* shares, int64_t n,
                         float* used) {
  vf sums = {};
  for (int64_t j = 0; j < n; j += kLanes) {
    const uint64_t kept = kept_bits(t.drop_shares, step, (uint32_t)row, j / 64) >> j % 64;
    const vf share = load_unaligned(shares + j), left = where_kept(share * t.drop_shares.scale, kept);
    store_unaligned(used + j, left);
    store_unaligned(shares + j, keep_sign(share, kept));
    sums += left;
  }
  return lane_sum(sums);
}

static inline float* shares_of(const Trainee& t, int64_t b) {
  return t.shares + b * t.heads * share_stride(t);
}

static const float* relative_of(const Trainee& t, int64_t h, int64_t n) {
  if (!t.shape.relative) return nullptr;
  const int64_t query = t.shape.query == EC_QUERY_LAST ? n - 1 : 0;
  return t.shape.relative + h * (2 * t.shape.positions - 1) + t.shape.positions - 1 - query;
}

/* Row b of the batch, from `folded` to shares, their sums and `mixed`; step below 0: without dropout. */
template <class Word>
static void attend(const Trainee& t, const Member& me, int64_t b, int64_t step) {
  const int64_t n = load_row<Word>(t, me, t.rows[b]), stride = share_stride(t);
  float* shares = shares_of(t, b);
  memset(shares, 0, (size_t)(t.heads * stride) * sizeof(float));
  if (n == 0) {
    memset(t.share_sum + b * t.heads, 0, (size_t)t.heads * sizeof(float));
    memset(t.mixed.row(b), 0, (size_t)(t.heads * t.mixed.sheet.stride) * sizeof(float));
    return;
  }
  by_tokens<Word>(t, me, {t.folded.row(b), t.folded.sheet.stride}, n, shares);
  const bool drops = step >= 0 && t.drop_shares.threshold;
  for (int64_t h = 0; h < t.heads; ++h) {
    float* own = shares + h * stride;
    softmax(own, n, stride, t.scale, relative_of(t, h, n));
    t.share_sum[b * t.heads + h] =
        drops ? drop_shares(t, (uint32_t)step, b * t.heads + h, own, n, me.scores + h * stride) : 1.0f;
  }
  if (drops)
    for (int64_t h = 0; h < t.heads; ++h) clear_tail(me.scores + h * stride, n, stride);
  sum_tokens<Word>(t, me, drops ? me.scores : shares, n, t.mixed.row(b));
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

/* Row b: `folded` holds the gradient by `mixed`, and then that by what the states were multiplied by. each:
 * [heads], what every share's gradient has besides. */
template <class Word>
static void attend_back(const Trainee& t, const Member& me, int64_t b, const float* each) {
  const int64_t n = load_row<Word>(t, me, t.rows[b]), stride = share_stride(t);
  if (n == 0) {
    memset(t.folded.row(b), 0, (size_t)(t.heads * t.folded.sheet.stride) * sizeof(float));
    return;
  }
  by_tokens<Word>(t, me, {t.folded.row(b), t.folded.sheet.stride}, n, me.scores);
  for (int64_t h = 0; h < t.heads; ++h)
    softmax_back(shares_of(t, b) + h * stride, me.scores + h * stride, n, stride,
                 t.drop_shares.threshold ? t.drop_shares.scale : 1.0f, t.scale, each[h]);
  sum_tokens<Word>(t, me, me.scores, n, t.folded.row(b));
}

}  // namespace EC_ISA

#endif
