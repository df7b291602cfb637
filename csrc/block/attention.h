/* Attention of one row's query, head by head, forward and back, over the states of its text: cached ones, or
 * what a layer below has made of them.
 *
 * Forward reads a row's states x once for the scores and once for their sums by the shares; back again once
 * each, for the gradients by the shares and by what the states were multiplied by. Only of a layer's states
 * the own gradient is asked: 2 H L D more. Each time the row is read from where it lies and converted: 2 L D
 * bytes, which then stay in L2. 2 H L D multiply-adds forward, as many back.
 */
#ifndef EMBEDCACHE_BLOCK_ATTENTION_H
#define EMBEDCACHE_BLOCK_ATTENTION_H

#include "memory.h"
#include "shares.h"

namespace EC_ISA {

/* A token's state, float32, zeros behind. */
static void load_token(const Tokens& from, int64_t token, int64_t dim, int64_t padded, float* out) {
  const int64_t whole = dim / kLanes * kLanes, at = token * from.stride;
  if (from.dtype == EC_FLOAT32) {
    memcpy(out, static_cast<const float*>(from.values) + at, (size_t)dim * sizeof(float));
  } else {
    const uint16_t* halves = static_cast<const uint16_t*>(from.values) + at;
    for (int64_t k = 0; k < whole; k += kLanes) store_unaligned(out + k, load_half(halves + k));
    for (int64_t k = whole; k < dim; ++k) out[k] = ec_half_to_float(halves[k]);
  }
  clear_tail(out, dim, padded);
}

static inline const float* tokens_of(const Member& me, const float*) { return me.x; }
static inline const Pair* tokens_of(const Member& me, const Pair*) { return me.x_columns; }
static inline const float* token_pairs_of(const Member& me, const float*) { return me.x; }
static inline const Pair* token_pairs_of(const Member& me, const Pair*) { return me.x_rows; }

/* All tokens of row b as words, along columns and (bfloat16) along tokens; returns how many. */
template <class Word>
static int64_t load_row(const Trainee& t, const Member& me, int64_t b) {
  const int64_t start = t.read.begins[b], n = length_of(t, b), stride = row_stride(t.padded);
  for (int64_t j = 0; j < n; ++j) {
    const int64_t at = kPer<Word> == 1 ? j : j % 2;
    load_token(t.read, start + j, t.dim, t.padded, me.x + at * stride);
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

static inline float* shares_of(const Trainee& t, int64_t b) {
  return t.shares + b * t.heads * share_stride(t);
}

static Heads heads_in(const Trainee& t) {
  return {t.heads, t.head, t.scale, t.shape.relative, t.shape.positions};
}
static int64_t query_of(const Trainee& t, int64_t n) { return t.shape.query == EC_QUERY_LAST ? n - 1 : 0; }

/* Row b of the batch, from `folded_query` to shares, their sums and `mixed`; step below 0: without dropout.
 */
template <class Word>
static void attend(const Trainee& t, const Member& me, int64_t b, int64_t step) {
  const int64_t n = load_row<Word>(t, me, b), stride = share_stride(t);
  float* shares = shares_of(t, b);
  memset(shares, 0, (size_t)(t.heads * stride) * sizeof(float));
  if (n == 0) {
    memset(t.share_sum + b * t.heads, 0, (size_t)t.heads * sizeof(float));
    memset(t.mixed.row(b), 0, (size_t)(t.heads * t.mixed.sheet.stride) * sizeof(float));
    return;
  }
  by_tokens<Word>(t, me, {t.folded_query.row(b), t.folded_query.sheet.stride}, n, shares);
  const Dropout& drop = t.last->drop_shares;
  const bool drops = step >= 0 && drop.threshold;
  for (int64_t h = 0; h < t.heads; ++h) {
    float* own = shares + h * stride;
    softmax(own, n, stride, t.scale, heads_in(t).relative_to(h, query_of(t, n)));
    t.share_sum[b * t.heads + h] =
        drops ? drop_shares(drop, (uint32_t)step, b * t.heads + h, own, n, me.scores + h * stride) : 1.0f;
  }
  if (drops)
    for (int64_t h = 0; h < t.heads; ++h) clear_tail(me.scores + h * stride, n, stride);
  sum_tokens<Word>(t, me, drops ? me.scores : shares, n, t.mixed.row(b));
}

/* The gradient by row b's states: sum_h P_hj g_mixed_h + g_s_hj folded_query_h. */
static void states_back(const Trainee& t, const Member& me, int64_t b, int64_t n) {
  const int64_t stride = share_stride(t);
  const Sheet &g = t.mixed_back.sheet, &u = t.folded_query.sheet, &out = t.tokens_back.out;
  for (int64_t h = 0; h < t.heads; ++h)
    used_shares(t.last->drop_shares, shares_of(t, b) + h * stride, stride, me.used + h * stride);
  float* to = out.row(t.offsets[b]);
  each_tile(Crossed{{me.used, stride}, {t.mixed_back.row(b), kBlock, g.stride}, t.heads}, n, t.padded,
            Put{to, out.stride, nullptr, false});
  each_tile(Crossed{{me.scores, stride}, {t.folded_query.row(b), kBlock, u.stride}, t.heads}, n, t.padded,
            Put{to, out.stride, nullptr, true});
}

/* Row b, from the gradient by `mixed` to that by what the states were multiplied by, in folded_query, and
 * where it is asked that by the states. each: [heads], what every share's gradient has besides. */
template <class Word>
static void attend_back(const Trainee& t, const Member& me, int64_t b, const float* each) {
  const int64_t n = load_row<Word>(t, me, b), stride = share_stride(t);
  if (n == 0) {
    memset(t.folded_query.row(b), 0, (size_t)(t.heads * t.folded_query.sheet.stride) * sizeof(float));
    return;
  }
  const Dropout& drop = t.last->drop_shares;
  by_tokens<Word>(t, me, {t.mixed_back.row(b), t.mixed_back.sheet.stride}, n, me.scores);
  for (int64_t h = 0; h < t.heads; ++h)
    softmax_back(shares_of(t, b) + h * stride, me.scores + h * stride, n, stride,
                 drop.threshold ? drop.scale : 1.0f, t.scale, each[h]);
  if (t.deep()) states_back(t, me, b, n);
  sum_tokens<Word>(t, me, me.scores, n, t.folded_query.row(b));
}

}  // namespace EC_ISA

#endif
