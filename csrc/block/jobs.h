/* What each instruction set's build offers. Only plain functions, as in ../heads/cpu/team.h. */
#ifndef EMBEDCACHE_BLOCK_JOBS_H
#define EMBEDCACHE_BLOCK_JOBS_H

#include "../heads/cpu/team.h"
#include "block.h"

namespace ec {

/* Everything that the caller gives for a block. */
struct BlockOrder {
  const ec_states* states;
  const ec_block_shape* shape;
  const ec_task* task;
  const ec_block* block;
  ec_block_result* result;
  const ec_block_options* options;
  int64_t rows;   /* of a batch, or of a validation chunk, at most */
  int64_t tokens; /* of so many rows, at most */
};

/* A block in training; made by one thread, trained by a team, each with its member number. */
struct BlockJob {
  void (*train)(BlockJob* job, int member);
  void* memory; /* of all that belongs to it, itself included */
};

struct BlockKernels {
  const char* name;
  BlockJob* (*create)(const BlockOrder& order, Team* team); /* NULL: not enough memory */
};

extern const BlockKernels block_kernels_plain;
#ifdef EC_X86
extern const BlockKernels block_kernels_avx2, block_kernels_avx512, block_kernels_avx512bf16;
#endif

int train_blocks(const BlockKernels& kernels, const BlockOrder* orders, int n, int threads);

}  // namespace ec

#endif
