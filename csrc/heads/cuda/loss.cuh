/* The loss of a batch's rows and its gradient by their logits, in double: ../losses has the formulas. The
 * twin of ../cpu/loss.h, a thread per row for what needs a row's logits together, a thread per logit else.
 *
 * Memory: the logits a few times (L1, L2). Bound: the latency of double exp and log, small for few classes.
 */
#ifndef EMBEDCACHE_CUDA_LOSS_CUH
#define EMBEDCACHE_CUDA_LOSS_CUH

#include "layout.cuh"

namespace ec {

EC_FN double weight_of(const Loss& loss, int64_t c) { return loss.weight ? loss.weight[c] : 1.0; }

/* What a row adds to the denominator of its batch's loss. */
EC_FN double row_weight(const Loss& loss, int32_t y) {
  return loss.kind == EC_KIND_CLASSES ? weight_of(loss, y) : (double)loss.outputs;
}

/* A row's loss; mass: of its gradient, unless the loss is EC_LOSS_NLL. */
EC_FN double class_loss(const Loss& l, const float* logits, int32_t y, double log_sum, double* mass) {
  const double target = (1.0 - l.smoothing) * weight_of(l, y), even = l.even;
  const double log_p = (double)logits[y] - log_sum;
  double loss = target * ec_loss_value(l.loss, log_p);
  if (l.loss.number == EC_LOSS_NLL) {
    if (l.smoothing > 0) {
      double spread = 0; /* sum of w_c (log_sum - z_c) */
      for (int32_t c = 0; c < l.outputs; ++c) spread += weight_of(l, c) * (log_sum - (double)logits[c]);
      loss += even * spread;
    }
    return loss;
  }
  double pulls = target * ec_loss_slope(l.loss, log_p);
  for (int32_t c = 0; l.smoothing > 0 && c < l.outputs; ++c) {
    loss += even * weight_of(l, c) * ec_loss_value(l.loss, (double)logits[c] - log_sum);
    pulls += even * weight_of(l, c) * ec_loss_slope(l.loss, (double)logits[c] - log_sum);
  }
  *mass = pulls;
  return loss;
}

EC_FN double label_loss(const Loss& l, const float* logits, const float* targets) {
  double loss = 0;
  for (int32_t c = 0; c < l.outputs; ++c)
    loss += ec_label_loss(l.loss, logits[c], ec_smooth_label(targets[c], l.smoothing), weight_of(l, c));
  return loss;
}

EC_FN double number_loss(const Loss& l, const float* logits, const float* targets) {
  double loss = 0;
  for (int32_t c = 0; c < l.outputs; ++c) {
    const double off = (double)logits[c] - (double)targets[c];
    loss += off * off;
  }
  return loss;
}

/* The gradient of a row's loss by logit c. Of classes: softmax of that logit, log_sum of the row's, and what
 * class_loss says of the mass. */
EC_FN double loss_gradient(const Loss& l, float logit, int32_t c, int32_t y, const float* targets,
                           double softmax, double log_sum, double mass) {
  const double z = logit;
  if (l.kind == EC_KIND_CLASSES) {
    const double target = (1.0 - l.smoothing) * weight_of(l, y), even = l.even;
    if (l.loss.number == EC_LOSS_NLL)
      return ec_class_gradient(softmax, target + even * l.weights, even * weight_of(l, c), c == y, target);
    const double slope = c == y || even > 0 ? ec_loss_slope(l.loss, z - log_sum) : 0.0;
    return ec_class_gradient(softmax, mass, even * weight_of(l, c) * slope, c == y, target * slope);
  }
  if (l.kind == EC_KIND_LABELS)
    return ec_label_gradient(l.loss, z, ec_smooth_label(targets[c], l.smoothing), weight_of(l, c));
  return 2.0 * (z - (double)targets[c]);
}

/* Every row's loss and weight, into the scratch. */
EC_DEVICE void row_losses(const Block& block, const Job& job, int rows) {
  const Scratch& scratch = job.scratch;
  const Loss& l = job.loss;
  each_index(block, rows, [&](int64_t i) {
    const float* logits = scratch.logits + i * l.outputs;
    const float* targets = targets_of(job, i);
    if (l.kind == EC_KIND_CLASSES) {
      scratch.log_sum[i] = ec_log_sum_exp(logits, l.outputs);
      scratch.loss[i] = class_loss(l, logits, scratch.y[i], scratch.log_sum[i], scratch.mass + i);
    } else {
      scratch.loss[i] =
          l.kind == EC_KIND_LABELS ? label_loss(l, logits, targets) : number_loss(l, logits, targets);
    }
    scratch.loss[i] *= sample_weight_of(job.sample_weight, scratch.row[i]);
    scratch.weight[i] = row_weight(l, scratch.y[i]);
  });
}

/* The logits become the gradient of the batch's loss, which is the rows' sum over `weight`. */
EC_DEVICE void loss_gradients(const Block& block, const Job& job, int rows, double weight) {
  const Scratch& scratch = job.scratch;
  const Loss& l = job.loss;
  each_index(block, (int64_t)rows * l.outputs, [&](int64_t e) {
    const int64_t i = e / l.outputs;
    const float* targets = targets_of(job, i);
    const float z = scratch.logits[e];
    const bool classes = l.kind == EC_KIND_CLASSES; /* else there is no softmax */
    const double log_sum = classes ? scratch.log_sum[i] : 0.0, mass = classes ? scratch.mass[i] : 0.0;
    const double softmax = classes ? exp((double)z - log_sum) : 0.0;
    const double gradient =
        loss_gradient(l, z, (int32_t)(e % l.outputs), scratch.y[i], targets, softmax, log_sum, mass);
    scratch.logits[e] = (float)(gradient * sample_weight_of(job.sample_weight, scratch.row[i]) / weight);
  });
}

/* The largest logit, the first of equals; for several labels whether all are right. */
EC_FN int32_t predict(const Loss& l, const float* logits, const float* targets) {
  int32_t best = 0;
  if (l.kind == EC_KIND_CLASSES) {
    for (int32_t c = 1; c < l.outputs; ++c) best = logits[c] > logits[best] ? c : best;
    return best;
  }
  int32_t right = 1;
  for (int32_t c = 0; c < l.outputs; ++c) right = right && (targets[c] > 0.5f) == (logits[c] > 0.0f);
  return right;
}

/* Adds the rows to counts [3][outputs]: rows of each class, rows predicted as it, and both at once. A thread
 * owns a class. */
EC_DEVICE void count_rows(const Block& block, const Job& job, int rows, int64_t* counts) {
  const Scratch& scratch = job.scratch;
  const Loss& l = job.loss;
  if (l.kind == EC_KIND_NUMBERS) return;
  each_index(block, l.outputs, [&](int64_t c) {
    int64_t actual = 0, predicted = 0, both = 0;
    for (int64_t i = 0; i < rows; ++i) {
      const bool classes = l.kind == EC_KIND_CLASSES;
      const bool is = classes ? scratch.y[i] == c : targets_of(job, i)[c] > 0.5f;
      const bool said = classes ? scratch.predicted[i] == c : scratch.logits[i * l.outputs + c] > 0.0f;
      actual += is;
      predicted += said;
      both += is && said;
    }
    counts[c] += actual;
    counts[l.outputs + c] += predicted;
    counts[2 * l.outputs + c] += both;
  });
}

/* The mean over the classes that occur. */
inline double macro_f1(const int64_t* counts, int32_t outputs) {
  double sum = 0;
  int32_t classes = 0;
  for (int32_t c = 0; c < outputs; ++c) {
    const int64_t actual = counts[c], predicted = counts[outputs + c];
    if (actual + predicted == 0) continue;
    sum += ec_f1(actual, predicted, counts[2 * outputs + c]);
    ++classes;
  }
  return sum / (double)classes;
}

}  // namespace ec
#endif
