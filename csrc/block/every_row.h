/* Attention of every row of a text, head by head, forward and back, without a mask and without padding.
 *
 * Keys, values and queries are read where they lie, L rows of three sheets; keys (and on the way back values)
 * of one head are packed once for all its queries, kQueries of them at a time, whose scores stay in L2. The
 * way back computes scores and shares again: a fifth of its products, and nothing of L x L is kept. Products
 * are float32 in bfloat16, too. 4 L D multiply-adds of a row forward, 10 L D back; bound by the product rate
 * for long texts, by packing and exp for short ones.
 */
#ifndef EMBEDCACHE_BLOCK_EVERY_ROW_H
#define EMBEDCACHE_BLOCK_EVERY_ROW_H

#include "layer.h"
#include "many_rows.h"
#include "shares.h"

namespace EC_ISA {

constexpr int64_t kQueries = 48;

/* A member's scratch: of one head keys and values, packed, and of kQueries rows shares, what dropout leaves
 * of them, and their gradients. */
struct EveryRowMemory {
  float *keys, *values, *shares, *used, *slopes;

  void take(Arena& arena, int64_t longest, int64_t head) {
    const int64_t columns = round_up(longest, kBlock);
    keys = arena.take<float>(columns * head);
    values = arena.take<float>(columns * head);
    float** const rows[] = {&shares, &used, &slopes};
    for (float** one : rows) *one = arena.take<float>(kQueries * columns);
  }
};

/* What all rows of a layer have in common. */
struct Heads {
  int64_t count, width; /* D = count * width */
  float scale;          /* of scores */
  const float* relative;
  int64_t positions;
  /* Added to the scores of that query and keys 0, 1, ... */
  const float* relative_to(int64_t h, int64_t query) const {
    return relative ? relative + h * (2 * positions - 1) + positions - 1 - query : nullptr;
  }
};

/* A text: rows [first, first + n) of a batch's. */
struct Text {
  int64_t first, n;
};

/* out[i][c] = sum_r a[r][i] b[r][c]. */
struct Crossed {
  Rows<float> a;
  Panels<float> b;
  int64_t n;
  static constexpr int kTile = kRows;
  int64_t words() const { return n; }
  template <int R>
  inline __attribute__((always_inline)) void sum(int64_t first, int64_t column, Tile<R>* out) const {
    gradient_tile<R>(b.data + column / kBlock * b.panel + column % kBlock, b.step, a.data + first, a.stride,
                     n, out);
  }
};

/* A head's columns of a text's rows from `row` on: where they lie, and as the second operand of a product. */
static inline float* head_at(const Sheet& s, const Heads& heads, int64_t h, int64_t row) {
  return s.row(row) + h * heads.width;
}
static inline Panels<float> panels_at(const Sheet& s, const Heads& heads, int64_t h, int64_t row) {
  return {head_at(s, heads, h, row), kBlock, s.stride};
}

/* Shares of head h and the queries [first, first + n) of a text, dropped ones marked, and what is used of
 * them; step below 0: without dropout. */
static void share_rows(const Heads& heads, const EveryRowMemory& memory, const Panels<float>& keys,
                       const Sheet& q, Text text, int64_t h, int64_t first, int64_t n, const Dropout& drop,
                       int64_t step) {
  const int64_t columns = round_up(text.n, kBlock);
  product(Rows<float>{head_at(q, heads, h, text.first + first), q.stride}, n, keys, columns, heads.width,
          Store{memory.shares, columns});
  for (int64_t i = 0; i < n; ++i) {
    float *shares = memory.shares + i * columns, *used = memory.used + i * columns;
    softmax(shares, text.n, columns, heads.scale, heads.relative_to(h, first + i));
    if (step < 0 || !drop.threshold) continue;
    drop_shares(drop, (uint32_t)step, (text.first + first + i) * heads.count + h, shares, text.n, used);
    clear_tail(used, text.n, columns);
  }
}

/* Contexts of a text. A head that is narrower than its columns writes over its neighbour, which comes after
 * it, or over the row's end. */
static void attend_every_row(const Heads& heads, const EveryRowMemory& memory, const Pass& p, Text text,
                             const Dropout& drop, int64_t step) {
  const int64_t columns = round_up(text.n, kBlock), width = round_up(heads.width, kBlock);
  const float* used = step >= 0 && drop.threshold ? memory.used : memory.shares;
  for (int64_t h = 0; h < heads.count; ++h) {
    const Panels<float> keys =
        pack_keys(memory.keys, head_at(p.k, heads, h, text.first), p.k.stride, text.n, heads.width);
    for (int64_t first = 0; first < text.n; first += kQueries) {
      const int64_t n = text.n - first < kQueries ? text.n - first : kQueries;
      share_rows(heads, memory, keys, p.q, text, h, first, n, drop, step);
      product(Rows<float>{used, columns}, n, panels_at(p.v, heads, h, text.first), width, text.n,
              Store{head_at(p.context, heads, h, text.first + first), p.context.stride});
    }
  }
}

/* From the gradient by the contexts to those by queries, keys and values. */
static void attend_every_row_back(const Heads& heads, const EveryRowMemory& memory, const Pass& p,
                                  const Slopes& d, Text text, const Dropout& drop, int64_t step) {
  const int64_t columns = round_up(text.n, kBlock), width = round_up(heads.width, kBlock), begin = text.first;
  const float* used = drop.threshold ? memory.used : memory.shares;
  const float kept_scale = drop.threshold ? drop.scale : 1.0f;
  for (int64_t h = 0; h < heads.count; ++h) {
    const Panels<float> keys = pack_keys(memory.keys, head_at(p.k, heads, h, begin), p.k.stride, text.n,
                                         heads.width),
                        values = pack_keys(memory.values, head_at(p.v, heads, h, begin), p.v.stride, text.n,
                                           heads.width);
    for (int64_t first = 0; first < text.n; first += kQueries) {
      const int64_t n = text.n - first < kQueries ? text.n - first : kQueries, row = begin + first;
      share_rows(heads, memory, keys, p.q, text, h, first, n, drop, step);
      /* 1. By what is used of the shares, and by the scores (times their scale). */
      product(Rows<float>{head_at(d.context, heads, h, row), d.context.stride}, n, values, columns,
              heads.width, Store{memory.slopes, columns});
      for (int64_t i = 0; i < n; ++i)
        softmax_back(memory.shares + i * columns, memory.slopes + i * columns, text.n, columns, kept_scale,
                     heads.scale, 0.0f);
      /* 2. By queries, one after another; by keys and values, of which each has a part of every query. */
      product(Rows<float>{memory.slopes, columns}, n, panels_at(p.k, heads, h, begin), width, text.n,
              Store{head_at(d.q, heads, h, row), d.q.stride});
      each_tile(Crossed{{memory.slopes, columns}, panels_at(p.q, heads, h, row), n}, text.n, width,
                Put{head_at(d.k, heads, h, begin), d.k.stride, nullptr, first > 0});
      each_tile(Crossed{{used, columns}, panels_at(d.context, heads, h, row), n}, text.n, width,
                Put{head_at(d.v, heads, h, begin), d.v.stride, nullptr, first > 0});
    }
  }
}

}  // namespace EC_ISA

#endif
