/* AdamW on vectors of weights: numerics.h ec_adamw_update, kLanes at a time.
 *
 * Fused into the epilogue of the gradient tile: the gradient comes in registers, and w, m and v are read and
 * written once (24 bytes a weight). Square root and division are exactly rounded; their unit, not the memory,
 * is the bound while the state is in cache.
 */
#ifndef EMBEDCACHE_CPU_ADAMW_H
#define EMBEDCACHE_CPU_ADAMW_H

#include "../../simd/simd.h"

namespace EC_ISA {

/* A parameter and its two moments, in the same layout. */
struct Parameter {
  float *w, *m, *v;
  Parameter at(int64_t offset) const { return {w + offset, m + offset, v + offset}; }
};

static inline __attribute__((always_inline)) void adamw_update(vf gradient, Parameter p, const ec_adamw& a) {
  vf w = load(p.w), m = load(p.m), v = load(p.v);
  m += a.m_rate * (gradient - m);
  v = (v - a.v_rate * v) + a.v_rate * gradient * gradient; /* not v + rate (g g - v): see numerics.h */
  w -= a.decay * w + a.rate * m / (square_root(v) + a.eps);
  store(p.w, w);
  store(p.m, m);
  store(p.v, v);
}

}  // namespace EC_ISA

#endif
