/* The encoder for the instruction set and the word type (EC_WORD) that this is compiled for. */
#ifndef EMBEDCACHE_ENCODER_KERNELS_H
#define EMBEDCACHE_ENCODER_KERNELS_H

#include "encoders.h"
#include "forward.h"
#include "run_pass.h"

namespace EC_ISA {

static void* create(const ec_encoder_spec& spec) { return model_create<EC_WORD>(spec); }

static void destroy(void* model) { ec::memory_give_back(static_cast<Model<EC_WORD>*>(model)->memory); }

static int64_t run(const void* model, const int32_t* ids, const int64_t* offsets, int64_t n,
                   const ec_output* outputs, int32_t n_outputs, void* memory) {
  return run_pass<Pass<EC_WORD>>(*static_cast<const Model<EC_WORD>*>(model), ids, offsets, n, outputs,
                                 n_outputs, memory);
}

}  // namespace EC_ISA

#endif
