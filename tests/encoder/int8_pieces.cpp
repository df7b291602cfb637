/* The pieces of csrc/encoder/int8.h for test_int8.py: rows quantized, weights packed, a product. */
#define EC_ISA ec_int8_pieces
#define EC_INT8
#include "../../csrc/encoder/epilogues.h"

using namespace EC_ISA;

namespace {

int64_t quads_of(int64_t k) { return round_up(k, kBlock) / kQuad; }

}  // namespace

extern "C" {

/* Rows of k numbers: quads [n][k up to 32, / 4], scale and start [n], and of spilled rows spill and place
 * [n][kSpill], of shifted ones, whose `spill` is NULL, shift [n] in place. */
struct AnyRows {
  uint32_t* quads;
  float* scale;
  int32_t* start;
  uint32_t* spill;
  int32_t* place;
  int64_t n, k;

  QuadRows common() const { return {quads, quads_of(k), scale, start}; }
  SpilledRows spilled() const { return {common(), spill, place}; }
  ShiftedRows shifted() const { return {common(), place}; }
};

int32_t lanes(void) { return kLanes; }

/* x [n][k up to 32]; low: a number that none is below, of shifted rows, 1: they are even. */
void quantize_rows(const float* x, const AnyRows* to, float low) {
  for (int64_t i = 0; i < to->n; ++i) {
    const float* row = x + i * round_up(to->k, kBlock);
    float largest = 0.0f;
    for (int64_t j = 0; j < to->k; ++j) largest = fabsf(row[j]) > largest ? fabsf(row[j]) : largest;
    if (to->spill)
      quantize<1>(row, 0, to->k, to->spilled(), i);
    else if (low > 0.0f)
      quantize_even(row, to->k, to->shifted(), i);
    else
      quantize(row, to->k, to->shifted(), i, low, largest);
  }
}

/* weight [columns][k]; out [columns up to 32][quads_of]; scale [columns up to 32], total [parts of the
 * sum][the same], zeros; row: k up to 32. */
void pack(const float* weight, int64_t columns, int64_t k, uint32_t* out, float* scale, int32_t* total,
          float* row) {
  uint32_t quads[4096], spill[kSpill];
  int32_t start, place[kSpill];
  float its_scale;
  const SpilledRows one = {{quads, 4096, &its_scale, &start}, spill, place};
  pack_quads(out, scale, total, round_up(columns, kBlock), weight, columns, k, row, one);
}

/* out [m][columns up to 32] */
void multiply(const AnyRows* a, const uint32_t* panels, const float* scale, const int32_t* total,
              int64_t columns, float* out) {
  const int64_t steps = round_up(a->k, kQuad) / kQuad, padded = round_up(columns, kBlock);
  const QuadPanels b = {panels, steps * kBlock, scale, total, padded, steps};
  if (a->spill)
    product(a->spilled(), a->n, b, padded, Store{out, padded});
  else
    product(a->shifted(), a->n, b, padded, Store{out, padded});
}

/* The functions that may be near only: 0 2^x, 1 GELU; n a multiple of 16. */
void near_of(int32_t which, const float* x, int64_t n, float* out) {
  for (int64_t i = 0; i < n; i += kLanes) {
    const vf numbers = load_unaligned(x + i);
    store_unaligned(out + i, which ? gelu_near(numbers) : exp2_near(numbers));
  }
}
}
