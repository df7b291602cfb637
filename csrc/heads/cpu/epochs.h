/* What is known of a head at the end of an epoch, and what follows from it. */
#ifndef EMBEDCACHE_CPU_EPOCHS_H
#define EMBEDCACHE_CPU_EPOCHS_H

#include "loss.h"

namespace EC_ISA {

constexpr int64_t kValRows = 128; /* validation rows at a time, and the unit of the loss's sum */

struct Validation { /* of some rows */
  double loss, weight;
  int64_t right;
};

struct Scores { /* of the validation rows */
  double loss, accuracy, f1;
};

constexpr Scores kNoScores = {NAN, NAN, NAN};

/* counts: [members][3][classes]. */
static Scores scores_of(const Loss& l, const Validation& sum, int64_t rows, const int64_t* counts,
                        int members) {
  if (l.kind == EC_KIND_NUMBERS) return {sum.loss / sum.weight, NAN, NAN};
  return {sum.loss / sum.weight, (double)sum.right / (double)rows, macro_f1(l, counts, members)};
}

struct Course {
  double best_loss, best_score; /* numerics.h */
  int32_t best, epochs, status;
  bool over;
};

static Course new_course() { return {INFINITY, -INFINITY, -1, 0, EC_HEAD_OK, false}; }

/* An epoch that did not come to its end: `status` says why. */
static void break_off(Course& c, int32_t status) {
  c.status = status;
  c.over = true;
}

/* Takes in an epoch; returns whether its weights are the best so far. */
static bool end_epoch(Course& c, const ec_options& options, bool validated, const Scores& val) {
  const double score = ec_chosen_score(options.choose, val.accuracy, val.f1);
  const bool best = !validated || ec_is_better(score, val.loss, c.best_score, c.best_loss);
  if (best) {
    c.best = c.epochs;
    c.best_loss = val.loss;
    c.best_score = score;
  } else if (options.early_stop > 0 && c.epochs - c.best >= options.early_stop) {
    c.over = true;
  }
  ++c.epochs;
  if (validated && !isfinite(val.loss)) break_off(c, EC_HEAD_DIVERGED);
  if (c.epochs == options.epochs) c.over = true;
  return best;
}

/* The weights that were kept are not all finite, so the head has none. */
static void reject_weights(Course& c) {
  c.best = -1;
  c.status = EC_HEAD_DIVERGED;
}

static inline void write_epoch(ec_result& r, const Course& c, double loss, const Scores& val) {
  r.train_loss[c.epochs] = loss;
  r.val_loss[c.epochs] = val.loss;
  r.val_accuracy[c.epochs] = val.accuracy;
  r.val_f1[c.epochs] = val.f1;
}

static inline void write_course(ec_result& r, const Course& c) {
  r.best_epoch = c.best;
  r.epochs_run = c.epochs;
  r.status = c.status;
}

}  // namespace EC_ISA

#endif
