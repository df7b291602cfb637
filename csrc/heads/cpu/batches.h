/* The batches of a task, epoch after epoch: rows in the order of a seed, gathered by the members of a team.
 *
 * Between two barriers the members read one batch, or two, while they gather the next: there are three
 * buffers in turn, and two where a lone thread does one thing after the other.
 */
#ifndef EMBEDCACHE_CPU_BATCHES_H
#define EMBEDCACHE_CPU_BATCHES_H

#include "../../simd/arena.h"
#include "gather.h"
#include "team.h"

namespace EC_ISA {

using ec::Team;
using ec::team_barrier;

constexpr int64_t kRowsAhead = 256;

struct Batches {
  ec_task task;
  ec_options options;
  Team* team;
  uint64_t seed;
  int64_t batch, steps;       /* rows of a batch, batches of an epoch */
  int64_t x_blocks, capacity; /* 32-wide blocks of x; rows that a buffer holds */
  int buffers;
  bool bfloat16;
  bool on_disk;           /* some of x, as the epoch begins */
  float* x[3];            /* [x_blocks][capacity][32], or as much memory in pairs */
  uint32_t* order;        /* [n] this epoch's positions */
  uint64_t* sort_scratch; /* [2 n] */
};

static void make_batches(Batches& d, const ec_task& task, const ec_options& options, Team* team,
                         uint64_t seed, bool bfloat16) {
  d.task = task;
  d.options = options;
  d.team = team;
  d.seed = seed;
  d.batch = options.batch_size < task.train.n ? options.batch_size : task.train.n;
  d.steps = (task.train.n + d.batch - 1) / d.batch;
  d.x_blocks = (task.train.x.dim + kBlock - 1) / kBlock;
  const int64_t per = bfloat16 ? 2 : 1;
  d.capacity =
      ((d.batch + per - 1) / per | 1) * per; /* odd, so that a row's blocks fall into all sets of L1 */
  d.buffers = ec::team_size(team) > 1 ? 3 : 2;
  d.bfloat16 = bfloat16;
}

static void lay_out_batches(Batches& d, Arena& arena) {
  for (int i = 0; i < d.buffers; ++i) d.x[i] = arena.take<float>(d.x_blocks * d.capacity * kBlock);
  d.order = arena.take<uint32_t>(d.task.train.n);
  d.sort_scratch = arena.take<uint64_t>(2 * d.task.train.n);
}

static int64_t share(int64_t n, int part, int parts) { return n * part / parts; }

/* The batch of step i of the epoch. */
static int64_t batch_rows(const Batches& d, int64_t i) {
  const int64_t left = d.task.train.n - i * d.batch;
  return left < d.batch ? left : d.batch;
}

static int64_t row_of(const Batches& d, int64_t i, int64_t b) {
  return d.task.train.rows[d.order[i * d.batch + b]];
}

static ec_adamw adamw_of_step(const Batches& d, const ec_head& s, int64_t step) {
  const double lr = s.lr * ec_lr_factor(s.schedule, s.warmup, step, d.steps * d.options.epochs);
  return ec_adamw_at(lr, s.beta1, s.beta2, s.eps, s.weight_decay, step + 1);
}

template <class Word>
static Batch<Word> batch_at(const Batches& d, int64_t i) {
  Word* x = reinterpret_cast<Word*>(d.x[i % d.buffers]);
  Word* along_rows = kPer<Word> == 1 ? x : x + d.x_blocks * d.capacity * kBlock / 2;
  return {x, along_rows, batch_rows(d, i), d.capacity};
}

/* Rows [first, last) of a batch. */
struct Share {
  int64_t first, last;
};

/* A member's share of batch i, whose row numbers of x go to rows[first..last). */
static Share share_of(const Batches& d, int member, int64_t i, int64_t* rows) {
  const int64_t n = batch_rows(d, i), per = d.bfloat16 ? 2 : 1, words = (n + per - 1) / per;
  const int size = ec::team_size(d.team);
  const int64_t end = share(words, member + 1, size) * per;
  const Share own = {share(words, member, size) * per, end < n ? end : n};
  for (int64_t b = own.first; b < own.last; ++b) rows[b] = row_of(d, i, b);
  return own;
}

/* Where x lies on disk, so many batches are asked for before the one that is gathered. */
static int64_t batches_ahead(const Batches& d) {
  return d.batch < kRowsAhead ? (kRowsAhead + d.batch - 1) / d.batch : 1;
}

static void ask_for_share(const Batches& d, int member, int64_t i, int64_t* rows) {
  if (!d.on_disk || i >= d.steps) return;
  const Share own = share_of(d, member, i, rows);
  ec::will_need(d.task.train.x, rows + own.first, own.last - own.first);
}

/* Up to n validation rows from the one at `start` on. */
static void ask_for_validation(const Batches& d, int64_t start, int64_t n) {
  const ec_view& val = d.task.val;
  if (d.on_disk && start < val.n)
    ec::will_need(val.x, val.rows + start, n < val.n - start ? n : val.n - start);
}

/* Gathers a member's share of batch i. rows: scratch, [batch]; two_rows: as gather_pairs wants it. */
static void gather_share(const Batches& d, int member, int64_t i, int64_t* rows, float* two_rows) {
  ask_for_share(d, member, i + batches_ahead(d), rows);
  const Share own = share_of(d, member, i, rows);
  if (d.bfloat16)
    gather_pairs(d.task, d.task.train, rows, own.first, own.last, two_rows, batch_at<Pair>(d, i));
  else
    gather_rows(d.task, d.task.train, rows, own.first, own.last, d.x[i % d.buffers], d.capacity);
}

/* The epoch's order, and its first batch. */
static void begin_epoch(Batches& d, int member, int64_t epoch, int64_t* rows, float* two_rows) {
  team_barrier(d.team); /* the last epoch's order and batches are no longer read */
  if (member == 0) {
    ec::shuffle(d.seed, (uint32_t)epoch, d.task.train.n, d.order, d.sort_scratch);
    d.on_disk = !ec::in_memory(d.task.train);
  }
  team_barrier(d.team);
  for (int64_t i = 0; i < batches_ahead(d); ++i) ask_for_share(d, member, i, rows);
  gather_share(d, member, 0, rows, two_rows);
  team_barrier(d.team);
}

}  // namespace EC_ISA

#endif
