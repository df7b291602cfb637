/* Prepare: a view's x as the TF32 kernels read it: standardized, rounded to TF32, [rows, ready_stride] with
 * zeros beyond the last column. PrepareLines: the same in bfloat16; PrepareWide: too, [rows, wide_stride].
 * Once a call, a row per block in turn; bound by device memory. */
#ifndef EMBEDCACHE_CUDA_PREPARE_CUH
#define EMBEDCACHE_CUDA_PREPARE_CUH

#include "layout.cuh"
#include "mma_bf16.cuh"

namespace ec {

/* store(i, value) for each place i of all rows, `stride` to a row; column(i) is the column of place i of one.
 */
template <class Column, class Store>
EC_DEVICE void each_place(const Block& block, const Launch& launch, int64_t stride, Column column,
                          Store store) {
  for (int64_t row = block.index(); row < launch.source_rows; row += block.count())
    each_index(block, stride, [&](int64_t i) {
      const int64_t k = column(i);
      store(row * stride + i, k < launch.source.dim ? launch.source.at(row, (int)k) : 0.0f);
    });
}

struct Prepare {
  struct Shared {};
  static constexpr int kBlocksPerProcessor = 2;

  static EC_DEVICE_METHOD void run(const Block& block, Shared&, const Launch& launch) {
    each_place(
        block, launch, ready_stride(launch.source.dim), [](int64_t i) { return i; },
        [&](int64_t i, float value) { launch.ready[i] = to_tf32(value); });
  }
};

/* The same without rounding. */
struct PreparePlain {
  struct Shared {};
  static constexpr int kBlocksPerProcessor = 2;

  static EC_DEVICE_METHOD void run(const Block& block, Shared&, const Launch& launch) {
    each_place(
        block, launch, ready_stride(launch.source.dim), [](int64_t i) { return i; },
        [&](int64_t i, float value) { launch.ready[i] = value; });
  }
};

struct PrepareLines {
  struct Shared {};
  static constexpr int kBlocksPerProcessor = 2;

  static EC_DEVICE_METHOD void run(const Block& block, Shared&, const Launch& launch) {
    each_place(
        block, launch, ready_stride(launch.source.dim), [](int64_t i) { return i; },
        [&](int64_t i, float value) { launch.lines[i] = to_bf16(value); });
  }
};

struct PrepareWide {
  struct Shared {};
  static constexpr int kBlocksPerProcessor = 2;

  static EC_DEVICE_METHOD void run(const Block& block, Shared&, const Launch& launch) {
    each_place(
        block, launch, wide_stride(launch.source.dim),
        [](int64_t i) { return i / kWideStored * kWideChunk + i % kWideStored % kWideChunk; },
        [&](int64_t i, float value) { launch.wide[i] = to_bf16(value); });
  }
};

}  // namespace ec
#endif
