/* One head with a hidden layer, from its initial weights to its best epoch, by a team of one or more threads.
 *
 * Each member owns some slices: runs of 32-wide blocks of hidden units, each with its panel of first-layer
 * weights. One visit to a block does all that a step has for it - back, both updates, the next batch's
 * forward product, activation and partial logits - so that one barrier a step is enough: between it and the
 * next, members write only what they own, partial logits go to one of two buffers in turn and batches to one
 * of three. How blocks make slices depends on the shapes alone and every sum has its fixed order, hence the
 * same bits for every number of threads.
 */
#ifndef EMBEDCACHE_CPU_HEAD_H
#define EMBEDCACHE_CPU_HEAD_H

#include "batches.h"
#include "dropout.h"
#include "epochs.h"
#include "first_layer.h"
#include "initial.h"
#include "loss.h"
#include "second_layer.h"

namespace EC_ISA {

constexpr int64_t kSharedLoss = 8192; /* with more logits in a batch, the team shares their loss */

struct Head : ec::Head, Batches {
  ec_head spec;
  ec_result* result;
  Loss train_loss, val_loss;

  int64_t dim, hidden, classes, blocks; /* 32-wide blocks of hidden units */
  int slices;
  float dropout_scale;
  uint32_t dropout_threshold;

  Parameter w1, b1, w2, b2; /* [blocks][x_blocks * 32][32], [blocks * 32], [blocks][classes][32], [classes] */
  float* a;                 /* [blocks][batch][32] */
  float* partial[2];        /* [slices][batch][classes] */
  float* dlogits;           /* [batch][classes], where the team shares the loss */
  double* row_loss;         /* [batch], likewise */
  Validation* validation;   /* [chunks] */
  int64_t* counts;          /* [members][3][classes], of the validation rows */
  int32_t* bad;             /* [members] whether a weight that the member kept is not finite */
  char* member_memory;
  int64_t member_bytes;
  volatile int stop[2];
};

/* What a member alone uses. */
struct Member {
  int number;
  int first_slice, last_slice;
  float *z, *dz;     /* [max(batch, kValRows)][32] */
  Pair* dz_pairs;    /* bfloat16: [(batch + 1) / 2][32] */
  float* two_rows;   /* bfloat16: [x_blocks][2][32] */
  float* dlogits;    /* [batch][classes] own or shared */
  double* row_loss;  /* [batch] own or shared */
  double* e;         /* [classes] */
  int64_t* counts;   /* [3][classes] own, of h.counts */
  uint32_t* keep;    /* [2][batch] */
  int64_t* rows;     /* [max(batch, kValRows)] */
  float* val_x;      /* [x_blocks][kValRows + 1][32] */
  float* val_logits; /* [2][kValRows][classes] */
};

static int64_t slice_start(const Head& h, int slice) { return h.blocks * slice / h.slices; }
static bool shared_loss(const Head& h) {
  return h.batch * h.classes > kSharedLoss && ec::team_size(h.team) > 1;
}

/* The forward half of a visit, from z on: activation, and the block's part of the logits. */
static void activate_block(const Head& h, const Member& me, int64_t block, int64_t rows, uint32_t step) {
  const bool drop = h.dropout_threshold > 0;
  if (drop && (block % 2 == 0 || block == slice_start(h, me.first_slice)))
    dropout_bits(h.spec.seed, h.dropout_threshold, step, block / 2, rows, me.keep, h.batch);
  activate(me.z, h.a + block * h.batch * kBlock, rows, drop ? me.keep + block % 2 * h.batch : nullptr,
           h.dropout_scale);
}

static void start_logits(const Head& h, int slice, int64_t rows, float* logits) {
  for (int64_t b = 0; b < rows; ++b)
    for (int64_t c = 0; c < h.classes; ++c) logits[b * h.classes + c] = slice == 0 ? h.b2.w[c] : 0.0f;
}

static void start_z(const Head& h, int64_t block, int64_t rows, float* z) {
  for (int64_t b = 0; b < rows; ++b) memcpy(z + b * kBlock, h.b1.w + block * kBlock, kBlock * sizeof(float));
}

/* Step i's backward half (i < 0: none, an epoch begins) and step i + 1's forward half (none after the last)
 * for all of a member's blocks. */
template <class Word>
static void visit(const Head& h, const Member& me, int64_t epoch, int64_t i) {
  const int64_t step = epoch * h.steps + i, w1_block = h.x_blocks * kBlock * kBlock,
                w2_block = h.classes * kBlock;
  const bool update = i >= 0, forward = i + 1 < h.steps;
  const ec_adamw adamw = update ? adamw_of_step(h, h.spec, step) : ec_adamw{};
  const auto now = batch_at<Word>(h, update ? i : 0), next = batch_at<Word>(h, i + 1);
  if (update && me.first_slice == 0) second_bias_update(h.b2, me.dlogits, now.rows, h.classes, adamw);

  for (int slice = me.first_slice; slice < me.last_slice; ++slice) {
    float* logits = h.partial[(i + 1) & 1] + slice * h.batch * h.classes;
    if (forward) start_logits(h, slice, next.rows, logits);
    for (int64_t block = slice_start(h, slice); block < slice_start(h, slice + 1); ++block) {
      const Parameter w2 = h.w2.at(block * w2_block); /* [classes][32] */
      float* a = h.a + block * h.batch * kBlock;      /* [batch][32]: of step i until 4, then of step i + 1 */
      if (update) {
        /* 1. dz [now.rows][32] of the units, from dlogits and w2 as it was. 2. AdamW on w2 and b1. */
        back_to_hidden(w2.w, me.dlogits, h.classes, a, now.rows, h.dropout_scale, me.dz);
        second_layer_update(w2, me.dlogits, h.classes, a, now.rows, adamw);
        first_bias_update(h.b1.at(block * kBlock), me.dz, now.rows, adamw);
      }
      /* 3. AdamW on w1, and z [next.rows][32] of the next batch from the weights that are in L1. */
      const Word* dz = update ? operand<Word>(me.dz, now.rows, me.dz_pairs) : nullptr;
      if (forward) start_z(h, block, next.rows, me.z);
      first_layer_panel(h.w1.at(block * w1_block), h.x_blocks, update ? &now : nullptr, dz, adamw,
                        forward ? &next : nullptr, me.z);
      /* 4. Activations, and 5. the block's part of the next logits, from w2 as it is now. */
      if (forward) activate_block(h, me, block, next.rows, (uint32_t)(step + 1));
      if (forward) add_logits(a, next.rows, w2.w, h.classes, logits);
    }
  }
}

/* Loss of step i's batch, and dlogits for the visit that follows. */
static double batch_loss(const Head& h, const Member& me, int64_t i) {
  const ec_view& train = h.task.train;
  const int64_t n = batch_rows(h, i);
  double weight = 0, loss = 0; /* every member adds all rows up, in one order */
  for (int64_t b = 0; b < n; ++b) weight += row_weight(h.train_loss, train, row_of(h, i, b));
  const bool shared = shared_loss(h);
  const int parts = shared ? ec::team_size(h.team) : 1, part = shared ? me.number : 0;
  for (int64_t b = share(n, part, parts); b < share(n, part + 1, parts); ++b) {
    float* logits = me.dlogits + b * h.classes;
    sum_slices(h.partial[i & 1] + b * h.classes, h.batch * h.classes, h.slices, h.classes, logits);
    me.row_loss[b] = loss_and_gradient(h.train_loss, train, row_of(h, i, b), logits, 1.0 / weight, me.e);
  }
  if (shared) team_barrier(h.team);
  for (int64_t b = 0; b < n; ++b) loss += me.row_loss[b];
  return loss;
}

/* An epoch's steps; returns EC_HEAD_OK, or why it ended early. Every member comes to the same end. */
template <class Word>
static int train_epoch(Head& h, const Member& me, int64_t epoch, double* loss) {
  /* Batch i + 2 is gathered beside step i, into the third of three buffers: two are being read. */
  begin_epoch(h, me.number, epoch, me.rows, me.two_rows);
  visit<Word>(h, me, epoch, -1);
  if (h.steps > 1) gather_share(h, me.number, 1, me.rows, me.two_rows);
  double sum = 0;
  for (int64_t i = 0; i < h.steps; ++i) {
    /* 1. From here on all partial logits of step i are there, and batch i + 1. */
    team_barrier(h.team);
    if (h.stop[i & 1]) return EC_HEAD_CANCELLED;
    /* 2. The loss, to the same bits in every member, so that all end together. */
    const double step_loss = batch_loss(h, me, i);
    if (!isfinite(step_loss)) return EC_HEAD_DIVERGED;
    const int64_t n = batch_rows(h, i);
    sum += step_loss * (double)n;
    /* 3. Own blocks. 4. The own share of a later batch. */
    visit<Word>(h, me, epoch, i);
    if (i + 2 < h.steps) gather_share(h, me.number, i + 2, me.rows, me.two_rows);
    if (me.number == 0) {
      ec::add_progress(h.options, n);
      h.stop[(i + 1) & 1] = h.options.cancel && *h.options.cancel;
    }
  }
  *loss = sum / (double)h.task.train.n;
  return EC_HEAD_OK;
}

/* Loss and right answers of one chunk of the validation rows, dropout off. */
static Validation validate_chunk(const Head& h, const Member& me, int64_t chunk) {
  const ec_view& val = h.task.val;
  const int64_t start = chunk * kValRows, n = val.n - start < kValRows ? val.n - start : kValRows;
  const int64_t w1_block = h.x_blocks * kBlock * kBlock, w2_block = h.classes * kBlock;
  ask_for_validation(h, start + kValRows * ec::team_size(h.team), kValRows);
  gather_rows(h.task, val, val.rows + start, 0, n, me.val_x, kValRows + 1);
  const Batch<float> batch = {me.val_x, me.val_x, n, kValRows + 1};
  float *logits = me.val_logits, *part = me.val_logits + kValRows * h.classes;
  for (int slice = 0; slice < h.slices; ++slice) {
    float* sum = slice == 0 ? logits : part;
    start_logits(h, slice, n, sum);
    for (int64_t block = slice_start(h, slice); block < slice_start(h, slice + 1); ++block) {
      start_z(h, block, n, me.z);
      first_layer_panel<float>(h.w1.at(block * w1_block), h.x_blocks, nullptr, nullptr, ec_adamw{}, &batch,
                               me.z);
      activate(me.z, me.z, n, nullptr, 1.0f);
      add_logits(me.z, n, h.w2.w + block * w2_block, h.classes, sum);
    }
    for (int64_t c = 0; slice > 0 && c < n * h.classes; ++c) logits[c] += part[c];
  }
  Validation out = {0, 0, 0};
  for (int64_t b = 0; b < n; ++b) {
    float* row_logits = logits + b * h.classes;
    const int64_t row = val.rows[start + b];
    out.right += count_row(h.val_loss, val, row, row_logits, me.counts);
    out.weight += row_weight(h.val_loss, val, row);
    out.loss += loss_and_gradient(h.val_loss, val, row, row_logits, 1.0, me.e);
  }
  return out;
}

static Scores validate(Head& h, const Member& me) {
  const int64_t chunks = (h.task.val.n + kValRows - 1) / kValRows;
  memset(me.counts, 0, sizeof(int64_t) * 3 * h.classes);
  team_barrier(h.team);
  for (int64_t chunk = me.number; chunk < chunks; chunk += ec::team_size(h.team))
    h.validation[chunk] = validate_chunk(h, me, chunk);
  team_barrier(h.team);
  Validation sum = {0, 0, 0};
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    sum.loss += h.validation[chunk].loss;
    sum.weight += h.validation[chunk].weight;
    sum.right += h.validation[chunk].right;
  }
  return scores_of(h.val_loss, sum, h.task.val.n, h.counts, ec::team_size(h.team));
}

static void train_head(ec::Head* base, int number);

}  // namespace EC_ISA

#include "head_memory.h"

namespace EC_ISA {

/* Train to the end, or until the loss explodes, nothing gets better or the caller cancels. */
static void train_head(ec::Head* base, int number) {
  Head& h = *static_cast<Head*>(base);
  const Member me = member_of(h, number);
  const bool validated = h.task.val.n > 0;
  init_weights(h, me);
  Course course = new_course();
  while (!course.over) {
    const int64_t epoch = course.epochs;
    double loss = NAN;
    const int status =
        h.bfloat16 ? train_epoch<Pair>(h, me, epoch, &loss) : train_epoch<float>(h, me, epoch, &loss);
    if (status != EC_HEAD_OK) {
      break_off(course, status);
      break;
    }
    const Scores val = validated ? validate(h, me) : kNoScores;
    if (number == 0) write_epoch(*h.result, course, loss, val);
    if (end_epoch(course, h.options, validated, val)) copy_weights(h, me);
  }
  team_barrier(h.team);
  if (number > 0) return;
  if (course.best >= 0 && any_bad(h)) {
    reject_weights(course);
    clear_weights(h);
  }
  write_course(*h.result, course);
}

}  // namespace EC_ISA

#endif
