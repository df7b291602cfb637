/* The losses of many rows at once, for linear probes: as loss.h, kHalf rows at a time where it is the
 * softmax's.
 *
 * Logits lie as [classes][stride], a class's rows side by side; each becomes its gradient in place.
 */
#ifndef EMBEDCACHE_CPU_LOSSES_H
#define EMBEDCACHE_CPU_LOSSES_H

#include "../../simd/exp_log.h"
#include "loss.h"

namespace EC_ISA {

/* Rows of a view, some of them in a batch. */
struct Rows {
  const ec_view* view;
  const int64_t* row; /* [n] row numbers of x */
  const int64_t* y;   /* [n] their classes; EC_KIND_CLASSES only */
};

/* What n rows add to the denominator of their loss. */
static double weight_of_rows(const Loss& l, const Rows& rows, int64_t n) {
  if (l.kind != EC_KIND_CLASSES || !l.weight)
    return (double)n * (l.kind == EC_KIND_CLASSES ? 1.0 : (double)l.classes);
  double weight = 0;
  for (int64_t b = 0; b < n; ++b) weight += l.weight[rows.y[b]];
  return weight;
}

/* Rows [b, b + kHalf), n of them in use: what class_and_gradient does, but for smoothed rows
 * of other losses than EC_LOSS_NLL. e: [classes][kHalf] scratch. */
template <bool kNll>
static inline void classes_of_rows(const Loss& l, const Rows& rows, int64_t b, int64_t n, float* logits,
                                   int64_t stride, double scale, double* loss, vd* e) {
  vl y = vl{} - 1;
  vd target = {}, sample = vd{} + 1.0;
  for (int64_t i = 0; i < n; ++i) {
    y[i] = rows.y[b + i];
    target[i] = (1.0 - l.smoothing) * weight_of(l, y[i]) * scale;
    sample[i] = sample_weight(*rows.view, rows.row[b + i]);
  }
  const double even = l.smoothing / (double)l.classes * scale;
  vd top = load_doubles(logits + b), sum = {}, spread = {}, at_y = {};
  for (int64_t c = 1; c < l.classes; ++c) {
    const vd z = load_doubles(logits + c * stride + b);
    top = choose(z > top, z, top);
  }
  for (int64_t c = 0; c < l.classes; ++c) {
    const vd z = load_doubles(logits + c * stride + b) - top;
    sum += e[c] = exp_of(z);
    at_y += choose(y == c, z, vd{});
    if (even > 0) spread += weight_of(l, c) * z;
  }
  const vd log_sum = log_of(sum);
  vd value = log_sum - at_y, pull = target;
  if constexpr (!kNll)
    for (int64_t i = 0; i < n; ++i) {
      pull[i] *= ec_loss_slope(l.loss, -value[i]);
      value[i] = ec_loss_value(l.loss, -value[i]);
    }
  const vd mass = (pull + even * l.weights) / sum;
  const vd total = sample * (target * value + even * (l.weights * log_sum - spread));
  for (int64_t i = 0; i < n; ++i) loss[b + i] = total[i];
  for (int64_t c = 0; c < l.classes; ++c) {
    const vd gradient = mass * e[c] - even * weight_of(l, c) - choose(y == c, pull, vd{});
    store_floats(logits + c * stride + b, sample * gradient);
  }
}

/* loss[b] = scale * the row's loss for b in [first, last), first being a multiple of kHalf; the gradients of
 * rows from `last` to the next multiple become whatever. row, e: [classes], [classes][kHalf] scratch. */
static void losses_and_gradients(const Loss& l, const Rows& rows, int64_t first, int64_t last, float* logits,
                                 int64_t stride, double scale, double* loss, float* row, vd* e) {
  if (l.kind == EC_KIND_CLASSES && l.loss.number == EC_LOSS_NLL) {
    for (int64_t b = first; b < last; b += kHalf)
      classes_of_rows<true>(l, rows, b, last - b < kHalf ? last - b : kHalf, logits, stride, scale, loss, e);
    return;
  }
  if (l.kind == EC_KIND_CLASSES && l.smoothing == 0) {
    for (int64_t b = first; b < last; b += kHalf)
      classes_of_rows<false>(l, rows, b, last - b < kHalf ? last - b : kHalf, logits, stride, scale, loss, e);
    return;
  }
  for (int64_t b = first; b < last; ++b) {
    for (int64_t c = 0; c < l.classes; ++c) row[c] = logits[c * stride + b];
    loss[b] = loss_and_gradient(l, *rows.view, rows.row[b], row, scale, reinterpret_cast<double*>(e));
    for (int64_t c = 0; c < l.classes; ++c) logits[c * stride + b] = row[c];
  }
}

}  // namespace EC_ISA

#endif
