/* Attention of one sequence of L rows, head by head: scores, softmax, context, without a mask and without
 * padding.
 *
 * Touches the sequence's queries, keys and values (L rows of 3 D words), packed keys and values of one head,
 * and the scores of kQueries rows (4 kQueries L bytes), which stay in L2 from their product to the context's.
 * Bound by the FMA units for long sequences (4 L D of each row's flops), by packing and exp for short ones.
 */
#ifndef EMBEDCACHE_ENCODER_ATTENTION_H
#define EMBEDCACHE_ENCODER_ATTENTION_H

#include "blocks.h"
#include "disentangled.h"
#include "epilogues.h"
#include "packing.h"

namespace EC_ISA {

template <class Word>
struct AttentionMemory {
  Word *keys, *values; /* of one head, packed */
  float* scores;       /* [kQueries][round_up(L, 32)] */
  Word* shares;        /* the same after softmax, [kQueries][round_up(L, 32) / kPer] */
  float* weight;       /* [kQueries], one over the sum of a row's shares */
  DistanceMemory distances;

  void take(Arena* arena, int64_t longest, int64_t head) {
    const int64_t columns = round_up(longest, kBlock);
    keys = arena->take<Word>(columns * head / kPer<Word>);
    values = arena->take<Word>(round_up(head, kBlock) * (round_up(longest, 2) / kPer<Word>));
    scores = arena->take<float>(kQueries * columns);
    shares = arena->take<Word>(kQueries * columns / kPer<Word>);
    weight = arena->take<float>(kQueries);
  }
};

template <class Out>
struct StoreContext {
  Out* out;
  int64_t stride;
  const float* weight;
  template <int R>
  void take(const Tile<R>& tile, int64_t row, int64_t column) const {
    for (int i = 0; i < R; ++i)
      store_numbers(out + (row + i) * stride + column / kPer<Out>, tile.at[i][0] * weight[row + i],
                    tile.at[i][1] * weight[row + i]);
  }
};

/* s[length] -> e^(scale s + relative - max), zero up to `padded`; returns one over their sum. */
[[maybe_unused]] static float softmax(float* s, int64_t length, int64_t padded, float scale,
                                      const float* relative) {
  const int64_t whole = length / kLanes * kLanes;
  const vi last = first_lanes(length - whole);
  vf most = splat(-3e38f);
  for (int64_t j = 0; j < padded; j += kLanes) {
    vf x = load_unaligned(s + j) * scale;
    if (relative) { /* it may end where the row does */
      if (j + kLanes <= length)
        x += load_unaligned(relative + j);
      else
        for (int64_t i = j; i < length; ++i) x[i - j] += relative[i];
    }
    if (j >= whole) x = select(j == whole ? last : vi{}, x, splat(-3e38f));
    store_unaligned(s + j, x);
    most = larger(most, x);
  }
  const float top = lane_max(most);
  vf sums = {};
  for (int64_t j = 0; j < padded; j += kLanes) {
    vf e = exp_of(load_unaligned(s + j) - top);
    if (j >= whole) e = (vf)((vi)e & (j == whole ? last : vi{}));
    store_unaligned(s + j, e);
    sums += e;
  }
  return 1.0f / lane_sum(sums);
}

/* The same as words in `shares`, which may be s, by exp2_near. */
template <class Word>
[[maybe_unused]] static float softmax_near(float* s, Word* shares, int64_t length, int64_t padded,
                                           float scale, const float* relative) {
  constexpr float kLog2 = 1.44269504f; /* of e */
  scale *= kLog2;
  if (relative) {
    for (int64_t j = 0; j < length; ++j) s[j] = s[j] * scale + relative[j] * kLog2;
    scale = 1.0f;
  }
  const int64_t whole = length / kLanes * kLanes;
  vf most = splat(-3e38f);
  for (int64_t j = 0; j < whole; j += kLanes) most = larger(load_unaligned(s + j), most);
  const vi last = first_lanes(length - whole);
  if (whole < length) most = larger(select(last, load_unaligned(s + whole), most), most);
  const float top = lane_max(most) * scale;
  vf sums = {};
  const auto share = [&](int64_t j) {
    vf e = {};
    if (j < length) e = exp2_near(load_unaligned(s + j) * scale - top);
    if (j == whole) e = (vf)((vi)e & last);
    sums += e;
    return e;
  };
  for (int64_t j = 0; j < padded; j += kStrip) {
    const vf low = share(j), high = share(j + kLanes);
    store_numbers(shares + j / kPer<Word>, low, high);
  }
  return 1.0f / lane_sum(sums);
}

static inline float* shares_of(float*, float* scores) { return scores; }
static inline Pair* shares_of(Pair* shares, float*) { return shares; }
/* qkv: the sequence's first row of [rows][3 parts of `part` words]; context: where its first row goes, as
 * words or as floats. Of the first `queries` rows. Near: by softmax_near. */
template <bool Near, class Word, class Out>
static void attend(const Model<Word>& model, const Distances<Word>& distances,
                   const AttentionMemory<Word>& memory, const Word* qkv, int64_t stride, int64_t length,
                   int64_t queries, Out* context, int64_t context_stride) {
  const int64_t part = model.padded / kPer<Word>, words = model.head / kPer<Word>,
                columns = round_up(length, kBlock);
  const MetDistances<Word> met(memory.distances, model, length);
  for (int64_t h = 0; h < model.heads; ++h) {
    const Word* query = qkv + h * words;
    /* 1. Keys and values in panels, once for all queries of the head. */
    const Panels<Word> keys = pack_keys(memory.keys, query + part, stride, length, words);
    const Panels<Word> values = pack_values(memory.values, query + 2 * part, stride, length, model.head);
    if (distances.key) met.keys({query + part, stride}, distances.query[h], words, queries);
    for (int64_t first = 0; first < queries; first += kQueries) {
      const int64_t n = queries - first < kQueries ? queries - first : kQueries;
      /* 2. scores [n][columns] of some queries. */
      const Rows<Word> some = {query + first * stride, stride};
      product(some, n, keys, columns, words, Store{memory.scores, columns});
      if (distances.key) met.queries(some, first, n, distances.key[h], words);
      /* 3. Each row to e^(score - most), as words; one over its sum waits for the end. */
      for (int64_t i = 0; i < n; ++i) {
        float* row = memory.scores + i * columns;
        Word* shares = shares_of(memory.shares, memory.scores) + i * columns / kPer<Word>;
        const float* relative = distances.key ? met.added_to(first, i) : model.relative_to(h, first + i);
        if constexpr (Near) {
          memory.weight[i] = softmax_near(row, shares, length, columns, model.scale, relative);
        } else {
          memory.weight[i] = softmax(row, length, columns, model.scale, relative);
          to_words(shares, row, columns);
        }
      }
      /* 4. context [n][head] = weight * shares times values.
       * A head that is narrower than its columns writes over its neighbour, which comes after it. */
      product(Rows<Word>{shares_of(memory.shares, memory.scores), columns / kPer<Word>}, n, values,
              round_up(model.head, kBlock), round_up(length, kPer<Word>) / kPer<Word>,
              StoreContext<Out>{context + first * context_stride + h * model.head / kPer<Out>, context_stride,
                                memory.weight});
    }
  }
}

}  // namespace EC_ISA

#endif
