/* Prepare: a view's x as the TF32 kernels read it: standardized, rounded to TF32, [rows, ready_stride] with
 * zeros beyond the last column. PrepareWide: the same in bfloat16, [rows, wide_stride]. Once a call, a row
 * per block in turn; bound by device memory. */
#ifndef EMBEDCACHE_CUDA_PREPARE_CUH
#define EMBEDCACHE_CUDA_PREPARE_CUH

#include "layout.cuh"
#include "mma_bf16.cuh"

namespace ec {

struct Prepare {
  struct Shared {};
  static constexpr int kBlocksPerProcessor = 2;

  static EC_DEVICE_METHOD void run(const Block& block, Shared&, const Launch& launch) {
    const int64_t stride = ready_stride(launch.source.dim);
    for (int64_t row = block.index(); row < launch.source_rows; row += block.count())
      each_index(block, stride, [&](int64_t k) {
        const float value = k < launch.source.dim ? launch.source.at(row, (int)k) : 0.0f;
        launch.ready[row * stride + k] = to_tf32(value);
      });
  }
};

struct PrepareWide {
  struct Shared {};
  static constexpr int kBlocksPerProcessor = 2;

  static EC_DEVICE_METHOD void run(const Block& block, Shared&, const Launch& launch) {
    const int64_t stride = wide_stride(launch.source.dim);
    for (int64_t row = block.index(); row < launch.source_rows; row += block.count())
      each_index(block, stride, [&](int64_t i) {
        const int64_t k = i / kWideStored * kWideChunk + i % kWideStored % kWideChunk;
        const float value = k < launch.source.dim ? launch.source.at(row, (int)k) : 0.0f;
        launch.wide[row * stride + i] = to_bf16(value);
      });
  }
};

}  // namespace ec
#endif
