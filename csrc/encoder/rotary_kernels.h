/* The rotary encoder for the instruction set and the word type (EC_WORD) that this is compiled for. */
#ifndef EMBEDCACHE_ENCODER_ROTARY_KERNELS_H
#define EMBEDCACHE_ENCODER_ROTARY_KERNELS_H

#include "rotaries.h"
#include "rotary_block.h"

namespace EC_ISA {

static void* create(const ec_rotary_spec& spec) { return rotary_create<EC_WORD>(spec); }

static void destroy(void* model) { ec::memory_give_back(model); }

/* Runs a batch and returns the bytes of memory that it uses. With memory NULL it only counts them. */
static int64_t run(const void* model, const int32_t* ids, const int64_t* offsets, int64_t n,
                   const ec_output* outputs, int32_t n_outputs, void* memory) {
  int64_t longest = 0;
  for (int64_t i = 0; i < n; ++i) longest = larger(longest, offsets[i + 1] - offsets[i]);
  RotaryPass<EC_WORD> pass(*static_cast<const RotaryModel<EC_WORD>*>(model), ids, offsets, n, longest);
  Arena arena = {static_cast<char*>(memory)};
  pass.take(&arena);
  if (memory) pass.run(outputs, n_outputs);
  return arena.used;
}

}  // namespace EC_ISA

#endif
