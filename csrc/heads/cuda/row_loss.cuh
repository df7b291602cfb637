/* A row's loss and its gradient by one thread, which has the row's logits in registers: for kernels with few
 * outputs. `back` has arrays logit and gradient, of kOutputs at least; logits beyond the loss's are not used.
 * The common loss is computed in float32 by the special-function unit, its sum in double; others by loss.cuh.
 */
#ifndef EMBEDCACHE_CUDA_ROW_LOSS_CUH
#define EMBEDCACHE_CUDA_ROW_LOSS_CUH

#include "loss.cuh"
#include "mma.cuh"

namespace ec {

/* Any loss of a row and its gradient. */
template <int kOutputs, class Back>
EC_DEVICE double any_loss(const Loss& l, int32_t y, const float* targets, double log_sum, double over_weight,
                          Back& back) {
  float logits[kOutputs]; /* an array of its own: here it is indexed by numbers known only now */
  EC_UNROLL
  for (int c = 0; c < kOutputs; ++c) logits[c] = back.logit[c];
  double loss, mass = 0.0;
  if (l.kind == EC_KIND_CLASSES)
    loss = class_loss(l, logits, y, log_sum, &mass);
  else
    loss = l.kind == EC_KIND_LABELS ? label_loss(l, logits, targets) : number_loss(l, logits, targets);
  EC_UNROLL
  for (int c = 0; c < kOutputs; ++c) {
    if (c >= l.outputs) break;
    const double softmax = l.kind == EC_KIND_CLASSES ? fast_exp(back.logit[c] - (float)log_sum) : 0.0;
    const double slope = loss_gradient(l, back.logit[c], c, y, targets, softmax, log_sum, mass);
    back.gradient[c] = (float)(slope * over_weight);
  }
  return loss;
}

/* The loss of the thread's row, and its gradient by the logits; exp and log of the special-function unit.
 * all_targets: [., outputs] by row, or NULL. */
template <int kOutputs, class Back>
EC_DEVICE double row_loss(const Loss& l, int32_t y, const float* all_targets, uint32_t row,
                          double over_weight, Back& back) {
  const float* targets = all_targets ? all_targets + (int64_t)row * l.outputs : nullptr;
  float top = back.logit[0], sum = 0.0f, picked = back.logit[0], power[kOutputs];
  EC_UNROLL
  for (int c = 1; c < kOutputs; ++c) {
    if (c < l.outputs && back.logit[c] > top) top = back.logit[c];
    if (c == y) picked = back.logit[c];
  }
  EC_UNROLL
  for (int c = 0; c < kOutputs; ++c) {
    power[c] = c < l.outputs ? fast_exp(back.logit[c] - top) : 0.0f;
    sum += power[c];
  }
  const float log_sum = top + logf(sum);
  if (l.kind != EC_KIND_CLASSES || l.loss.number != EC_LOSS_NLL || l.smoothing > 0)
    return any_loss<kOutputs>(l, y, targets, log_sum, over_weight, back);
  const double target = weight_of(l, y);
  const float scale = (float)(target * over_weight), over_sum = fast_quotient(1.0f, sum);
  EC_UNROLL
  for (int c = 0; c < kOutputs; ++c)
    back.gradient[c] = (power[c] * over_sum - (c == y ? 1.0f : 0.0f)) * scale;
  return target * ((double)log_sum - (double)picked);
}

}  // namespace ec
#endif
