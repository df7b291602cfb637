/* A group of linear probes of one task and one seed, hence of one row order, from zero weights to their best
 * epochs: x is gathered once for all of them.
 *
 * Each member of the team owns some of the outputs, in eights, and does for them what a step does: the update
 * with batch i and the forward product of batch i + 1. Between that and the next step the members share out
 * the losses, by probes and rows. A probe that is over is left out, and costs nothing more. What is computed
 * of a probe depends on no other: the same bits alone or in a group, by any number of threads.
 */
#ifndef EMBEDCACHE_CPU_PROBES_H
#define EMBEDCACHE_CPU_PROBES_H

#include "batches.h"
#include "epochs.h"
#include "initial.h"
#include "losses.h"
#include "probe_layer.h"

namespace EC_ISA {

constexpr int64_t kLossRows = 16; /* that a member takes the losses of: a cache line of each class's logits */

struct Probes : ec::Head, Batches {
  int64_t n, classes, outputs; /* probes; outputs of one, of all */
  int64_t stride;              /* of a logit's rows */
  ec_head* specs;              /* [n] */
  ec_result** results;         /* [n] */
  Loss* train_loss;            /* [n] */
  Loss val_loss;

  Parameter w, b;  /* [outputs / 8][x_blocks][8][32], [outputs] */
  ec_adamw* adamw; /* [outputs] of this step */
  float* logits;   /* [outputs][stride], then their gradients */
  double* loss;    /* [n][stride] of the rows of a batch, or of a chunk of the validation rows */
  Scores* scores;  /* [n] */
  int64_t* counts; /* [n][3][classes], of the validation rows */
  int32_t* bad;    /* [members][n] whether a weight that the member kept is not finite */
  char* member_memory;
  int64_t member_bytes;
  volatile int stop[2];
};

struct ProbeMember {
  int number;
  int64_t first, last; /* its outputs */
  Course* course;      /* [n]; every member comes to the same */
  double* sum;         /* [n] loss of the epoch so far */
  int64_t *row, *y;    /* [stride] of the batch: row numbers of x, classes */
  float* row_logits;   /* [classes] */
  vd* e;               /* [classes] */
  Validation* part;    /* [n] sums over the validation rows; own probes only */
};

static bool in_training(const Probes& h, const ProbeMember& me, int64_t output) {
  return !me.course[output / h.classes].over;
}

static Parameter weights_of(const Probes& h, int64_t output) {
  return h.w.at(output / kPanel * h.x_blocks * kStep + output % kPanel * kBlock);
}

/* The end of the run of outputs from c on that are in training, or over, like c, and lie in one eight. */
static int64_t run_end(const Probes& h, const ProbeMember& me, int64_t c) {
  const int64_t eight = c / kPanel * kPanel + kPanel, limit = eight < me.last ? eight : me.last;
  int64_t end = c;
  do end += h.classes - end % h.classes;
  while (end < limit && in_training(h, me, end) == in_training(h, me, c));
  return end < limit ? end : limit;
}

static Rows rows_of(const Probes& h, const ProbeMember& me, const ec_view& view, int64_t n) {
  for (int64_t b = 0; b < n && h.task.kind == EC_KIND_CLASSES; ++b) me.y[b] = view.y[me.row[b]];
  return {&view, me.row, me.y};
}

/* Step i's backward half (i < 0: none) and step i + 1's forward half (none after the last) of own outputs. */
static void visit_probes(const Probes& h, const ProbeMember& me, int64_t epoch, int64_t i) {
  const int64_t step = epoch * h.steps + i;
  const bool update = i >= 0, forward = i + 1 < h.steps;
  const auto now = batch_at<float>(h, update ? i : 0), next = batch_at<float>(h, i + 1);
  for (int64_t c = me.first, end; c < me.last; c = end) {
    end = run_end(h, me, c);
    if (!in_training(h, me, c)) continue;
    const Parameter w = weights_of(h, c);
    float* logits = h.logits + c * h.stride;
    /* logits [outputs][stride]: of step i, whose gradients they hold by now, then of step i + 1. */
    if (update) {
      for (int64_t o = c; o < end; ++o)
        h.adamw[o] = o > c && o % h.classes ? h.adamw[o - 1] : adamw_of_step(h, h.specs[o / h.classes], step);
      probe_bias_update(h.b.at(c), end - c, logits, h.stride, now.rows, h.adamw + c);
      probe_update(w, end - c, now, h.x_blocks, logits, h.stride, h.adamw + c);
    }
    if (forward) probe_forward(w.w, h.b.w + c, end - c, next, h.x_blocks, logits, h.stride);
  }
}

/* Losses of step i's batch; logits become gradients for the visit that follows. */
static void batch_losses(const Probes& h, const ProbeMember& me, int64_t i) {
  const int64_t n = batch_rows(h, i), units = (n + kLossRows - 1) / kLossRows, items = h.n * units;
  const int size = ec::team_size(h.team);
  for (int64_t b = 0; b < n; ++b) me.row[b] = row_of(h, i, b);
  const Rows rows = rows_of(h, me, h.task.train, n);
  for (int64_t item = share(items, me.number, size); item < share(items, me.number + 1, size); ++item) {
    const int64_t p = item / units, first = item % units * kLossRows, last = first + kLossRows;
    if (me.course[p].over) continue;
    const Loss& loss = h.train_loss[p];
    losses_and_gradients(loss, rows, first, last < n ? last : n, h.logits + p * h.classes * h.stride,
                         h.stride, 1.0 / weight_of_rows(loss, rows, n), h.loss + p * h.stride, me.row_logits,
                         me.e);
  }
  team_barrier(h.team);
  for (int64_t p = 0; p < h.n; ++p) {
    double loss = 0;
    if (me.course[p].over) continue;
    for (int64_t b = 0; b < n; ++b) loss += h.loss[p * h.stride + b];
    me.sum[p] += loss * (double)n;
    if (!isfinite(loss)) break_off(me.course[p], EC_HEAD_DIVERGED);
  }
}

static int64_t left_over(const Probes& h, const ProbeMember& me) {
  int64_t left = 0;
  for (int64_t p = 0; p < h.n; ++p) left += !me.course[p].over;
  return left;
}

/* An epoch's steps; false: cancelled. Every member comes to the same end. */
static bool train_epoch_of_probes(Probes& h, const ProbeMember& me, int64_t epoch) {
  for (int64_t p = 0; p < h.n; ++p) me.sum[p] = 0;
  begin_epoch(h, me.number, epoch, me.row, nullptr);
  visit_probes(h, me, epoch, -1);
  if (h.steps > 1) gather_share(h, me.number, 1, me.row, nullptr);
  for (int64_t i = 0; i < h.steps; ++i) {
    team_barrier(h.team);
    if (h.stop[i & 1]) return false;
    batch_losses(h, me, i);
    const int64_t left = left_over(h, me);
    if (left == 0) break;
    visit_probes(h, me, epoch, i);
    if (i + 2 < h.steps) gather_share(h, me.number, i + 2, me.row, nullptr);
    if (me.number == 0) {
      ec::add_progress(h.options, left * batch_rows(h, i));
      h.stop[(i + 1) & 1] = h.options.cancel && *h.options.cancel;
    }
  }
  return true;
}

/* Counts and losses of n rows from `start` on, of the member's probes. */
static void score_chunk(const Probes& h, const ProbeMember& me, int64_t start, int64_t n) {
  const ec_view& val = h.task.val;
  const int size = ec::team_size(h.team);
  memcpy(me.row, val.rows + start, n * sizeof(int64_t));
  const Rows rows = rows_of(h, me, val, n);
  for (int64_t p = share(h.n, me.number, size); p < share(h.n, me.number + 1, size); ++p) {
    if (me.course[p].over) continue;
    float* logits = h.logits + p * h.classes * h.stride;
    double* loss = h.loss + p * h.stride;
    for (int64_t b = 0; b < n; ++b) {
      for (int64_t c = 0; c < h.classes; ++c) me.row_logits[c] = logits[c * h.stride + b];
      me.part[p].right += count_row(h.val_loss, val, me.row[b], me.row_logits, h.counts + p * 3 * h.classes);
    }
    losses_and_gradients(h.val_loss, rows, 0, n, logits, h.stride, 1.0, loss, me.row_logits, me.e);
    for (int64_t b = 0; b < n; ++b) me.part[p].loss += loss[b];
    me.part[p].weight += weight_of_rows(h.val_loss, rows, n);
  }
}

/* Fills h.scores. Chunks are gathered by all, into the first two buffers of the batches in turn. */
static void validate_probes(Probes& h, const ProbeMember& me) {
  const ec_view& val = h.task.val;
  const int size = ec::team_size(h.team);
  const int64_t own = share(h.n, me.number, size), end = share(h.n, me.number + 1, size);
  memset(h.counts + own * 3 * h.classes, 0, sizeof(int64_t) * 3 * h.classes * (end - own));
  for (int64_t p = own; p < end; ++p) me.part[p] = {0, 0, 0};
  const auto gather_chunk = [&](int64_t start) {
    const int64_t n = val.n - start < kValRows ? val.n - start : kValRows;
    if (me.number == 0) ask_for_validation(h, start + kValRows, kValRows);
    gather_rows(h.task, val, val.rows + start, share(n, me.number, size), share(n, me.number + 1, size),
                h.x[start / kValRows % 2], h.capacity);
  };
  team_barrier(h.team); /* the last batch is no longer read */
  gather_chunk(0);
  for (int64_t start = 0; start < val.n; start += kValRows) {
    float* x = h.x[start / kValRows % 2];
    const int64_t n = val.n - start < kValRows ? val.n - start : kValRows;
    team_barrier(h.team);
    if (start + kValRows < val.n) gather_chunk(start + kValRows);
    for (int64_t c = me.first, stop; c < me.last; c = stop) {
      stop = run_end(h, me, c);
      if (in_training(h, me, c))
        probe_forward(weights_of(h, c).w, h.b.w + c, stop - c, {x, x, n, h.capacity}, h.x_blocks,
                      h.logits + c * h.stride, h.stride);
    }
    team_barrier(h.team);
    score_chunk(h, me, start, n);
  }
  for (int64_t p = own; p < end; ++p)
    h.scores[p] = scores_of(h.val_loss, me.part[p], val.n, h.counts + p * 3 * h.classes, 1);
  team_barrier(h.team);
}

static void train_probes(ec::Head* base, int number);

}  // namespace EC_ISA

#include "probes_memory.h"

namespace EC_ISA {

/* Train each to the end, or until its loss explodes, nothing gets better or the caller cancels. */
static void train_probes(ec::Head* base, int number) {
  Probes& h = *static_cast<Probes*>(base);
  const ProbeMember me = probe_member_of(h, number);
  const bool validated = h.task.val.n > 0;
  for (int64_t epoch = 0; left_over(h, me) > 0; ++epoch) {
    const bool cancelled = !train_epoch_of_probes(h, me, epoch);
    if (validated && !cancelled && left_over(h, me) > 0) validate_probes(h, me);
    for (int64_t p = 0; p < h.n; ++p) {
      Course& course = me.course[p];
      if (course.over) continue;
      if (cancelled) {
        break_off(course, EC_HEAD_CANCELLED);
        continue;
      }
      const Scores val = validated ? h.scores[p] : kNoScores;
      if (number == 0) write_epoch(*h.results[p], course, me.sum[p] / (double)h.task.train.n, val);
      if (end_epoch(course, h.options, validated, val)) copy_probe(h, me, p);
    }
  }
  team_barrier(h.team);
  for (int64_t p = 0; number == 0 && p < h.n; ++p) {
    if (me.course[p].best >= 0 && any_bad(h, p)) {
      reject_weights(me.course[p]);
      clear_probe(h, p);
    }
    write_course(*h.results[p], me.course[p]);
  }
}

}  // namespace EC_ISA

#endif
