/* Products of int8: quantized rows (int8_rows.h) times weights that are quantized once.
 *
 *   y[i][column] = scale[i] * scale[column] * sum over k of (row[i][k] - shift[i]) * weight[k][column]
 *
 * The sum is int32 and exact. It starts with what is known of it before: weights have kLift added (quads.h),
 * which is taken back as -kLift times the sum of the row; the shift, times the sum of the column's weights;
 * and what rows have spilled. What is done with a tile is the same epilogue as after product.h's products, in
 * float32.
 *
 * A step loads two vectors of weights, broadcasts kQuadRows words of rows and does 2 kQuadRows vpdpbusd: four
 * multiply-adds a lane each, where vdpbf16ps does two. Bound by them while a panel is in L1 or L2.
 */
#ifndef EMBEDCACHE_ENCODER_INT8_H
#define EMBEDCACHE_ENCODER_INT8_H

#include "int8_rows.h"

namespace EC_ISA {

/* Shifted rows are multiplied by at most so many rows of weights at once. */
constexpr int64_t kSumPart = 512;

/* Packed weights: panel p's words k of 32 columns at data + p * panel + 32 k. */
struct QuadPanels {
  const Quad* data;
  int64_t panel;
  const float* scale;   /* of each column */
  const int32_t* total; /* of each column's weights, in each part of the sum; zeros beyond the last */
  int64_t columns;      /* of `total`, in each part */
  int64_t steps;        /* words of a column */

  const Quad* strip(int64_t column) const { return data + column / kBlock * panel + column % kBlock; }
  QuadPanels columns_from(int64_t column) const {
    return {data + column / kBlock * panel, panel, scale + column, total + column, columns, steps};
  }
  /* n numbers of the sum, from `first` on: the parts that `total` has. */
  QuadPanels part_of_sum(int64_t first, int64_t n) const {
    return {data + first / kQuad * kBlock,      panel,   scale,
            total + first / kSumPart * columns, columns, round_up(n, kQuad) / kQuad};
  }
};

/* What the sums of R rows and kStrip columns start with. */
template <int R>
static inline __attribute__((always_inline)) void start_sums(const SpilledRows& a, int64_t first,
                                                             const QuadPanels& b, int64_t column,
                                                             vi (*sum)[2]) {
  const Quad *panel = b.strip(column), *spill = a.spill + first * kSpill;
  const int32_t* place = a.place + first * kSpill;
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i) {
    sum[i][0] = sum[i][1] = vi{} + a.start[first + i];
#pragma GCC unroll 4
    for (int s = 0; s < kSpill; ++s, ++spill, ++place) {
      const vi quad = (vi)(vu{} + *spill);
      sum[i][0] = quad_dot(sum[i][0], (vu)load_words(panel + *place), quad);
      sum[i][1] = quad_dot(sum[i][1], (vu)load_words(panel + *place + kLanes), quad);
    }
  }
}
template <int R>
static inline __attribute__((always_inline)) void start_sums(const ShiftedRows& a, int64_t first,
                                                             const QuadPanels& b, int64_t column,
                                                             vi (*sum)[2]) {
  const vi low = load_whole(b.total + column), high = load_whole(b.total + column + kLanes);
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i) {
    const int32_t start = a.start[first + i], shift = a.shift[first + i];
    sum[i][0] = start - low * shift;
    sum[i][1] = start - high * shift;
  }
}

template <int R, class AnyRows>
static __attribute__((noinline)) void quad_tile(const AnyRows& a, int64_t first, const QuadPanels& panels,
                                                int64_t column, Tile<R>* out) {
  vi sum[R][2];
  start_sums<R>(a, first, panels, column, sum);
  const Quad *row = a.row(first), *b = panels.strip(column);
  const int64_t stride = a.stride, steps = panels.steps;
  int64_t k = 0;
  if constexpr (kMatrix<vi> && R % 2 == 0) {
    matrix_steps<R, Unaligned>(sum, b, kBlock, row, stride, 1, steps / 2);
    k = steps / 2 * 2;
    row += k;
    b += k * kBlock;
  }
  for (; k < steps; ++k, ++row, b += kBlock) {
    const vu low = (vu)load_words(b), high = (vu)load_words(b + kLanes);
    const Quad* at = row;
#pragma GCC unroll 12
    for (int i = 0; i < R; ++i, at += stride) {
      const vi quad = (vi)(vu{} + *at);
      sum[i][0] = quad_dot(sum[i][0], low, quad);
      sum[i][1] = quad_dot(sum[i][1], high, quad);
    }
  }
  const vf low = load_unaligned(panels.scale + column), high = load_unaligned(panels.scale + column + kLanes);
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i) {
    const float each = a.scale[first + i];
    out->at[i][0] = __builtin_convertvector(sum[i][0], vf) * (low * each);
    out->at[i][1] = __builtin_convertvector(sum[i][1], vf) * (high * each);
  }
}

/* What product.h's loops ask of operands. */
template <class AnyRows>
struct QuadOperands {
  AnyRows a;
  QuadPanels b;
  static constexpr int kTile = kQuadRows;
  int64_t words() const { return b.steps; }
  template <int R>
  inline __attribute__((always_inline)) void sum(int64_t first, int64_t column, Tile<R>* out) const {
    quad_tile<R>(a, first, b, column, out);
  }
};

template <class AnyRows, class Epilogue>
static void product(const AnyRows& a, int64_t m, const QuadPanels& b, int64_t columns,
                    const Epilogue& epilogue) {
  each_tile(QuadOperands<AnyRows>{a, b}, m, columns, epilogue);
}

/* Weights in panels: column c's are source[c * k .. c * k + k). `row`: k numbers up to a multiple of 32, and
 * their quads, for one column. total: [parts of the sum][`total_columns`], columns up to a multiple of 32. */
static QuadPanels pack_quads(Quad* out, float* scale, int32_t* total, int64_t total_columns,
                             const float* source, int64_t columns, int64_t k, float* row,
                             const SpilledRows& quads) {
  const int64_t steps = round_up(k, kQuad) / kQuad, panel = steps * kBlock;
  for (int64_t i = 0; i < round_up(columns, kBlock) * steps; ++i) out[i] = kLifted;
  for (int64_t c = 0; c < columns; ++c) {
    memcpy(row, source + c * k, (size_t)k * sizeof(float));
    quantize<1>(row, 0, k, quads, 0, false);
    scale[c] = quads.scale[0];
    Quad* to = out + c / kBlock * panel + c % kBlock;
    for (int64_t i = 0; i < steps; ++i) to[i * kBlock] = quads.data[i] ^ kLifted;
    const int8_t* number = reinterpret_cast<const int8_t*>(quads.data);
    for (int64_t i = 0; i < k; ++i) total[i / kSumPart * total_columns + c] += number[i];
  }
  return {out, panel, scale, total, total_columns, steps};
}

}  // namespace EC_ISA

#endif
