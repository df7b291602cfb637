/* FiniteWeights: whether each active head's best weights are all finite, a head per block.
 *
 * Reads 4 bytes a parameter once, where the host would read them all after they were copied; bound by device
 * memory. NOT YET RUN ON A GPU.
 */
#ifndef EMBEDCACHE_CUDA_FINITE_CUH
#define EMBEDCACHE_CUDA_FINITE_CUH

#include "layout.cuh"

namespace ec {

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
