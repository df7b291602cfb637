/* A matrix's products for many rows, the tokens of a batch: y = x w', x = y w and the gradient.
 *
 * Panels of 32 outputs are transposed on their way into L2, once for kManyRows rows, so that the encoder's
 * product kernel computes y = x w', too, with the bias in its epilogue; in bfloat16 their words are made
 * there. The gradient is added up in memory, kManyRows rows at a time, whose activations stay in L2: 8 bytes
 * a weight for each. Bound by the product rate. Sums over inputs are cut every kPanelInputs of them.
 */
#ifndef EMBEDCACHE_BLOCK_MANY_ROWS_H
#define EMBEDCACHE_BLOCK_MANY_ROWS_H

#include "../encoder/packing.h"
#include "matrix.h"

namespace EC_ISA {

constexpr int64_t kManyRows = kSumRows, kPanelInputs = 768;

/* An epilogue: the tile, and its bias if there is one, stored or added. */
struct Put {
  float* out;
  int64_t stride;
  const float* bias;
  bool add;
  template <int R>
  void take(const Tile<R>& tile, int64_t row, int64_t column) const {
    const vf low = bias ? load_unaligned(bias + column) : vf{},
             high = bias ? load_unaligned(bias + column + kLanes) : vf{};
    for (int i = 0; i < R; ++i) {
      float* at = out + (row + i) * stride + column;
      const vf x = tile.at[i][0] + low, y = tile.at[i][1] + high;
      if (add)
        store_numbers(at, load_unaligned(at) + x, load_unaligned(at + kLanes) + y);
      else
        store_numbers(at, x, y);
    }
  }
};

/* Inputs [first, first + n) of up to 32 outputs from o on, as [n words][32]. */
static void pack_panel(const Matrix& w, int64_t o, int64_t first, int64_t n, float* panel) {
  const int64_t outs = w.out - o < kBlock ? w.out - o : kBlock;
  for (int64_t i = 0; i < n; i += kBlock)
    pack_keys<float>(panel + i * kBlock, w.at.w + w.place(o, first + i), kBlock, outs, kBlock);
}
static void pack_panel(const Matrix& w, int64_t o, int64_t first, int64_t n, Pair* panel) {
  const int64_t outs = w.out - o < kBlock ? w.out - o : kBlock;
  Pair lines[kBlock * kBlock / 2];
  for (int64_t i = 0; i < n; i += kBlock) {
    words_along_columns(w.at.w + w.place(o, first + i), kBlock, outs, kBlock, lines, kBlock / 2);
    pack_keys<Pair>(panel + i / 2 * kBlock, lines, kBlock / 2, outs, kBlock / 2);
  }
}

/* y[b][o] = sum_i x[b][i] w[o][i] + bias[o] for the outputs `outs`, whose first is a multiple of 32. Columns
 * up to the next multiple are written, too: zeros. */
template <class Word>
static void apply_many(const Matrix& w, Range outs, const float* bias, Rows<float> x, int64_t rows, float* y,
                       int64_t y_stride, const WordMemory& words) {
  const int64_t stride = row_stride(w.padded / 2);
  Word* panel = reinterpret_cast<Word*>(words.panel);
  for (int64_t row = 0; row < rows; row += kManyRows) {
    const int64_t some = rows - row < kManyRows ? rows - row : kManyRows;
    const float* from = x.data + row * x.stride;
    if constexpr (kPer<Word> == 2) words_along_columns(from, x.stride, some, w.padded, words.a, stride);
    for (int64_t o = outs.first; o < outs.last; o += kBlock)
      for (int64_t i = 0; i < w.padded; i += kPanelInputs) {
        const int64_t n = w.padded - i < kPanelInputs ? w.padded - i : kPanelInputs;
        pack_panel(w, o, i, n, panel);
        Rows<Word> lines;
        if constexpr (kPer<Word> == 2)
          lines = {words.a + i / 2, stride};
        else
          lines = {from + i, x.stride};
        product(lines, some, Panels<Word>{panel, 0, kBlock}, kBlock, n / kPer<Word>,
                Put{y + row * y_stride + o, y_stride, i || !bias ? nullptr : bias + o, i > 0});
      }
  }
}

/* x[b][i] = sum_o y[b][o] w[o][i] for the inputs `ins`, multiples of 32; or added to x. */
template <class Word>
static void apply_back_many(const Matrix& w, Range ins, Rows<float> y, int64_t rows, float* x,
                            int64_t x_stride, const WordMemory& words, bool add = false) {
  for (int64_t row = 0; row < rows; row += kManyRows) {
    const int64_t some = rows - row < kManyRows ? rows - row : kManyRows;
    apply_back<Word>(w, {0, w.out}, ins, {y.data + row * y.stride, y.stride}, some,
                     Put{x + row * x_stride, x_stride, nullptr, add}, words);
  }
}

/* A tile of the gradient to w.gradient, or added to it. */
struct Keep {
  bool add;
  void ask(const Matrix& w, int64_t o, int64_t i) const {
    for (int c = 0; c < kStrip; c += 16) __builtin_prefetch(w.gradient + w.place(o, i) + c, 1);
  }
  template <int R>
  void take(const Matrix& w, const Tile<R>& tile, int64_t o, int64_t i) const {
    for (int r = 0; r < R; ++r) {
      float* at = w.gradient + w.place(o + r, i);
      const vf low = tile.at[r][0], high = tile.at[r][1];
      if (add)
        store_numbers(at, load(at) + low, load(at + kLanes) + high);
      else
        store_numbers(at, low, high);
    }
  }
};

/* Of the outputs `outs`, kept; zeros where there is no row. */
template <class Word>
static void keep_gradient(const Matrix& w, Range outs, Rows<float> x, Rows<float> y, int64_t rows,
                          const WordMemory& words) {
  int64_t row = 0;
  do {
    const int64_t some = rows - row < kManyRows ? rows - row : kManyRows;
    gradient<Word>(w, outs, {x.data + row * x.stride, x.stride},
                   {y.data + row * y.stride + outs.first, y.stride}, some, words, Keep{row > 0});
    row += kManyRows;
  } while (row < rows);
}

/* The sum of squares of what is kept. */
static double square_kept(const Matrix& w, Range outs) {
  double sum = 0;
  for (int64_t i = 0; i < w.padded; i += kBlock) {
    vf squares = {};
    for (int64_t at = w.place(outs.first, i); at < w.place(outs.last - 1, i) + kBlock; at += kLanes)
      squares += load(w.gradient + at) * load(w.gradient + at);
    sum += (double)lane_sum(squares);
  }
  return sum;
}
static double square_kept(const Vector& v) {
  double sum = 0;
  for (int64_t c = 0; c < v.padded; c += kLanes) {
    const vf g = load(v.gradient + c);
    sum += (double)lane_sum(g * g);
  }
  return sum;
}

static void learn_kept(const Vector& v, const Learn& learn) {
  for (int64_t c = 0; c < v.padded; c += kLanes)
    adamw_update(load(v.gradient + c) * learn.scale, v.at.at(c), learn.adamw);
}

/* Of 32 columns at a time, since a row has them in two lines of memory. */
static void keep_gradient(const Vector& v, Rows<float> y, const float* x, int64_t rows) {
  constexpr int kVectors = kBlock / kLanes;
  for (int64_t c = 0; c < v.padded; c += kBlock) {
    vf total[kVectors] = {};
    for (int64_t start = 0; start < rows; start += kSumRows) {
      vf sum[kVectors] = {};
      for (int64_t b = start; b < rows && b < start + kSumRows; ++b)
        for (int i = 0; i < kVectors; ++i) {
          const int64_t at = b * y.stride + c + i * kLanes;
          const vf g = load_unaligned(y.data + at);
          sum[i] += x ? g * load_unaligned(x + at) : g;
        }
      for (int i = 0; i < kVectors; ++i) total[i] += sum[i];
    }
    for (int i = 0; i < kVectors; ++i) store(v.gradient + c + i * kLanes, total[i]);
  }
}

}  // namespace EC_ISA

#endif
