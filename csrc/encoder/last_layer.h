/* Attention of the last layer for the first row of every sequence alone, where nothing but the CLS vector is
 * asked.
 *
 * With q_h the first row's query of head h, the score of row j is q_h . (Wk_h x_j + bk) = (Wk_h^T q_h) . x_j
 * plus a number that is the same for every j, which the softmax does not see; and the context is sum_j p_j
 * (Wv_h x_j + bv) = Wv_h (sum_j p_j x_j) + bv, for the p_j sum to 1. So keys and values are never computed: 4
 * heads D flops a row instead of 4 D^2, and everything after it (output, feed-forward part) is for one row a
 * sequence. Exact; the sums are in another order.
 *
 * Touches x once for the scores and once for the sums. Bound by reading it.
 */
#ifndef EMBEDCACHE_ENCODER_LAST_LAYER_H
#define EMBEDCACHE_ENCODER_LAST_LAYER_H

#include "attention.h"

namespace EC_ISA {

template <class Word>
struct FirstRowMemory {
  Word* x;      /* [n] first rows */
  float* query; /* [n][padded] */
  Word* query_words;
  float* folded;   /* [n][padded], of one head */
  Word* keys;      /* [n][D words][heads up to 32]: a panel for each sequence */
  float* scores;   /* [longest][heads up to 32] */
  float* sums;     /* [n][heads][padded], then as words: */
  Word* sum_words; /* [n * heads][stride] */
  int64_t stride;  /* of rows of words */

  void take(Arena* arena, const Model<Word>& model, int64_t n, int64_t longest) {
    const int64_t heads = round_up(model.heads, kBlock);
    stride = model.padded / kPer<Word> + kBlock;
    x = arena->take<Word>(n * stride);
    query = arena->take<float>(n * model.padded);
    query_words = arena->take<Word>(n * stride);
    folded = arena->take<float>(n * model.padded);
    keys = arena->take<Word>(n * heads * (model.dim / kPer<Word>));
    scores = arena->take<float>(longest * heads);
    sums = arena->take<float>(n * model.heads * model.padded);
    sum_words = arena->take<Word>(n * model.heads * stride);
  }
};

/* Row-major floats with `padded` columns to rows of words. */
template <class Word>
static void rows_to_words(Word* out, int64_t stride, const float* x, int64_t padded, int64_t n) {
  for (int64_t i = 0; i < n; ++i)
    for (int64_t c = 0; c < padded; c += kStrip) {
      const float* at = x + i * padded + c;
      store_numbers(out + i * stride + c / kPer<Word>, load_unaligned(at), load_unaligned(at + kLanes));
    }
}

static inline void put_key(float* keys, int64_t step, const float* u, int64_t n) {
  for (int64_t k = 0; k < n; ++k) keys[k * step] = u[k];
}
static inline void put_key(Pair* keys, int64_t step, const float* u, int64_t n) {
  for (int64_t k = 0; k < n; k += kStrip) {
    Pair words[kLanes];
    store_numbers(words, load_unaligned(u + k), load_unaligned(u + k + kLanes));
    for (int64_t i = 0; i < kLanes && k + 2 * i < n; ++i) keys[(k / 2 + i) * step] = words[i];
  }
}

/* scores[length][columns] of one sequence, a column a head, to shares: e^(s - most) / sum down each column.
 */
template <class Word>
static void softmax_columns(const Model<Word>& model, float* scores, int64_t columns, int64_t length) {
  for (int64_t h = 0; model.spec.relative && h < model.heads; ++h)
    for (int64_t j = 0; j < length; ++j) scores[j * columns + h] += model.relative_to(h, 0)[j] / model.scale;
  for (int64_t c = 0; c < columns; c += kLanes) {
    vf most = load_unaligned(scores + c), sum = {};
    for (int64_t j = 1; j < length; ++j) most = larger(most, load_unaligned(scores + j * columns + c));
    for (int64_t j = 0; j < length; ++j) {
      float* at = scores + j * columns + c;
      const vf e = exp_of((load_unaligned(at) - most) * model.scale);
      store_unaligned(at, e);
      sum += e;
    }
    const vf weight = 1.0f / sum;
    for (int64_t j = 0; j < length; ++j) {
      float* at = scores + j * columns + c;
      store_unaligned(at, load_unaligned(at) * weight);
    }
  }
}

/* sums[h][column] = sum_j shares[j][h] x[j][column], in float32. */
struct Sums {
  const float* shares;
  int64_t columns;
  const float* x;
  int64_t stride, length, padded;
  float* out;

  template <int R>
  void run(int64_t h) const {
    for (int64_t column = 0; column < padded; column += kStrip) {
      Tile<R> tile = {};
      for (int64_t j = 0; j < length; ++j) {
        const vf low = load_unaligned(x + j * stride + column),
                 high = load_unaligned(x + j * stride + column + kLanes);
        for (int i = 0; i < R; ++i) {
          tile.at[i][0] += low * shares[j * columns + h + i];
          tile.at[i][1] += high * shares[j * columns + h + i];
        }
      }
      for (int i = 0; i < R; ++i)
        store_numbers(out + (h + i) * padded + column, tile.at[i][0], tile.at[i][1]);
    }
  }
};

static void sum_rows(const Sums& sums, int64_t heads) {
  int64_t h = 0;
  for (; h + 4 <= heads; h += 4) sums.run<4>(h);
  for (; h < heads; ++h) sums.run<1>(h);
}

/* Contexts of the first rows of n sequences, to context[n][stride] as words or as floats; x [rows][padded],
 * words the same for products. */
template <class Word, class Out>
static void attend_first(const Model<Word>& model, const FirstRowMemory<Word>& memory, const float* x,
                         int64_t x_stride, const Word* words, int64_t words_stride, const int64_t* offsets,
                         int64_t n, Out* context, int64_t context_stride) {
  const FirstRow<Word>& first = model.first;
  const int64_t dim = model.dim, columns = round_up(model.heads, kBlock),
                head_words = model.head / kPer<Word>;
  const int64_t key_words = dim / kPer<Word>;
  /* 1. Queries [n][padded] of the first rows alone. */
  for (int64_t i = 0; i < n; ++i)
    memcpy(memory.x + i * memory.stride, words + offsets[i] * words_stride, (size_t)key_words * sizeof(Word));
  memset(memory.query, 0, (size_t)(n * model.padded) * sizeof(float));
  product(Rows<Word>{memory.x, memory.stride}, n, first.query.weight, first.query.columns, first.query.words,
          AddTo{memory.query, model.padded, first.query.bias});
  rows_to_words(memory.query_words, memory.stride, memory.query, model.padded, n);
  /* 2. For each head the key matrix folded into the query: what a row of x is multiplied by, [n][heads][dim].
   */
  memset(memory.keys, 0, (size_t)(n * columns * key_words) * sizeof(Word));
  for (int64_t h = 0; h < model.heads; ++h) {
    product(Rows<Word>{memory.query_words + h * head_words, memory.stride}, n, first.key[h], model.padded,
            head_words, Store{memory.folded, model.padded});
    for (int64_t i = 0; i < n; ++i)
      put_key(memory.keys + i * columns * key_words + h, columns, memory.folded + i * model.padded, dim);
  }
  /* 3. Of each sequence scores [length][heads], shares, and the rows' sums by them [heads][padded]. */
  for (int64_t i = 0; i < n; ++i) {
    const int64_t length = offsets[i + 1] - offsets[i];
    for (int64_t panel = 0; panel < columns;
         panel += kBlock) /* more than 32 heads: the key's step is `columns` */
      product(Rows<Word>{words + offsets[i] * words_stride, words_stride}, length,
              Panels<Word>{memory.keys + i * columns * key_words + panel, kBlock, columns}, kBlock, key_words,
              Store{memory.scores + panel, columns});
    softmax_columns(model, memory.scores, columns, length);
    sum_rows(Sums{memory.scores, columns, x + offsets[i] * x_stride, x_stride, length, model.padded,
                  memory.sums + i * model.heads * model.padded},
             model.heads);
  }
  /* 4. Each head's value matrix on its sums: the contexts. */
  rows_to_words(memory.sum_words, memory.stride, memory.sums, model.padded, n * model.heads);
  for (int64_t h = 0; h < model.heads; ++h) /* ascending: a narrow head writes over its neighbour */
    product(Rows<Word>{memory.sum_words + h * memory.stride, model.heads * memory.stride}, n, first.value[h],
            round_up(model.head, kBlock), key_words,
            StoreWords<Out>{context + h * model.head / kPer<Out>, context_stride,
                            first.value_bias + h * model.head});
}

}  // namespace EC_ISA

#endif
