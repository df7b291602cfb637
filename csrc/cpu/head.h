/* One head, from its initial weights to its best epoch, by a team of one or more threads.
 *
 * Each member owns some slices: runs of 32-wide blocks of the second layer's inputs, which are hidden units
 * (with their panel of first-layer weights) or, in a linear probe, columns of x. One visit to a block does
 * all that a step has for it - back, both updates, the next batch's forward product, activation and partial
 * logits - so that one barrier a step is enough: between it and the next, members write only what they own,
 * partial logits go to one of two buffers in turn and batches to one of three. How blocks make slices depends
 * on the shapes alone and every sum has its fixed order, hence the same bits for every number of threads.
 */
#ifndef EMBEDCACHE_CPU_HEAD_H
#define EMBEDCACHE_CPU_HEAD_H

#include "dropout.h"
#include "first_layer.h"
#include "gather.h"
#include "loss.h"
#include "second_layer.h"
#include "team.h"

namespace ec {

/* Defined once for each instruction set in its own namespace; this base keeps the type opaque outside. */
struct Head {};

}  // namespace ec

namespace EC_ISA {

using ec::Team;
using ec::team_barrier;

constexpr int64_t kValRows = 128;     /* validation rows at a time, and the unit of the loss's sum */
constexpr int64_t kSharedLoss = 8192; /* with more logits in a batch, the team shares their loss */

struct Validation { /* of one chunk of kValRows */
  double loss, weight;
  int64_t right;
};

struct Head : ec::Head {
  ec_task task;
  ec_head spec;
  ec_options options;
  ec_result* result;
  Team* team;
  Loss train_loss, val_loss;

  int64_t dim, hidden, classes, batch, steps; /* steps of an epoch */
  int64_t x_blocks, blocks;                   /* 32-wide blocks of x, and of the second layer's inputs */
  int slices, buffers;
  bool bfloat16;
  float dropout_scale;
  uint32_t dropout_threshold;

  Parameter w1, b1, w2, b2; /* [blocks][x_blocks * 32][32], [blocks * 32], [blocks][classes][32], [classes] */
  float* x[3];              /* [x_blocks][batch][32] */
  float* a;                 /* [blocks][batch][32] */
  float* partial[2];        /* [slices][batch][classes] */
  float* dlogits;           /* [batch][classes], where the team shares the loss */
  double* row_loss;         /* [batch], likewise */
  uint32_t* order;          /* [n] this epoch's positions */
  uint64_t* sort_scratch;   /* [2 n] */
  Validation* validation;   /* [chunks] */
  int64_t* counts;          /* [members][3][classes], of the validation rows */
  char* member_memory;
  int64_t member_bytes;
  volatile int stop[2];
  void* memory;
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
  float* val_x;      /* [x_blocks][kValRows][32] */
  float* val_logits; /* [2][kValRows][classes] */
};

static int64_t slice_start(const Head& h, int slice) { return h.blocks * slice / h.slices; }
static int64_t share(int64_t n, int part, int parts) { return n * part / parts; }
static bool shared_loss(const Head& h) {
  return h.batch * h.classes > kSharedLoss && ec::team_size(h.team) > 1;
}

/* The batch of step i of the epoch. */
static int64_t batch_rows(const Head& h, int64_t i) {
  const int64_t left = h.task.train.n - i * h.batch;
  return left < h.batch ? left : h.batch;
}

/* Both layouts of the pairs take as much memory as one of floats, with an even number of rows. */
static int64_t x_capacity(const Head& h) { return h.bfloat16 ? (h.batch + 1) / 2 * 2 : h.batch; }

template <class Word>
static Batch<Word> batch_at(const Head& h, int64_t i) {
  Word* x = reinterpret_cast<Word*>(h.x[i % h.buffers]);
  Word* along_rows = kPer<Word> == 1 ? x : x + h.x_blocks * x_capacity(h) * kBlock / 2;
  return {x, along_rows, batch_rows(h, i), x_capacity(h)};
}

static void gather_share(const Head& h, const Member& me, int64_t i) {
  const int64_t n = batch_rows(h, i), size = ec::team_size(h.team), per = h.bfloat16 ? 2 : 1;
  const int64_t first = share((n + per - 1) / per, me.number, (int)size) * per;
  const int64_t end = share((n + per - 1) / per, me.number + 1, (int)size) * per, last = end < n ? end : n;
  for (int64_t b = first; b < last; ++b) me.rows[b] = h.task.train.rows[h.order[i * h.batch + b]];
  if (h.bfloat16)
    gather_pairs(h.task, h.task.train, me.rows, first, last, me.two_rows, batch_at<Pair>(h, i));
  else
    gather_rows(h.task, h.task.train, me.rows, first, last, h.x[i % h.buffers], h.batch);
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

static ec_adamw adamw_of_step(const Head& h, int64_t step) {
  const ec_head& s = h.spec;
  const double lr = s.lr * ec_lr_factor(s.schedule, s.warmup, step, h.steps * h.options.epochs);
  return ec_adamw_at(lr, s.beta1, s.beta2, s.eps, s.weight_decay, step + 1);
}

/* Step i's backward half (i < 0: none, an epoch begins) and step i + 1's forward half (none after the last)
 * for all of a member's blocks. */
template <class Word>
static void visit(const Head& h, const Member& me, int64_t epoch, int64_t i) {
  const int64_t step = epoch * h.steps + i, w1_block = h.x_blocks * kBlock * kBlock,
                w2_block = h.classes * kBlock;
  const bool update = i >= 0, forward = i + 1 < h.steps;
  const ec_adamw adamw = update ? adamw_of_step(h, step) : ec_adamw{};
  const auto now = batch_at<Word>(h, update ? i : 0), next = batch_at<Word>(h, i + 1);
  if (update && me.first_slice == 0) second_bias_update(h.b2, me.dlogits, now.rows, h.classes, adamw);

  for (int slice = me.first_slice; slice < me.last_slice; ++slice) {
    float* logits = h.partial[(i + 1) & 1] + slice * h.batch * h.classes;
    if (forward) start_logits(h, slice, next.rows, logits);
    for (int64_t block = slice_start(h, slice); block < slice_start(h, slice + 1); ++block) {
      const Parameter w2 = h.w2.at(block * w2_block);
      float* a = h.a + block * h.batch * kBlock;
      if (h.hidden) {
        if (update) {
          back_to_hidden(w2.w, me.dlogits, h.classes, a, now.rows, h.dropout_scale, me.dz);
          second_layer_update(w2, me.dlogits, h.classes, a, now.rows, adamw);
          first_bias_update(h.b1.at(block * kBlock), me.dz, now.rows, adamw);
        }
        const Word* dz = update ? operand<Word>(me.dz, now.rows, me.dz_pairs) : nullptr;
        if (forward) start_z(h, block, next.rows, me.z);
        first_layer_panel(h.w1.at(block * w1_block), h.x_blocks, update ? &now : nullptr, dz, adamw,
                          forward ? &next : nullptr, me.z);
        if (forward) activate_block(h, me, block, next.rows, (uint32_t)(step + 1));
        if (forward) add_logits(a, next.rows, w2.w, h.classes, logits);
      } else {
        if (update)
          second_layer_update(w2, me.dlogits, h.classes, h.x[i % h.buffers] + now.block(block), now.rows,
                              adamw);
        if (forward)
          add_logits(h.x[(i + 1) % h.buffers] + next.block(block), next.rows, w2.w, h.classes, logits);
      }
    }
  }
}

/* Loss of step i's batch, and dlogits for the visit that follows. */
static double batch_loss(const Head& h, const Member& me, int64_t i) {
  const ec_view& train = h.task.train;
  const int64_t n = batch_rows(h, i);
  const uint32_t* order = h.order + i * h.batch;
  double weight = 0, loss = 0;
  for (int64_t b = 0; b < n; ++b) weight += row_weight(h.train_loss, train, train.rows[order[b]]);
  const bool shared = shared_loss(h);
  const int parts = shared ? ec::team_size(h.team) : 1, part = shared ? me.number : 0;
  for (int64_t b = share(n, part, parts); b < share(n, part + 1, parts); ++b) {
    float* logits = me.dlogits + b * h.classes;
    sum_slices(h.partial[i & 1] + b * h.classes, h.batch * h.classes, h.slices, h.classes, logits);
    me.row_loss[b] = loss_and_gradient(h.train_loss, train, train.rows[order[b]], logits, 1.0 / weight, me.e);
  }
  if (shared) team_barrier(h.team);
  for (int64_t b = 0; b < n; ++b) loss += me.row_loss[b];
  return loss;
}

/* An epoch's steps; returns EC_HEAD_OK, or why it ended early. Every member comes to the same end. */
template <class Word>
static int train_epoch(Head& h, const Member& me, int64_t epoch, double* loss) {
  team_barrier(h.team); /* the last epoch's order is no longer read */
  if (me.number == 0) ec::shuffle(h.spec.seed, (uint32_t)epoch, h.task.train.n, h.order, h.sort_scratch);
  team_barrier(h.team);
  gather_share(h, me, 0);
  team_barrier(h.team);
  visit<Word>(h, me, epoch, -1);
  if (h.steps > 1) gather_share(h, me, 1);
  double sum = 0;
  for (int64_t i = 0; i < h.steps; ++i) {
    team_barrier(h.team);
    if (h.stop[i & 1]) return EC_HEAD_CANCELLED;
    const double step_loss = batch_loss(h, me, i);
    if (!isfinite(step_loss)) return EC_HEAD_DIVERGED;
    const int64_t n = batch_rows(h, i);
    sum += step_loss * (double)n;
    visit<Word>(h, me, epoch, i);
    if (i + 2 < h.steps) gather_share(h, me, i + 2);
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
  gather_rows(h.task, val, val.rows + start, 0, n, me.val_x, kValRows);
  const Batch<float> batch = {me.val_x, me.val_x, n, kValRows};
  float *logits = me.val_logits, *part = me.val_logits + kValRows * h.classes;
  for (int slice = 0; slice < h.slices; ++slice) {
    float* sum = slice == 0 ? logits : part;
    start_logits(h, slice, n, sum);
    for (int64_t block = slice_start(h, slice); block < slice_start(h, slice + 1); ++block) {
      const float* a = me.val_x + block * kValRows * kBlock;
      if (h.hidden) {
        start_z(h, block, n, me.z);
        first_layer_panel<float>(h.w1.at(block * w1_block), h.x_blocks, nullptr, nullptr, ec_adamw{}, &batch,
                                 me.z);
        activate(me.z, me.z, n, nullptr, 1.0f);
        a = me.z;
      }
      add_logits(a, n, h.w2.w + block * w2_block, h.classes, sum);
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

struct Scores {
  double loss, accuracy, f1;
};

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
  if (h.task.loss == EC_LOSS_MSE) return {sum.loss / sum.weight, NAN, NAN};
  const double f1 = me.number == 0 ? macro_f1(h.val_loss, h.counts, ec::team_size(h.team)) : 0;
  return {sum.loss / sum.weight, (double)sum.right / (double)h.task.val.n, f1};
}

}  // namespace EC_ISA

#include "head_memory.h"

namespace EC_ISA {

/* Train to the end, or until the loss explodes, nothing gets better or the caller cancels. */
static void train(ec::Head* base, int number) {
  Head& h = *static_cast<Head*>(base);
  const Member me = member_of(h, number);
  ec_result& r = *h.result;
  init_weights(h, me);
  int32_t best = -1, epoch = 0, status = EC_HEAD_OK;
  double best_loss = INFINITY;
  for (; epoch < h.options.epochs && status == EC_HEAD_OK; ++epoch) {
    double loss = NAN;
    Scores val = {NAN, NAN, NAN};
    status = h.bfloat16 ? train_epoch<Pair>(h, me, epoch, &loss) : train_epoch<float>(h, me, epoch, &loss);
    if (status != EC_HEAD_OK) break;
    if (h.task.val.n > 0) {
      val = validate(h, me);
      if (!isfinite(val.loss)) status = EC_HEAD_DIVERGED;
    }
    if (number == 0) {
      r.train_loss[epoch] = loss;
      r.val_loss[epoch] = val.loss;
      r.val_accuracy[epoch] = val.accuracy;
      r.val_f1[epoch] = val.f1;
    }
    if (h.task.val.n == 0 || val.loss < best_loss) {
      best = epoch;
      best_loss = val.loss;
      copy_weights(h, me);
    } else if (h.options.early_stop > 0 && epoch - best >= h.options.early_stop) {
      ++epoch;
      break;
    }
  }
  if (number != 0) return;
  r.best_epoch = best;
  r.epochs_run = epoch;
  r.status = status;
}

static ec::Head* create(const ec_task& task, const ec_head& spec, ec_result* result,
                        const ec_options& options, Team* team) {
  return head_create(task, spec, result, options, team);
}

static void destroy(ec::Head* base) { ec::memory_give_back(static_cast<Head*>(base)->memory); }

}  // namespace EC_ISA

#endif
