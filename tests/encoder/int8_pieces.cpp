/* The pieces of csrc/encoder/int8.h for test_int8.py: a row quantized, weights packed, a product. */
#define EC_ISA ec_int8_pieces
#define EC_INT8
#include "../../csrc/encoder/epilogues.h"

using namespace EC_ISA;

extern "C" {

int32_t lanes(void) { return kLanes; }
int32_t quads_of(int64_t k) { return (int32_t)(round_up(k, kBlock) / kQuad); }

/* x [rows][stride]; quads [rows][quads_of(k)], scale and start [rows], spill and place [rows][kSpill]. */
void quantize_rows(const float* x, int64_t rows, int64_t stride, int64_t k, uint32_t* quads, float* scale,
                   int32_t* start, uint32_t* spill, int32_t* place) {
  for (int64_t i = 0; i < rows; ++i)
    quantize(x + i * stride, k, QuadRows{quads, quads_of(k), scale, start, spill, place}, i);
}

/* weight [columns][k] of any size; out [columns up to 32][quads_of], column_scale [columns up to 32]; row: k
 * up to 32. */
void pack(const float* weight, int64_t columns, int64_t k, uint32_t* out, float* column_scale, float* row) {
  uint32_t quads[4096], spill[kSpill];
  int32_t start, place[kSpill];
  float scale;
  pack_quads(out, column_scale, weight, columns, k, row, QuadRows{quads, 4096, &scale, &start, spill, place});
}

/* out [m][columns up to 32] */
void multiply(uint32_t* quads, float* scale, int32_t* start, uint32_t* spill, int32_t* place, int64_t m,
              int64_t k, const uint32_t* panels, const float* column_scale, int64_t columns, float* out) {
  const int64_t steps = round_up(k, kQuad) / kQuad, padded = round_up(columns, kBlock);
  product(QuadRows{quads, quads_of(k), scale, start, spill, place}, m,
          QuadPanels{panels, steps * kBlock, column_scale, steps}, padded, Store{out, padded});
}
}
