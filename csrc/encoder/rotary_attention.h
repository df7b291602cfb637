/* Attention of one sequence of L rows, in blocks that stay in cache, for local and global layers, causal or
 * not.
 *
 * kQueries queries of a head meet kKeys keys at a time. Each query keeps the largest score so far, the sum of
 * its shares and its context; where a block has a larger score, what was summed before is scaled down
 * (Milakov and Gimelshein, 2018). Keys that no query of a block sees are not touched, so that a local layer
 * costs its windows.
 *
 * Touches the sequence's queries, keys and values, packed keys and values of one head, and of a block 4
 * kQueries (kKeys + head) bytes, which stay in L2. Bound by the FMA units (4 head flops for each query and
 * key).
 *
 * A query is computed with the keys of its block of kQueries, which begin at multiples of kQueries, even
 * where it is the only one that is asked for: its sums run in the same order.
 */
#ifndef EMBEDCACHE_ENCODER_ROTARY_ATTENTION_H
#define EMBEDCACHE_ENCODER_ROTARY_ATTENTION_H

#include "attention.h"
#include "rotary_parts.h"

namespace EC_ISA {

constexpr int64_t kKeys = 512;
constexpr float kHidden = -3e38f; /* a score that is not seen */

/* Which keys a query sees. */
struct Reach {
  int64_t window, length;
  bool causal;
  int64_t begin(int64_t query) const { return window < 0 || query < window ? 0 : query - window; }
  int64_t end(int64_t query) const {
    if (causal) return query + 1;
    return window < 0 || query + window + 1 > length ? length : query + window + 1;
  }
};

template <class Word>
struct RotaryAttention {
  Word *keys, *values; /* of one head, packed */
  float* scores;       /* [kQueries][kKeys] */
  Word* shares;        /* the same after softmax */
  float *most, *sum;   /* [kQueries] */
  float* context;      /* [kQueries][round_up(head, 32)] */

  void take(Arena* arena, int64_t longest, int64_t head) {
    keys = arena->take<Word>(round_up(longest, kBlock) * head / kPer<Word>);
    values = arena->take<Word>(round_up(head, kBlock) * (round_up(longest, 2) / kPer<Word>));
    scores = arena->take<float>(kQueries * kKeys);
    shares = arena->take<Word>(kQueries * kKeys / kPer<Word>);
    most = arena->take<float>(kQueries);
    sum = arena->take<float>(kQueries);
    context = arena->take<float>(kQueries * round_up(head, kBlock));
  }
};

/* s[columns], of which [begin, end) are seen, to e^(s - most) and 0; what was summed before follows `most`.
 */
static void softmax_step(float* s, int64_t columns, int64_t begin, int64_t end, float* most, float* sum,
                         float* context, int64_t width) {
  for (int64_t j = 0; j < begin; ++j) s[j] = kHidden;
  for (int64_t j = end; j < columns; ++j) s[j] = kHidden;
  vf top = splat(*most);
  for (int64_t j = 0; j < columns; j += kLanes) top = larger(top, load_unaligned(s + j));
  const float now = lane_max(top);
  vf sums = {};
  for (int64_t j = 0; j < columns; j += kLanes) {
    const vf x = load_unaligned(s + j), e = select(x > kHidden, exp_of(x - now), vf{});
    store_unaligned(s + j, e);
    sums += e;
  }
  if (now > *most) {
    const vf before = exp_of(splat(*most - now));
    *sum *= before[0];
    for (int64_t c = 0; c < width; c += kLanes)
      store_unaligned(context + c, load_unaligned(context + c) * before);
  }
  *most = now;
  *sum += lane_sum(sums);
}

/* The contexts of `n` queries from position `first` on, all of one block: rows of query, rows of out. */
template <class Word>
static void attend_block(const RotaryAttention<Word>& memory, Panels<Word> keys, Panels<Word> values,
                         const Reach& reach, int64_t head, const Word* query, int64_t stride, int64_t first,
                         int64_t n, Word* out, int64_t out_stride) {
  const int64_t words = head / kPer<Word>, width = round_up(head, kBlock);
  const int64_t block = first / kQueries * kQueries,
                last = block + kQueries < reach.length ? block + kQueries : reach.length;
  const int64_t from = reach.begin(block) / kBlock * kBlock, to = reach.end(last - 1);
  for (int64_t i = 0; i < n; ++i) memory.most[i] = kHidden, memory.sum[i] = 0.0f;
  memset(memory.context, 0, (size_t)(n * width) * sizeof(float));
  for (int64_t key = from; key < to; key += kKeys) {
    const int64_t seen = to - key < kKeys ? to - key : kKeys, columns = round_up(seen, kBlock);
    /* 1. scores [n][columns]. */
    product(Rows<Word>{query, stride}, n,
            Panels<Word>{keys.data + key / kBlock * keys.panel, keys.panel, keys.step}, columns, words,
            Store{memory.scores, columns});
    /* 2. Each row to shares, as words. */
    for (int64_t i = 0; i < n; ++i) {
      const int64_t begin = reach.begin(first + i) - key, end = reach.end(first + i) - key;
      float* row = memory.scores + i * columns;
      softmax_step(row, columns,
                   begin < 0      ? 0
                   : begin < seen ? begin
                                  : seen,
                   end < 0      ? 0
                   : end < seen ? end
                                : seen,
                   memory.most + i, memory.sum + i, memory.context + i * width, width);
      to_words(memory.shares + i * columns / kPer<Word>, row, columns);
    }
    /* 3. context [n][head] += shares times values. */
    product(Rows<Word>{shares_of(memory.shares, memory.scores), columns / kPer<Word>}, n,
            Panels<Word>{values.data + key / kPer<Word> * values.step, values.panel, values.step}, width,
            round_up(seen, kPer<Word>) / kPer<Word>, AddTo{memory.context, width, nullptr});
  }
  /* A head that is narrower than its columns writes over its neighbour, which comes after it. */
  for (int64_t i = 0; i < n; ++i) {
    float* row = memory.context + i * width;
    const float weight = 1.0f / memory.sum[i];
    for (int64_t c = 0; c < width; c += kLanes) store_unaligned(row + c, load_unaligned(row + c) * weight);
    put_words(out + i * out_stride, row, width);
  }
}

}  // namespace EC_ISA

#endif
