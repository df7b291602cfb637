/* The heads' best weights.
 *
 * KeepBest: what active heads' weights are becomes their best; a block takes parts of heads in turn. Reads
 * and writes 4 bytes a parameter. FiniteWeights: whether active heads' best weights are all finite, a head
 * per block; reads 4 bytes a parameter, where the host would read them all after they were copied. Both are
 * bound by device memory.
 */
#ifndef EMBEDCACHE_CUDA_BEST_CUH
#define EMBEDCACHE_CUDA_BEST_CUH

#include "layout.cuh"
#include "mma.cuh"

namespace ec {

struct KeepBest {
  static constexpr int kBlocksPerProcessor = 2;
  static constexpr int kParts = 64; /* of a head */
  struct Shared {};

  static EC_DEVICE_METHOD void run(const Block& block, Shared&, const Launch& launch) {
    for (int item = block.index(); item < launch.n_active * kParts; item += block.count()) {
      const Head& head = launch.heads[launch.active[item / kParts]];
      const int part = item % kParts;
      const int64_t n = (parameter_count(head.shape) + 3) / 4; /* the stride is a multiple of 16 */
      const int64_t begin = n * part / kParts, end = n * (part + 1) / kParts;
      const Quad* from = (const Quad*)head.state;
      Quad* to = (Quad*)(head.state + 3 * head.stride);
      each_index(block, end - begin, [&](int64_t i) { to[begin + i] = from[begin + i]; });
    }
  }
};

struct FiniteWeights {
  static constexpr int kBlocksPerProcessor = 2;
  struct Shared {
    int32_t bad[kThreads];
  };

  static EC_DEVICE_METHOD void run(const Block& block, Shared& shared, const Launch& launch) {
    for (int slot = block.index(); slot < launch.n_active; slot += block.count()) {
      const Head& head = launch.heads[launch.active[slot]];
      const float* best = head.state + 3 * head.stride;
      const int64_t n = parameter_count(head.shape);
      block.each_thread([&](int t) {
        int32_t bad = 0;
        for (int64_t i = t; i < n; i += kThreads) bad |= !isfinite(best[i]);
        shared.bad[t] = bad;
      });
      one_thread(block, [&] {
        int32_t bad = 0;
        for (int t = 0; t < kThreads; ++t) bad |= shared.bad[t];
        launch.tallies[launch.active[slot]].bad_weights = bad;
      });
    }
  }
};

}  // namespace ec
#endif
