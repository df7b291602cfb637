/* The loss of a row and its gradient by the row's logits, in double: ../losses has the formulas.
 *
 * The logits come as partial sums over slices of the inputs, added here in the slices' order whatever thread
 * made them. Memory: slices + 1 rows of logits. Bound: exp, a few nanoseconds each; small for few classes.
 */
#ifndef EMBEDCACHE_CPU_LOSS_H
#define EMBEDCACHE_CPU_LOSS_H

#include "../../simd/simd.h"
#include "../losses/losses.h"

namespace EC_ISA {

/* What a head's rows are scored by, in training or in validation. */
struct Loss {
  int32_t kind;
  int64_t classes;
  double smoothing;
  const float* weight; /* [classes] or NULL */
  double weights;      /* their sum */
  ec_loss loss;
};

static Loss make_loss(const ec_task& task, const float* weight, double smoothing, ec_loss which) {
  Loss loss = {task.kind, task.outputs, smoothing, weight, 0, which};
  for (int64_t c = 0; c < loss.classes; ++c) loss.weights += weight ? weight[c] : 1.0;
  return loss;
}

static double weight_of(const Loss& loss, int64_t c) { return loss.weight ? loss.weight[c] : 1.0; }

/* What a row adds to the denominator of its batch's loss. */
static double row_weight(const Loss& loss, const ec_view& view, int64_t row) {
  return loss.kind == EC_KIND_CLASSES ? weight_of(loss, view.y[row]) : (double)loss.classes;
}

/* What a row's loss is multiplied by. */
static double sample_weight(const ec_view& view, int64_t row) {
  return view.sample_weight ? (double)view.sample_weight[row] : 1.0;
}

/* logits[c] = sum over slices of partial[slice * stride + c]. */
static inline void sum_slices(const float* partial, int64_t stride, int slices, int64_t classes,
                              float* logits) {
  for (int64_t c = 0; c < classes; ++c) logits[c] = partial[c];
  for (int s = 1; s < slices; ++s)
    for (int64_t c = 0; c < classes; ++c) logits[c] += partial[s * stride + c];
}

/* A smoothed row, every class by its own slope. log_norm: of the logits; pull: [classes] scratch. */
static double each_class(const Loss& l, float* logits, int32_t y, double log_norm, double target, double even,
                         double* pull) {
  double loss = 0, mass = 0;
  for (int64_t c = 0; c < l.classes; ++c) {
    const double counts = even * weight_of(l, c) + (c == y ? target : 0.0);
    loss += counts * ec_loss_value(l.loss, (double)logits[c] - log_norm);
    mass += pull[c] = counts * ec_loss_slope(l.loss, (double)logits[c] - log_norm);
  }
  for (int64_t c = 0; c < l.classes; ++c)
    logits[c] = (float)ec_class_gradient(exp((double)logits[c] - log_norm), mass, pull[c], 0, 0.0);
  return loss;
}

template <bool kNll>
static double class_and_gradient(const Loss& l, float* logits, int32_t y, double scale, double* e) {
  const double target = (1.0 - l.smoothing) * weight_of(l, y) * scale;
  const double even = l.smoothing / (double)l.classes * scale;
  float top = logits[0];
  for (int64_t c = 1; c < l.classes; ++c) top = logits[c] > top ? logits[c] : top;
  double sum = 0, spread = 0; /* spread: sum of w_c z_c, the logits counted from the top one */
  for (int64_t c = 0; c < l.classes; ++c) sum += e[c] = exp((double)logits[c] - (double)top);
  const double log_sum = log(sum);
  double value = log_sum - ((double)logits[y] - (double)top), pull = target;
  if constexpr (!kNll) {
    if (even > 0) return each_class(l, logits, y, (double)top + log_sum, target, even, e);
    pull *= ec_loss_slope(l.loss, -value);
    value = ec_loss_value(l.loss, -value);
  }
  double loss = target * value;
  const double mass = pull + even * l.weights;
  if (even > 0) {
    for (int64_t c = 0; c < l.classes; ++c) spread += weight_of(l, c) * ((double)logits[c] - (double)top);
    loss += even * (l.weights * log_sum - spread);
    for (int64_t c = 0; c < l.classes; ++c)
      logits[c] = (float)ec_class_gradient(e[c] / sum, mass, even * weight_of(l, c), c == y, pull);
  } else {
    const double share = mass / sum;
    for (int64_t c = 0; c < l.classes; ++c) logits[c] = (float)(share * e[c]);
    logits[y] = (float)ec_class_gradient(e[y] / sum, mass, 0.0, 1, pull);
  }
  return loss;
}

static double labels_and_gradient(const Loss& l, float* logits, const float* targets, double scale) {
  double loss = 0;
  for (int64_t c = 0; c < l.classes; ++c) {
    const double z = logits[c], t = ec_smooth_label(targets[c], l.smoothing), w = weight_of(l, c);
    loss += ec_label_loss(l.loss, z, t, w);
    logits[c] = (float)(scale * ec_label_gradient(l.loss, z, t, w));
  }
  return scale * loss;
}

static double numbers_and_gradient(const Loss& l, float* logits, const float* targets, double scale) {
  double loss = 0;
  for (int64_t c = 0; c < l.classes; ++c) {
    const double off = (double)logits[c] - (double)targets[c];
    loss += off * off;
    logits[c] = (float)(scale * 2.0 * off);
  }
  return scale * loss;
}

/* Returns scale * the row's weighted loss; turns its logits into scale * their gradient. e: [classes]
 * scratch.
 */
static double loss_and_gradient(const Loss& l, const ec_view& view, int64_t row, float* logits, double scale,
                                double* e) {
  scale *= sample_weight(view, row);
  if (l.kind == EC_KIND_CLASSES)
    return l.loss.number == EC_LOSS_NLL ? class_and_gradient<true>(l, logits, view.y[row], scale, e)
                                        : class_and_gradient<false>(l, logits, view.y[row], scale, e);
  const float* targets = view.targets + row * l.classes;
  return l.kind == EC_KIND_LABELS ? labels_and_gradient(l, logits, targets, scale)
                                  : numbers_and_gradient(l, logits, targets, scale);
}

/* Rows of each class, rows predicted as it, and both at once: [3][classes]. Returns whether the row is right:
 * its largest logit, the first of equals, is its class; with EC_KIND_LABELS: all its labels are right. */
static bool count_row(const Loss& l, const ec_view& view, int64_t row, const float* logits, int64_t* counts) {
  if (l.kind == EC_KIND_NUMBERS) return false;
  int64_t *actual = counts, *predicted = counts + l.classes, *both = counts + 2 * l.classes;
  if (l.kind == EC_KIND_CLASSES) {
    int64_t best = 0;
    for (int64_t c = 1; c < l.classes; ++c) best = logits[c] > logits[best] ? c : best;
    const int32_t y = view.y[row];
    ++actual[y];
    ++predicted[best];
    both[y] += best == y;
    return best == y;
  }
  bool right = true;
  for (int64_t c = 0; c < l.classes; ++c) {
    const bool is = view.targets[row * l.classes + c] > 0.5f, said = logits[c] > 0.0f;
    actual[c] += is;
    predicted[c] += said;
    both[c] += is && said;
    right = right && is == said;
  }
  return right;
}

/* The mean over the classes that occur; counts of several members, [members][3][classes]. */
static double macro_f1(const Loss& l, const int64_t* counts, int members) {
  double sum = 0;
  int64_t classes = 0;
  for (int64_t c = 0; c < l.classes; ++c) {
    int64_t n[3] = {0, 0, 0};
    for (int64_t i = 0; i < 3 * members; ++i) n[i % 3] += counts[i * l.classes + c];
    if (n[0] + n[1] == 0) continue;
    sum += ec_f1(n[0], n[1], n[2]);
    ++classes;
  }
  return sum / (double)classes;
}

}  // namespace EC_ISA

#endif
