/* Log-softmax, its loss and its gradient, row by row in double: one exp a class.
 *
 * The logits come as partial sums over slices of the inputs, added here in the slices' order whatever thread
 * made them. Memory: slices + 1 rows of logits. Bound: exp, a few nanoseconds each; small for few classes.
 */
#ifndef EMBEDCACHE_CPU_SOFTMAX_H
#define EMBEDCACHE_CPU_SOFTMAX_H

#include "simd.h"

namespace EC_ISA {

/* logits[c] = sum over slices of partial[slice * stride + c]. */
static void sum_slices(const float* partial, int64_t stride, int slices, int64_t classes, float* logits) {
  for (int64_t c = 0; c < classes; ++c) logits[c] = partial[c];
  for (int s = 1; s < slices; ++s)
    for (int64_t c = 0; c < classes; ++c) logits[c] += partial[s * stride + c];
}

/* Returns the row's nll; turns its logits into weight * (softmax - onehot) in place. e: [classes] scratch. */
static double nll_and_gradient(float* logits, int64_t classes, int32_t target, double weight, double* e) {
  float top = logits[0];
  for (int64_t c = 1; c < classes; ++c) top = logits[c] > top ? logits[c] : top;
  double sum = 0;
  for (int64_t c = 0; c < classes; ++c) sum += e[c] = exp((double)logits[c] - (double)top);
  const double nll = log(sum) - ((double)logits[target] - (double)top);
  const double scale = weight / sum;
  for (int64_t c = 0; c < classes; ++c) logits[c] = (float)(scale * e[c]);
  logits[target] = (float)(weight * (e[target] / sum - 1.0));
  return nll;
}

}  // namespace EC_ISA

#endif
