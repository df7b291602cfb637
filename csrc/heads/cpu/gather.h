/* Rows of X, float16, float32 or int8 with a scale wherever they lie, into blocks of float32: the only copy
 * of X, one batch large.
 *
 * Fuses the gather, the conversion and the standardization (x - mean) * inv_std. A blocked matrix is
 * [columns / 32][capacity][32], columns padded with zeros, so that 32 columns of a batch are one run of
 * memory. Bound: memory latency, hence the prefetch of the next row.
 */
#ifndef EMBEDCACHE_CPU_GATHER_H
#define EMBEDCACHE_CPU_GATHER_H

#include "../../simd/pairs.h"
#include "../heads.h"

namespace EC_ISA {

/* One element of a row of the given scale, or kLanes of them. */
static inline float element(const ec_matrix& x, int64_t offset, float scale) {
  if (x.dtype == EC_FLOAT32) return static_cast<const float*>(x.data)[offset];
  if (x.dtype == EC_SCALED_INT8)
    return static_cast<float>(static_cast<const int8_t*>(x.data)[offset]) * scale;
  return ec_half_to_float(static_cast<const uint16_t*>(x.data)[offset]);
}
static inline vf elements(const ec_matrix& x, int64_t offset, float scale) {
  if (x.dtype == EC_FLOAT32) return load_unaligned(static_cast<const float*>(x.data) + offset);
  if (x.dtype == EC_SCALED_INT8) return load_int8(static_cast<const int8_t*>(x.data) + offset) * splat(scale);
  return load_half(static_cast<const uint16_t*>(x.data) + offset);
}

static inline void prefetch_row(const ec_matrix& x, int64_t row) {
  const int64_t size = ec_size_of(x.dtype);
  const char* start = static_cast<const char*>(x.data) + row * x.stride * size;
  for (int64_t byte = 0; byte < x.dim * size; byte += 64) __builtin_prefetch(start + byte);
  if (x.dtype == EC_SCALED_INT8) __builtin_prefetch(x.scale + row);
}

static void gather_row(const ec_task& task, const ec_matrix& x, int64_t row, float* out, int64_t block_size) {
  const int64_t offset = row * x.stride, whole = x.dim / kLanes * kLanes;
  const float scale = x.dtype == EC_SCALED_INT8 ? x.scale[row] : 1.0f;
  for (int64_t k = 0; k < whole; k += kLanes) {
    vf value = elements(x, offset + k, scale);
    if (task.mean) value = (value - load_unaligned(task.mean + k)) * load_unaligned(task.inv_std + k);
    store(out + k / kBlock * block_size + k % kBlock, value);
  }
  for (int64_t k = whole; k < x.dim; ++k) {
    float value = element(x, offset + k, scale);
    if (task.mean) value = (value - task.mean[k]) * task.inv_std[k];
    out[k / kBlock * block_size + k % kBlock] = value;
  }
}

/* Rows [first, last) of a batch, whose row numbers are rows[0..count), into `out` of the given capacity. */
static void gather_rows(const ec_task& task, const ec_view& view, const int64_t* rows, int64_t first,
                        int64_t last, float* out, int64_t capacity) {
  for (int64_t i = first; i < last; ++i) {
    if (i + 1 < last) prefetch_row(view.x, rows[i + 1]);
    gather_row(task, view.x, rows[i], out + i * kBlock, capacity * kBlock);
  }
}

/* The same in pairs of bfloat16; `first` is even. two_rows: scratch, [columns / 32][2][32]. */
static void gather_pairs(const ec_task& task, const ec_view& view, const int64_t* rows, int64_t first,
                         int64_t last, float* two_rows, const Batch<Pair>& out) {
  for (int64_t b = first; b < last; b += 2) {
    const int64_t n = last - b < 2 ? 1 : 2;
    for (int64_t i = 0; i < n; ++i) {
      if (b + i + 1 < last) prefetch_row(view.x, rows[b + i + 1]);
      gather_row(task, view.x, rows[b + i], two_rows + i * kBlock, 2 * kBlock);
    }
    for (int64_t block = 0; block * kBlock < view.x.dim; ++block) {
      const float* x = two_rows + block * 2 * kBlock;
      pair_rows(x, n, out.along_rows + out.block(block) + b / 2 * kBlock);
      pair_columns(x, n, out.along_columns + out.block(block) + b * kBlock / 2);
    }
  }
}

}  // namespace EC_ISA

#endif
