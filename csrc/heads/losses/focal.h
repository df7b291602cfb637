/* The focal loss (Lin et al., "Focal Loss for Dense Object Detection", 2017), -(1 - p)^gamma log p: rows that
 * are right already count less. With q = 1 - p its slope by log p is -q^gamma (1 - gamma p log(p) / q). */
#ifndef EMBEDCACHE_LOSSES_FOCAL_H
#define EMBEDCACHE_LOSSES_FOCAL_H

#include "../numerics.h"

/* q^gamma, q in [0, 1]; 0^0 is 1. exp and log in place of pow: half of its time and registers. */
EC_FN double ec_focal_factor(double q, double gamma) {
  return q > 0 ? exp(gamma * log(q)) : (gamma > 0 ? 0.0 : 1.0);
}

EC_FAR double ec_focal_value(double log_p, double gamma) {
  return -log_p * ec_focal_factor(-expm1(log_p), gamma);
}

EC_FAR double ec_focal_slope(double log_p, double gamma) {
  const double q = -expm1(log_p);
  const double rest = q > 0 ? -log_p / q : 1.0; /* to 1 where p goes to 1 */
  return ec_focal_factor(q, gamma) * (1.0 + gamma * (1.0 - q) * rest);
}

#endif
