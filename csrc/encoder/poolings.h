/* How the rows of a sequence become its vector: one function for each EC_POOL_... of encoder.h.
 *
 * Touches the sequence's rows of x once, and the vector. Bound by reading x.
 */
#ifndef EMBEDCACHE_ENCODER_POOLINGS_H
#define EMBEDCACHE_ENCODER_POOLINGS_H

#include <string.h>

#include "encoder.h"

namespace EC_ISA {

/* Whether a sequence's vector is its first row, so that the last layer's other rows are not needed. */
static inline bool reads_first_row_only(int32_t pooling) { return pooling == EC_POOL_CLS; }

/* Whether a sequence's vector is one of its rows, and which one of [begin, end). */
static inline bool reads_one_row(int32_t pooling) {
  return pooling == EC_POOL_CLS || pooling == EC_POOL_LAST;
}
static inline int64_t row_read(int32_t pooling, int64_t begin, int64_t end) {
  return pooling == EC_POOL_LAST ? end - 1 : begin;
}

/* Pools x [length][stride] to out [dim]; EC_POOL_TOKENS copies it to out [length][dim]. */
static void pool_rows(int32_t pooling, float* out, const float* x, int64_t stride, int64_t length,
                      int64_t dim) {
  const size_t bytes = (size_t)dim * sizeof(float);
  memcpy(out, x + row_read(pooling, 0, length) * stride, bytes);
  switch (pooling) {
    case EC_POOL_TOKENS:
      for (int64_t t = 1; t < length; ++t) memcpy(out + t * dim, x + t * stride, bytes);
      break;
    case EC_POOL_MEAN:
      for (int64_t t = 1; t < length; ++t)
        for (int64_t c = 0; c < dim; ++c) out[c] += x[t * stride + c];
      for (int64_t c = 0; c < dim; ++c) out[c] /= (float)length;
      break;
    case EC_POOL_MAX:
      for (int64_t t = 1; t < length; ++t)
        for (int64_t c = 0; c < dim; ++c) out[c] = x[t * stride + c] > out[c] ? x[t * stride + c] : out[c];
      break;
  }
}

}  // namespace EC_ISA

#endif
