/* Blocks, for the instruction set that this is compiled for. */
#ifndef EMBEDCACHE_BLOCK_KERNELS_H
#define EMBEDCACHE_BLOCK_KERNELS_H

#include "train.h"

namespace EC_ISA {

static ec::BlockJob* create(const ec::BlockOrder& order, Team* team) {
  const bool bfloat16 = order.options->compute == EC_COMPUTE_BFLOAT16;
  Trainee* t = make_trainee(order, team, bfloat16);
  if (t) t->train = bfloat16 ? train_block<Pair> : train_block<float>;
  return t;
}

}  // namespace EC_ISA

#endif
