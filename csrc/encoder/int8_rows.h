/* Rows of int8 for the products of int8.h: quantized as they are finished, each with a scale of its own.
 *
 * A row's scale is taken anew for every row: its result does not depend on its neighbours. Two kinds:
 *
 * Spilled rows, after LayerNorm. Transformers hand on a few numbers far above the others, and a scale for
 * those would leave the others little resolution: up to kSpill times a row, what is above 127 becomes one
 * more term of the sum.
 *
 * Shifted rows, where the smallest number is known to be nearer to 0 than the largest, as after GELU: all 254
 * steps lie between the two, and 0 is some whole number, the shift.
 */
#ifndef EMBEDCACHE_ENCODER_INT8_ROWS_H
#define EMBEDCACHE_ENCODER_INT8_ROWS_H

#include "../simd/arena.h"
#include "../simd/quads.h"
#include "functions.h"

namespace EC_ISA {

constexpr int kSpill = 4;

struct QuadRows {
  Quad* data;
  int64_t stride; /* words */
  float* scale;
  int32_t* start; /* of the row's sums: -kLift times the sum of its numbers */

  void take(Arena* arena, int64_t rows, int64_t columns) {
    stride = round_up(columns, kBlock) / kQuad + kQuad; /* rows do not all start in the same set of L1 */
    data = arena->take<Quad>(rows * stride);
    scale = arena->take<float>(rows);
    start = arena->take<int32_t>(rows);
  }
  QuadRows from(int64_t row) const { return {data + row * stride, stride, scale + row, start + row}; }
  Quad* row(int64_t i) const { return data + i * stride; }

  /* n numbers that cannot be told from zeros; a `largest` that is not finite makes the scale NaN: it shows in
   * every product of the row. */
  void make_nothing(int64_t i, int64_t n, float largest) const {
    memset(row(i), 0, (size_t)(round_up(n, kBlock) / kQuad) * sizeof(Quad));
    start[i] = 0;
    scale[i] = largest - largest;
  }
  void finish(int64_t i, float its_scale, vu sum) const {
    scale[i] = its_scale;
    start[i] = (int32_t)((uint32_t)lane_total(sum) * (uint32_t)-kLift);
  }
};

struct SpilledRows : QuadRows {
  Quad* spill;    /* [rows][kSpill], more terms, */
  int32_t* place; /* and 32 times the number of the word that each belongs to */

  void take(Arena* arena, int64_t rows, int64_t columns) {
    QuadRows::take(arena, rows, columns);
    spill = arena->take<Quad>(rows * kSpill);
    place = arena->take<int32_t>(rows * kSpill);
  }
  SpilledRows from(int64_t row) const {
    return {QuadRows::from(row), spill + row * kSpill, place + row * kSpill};
  }
};

struct ShiftedRows : QuadRows {
  int32_t* shift; /* what 0 became */

  void take(Arena* arena, int64_t rows, int64_t columns) {
    QuadRows::take(arena, rows, columns);
    shift = arena->take<int32_t>(rows);
  }
  ShiftedRows from(int64_t row) const { return {QuadRows::from(row), shift + row}; }
};

/* Whether 254 steps for numbers that reach so far have a scale and a reciprocal that are finite. */
static inline bool has_steps(float range) { return range - range == 0.0f && range >= 1e-30f; }

static inline vf magnitude(vf x) { return (vf)((vi)x & 0x7FFFFFFF); }

/* The larger of two magnitudes: their bits order as they do, infinity and NaN above all. */
static inline vi larger_bits(vi x, vi y) { return x > y ? x : y; }
static inline float largest_of(vi bits) {
  const int32_t most = lane_most(bits);
  float largest;
  memcpy(&largest, &most, sizeof largest);
  return largest;
}

static inline int32_t as_int8(int32_t x) { return x > 127 ? 127 : x < -128 ? -128 : x; }

/* Row `row` of `to` with 127 for `limit`; false where it spills more than kSpill times. */
static bool quantize_to(const float* x, int64_t n, const SpilledRows& to, int64_t row, float limit) {
  const vf inverse = splat(127.0f / limit);
  Quad* out = to.row(row);
  /* 1. What fits, and a list of the numbers that do not: few, and mostly in the same columns. */
  int32_t numbers[kSpill + kLanes], places[kSpill + kLanes];
  int outside = 0;
  vu sum = {};
  for (int64_t i = 0; i < round_up(n, kBlock); i += kLanes) {
    const vi whole = nearest(load_unaligned(x + i) * inverse);
    store_quads(out + i / kQuad, whole);
    sum += (vu)whole;
    if (any_outside(whole)) {
      outside += append_outside(whole, (int32_t)i, numbers + outside, places + outside);
      if (outside > kSpill) return false;
    }
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
  to.finish(row, limit / 127.0f, sum);
  return true;
}

/* x[n], zero up to a multiple of 32, of these largest and total magnitudes, to row `row` of `to`. 127 becomes
 * five times the mean magnitude, four standard deviations of a normal distribution, where the row reaches so
 * far; more if it spills too often. spills: whether it may. */
static void quantize_sized(const float* x, int64_t n, const SpilledRows& to, int64_t row, float largest,
                           float total, bool spills) {
  if (!has_steps(largest)) {
    to.make_nothing(row, n, largest);
    for (int i = 0; i < kSpill; ++i) to.spill[row * kSpill + i] = 0, to.place[row * kSpill + i] = 0;
    return;
  }
  const float usual = total * (5.0f / (float)n), least = largest / (1 + kSpill);
  float limit = !spills ? largest : usual > least ? usual : least;
  while (limit > largest || !quantize_to(x, n, to, row, limit))
    limit = limit * 1.25f < largest ? limit * 1.25f : largest;
}

/* R rows x[n], `stride` apart, to those from `row` on; what is summed of them runs side by side. */
template <int R>
static void quantize(const float* x, int64_t stride, int64_t n, const SpilledRows& to, int64_t row,
                     bool spills = true) {
  vi most[R] = {};
  vf sum[R] = {};
  for (int64_t i = 0; i < n; i += kLanes)
    for (int r = 0; r < R; ++r) {
      const vf size = magnitude(load_unaligned(x + r * stride + i));
      most[r] = larger_bits(most[r], (vi)size);
      sum[r] += size;
    }
  for (int r = 0; r < R; ++r)
    quantize_sized(x + r * stride, n, to, row + r, largest_of(most[r]), lane_sum(sum[r]), spills);
}

/* x[n] * steps + zero, a whole number, to row `row` of `to`. */
static void quantize_to(const float* x, int64_t n, const ShiftedRows& to, int64_t row, float steps,
                        float zero) {
  Quad* out = to.row(row);
  vu sum = {};
  for (int64_t i = 0; i < round_up(n, kBlock); i += kLanes) {
    vi whole = nearest(load_unaligned(x + i) * steps + zero);
    if (i + kLanes > n) whole &= first_lanes(n - i);
    store_quads(out + i / kQuad, whole);
    sum += (vu)whole;
  }
  to.finish(row, 1.0f / steps, sum);
  to.shift[row] = (int32_t)zero;
}

/* x[n], from `low` (not above 0) to `largest`, to row `row` of `to`. */
[[maybe_unused]] static void quantize(const float* x, int64_t n, const ShiftedRows& to, int64_t row,
                                      float low, float largest) {
  if (!has_steps(largest - low)) {
    to.shift[row] = 0;
    return to.make_nothing(row, n, largest);
  }
  const float steps = 253.0f / (largest - low); /* of 254: both ends may be rounded away from zero */
  quantize_to(x, n, to, row, steps, rintf(-127.0f - low * steps));
}

/* The same from -largest on, without a shift. */
[[maybe_unused]] static void quantize_even(const float* x, int64_t n, const ShiftedRows& to, int64_t row) {
  vi most = {};
  for (int64_t i = 0; i < n; i += kLanes)
    most = larger_bits(most, (vi)magnitude(load_unaligned(x + i)) & first_lanes(n - i));
  const float largest = largest_of(most);
  if (!has_steps(largest)) {
    to.shift[row] = 0;
    return to.make_nothing(row, n, largest);
  }
  quantize_to(x, n, to, row, 127.0f / largest, 0.0f);
}

}  // namespace EC_ISA

#endif
