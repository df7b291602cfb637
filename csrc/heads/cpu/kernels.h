/* Heads and groups of linear probes, for the instruction set that this is compiled for. */
#ifndef EMBEDCACHE_CPU_KERNELS_H
#define EMBEDCACHE_CPU_KERNELS_H

#include "head.h"
#include "probes.h"

namespace EC_ISA {

static ec::Head* create(const ec_task& task, const ec_head* const* specs, ec_result* const* results,
                        int64_t n, const ec_options& options, Team* team) {
  if (specs[0]->hidden) return head_create(task, *specs[0], results[0], options, team);
  return probes_create(task, specs, results, n, options, team);
}

}  // namespace EC_ISA

#endif
