/* The rotary encoder for the instruction set and the word type (EC_WORD) that this is compiled for. */
#ifndef EMBEDCACHE_ENCODER_ROTARY_KERNELS_H
#define EMBEDCACHE_ENCODER_ROTARY_KERNELS_H

#include "rotaries.h"
#include "rotary_block.h"
#include "run_pass.h"

namespace EC_ISA {

static void* create(const ec_rotary_spec& spec) { return rotary_create<EC_WORD>(spec); }

static void destroy(void* model) { ec::memory_give_back(model); }

static int64_t run(const void* model, const int32_t* ids, const int64_t* offsets, int64_t n,
                   const ec_output* outputs, int32_t n_outputs, void* memory) {
  return run_pass<RotaryPass<EC_WORD>>(*static_cast<const RotaryModel<EC_WORD>*>(model), ids, offsets, n,
                                       outputs, n_outputs, memory);
}

}  // namespace EC_ISA

#endif
