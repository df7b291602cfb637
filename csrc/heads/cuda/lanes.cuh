/* The launches of large batches in bfloat16, in lanes. Host side. */
#ifndef EMBEDCACHE_CUDA_LANES_CUH
#define EMBEDCACHE_CUDA_LANES_CUH

#include <algorithm>
#include <vector>

#include "data.cuh"
#include "wgmma_gradient.cuh"
#include "wgmma_layer.cuh"

namespace ec {

template <class Kernel>
void launch_large(const Device& device, Launch wave, uint32_t step, int blocks, size_t lane) {
  wave.step_begin = step;
  device.launch_clusters<Kernel>(wave, wave.n_active * Kernel::clusters_of_head(wave), blocks, (int)lane);
}

/* Some waves at a time, each in a lane of its own: LargeLayer waits for L2 and the tensor cores,
 * LargeGradient for device memory, and one lane's begins where the other's leaves processors idle. Waves that
 * are `lanes` apart share scratch memory. */
inline void train_in_lanes(const Device& device, const std::vector<Launch>& waves, size_t lanes, int tiles) {
  device.fork();
  for (size_t first = 0; first < waves.size(); first += lanes) {
    const size_t end = std::min(first + lanes, waves.size());
    for (uint32_t step = waves[first].step_begin; step < waves[first].step_end; ++step) {
      for (size_t i = first; i < end; ++i)
        launch_large<LargeLayer>(device, waves[i], step, kSharers * tiles, i - first);
      for (size_t i = first; i < end; ++i)
        launch_large<LargeGradient>(device, waves[i], step, kSharers, i - first);
    }
  }
  device.join();
}

}  // namespace ec
#endif
