/* The losses: what a head minimizes. The registry; embedcache/heads/losses.py has the same one.
 *
 * A loss is a function of one log-probability, that of the class that a row has, or of a label's being there
 * or not, whichever it is. It says two things, in double, scalar and inline, for the CPU and for the GPU:
 *
 *   value(log_p, setting)  the loss, 0 at log_p = 0
 *   slope(log_p, setting)  -d value / d log_p
 *
 * Both get the loss's own setting, ec_head.loss_setting. What follows from the two is here, in cpu/loss.h and
 * in cuda/loss.cuh: weights, smoothing, gradients. A new loss is its header and a line of EC_LOSSES; its
 * number is its place.
 */
#ifndef EMBEDCACHE_LOSSES_H
#define EMBEDCACHE_LOSSES_H

#include "focal.h"
#include "nll.h"

/* clang-format off */
#define EC_LOSSES(X) \
  X(EC_LOSS_NLL,   ec_nll) \
  X(EC_LOSS_FOCAL, ec_focal)
/* clang-format on */

#define EC_LOSS_NUMBER(number, function) number,
enum { EC_LOSSES(EC_LOSS_NUMBER) EC_LOSS_COUNT };
#undef EC_LOSS_NUMBER

typedef struct {
  int32_t number;
  double setting;
} ec_loss;

EC_FN double ec_loss_value(ec_loss loss, double log_p) {
  switch (loss.number) {
#define EC_LOSS_CASE(number, function) \
  case number:                         \
    return function##_value(log_p, loss.setting);
    EC_LOSSES(EC_LOSS_CASE)
#undef EC_LOSS_CASE
  }
  return -log_p;
}

EC_FN double ec_loss_slope(ec_loss loss, double log_p) {
  switch (loss.number) {
#define EC_LOSS_CASE(number, function) \
  case number:                         \
    return function##_slope(log_p, loss.setting);
    EC_LOSSES(EC_LOSS_CASE)
#undef EC_LOSS_CASE
  }
  return 1.0;
}

/* ---- Classes, a softmax ----
 *
 * Of a row of class y, with class weights w and label smoothing s over C classes; log_p_c = z_c - lse:
 *   loss = sum_c counts_c value(log_p_c),  counts_c = [c = y] target + even w_c,
 *     target = (1 - s) w_y,  even = s / C
 *   d loss / d z_c = mass p_c - pull_c,  pull_c = counts_c slope(log_p_c),  mass = sum_c pull_c
 * A batch's loss is the rows' sum over the sum of w_y. Of the negative log-likelihood every slope is 1. */
EC_FN double ec_class_gradient(double p, double mass, double even_pull, int is_target, double target_pull) {
  return mass * p - even_pull - (is_target ? target_pull : 0.0);
}

/* ---- Labels, a sigmoid each ----
 *
 * Of a logit with the (smoothed) target t in [0, 1], w the weight of t = 1, p = sigmoid(z):
 *   loss = w t value(log p) + (1 - t) value(log(1 - p))
 *   d loss / d z = (1 - t) slope(log(1 - p)) p - w t slope(log p) (1 - p)
 * A batch's loss is the mean over rows and labels. */
EC_FN double ec_smooth_label(double t, double smoothing) { return t * (1.0 - smoothing) + 0.5 * smoothing; }

/* As binary cross-entropy: w t log(1 + e^-z) + (1 - t) log(1 + e^z). */
EC_FN double ec_bce(double z, double t, double w) {
  const double small = log1p(exp(-fabs(z))); /* log(1 + e^-|z|) */
  return w * t * (small + (z < 0 ? -z : 0.0)) + (1.0 - t) * (small + (z > 0 ? z : 0.0));
}

EC_FN double ec_bce_gradient(double z, double t, double w) {
  const double e = exp(-fabs(z)), sigmoid = (z < 0 ? e : 1.0) / (1.0 + e);
  return (w * t + 1.0 - t) * sigmoid - w * t;
}

EC_FN double ec_label_loss(ec_loss loss, double z, double t, double w) {
  if (loss.number == EC_LOSS_NLL) return ec_bce(z, t, w);
  const double small = log1p(exp(-fabs(z)));
  const double there = t > 0 ? ec_loss_value(loss, -(small + (z < 0 ? -z : 0.0))) : 0.0;
  const double absent = t < 1 ? ec_loss_value(loss, -(small + (z > 0 ? z : 0.0))) : 0.0;
  return w * t * there + (1.0 - t) * absent;
}

EC_FN double ec_label_gradient(ec_loss loss, double z, double t, double w) {
  if (loss.number == EC_LOSS_NLL) return ec_bce_gradient(z, t, w);
  const double e = exp(-fabs(z)), small = log1p(e);
  const double p = (z < 0 ? e : 1.0) / (1.0 + e), q = (z < 0 ? 1.0 : e) / (1.0 + e); /* q: 1 - p, exactly */
  const double there = t > 0 ? ec_loss_slope(loss, -(small + (z < 0 ? -z : 0.0))) : 0.0;
  const double absent = t < 1 ? ec_loss_slope(loss, -(small + (z > 0 ? z : 0.0))) : 0.0;
  return (1.0 - t) * absent * p - w * t * there * q;
}

/* ---- Numbers ----
 *
 * Squared error, (z - t)^2 and 2 (z - t): the negative log-likelihood of a normal distribution, but for
 * constants; no other loss is for them. NaN and infinity pass through all of these, and show in the loss. */

#endif
