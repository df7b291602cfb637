/* Products of int8: rows that are quantized as they are finished, times weights that are quantized once.
 *
 *   y[i][column] = scale[i] * scale[column] * sum over k of row[i][k] * weight[k][column]
 *
 * A row's scale is taken anew for every row: its result does not depend on its neighbours. A column's is that
 * of its weights. What transformers hand on has a few numbers far above the others, and a scale for those
 * would leave the others little resolution: up to kSpill times a row, what is above 127 becomes one more term
 * of the sum.
 *
 * The sum is int32 and exact; weights have 128 added (quads.h), so that it starts at -128 times the sum of
 * the row. What is done with a tile is the same epilogue as after product.h's products, in float32.
 *
 * A step loads two vectors of weights, broadcasts kQuadRows words of rows and does 2 kQuadRows vpdpbusd: four
 * multiply-adds a lane each, where vdpbf16ps does two. Bound by them while a panel is in L1 or L2.
 */
#ifndef EMBEDCACHE_ENCODER_INT8_H
#define EMBEDCACHE_ENCODER_INT8_H

#include "../simd/arena.h"
#include "../simd/quads.h"
#include "product.h"

namespace EC_ISA {

constexpr int kSpill = 4;

/* Quantized rows. */
struct QuadRows {
  Quad* data;
  int64_t stride; /* words */
  float* scale;
  int32_t* start; /* of the row's sums: -128 times the sum of its numbers */
  Quad* spill;    /* [rows][kSpill], more terms, */
  int32_t* place; /* and 32 times the number of the word that each belongs to */

  void take(Arena* arena, int64_t rows, int64_t columns) {
    stride = round_up(columns, kBlock) / kQuad + kQuad; /* rows do not all start in the same set of L1 */
    data = arena->take<Quad>(rows * stride);
    scale = arena->take<float>(rows);
    start = arena->take<int32_t>(rows);
    spill = arena->take<Quad>(rows * kSpill);
    place = arena->take<int32_t>(rows * kSpill);
  }
  QuadRows from(int64_t row) const {
    return {data + row * stride, stride, scale + row, start + row, spill + row * kSpill,
            place + row * kSpill};
  }
};

/* Packed weights: panel p's words k of 32 columns at data + p * panel + 32 k. */
struct QuadPanels {
  const Quad* data;
  int64_t panel;
  const float* scale; /* of each column */
  int64_t steps;      /* words of a column */

  QuadPanels columns_from(int64_t column) const {
    return {data + column / kBlock * panel, panel, scale + column, steps};
  }
  /* The part of the sum from `first` on, both multiples of 4. */
  QuadPanels part_of_sum(int64_t first, int64_t n) const {
    return {data + first / kQuad * kBlock, panel, scale, n / kQuad};
  }
};

static inline vf magnitude(vf x) { return (vf)((vi)x & 0x7FFFFFFF); }

/* The largest magnitude of x[n]; infinity or NaN where there is one. */
static float largest_of(const float* x, int64_t n) {
  vi most = {}; /* their bits order as they do, infinity and NaN above all */
  for (int64_t i = 0; i < n; i += kLanes) {
    const vi bits = (vi)magnitude(load_unaligned(x + i)), more = bits > most;
    most = (bits & more) | (most & ~more);
  }
  const int32_t bits = lane_most(most);
  float largest;
  memcpy(&largest, &bits, sizeof largest);
  return largest;
}

/* What becomes 127: five times the mean magnitude, four standard deviations of a normal distribution, where
 * the row reaches so far. The mean is one of integers, so that the order of the sum is nothing to the result.
 */
static float first_limit(const float* x, int64_t n, float largest) {
  constexpr float kFine = 16383.0f;
  const float fine = kFine / largest;
  vu sum = {};
  for (int64_t i = 0; i < n; i += kLanes) sum += (vu)nearest(magnitude(load_unaligned(x + i)) * fine);
  const float limit = largest * ((float)lane_total(sum) * (5.0f / (kFine * (float)n)));
  const float least = largest / (1 + kSpill);
  return limit > largest ? largest : limit > least ? limit : least;
}

static inline int32_t as_int8(int32_t x) { return x > 127 ? 127 : x < -128 ? -128 : x; }

/* Row `row` of `to` with 127 for `limit`; false where it spills more than kSpill times. */
static bool quantize_to(const float* x, int64_t n, const QuadRows& to, int64_t row, float limit) {
  const vf inverse = splat(127.0f / limit);
  Quad* out = to.data + row * to.stride;
  /* 1. What fits, and a list of the numbers that do not: without a branch for each, which nobody could
   * foresee. */
  int32_t numbers[kSpill + kLanes], places[kSpill + kLanes];
  int outside = 0;
  vu sum = {};
  for (int64_t i = 0; i < round_up(n, kBlock); i += kLanes) {
    const vi whole = nearest(load_unaligned(x + i) * inverse);
    store_quads(out + i / kQuad, whole);
    sum += (vu)whole;
    outside += append_outside(whole, (int32_t)i, numbers + outside, places + outside);
    if (outside > kSpill) return false;
  }
  /* 2. The rest of each as more terms. */
  Quad* spill = to.spill + row * kSpill;
  int32_t* place = to.place + row * kSpill;
  for (int i = 0; i < kSpill; ++i) spill[i] = 0, place[i] = 0;
  int spilled = 0;
  for (int i = 0; i < outside; ++i)
    for (int32_t rest = numbers[i] - as_int8(numbers[i]); rest; ++spilled) {
      if (spilled == kSpill) return false;
      const int32_t part = as_int8(rest);
      spill[spilled] = (Quad)(part & 0xFF) << 8 * (places[i] % kQuad);
      place[spilled] = places[i] / kQuad * kBlock;
      rest -= part;
    }
  to.scale[row] = limit / 127.0f;
  to.start[row] = (int32_t)((uint32_t)lane_total(sum) * (uint32_t)-128);
  return true;
}

/* x[n], zero up to a multiple of 32, to row `row` of `to`. A number that is not finite makes the scale so: it
 * shows in every product of the row. spills: whether it may. */
static void quantize(const float* x, int64_t n, const QuadRows& to, int64_t row, bool spills = true) {
  const float largest = largest_of(x, n);
  const bool finite = largest - largest == 0.0f;
  if (!finite || largest < 1e-30f) { /* nothing, or nothing whose reciprocal is finite */
    memset(to.data + row * to.stride, 0, (size_t)(round_up(n, kBlock) / kQuad) * sizeof(Quad));
    memset(to.spill + row * kSpill, 0, kSpill * sizeof(Quad));
    memset(to.place + row * kSpill, 0, kSpill * sizeof(int32_t));
    to.start[row] = 0;
    to.scale[row] = finite ? 0.0f : largest - largest; /* NaN */
    return;
  }
  for (float limit = spills ? first_limit(x, n, largest) : largest; !quantize_to(x, n, to, row, limit);)
    limit = limit * 1.25f < largest ? limit * 1.25f : largest;
}

template <int R>
static __attribute__((noinline)) void quad_tile(const QuadRows& a, int64_t first, const Quad* panel,
                                                int64_t steps, const float* scale, Tile<R>* out) {
  vi sum[R][2];
  const Quad* spill = a.spill + first * kSpill;
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
  const Quad *row = a.data + first * a.stride, *b = panel;
  const int64_t stride = a.stride;
  for (int64_t k = 0; k < steps; ++k, ++row, b += kBlock) {
    const vu low = (vu)load_words(b), high = (vu)load_words(b + kLanes);
    const Quad* at = row;
#pragma GCC unroll 12
    for (int i = 0; i < R; ++i, at += stride) {
      const vi quad = (vi)(vu{} + *at);
      sum[i][0] = quad_dot(sum[i][0], low, quad);
      sum[i][1] = quad_dot(sum[i][1], high, quad);
    }
  }
  const vf low = load_unaligned(scale), high = load_unaligned(scale + kLanes);
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i) {
    const float each = a.scale[first + i];
    out->at[i][0] = __builtin_convertvector(sum[i][0], vf) * (low * each);
    out->at[i][1] = __builtin_convertvector(sum[i][1], vf) * (high * each);
  }
}

/* What product.h's loops ask of operands. */
struct QuadOperands {
  QuadRows a;
  QuadPanels b;
  static constexpr int kTile = kQuadRows;
  int64_t words() const { return b.steps; }
  template <int R>
  inline __attribute__((always_inline)) void sum(int64_t first, int64_t column, Tile<R>* out) const {
    quad_tile<R>(a, first, b.data + column / kBlock * b.panel + column % kBlock, b.steps, b.scale + column,
                 out);
  }
};

template <class Epilogue>
static void product(const QuadRows& a, int64_t m, const QuadPanels& b, int64_t columns,
                    const Epilogue& epilogue) {
  each_tile(QuadOperands{a, b}, m, columns, epilogue);
}

/* Weights in panels: column c's are source[c * k .. c * k + k). `row`: k numbers up to a multiple of 32, and
 * their quads, for one column. */
static QuadPanels pack_quads(Quad* out, float* scale, const float* source, int64_t columns, int64_t k,
                             float* row, const QuadRows& quads) {
  const int64_t steps = round_up(k, kQuad) / kQuad, panel = steps * kBlock;
  for (int64_t i = 0; i < round_up(columns, kBlock) * steps; ++i) out[i] = 0x80808080u;
  for (int64_t c = 0; c < columns; ++c) {
    memcpy(row, source + c * k, (size_t)k * sizeof(float));
    quantize(row, k, quads, 0, false);
    scale[c] = quads.scale[0];
    Quad* to = out + c / kBlock * panel + c % kBlock;
    for (int64_t i = 0; i < steps; ++i) to[i * kBlock] = quads.data[i] ^ 0x80808080u;
  }
  return {out, panel, scale, steps};
}

}  // namespace EC_ISA

#endif
