/* Linear probes in a block's shared memory (probes.cuh): what lies there, how it comes and goes.
 *
 * x comes a row at a time by copies of whole rows (cp.async.bulk) into a ring of slots: row r of the launch's
 * batch b is number b * padded + r, and lies in slot number % slots. As soon as a batch is done with, the
 * rows that come `slots` later are asked for: those of the batch after next where there is room for two
 * batches, and as many of the next as there is room for else. A barrier for batches of even number and one
 * for the others count their bytes.
 */
#ifndef EMBEDCACHE_CUDA_PROBES_STATE_CUH
#define EMBEDCACHE_CUDA_PROBES_STATE_CUH

#include "cluster_state.cuh"
#include "row_loss.cuh"

namespace ec {

constexpr int kProbeRows = 64;     /* of a batch, at most */
constexpr int kProbeOutputs = 8;   /* of a block's probes together, at most */
constexpr int kProbesTogether = 4; /* of a block, at most */
constexpr int kProbeColumns = 6;   /* of a thread, at most */
constexpr int kRowsOfWarp = 4;     /* whose logits a warp computes at a time */
constexpr int kRowsOfPass = kRowsOfWarp * kWarps;
constexpr int kRowsAtOnce =
    4; /* of the gradient: a batch's rows are padded to a multiple, and so are slots */
constexpr int kColumnsOfWarp = 4 * kLanes; /* that a warp multiplies at a time */
constexpr int kBlockBytes = 232448;        /* of shared memory that a block may have of capability 9.0 */

/* What a block's probes have in common. */
struct ProbeTask {
  const float* x; /* View::plain */
  const uint32_t* order;
  const int64_t* rows;
  const int32_t* y;
  const float *targets, *sample_weight;
  int64_t n, begin, first_step, all_steps; /* begin: the launch's first step of the epoch; as Plan's */
  int32_t batches, batch, padded;          /* of the launch; rows of one, and padded to kRowsAtOnce */
  int32_t slots, stride;                   /* floats of a row of x in device memory */
  int32_t dim, probes;
};

/* A probe: its outputs are `first` and those that follow of the block's. */
struct ProbePlan {
  const ec_head* spec;
  float *w, *b; /* in device memory; m and v (over their rates, see scaled()) come `stride` floats later */
  int64_t stride;
  Loss loss;
  double over_full, over_last; /* as Plan's */
  int32_t first, number;
};

EC_FN int32_t padded_rows(int64_t rows) {
  return (int32_t)((rows + kRowsAtOnce - 1) / kRowsAtOnce * kRowsAtOnce);
}

/* The row of a batch that the thread looks after: spread over the warps, as a row's copy takes a lane of its
 * own; none: kProbeRows or more. */
EC_DEVICE int row_of_thread(int thread) { return thread % kLanes * kWarps + thread / kLanes; }

/* What is not x or weights. */
template <int kOutputs, int kProbes>
struct ProbeSmall {
  alignas(16) float dz[kProbeRows][kOutputs]; /* the gradient by the logits; 0 beyond the batch's rows */
  alignas(16) float logits[kWarps][kRowsOfWarp][kOutputs];
  float b[kOutputs], b_sum[kWarps][kOutputs]; /* biases; of each warp's rows, their gradient */
  double loss[kProbes][kWarps];               /* of each warp's rows, over the batch's weight */
  int32_t bad[kProbes][kWarps];               /* that is not finite */
  Constants adamw[kProbes][kTable];
  int32_t probe_of[kOutputs];  /* -1: no probe has that output */
  int32_t y[kProbeRows];       /* of the batch whose logits come next */
  uint32_t row[4][kProbeRows]; /* of x; batch b in b % 4 */
  Mbarrier landed[2];          /* x has, of batch b in b % 2 */
  ProbeTask task;
  ProbePlan probe[kProbes];
};

/* kColumns: of a thread, hence how many there are of a row of x in its slot, and of an output's weights. */
template <int kColumns, int kOutputs, int kProbes>
struct ProbeShared : ProbeSmall<kOutputs, kProbes> {
  using Small = ProbeSmall<kOutputs, kProbes>;
  static constexpr int kStride = kColumns * kThreads;
  static constexpr int kPool = (kBlockBytes - (int)sizeof(Small)) / 16 * 4 - 4;
  alignas(16) float pool[kPool]; /* weights [kOutputs][kStride], slots of x [.][kStride]; 0 beyond a row */

  EC_DEVICE_METHOD float* slot(int number) { return pool + (kOutputs + number) * kStride; }

  /* Slots for x of batches of so many rows: two batches' at most; too few for one: they do not fit. */
  static EC_FN_METHOD int32_t slots(int64_t rows) {
    const int32_t most = (kPool / kStride - kOutputs) / kRowsAtOnce * kRowsAtOnce,
                  two = 2 * padded_rows(rows);
    return two < most ? two : most;
  }
};

template <int kColumns, int kOutputs, int kProbes>
EC_DEVICE void make_probe_plan(ProbeShared<kColumns, kOutputs, kProbes>& shared, const Launch& launch,
                               const int32_t* numbers) {
  ProbeTask& task = shared.task;
  const Head& any = launch.heads[numbers[0]];
  const Task& of = launch.tasks[any.spec.task];
  const int64_t steps = (of.train.n + launch.batch_size - 1) / launch.batch_size;
  const int64_t end = steps < launch.step_end ? steps : launch.step_end;
  task.x = of.train.plain;
  task.order = any.order;
  task.rows = of.train.rows;
  task.y = of.train.y;
  task.targets = of.train.targets;
  task.sample_weight = of.train.sample_weight;
  task.n = of.train.n;
  task.begin = launch.step_begin;
  task.first_step = launch.epoch * steps;
  task.all_steps = launch.epochs * steps;
  task.batches = (int32_t)(end - task.begin);
  task.batch = (int32_t)(task.n < launch.batch_size ? task.n : launch.batch_size);
  task.padded = padded_rows(task.batch);
  task.slots = shared.slots(task.batch);
  task.stride = (int32_t)ready_stride(of.dim);
  task.dim = of.dim;
  task.probes = 0;
  for (int k = 0; k < kOutputs; ++k) shared.probe_of[k] = -1;
  int first = 0;
  for (int g = 0; g < kProbes && numbers[g] >= 0; ++g, ++task.probes) {
    const Head& head = launch.heads[numbers[g]];
    ProbePlan& p = shared.probe[g];
    const Parameters at = split_parameters(head.state, head.shape);
    p.spec = &head.spec;
    p.w = at.w2;
    p.b = at.b2;
    p.stride = head.stride;
    p.loss = make_loss(of, head.class_weight, head.spec.label_smoothing, loss_of(head.spec));
    const double of_row = p.loss.kind == EC_KIND_CLASSES ? 1.0 : (double)p.loss.outputs;
    p.over_full = 1.0 / (of_row * (double)task.batch);
    p.over_last = 1.0 / (of_row * (double)(task.n - (steps - 1) * task.batch));
    p.first = first;
    p.number = numbers[g];
    for (int c = 0; c < p.loss.outputs; ++c) shared.probe_of[first + c] = g;
    first += p.loss.outputs;
  }
}

/* AdamW's constants of a step (from 0). */
EC_DEVICE Constants adamw_of(const ProbeTask& task, const ec_head& s, int64_t step) {
  const double lr = s.lr * ec_lr_factor(s.schedule, s.warmup, step, task.all_steps);
  return scaled(ec_adamw_at(lr, s.beta1, s.beta2, s.eps, s.weight_decay, step + 1));
}

/* ---- Rows, and x ---- */

/* Rows of the launch's batch b. */
EC_DEVICE int rows_of(const ProbeTask& task, int b) {
  const int64_t left = task.n - (task.begin + b) * task.batch;
  return (int)(left < task.batch ? left : task.batch);
}

EC_DEVICE uint32_t position_of(const ProbeTask& task, int b, int row) {
  return task.order[clamp((task.begin + b) * task.batch + row, task.n)];
}

/* What a thread looks up ahead for the row that it looks after, as long as nobody waits for it. */
struct RowAhead {
  uint32_t position, row; /* of the batches five and four later */
  int32_t y;              /* of the next */
};

/* Row r of batch b, if there is one, into its slot. */
template <class Team>
EC_DEVICE void copy_row(const Team& team, int t, int b, int r, int slot) {
  auto& shared = team.shared(t);
  const ProbeTask& task = shared.task;
  if (b >= task.batches || r >= rows_of(task, b)) return;
  copy_here(team, t, shared.slot(slot), task.x + (int64_t)shared.row[b % 4][r] * task.stride, 4 * task.stride,
            &shared.landed[b % 2]);
}

/* How much x of batch b there will be. */
template <class Shared>
EC_DEVICE void announce_x(Shared& shared, int b) {
  if (b < shared.task.batches)
    arrive_expect(shared.landed[b % 2], 4 * shared.task.stride * rows_of(shared.task, b));
}

/* Batch b is done with: asks for the rows that take its slots, the first of which is `base`. */
template <class Team>
EC_DEVICE void ask_for_x(const Team& team, int t, int b, int base) {
  auto& shared = team.shared(t);
  const ProbeTask& task = shared.task;
  const int i = row_of_thread(team.in_block(t));
  if (i == 0) announce_x(shared, b + 2);
  if (i >= task.padded) return;
  const int ahead = task.slots - task.padded + i,
            slot = base + i; /* ahead: rows from the next batch's first */
  const bool next = ahead < task.padded;
  copy_row(team, t, next ? b + 1 : b + 2, next ? ahead : ahead - task.padded,
           slot < task.slots ? slot : slot - task.slots);
}

/* The launch's first rows of x, and what is looked up ahead. */
template <class Team>
EC_DEVICE void start_rows(const Team& team, int t, RowAhead& ahead) {
  auto& shared = team.shared(t);
  const ProbeTask& task = shared.task;
  const int i = row_of_thread(team.in_block(t));
  if (i >= kProbeRows) return;
  for (int b = 0; b < 3; ++b) shared.row[b][i] = (uint32_t)task.rows[position_of(task, b, i)];
  ahead.row = (uint32_t)task.rows[position_of(task, 3, i)];
  ahead.position = position_of(task, 4, i);
  ahead.y = task.y ? task.y[shared.row[1][i]] : 0;
  shared.y[i] = task.y ? task.y[shared.row[0][i]] : 0;
}

template <class Team>
EC_DEVICE void start_x(const Team& team, int t) {
  auto& shared = team.shared(t);
  const ProbeTask& task = shared.task;
  const int i = row_of_thread(team.in_block(t));
  if (i < 2) announce_x(shared, i);
  if (i < task.slots) copy_row(team, t, i / task.padded, i % task.padded, i);
}

/* Batch b is being done with: what the thread's row is in the next, and further on. */
template <class Shared>
EC_DEVICE void look_ahead(Shared& shared, int thread, int b, RowAhead& ahead) {
  const ProbeTask& task = shared.task;
  const int i = row_of_thread(thread);
  if (i >= kProbeRows) return;
  shared.y[i] = ahead.y;
  ahead.y = task.y ? task.y[shared.row[(b + 2) % 4][i]] : 0;
  shared.row[(b + 3) % 4][i] = ahead.row;
  ahead.row = (uint32_t)task.rows[ahead.position];
  ahead.position = position_of(task, b + 5, i);
}

}  // namespace ec
#endif
