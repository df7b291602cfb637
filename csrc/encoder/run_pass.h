/* One batch through a pass (forward.h, rotary_block.h). */
#ifndef EMBEDCACHE_ENCODER_RUN_PASS_H
#define EMBEDCACHE_ENCODER_RUN_PASS_H

#include "../simd/arena.h"
#include "encoder.h"

namespace EC_ISA {

/* Runs a batch and returns the bytes of memory that it uses. With memory NULL it only counts them. */
template <class Pass, class Model>
static int64_t run_pass(const Model& model, const int32_t* ids, const int64_t* offsets, int64_t n,
                        const ec_output* outputs, int32_t n_outputs, void* memory) {
  int64_t longest = 0;
  for (int64_t i = 0; i < n; ++i) longest = larger(longest, offsets[i + 1] - offsets[i]);
  Pass pass(model, ids, offsets, n, longest);
  Arena arena = {static_cast<char*>(memory)};
  pass.take(&arena);
  if (memory) pass.run(outputs, n_outputs);
  return arena.used;
}

}  // namespace EC_ISA

#endif
