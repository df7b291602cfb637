/* A trained matrix [out][in] and everything that is done with it: y = x w', x = y w, and its gradient with
 * AdamW in the epilogue, so that the gradient is never in memory.
 *
 * It lies in blocks of 32 inputs, [in / 32][out][32], once, in float32, with its two moments: the update and
 * the product with the transpose read it from one end to the other, which the machine foresees (blocks of 128
 * inputs made the update take twice as long); the pieces of the other product are asked for. In bfloat16 its
 * words are made where they are read, in pieces that stay in L2, for each of the two products: as much
 * reading as of two copies, without keeping them up. (Tried: words that AdamW's epilogue writes. Of both
 * products they cost 9 to 21% of a step, since the one's lie far apart; of one alone they saved 2 to 6%.) A
 * step touches 4 + 4 bytes of a weight for the products, and 24 for the update.
 *
 * Every sum has its order whatever the thread: members of a team share outputs or inputs, never a sum.
 */
#ifndef EMBEDCACHE_BLOCK_MATRIX_H
#define EMBEDCACHE_BLOCK_MATRIX_H

#include "../heads/cpu/initial.h"
#include "dots.h"

namespace EC_ISA {

constexpr int64_t kSumRows = 256; /* rows of a batch that are added in one chain */

/* Rows of activations: a line more than the columns, so that equal columns fall into all sets of L1. */
static inline int64_t row_stride(int64_t padded) { return padded + 16; }

struct Range {
  int64_t first, last;
};

struct Matrix {
  Parameter at;
  int64_t out, in, padded;
  float* gradient; /* as `at`, where clip.h keeps it; else NULL */

  void take(Arena& arena, int64_t outputs, int64_t inputs) {
    out = outputs;
    in = inputs;
    padded = round_up(inputs, kBlock);
    at = take_parameter(arena, out * padded);
  }
  int64_t place(int64_t o, int64_t i) const { return (i / kBlock * out + o) * kBlock + i % kBlock; }
};

/* Rows [outs.first, outs.last) from row-major memory. */
static void put_rows(const Matrix& m, const float* from, Range outs) {
  for (int64_t o = outs.first; o < outs.last; ++o)
    for (int64_t i = 0; i < m.in; i += kBlock) /* zeros behind, as the memory has them */
      memcpy(m.at.w + m.place(o, i), from + o * m.in + i,
             (size_t)(m.in - i < kBlock ? m.in - i : kBlock) * sizeof(float));
}

/* To row-major memory; returns whether all of them are finite. */
static bool get_rows(const Matrix& m, float* to, Range outs) {
  for (int64_t o = outs.first; o < outs.last; ++o)
    for (int64_t i = 0; i < m.in; i += kBlock)
      memcpy(to + o * m.in + i, m.at.w + m.place(o, i),
             (size_t)(m.in - i < kBlock ? m.in - i : kBlock) * sizeof(float));
  return all_finite(to + outs.first * m.in, (outs.last - outs.first) * m.in);
}

/* Memory of one member for operands in words. */
struct WordMemory {
  Pair *a, *b, *c;
  float* panel; /* many_rows.h */

  /* rows: of a batch; most: of all columns, padded; panels: inputs of one. */
  void take(Arena& arena, int64_t rows, int64_t most, int64_t panels) {
    panel = arena.take<float>(panels * kBlock);
    a = arena.take<Pair>((rows + 1) / 2 * 2 * row_stride(most));
    b = arena.take<Pair>(kBlock * row_stride(most));
    c = arena.take<Pair>((rows + 1) / 2 * row_stride(most));
  }
};

/* Numbers [0, n) of each row as pairs, two neighbours a pair; reads up to the next multiple of a strip. */
static void words_along_columns(const float* x, int64_t stride, int64_t rows, int64_t n, Pair* out,
                                int64_t out_stride) {
  for (int64_t b = 0; b < rows; ++b)
    for (int64_t i = 0; i < n; i += kStrip)
      store_numbers(out + b * out_stride + i / 2, load_unaligned(x + b * stride + i),
                    load_unaligned(x + b * stride + i + kLanes));
}

/* Pairs of two rows; the partner of an odd last one is 0. */
static void words_along_rows(const float* x, int64_t stride, int64_t rows, int64_t n, Pair* out,
                             int64_t out_stride) {
  for (int64_t b = 0; b < rows; b += 2)
    for (int64_t i = 0; i < n; i += kLanes)
      store_unaligned(out + b / 2 * out_stride + i,
                      pairs_of_lanes(load_unaligned(x + b * stride + i),
                                     b + 1 < rows ? load_unaligned(x + (b + 1) * stride + i) : vf{}));
}

/* y[b][o] = sum_i x[b][i] w[o][i] for the outputs `outs`. */
template <class Word>
static void apply(const Matrix& w, Range outs, Rows<float> x, int64_t rows, float* y, int64_t y_stride,
                  const WordMemory& words) {
  if constexpr (kPer<Word> == 1) {
    const Lines<float> lines = {w.at.w + outs.first * kBlock, kBlock, kBlock,
                                w.padded == kBlock ? kBlock : w.out * kBlock};
    dots(x, rows, lines, outs.last - outs.first, w.padded, y + outs.first, y_stride);
  } else {
    const int64_t stride = row_stride(w.padded / 2);
    words_along_columns(x.data, x.stride, rows, w.padded, words.a, stride);
    for (int64_t o = outs.first; o < outs.last; o += kBlock) {
      const int64_t n = outs.last - o < kBlock ? outs.last - o : kBlock;
      for (int64_t i = 0; i < w.padded; i += kBlock) {
        if (i + kBlock < w.padded) ask(w.at.w + w.place(o, i + kBlock), n * kBlock);
        words_along_columns(w.at.w + w.place(o, i), kBlock, n, kBlock, words.b + i / 2, stride);
      }
      dots(Rows<Pair>{words.a, stride}, rows, Lines<Pair>{words.b, stride, 1, 1}, n, w.padded / 2, y + o,
           y_stride);
    }
  }
}

/* x[b][i] = sum_o y[b][o] w[outs.first + o][i] for the inputs `ins`, multiples of 32. to: an epilogue whose
 * `out` is column 0 of x. */
template <class Word, class Epilogue>
static void apply_back(const Matrix& w, Range outs, Range ins, Rows<float> y, int64_t rows,
                       const Epilogue& to, const WordMemory& words) {
  const int64_t n = outs.last - outs.first, stride = row_stride(round_up((n + 1) / 2, kBlock));
  if constexpr (kPer<Word> == 2) words_along_columns(y.data, y.stride, rows, n, words.a, stride);
  for (int64_t i = ins.first; i < ins.last; i += kBlock) {
    const float* panel = w.at.w + w.place(outs.first, i);
    Epilogue keep = to;
    keep.out += i;
    if constexpr (kPer<Word> == 1) {
      product(y, rows, Panels<float>{panel, 0, kBlock}, kBlock, n, keep);
    } else {
      words_along_rows(panel, kBlock, n, kBlock, words.b, kBlock);
      product(Rows<Pair>{words.a, stride}, rows, Panels<Pair>{words.b, 0, kBlock}, kBlock, (n + 1) / 2, keep);
    }
  }
}

/* ---- The gradient of w[o][i], sum_b y[b][o] x[b][i], tile by tile ---- */

template <int R, class Word>
static __attribute__((noinline)) void gradient_tile(const Word* x, int64_t x_stride, const Word* y,
                                                    int64_t y_stride, int64_t n, Tile<R>* out) {
  Tile<R> total = {};
  for (int64_t b = 0; b < n; b += kSumRows) {
    Tile<R> tile = {};
    tile_steps<R, Unaligned>(tile, x + b * x_stride, x_stride, y + b * y_stride, 1, y_stride,
                             n - b < kSumRows ? n - b : kSumRows);
    for (int i = 0; i < R; ++i) {
      total.at[i][0] += tile.at[i][0];
      total.at[i][1] += tile.at[i][1];
    }
  }
  *out = total;
}

/* What becomes of a tile: AdamW on its weights, ... */
struct Learn {
  ec_adamw adamw;
  float scale; /* of the gradient: less than 1 where it is clipped */
  /* From memory while the tile is computed. */
  void ask(const Matrix& w, int64_t o, int64_t i) const {
    const Parameter p = w.at.at(w.place(o, i));
    for (int c = 0; c < kStrip; c += 16) {
      __builtin_prefetch(p.w + c, 1);
      __builtin_prefetch(p.m + c, 1);
      __builtin_prefetch(p.v + c, 1);
    }
  }
  template <int R>
  void take(const Matrix& w, const Tile<R>& tile, int64_t o, int64_t i) const {
    for (int r = 0; r < R; ++r) {
      const Parameter p = w.at.at(w.place(o + r, i));
      adamw_update(tile.at[r][0] * scale, p, adamw);
      adamw_update(tile.at[r][1] * scale, p.at(kLanes), adamw);
    }
  }
};

/* ... or the sum of its squares, and the tile as it is, for learn_kept. */
struct Square {
  double* sum;
  void ask(const Matrix&, int64_t, int64_t) const {}
  template <int R>
  void take(const Matrix& w, const Tile<R>& tile, int64_t o, int64_t i) const {
    vf squares = {};
    for (int r = 0; r < R; ++r) {
      squares += tile.at[r][0] * tile.at[r][0] + tile.at[r][1] * tile.at[r][1];
      store_numbers(w.gradient + w.place(o + r, i), tile.at[r][0], tile.at[r][1]);
    }
    *sum += (double)lane_sum(squares);
  }
};

/* AdamW from a gradient that was kept. */
static void learn_kept(const Matrix& w, Range outs, const Learn& learn) {
  for (int64_t i = 0; i < w.padded; i += kBlock)
    for (int64_t at = w.place(outs.first, i); at < w.place(outs.last, i); at += kLanes)
      adamw_update(load(w.gradient + at) * learn.scale, w.at.at(at), learn.adamw);
}

template <class Word>
struct GradientOf {
  const Matrix& w;
  Rows<Word> x, y; /* y's column 0 is the output outs.first */
  int64_t n;
  Range outs;

  template <int R, class Sink>
  int64_t tiles(int64_t o, int64_t column, const Sink& sink) const {
    for (; o + R <= outs.last; o += R)
      for (int64_t i = column; i < column + kBlock; i += kStrip) {
        Tile<R> tile;
        for (int r = 0; r < R; ++r) sink.ask(w, o + r, i);
        gradient_tile<R>(x.data + i, x.stride, y.data + o - outs.first, y.stride, n, &tile);
        sink.take(w, tile, o, i);
      }
    return o;
  }
  template <class Sink>
  void run(const Sink& sink) const {
    for (int64_t column = 0; column < w.padded; column += kBlock) {
      int64_t o = tiles<kRows>(outs.first, column, sink);
      if (kRows > 8) o = tiles<8>(o, column, sink);
      if (kRows > 4) o = tiles<4>(o, column, sink);
      o = tiles<2>(o, column, sink);
      tiles<1>(o, column, sink);
    }
  }
};

/* Of the outputs `outs`, from a batch's x and y (y's column 0 is the output outs.first). */
template <class Word, class Sink>
static void gradient(const Matrix& w, Range outs, Rows<float> x, Rows<float> y, int64_t rows,
                     const WordMemory& words, const Sink& sink) {
  if constexpr (kPer<Word> == 1) {
    GradientOf<float>{w, x, y, rows, outs}.run(sink);
  } else {
    const int64_t stride = row_stride(w.padded), n = outs.last - outs.first,
                  y_stride = row_stride(round_up(n, kBlock));
    words_along_rows(x.data, x.stride, rows, w.padded, words.a, stride);
    words_along_rows(y.data, y.stride, rows, n, words.c, y_stride);
    GradientOf<Pair>{w, {words.a, stride}, {words.c, y_stride}, (rows + 1) / 2, outs}.run(sink);
  }
}

/* ---- Vectors: biases and LayerNorms ---- */

struct Vector {
  Parameter at;
  int64_t n, padded;
  float* gradient; /* where it is kept */

  void take(Arena& arena, int64_t size) {
    n = size;
    padded = round_up(size, kBlock);
    at = take_parameter(arena, padded);
  }
};

/* g[c] = sum_b y[b][c] (times x[b][c], if there is one) for columns c to c + kLanes. */
static inline vf column_sum(Rows<float> y, const float* x, int64_t rows, int64_t c) {
  vf total = {};
  for (int64_t start = 0; start < rows; start += kSumRows) {
    vf sum = {};
    for (int64_t b = start; b < rows && b < start + kSumRows; ++b) {
      const vf g = load_unaligned(y.data + b * y.stride + c);
      sum += x ? g * load_unaligned(x + b * y.stride + c) : g;
    }
    total += sum;
  }
  return total;
}

static void learn_vector(const Vector& v, Rows<float> y, const float* x, int64_t rows, const Learn& learn) {
  for (int64_t c = 0; c < v.padded; c += kLanes)
    adamw_update(column_sum(y, x, rows, c) * learn.scale, v.at.at(c), learn.adamw);
}

static double square_vector(const Vector& v, Rows<float> y, const float* x, int64_t rows) {
  double sum = 0;
  for (int64_t c = 0; c < v.padded; c += kLanes) {
    const vf g = column_sum(y, x, rows, c);
    sum += (double)lane_sum(g * g);
  }
  return sum;
}

}  // namespace EC_ISA

#endif
