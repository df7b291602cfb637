/* exp and log of kHalf doubles at a time, for the losses of many rows: some 1e-15 off, where libm's scalar
 * ones cost more than all of a linear probe's products. NaN stays NaN.
 */
#ifndef EMBEDCACHE_CPU_EXP_LOG_H
#define EMBEDCACHE_CPU_EXP_LOG_H

#include "simd.h"

namespace EC_ISA {

constexpr int kHalf = kLanes / 2;

typedef double vd __attribute__((vector_size(4 * EC_LANES)));
typedef int64_t vl __attribute__((vector_size(4 * EC_LANES)));
typedef float vh __attribute__((vector_size(2 * EC_LANES), aligned(4))); /* kHalf floats */

static inline vd load_doubles(const float* p) {
  return __builtin_convertvector(*reinterpret_cast<const vh*>(p), vd);
}
static inline void store_floats(float* p, vd x) {
  *reinterpret_cast<vh*>(p) = __builtin_convertvector(x, vh);
}
static inline vd choose(vl mask, vd yes, vd no) { return (vd)((mask & (vl)yes) | (~mask & (vl)no)); }

/* x <= 0: 2^n e^r with |r| <= log(2) / 2, by the series of e^r. */
static inline vd exp_of(vd x) {
  x = choose(x < -700.0, vd{} - 700.0, x); /* as good as 0 */
  constexpr double kRound = 0x1.8p52;      /* adding it leaves the nearest integer in the low bits */
  const vd shifted = x * 1.4426950408889634 + kRound, n = shifted - kRound;
  const vd r = x - n * 0x1.62e42fefa38p-1 - n * 0x1.ef35793c7673p-45; /* log(2) in two parts */
  vd sum = vd{} + 1.0 / 479001600;
  sum = sum * r + 1.0 / 39916800;
  sum = sum * r + 1.0 / 3628800;
  sum = sum * r + 1.0 / 362880;
  sum = sum * r + 1.0 / 40320;
  sum = sum * r + 1.0 / 5040;
  sum = sum * r + 1.0 / 720;
  sum = sum * r + 1.0 / 120;
  sum = sum * r + 1.0 / 24;
  sum = sum * r + 1.0 / 6;
  sum = sum * r + 0.5;
  sum = sum * r + 1.0;
  sum = sum * r + 1.0;
  return (vd)((vl)sum + ((vl)shifted << 52));
}

/* x >= 1, finite: n log(2) + log(m), sqrt(1/2) <= m < sqrt(2), by the series of atanh((m - 1) / (m + 1)). */
static inline vd log_of(vd x) {
  const vl n = ((vl)x - 0x3FE6A09E667F3BCD) >> 52;
  const vd m = (vd)((vl)x - (n << 52)), f = (m - 1.0) / (m + 1.0), s = f * f;
  vd sum = vd{} + 1.0 / 21;
  for (int k = 19; k > 0; k -= 2) sum = sum * s + 1.0 / k;
  return __builtin_convertvector(n, vd) * 0.6931471805599453 + 2.0 * f * sum + (x - x);
}

}  // namespace EC_ISA

#endif
