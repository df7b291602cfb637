/* A cluster's head in shared memory: what lies there, how it comes and goes, and how x gets there
 * (cluster.cuh).
 *
 * A thread owns a small parameter: thread c * 32 + u has w2 of output c and unit u, after those come the
 * biases b1 and b2 (every block has all of b2).
 *
 * The two halves of 16 KB behind the state are in turn: x of two chunks (a warp's rows lie where its sums
 * will); the warps' sums of z; then the first half takes x again while the second holds the exchange between
 * threads.
 */
#ifndef EMBEDCACHE_CUDA_CLUSTER_STATE_CUH
#define EMBEDCACHE_CUDA_CLUSTER_STATE_CUH

#include "loss.cuh"
#include "mbarrier.cuh"
#include "mma.cuh"

namespace ec {

constexpr int kUnits = 32, kBatch = 32; /* of a block; largest */
constexpr int kClusterOutputs = 5;
constexpr int kSlots = 48;            /* quads of a thread in shared memory */
constexpr int kMostHeld = kSlots / 4; /* chunks whose v can be in registers */
constexpr int kTable = kLanes;        /* steps whose AdamW constants a warp computes at a time */
#ifdef EC_HOST_EMULATION
constexpr int kHostThreads = kMaxCluster * kThreads;
#else
constexpr int kHostThreads = kThreads;
#endif

/* A block's view of the head and its data. */
struct Plan {
  const void* x; /* ready, or wide: see View */
  const uint32_t* order;
  const int64_t* rows;
  const int32_t* y;
  const float* targets;
  const ec_head* spec; /* in device memory; what a step needs of it is here: */
  uint64_t seed;
  Parameters p;
  Quad* moments[2];     /* where the passes find m and v: on the chip if they fit */
  Quad *m, *v;          /* this block's, in device memory */
  float *own_m, *own_v; /* [kThreads] of the small parameters, there */
  Loss loss;
  int64_t n, batch, first_step, all_steps; /* the epoch's first step counts from the head's first */
  uint32_t threshold;
  float scale;
  int32_t chunks, dim, hidden, outputs, unit0, log_blocks;
};

/* What comes once the logits are known. */
struct Backward {
  double loss[kBatch], weight[kBatch], mass[kBatch], part[2][8];
  Quad dz[2][4][kLanes]; /* FragmentA of 16 units and 8 rows */
  float log_sum[kBatch];
};

struct Exchange {
  union {
    float parts[kMaxCluster][kClusterOutputs * kBatch]; /* of the logits: what each block has pushed */
    Backward back;
  };
  float a[kUnits][kBatch + 1]; /* after ReLU and dropout */
  union {
    alignas(16) float own_part[kClusterOutputs * kBatch]; /* of the logits: what this block pushes */
    float gradient[kBatch][kClusterOutputs];              /* by the logits */
  };
  float logits[kBatch][kClusterOutputs];
  int32_t y[kBatch];
};

union Half {
  float x[kWarps][2][kBatch][8];         /* of this batch (rows in the order of place()) and of the next */
  uint16_t wide[2 * kBatch][kWideChunk]; /* of both batches, in bfloat16: see cluster_bf16.cuh */
  float z[kWarps][4][kLanes][4];         /* FragmentC of 16 units and 8 rows */
  Exchange exchange;
};

/* One load of 16 bytes and one of 4. */
struct alignas(16) Constants : ec_adamw {};

struct ClusterShared {
  Quad slots[kSlots][kThreads];
  Half half[2];
  float small[kThreads];
  uint32_t row[3][kBatch]; /* of x; batch b in b % 3 */
  uint32_t at[2][kBatch];  /* where x of those rows begins, in chunks: of the pass's batch and of the next */
  Mbarrier landed[2], vacated[2]; /* of the halves, see cluster_bf16.cuh */
  Mbarrier room, arrived;         /* every block has room for parts of the logits; all have come */
  Constants
      adamw[kTable + 1]; /* constants of some steps to come; the last: of an iteration without an update */
  double epoch_loss, loss, over_weight; /* of the epoch; of the batch; over_weight: 1 / its weight */
  int64_t rows_done;
  Plan plan;
};
static_assert(sizeof(Exchange) <= sizeof(float) * kWarps * 2 * kBatch * 8, "the exchange fits in a half");
static_assert(sizeof(ClusterShared) <= 232448, "what a block may have of compute capability 9.0");

/* A thread's own small parameter, and what it fetches ahead for its row. */
struct Own {
  float m, v;
  float a[2][2]; /* [tile][row]: see forward_rest */
  uint32_t kept; /* bit 2 tile + row: dropout leaves it */
  uint32_t position, row;
  int32_t y;
};

EC_FN int cluster_blocks(int32_t hidden) {
  int blocks = 1;
  while (blocks * kUnits < hidden) blocks *= 2;
  return blocks;
}

/* Floats of m, and of v, of a head in a cluster: quads by thread (of an even number of chunks: enough for all
 * operands), then the small parameters. */
EC_FN int64_t cluster_floats(int32_t hidden, int32_t dim) {
  return cluster_blocks(hidden) * (int64_t)kThreads * (2 * 4 * 2 * wide_chunk_count(dim) + 1);
}

template <class Operands>
EC_DEVICE void make_plan(ClusterShared& shared, const Launch& launch, const Head& head, const Tally& tally,
                         int rank, bool v_held) {
  Plan& p = shared.plan;
  const Task& task = launch.tasks[head.spec.task];
  const View& view = task.train;
  p.x = Operands::x_of(view);
  p.order = head.order;
  p.rows = view.rows;
  p.y = view.y;
  p.targets = view.targets;
  p.spec = &head.spec;
  p.seed = head.spec.seed;
  p.p = split_parameters(head.state, head.shape);
  p.loss = make_loss(task, head.class_weight, head.spec.label_smoothing, loss_of(head.spec));
  p.n = view.n;
  p.batch = launch.batch_size;
  const int64_t steps = (p.n + p.batch - 1) / p.batch;
  p.first_step = launch.epoch * steps;
  p.all_steps = launch.epochs * steps;
  p.threshold = ec_dropout_threshold(head.spec.dropout);
  p.scale = ec_dropout_scale(head.spec.dropout);
  p.chunks = Operands::chunks(task.dim);
  p.dim = task.dim;
  p.hidden = head.shape.hidden;
  p.outputs = head.shape.outputs;
  p.unit0 = rank * kUnits;
  p.log_blocks = 0;
  while (1 << p.log_blocks < cluster_blocks(p.hidden)) ++p.log_blocks;
  const int64_t quads = 2 * p.chunks * kThreads, all = cluster_floats(p.hidden, p.dim);
  p.m = (Quad*)(head.state + head.stride) + rank * quads;
  p.v = (Quad*)(head.state + 2 * head.stride) + rank * quads;
  p.own_m = head.state + head.stride + all - cluster_blocks(p.hidden) * kThreads + rank * kThreads;
  p.own_v = p.own_m + head.stride;
  p.moments[0] = 4 * p.chunks <= kSlots ? &shared.slots[2 * p.chunks][0] : p.m;
  p.moments[1] = !v_held && 6 * p.chunks <= kSlots ? &shared.slots[4 * p.chunks][0] : p.v;
  shared.epoch_loss = launch.step_begin == 0 ? 0.0 : tally.train_loss;
  shared.rows_done = 0;
  shared.adamw[kTable] = {};
  shared.adamw[kTable].eps = 1.0f;
}

/* ---- Where things are ---- */

/* Operands say which unit and input number e of a quad is. */
template <class Operands>
EC_DEVICE void move_weights(const Plan& plan, int chunk, int tile, int i, Quad& w, bool load) {
  EC_UNROLL
  for (int e = 0; e < 4; ++e) {
    const int unit = plan.unit0 + Operands::unit_of(i, tile, e), input = Operands::input_of(i, chunk, e);
    const bool inside = unit < plan.hidden && input < plan.dim;
    float* at = plan.p.w1 + (int64_t)unit * plan.dim + input;
    if (load) w.x[e] = inside ? *at : 0.0f;
    if (!load && inside) *at = w.x[e];
  }
}

/* Where small parameter i of the block lies in device memory, or NULL. */
EC_DEVICE float* small_parameter(const Plan& plan, int i) {
  const int unit = plan.unit0 + i % kUnits, last = (plan.outputs + 1) * kUnits;
  if (i < last && unit >= plan.hidden) return nullptr;
  if (i < plan.outputs * kUnits) return plan.p.w2 + (int64_t)(i / kUnits) * plan.hidden + unit;
  if (i < last) return plan.p.b1 + unit;
  return i < last + plan.outputs ? plan.p.b2 + (i - last) : nullptr;
}

template <class Team>
EC_DEVICE void move_small(const Team& team, int t, Own& own, bool load) {
  ClusterShared& shared = team.shared(t);
  const int i = team.in_block(t);
  float* at = small_parameter(shared.plan, i);
  if (load) {
    shared.small[i] = at ? *at : 0.0f;
    own.m = shared.plan.own_m[i];
    own.v = shared.plan.own_v[i];
    return;
  }
  if (at && (i < (shared.plan.outputs + 1) * kUnits || team.rank(t) == 0)) *at = shared.small[i];
  shared.plan.own_m[i] = own.m;
  shared.plan.own_v[i] = own.v;
}

/* ---- x ---- */

EC_DEVICE int64_t clamp(int64_t position, int64_t n) {
  return position < 0 ? 0 : position < n ? position : n - 1;
}

EC_DEVICE uint32_t position_of(const Plan& plan, int64_t batch, int row) {
  return plan.order[clamp(batch * plan.batch + row, plan.n)];
}

/* Where in shared.row the rows of a batch are, and of the batch after it. */
EC_DEVICE int slot_of(int64_t batch) { return (int)((batch + 3) % 3); }
EC_DEVICE int next_slot(int slot) { return slot == 2 ? 0 : slot + 1; }

/* Where the passes find x of the batch in `slot`, and of the next. */
template <class Operands>
EC_DEVICE void aim(ClusterShared& shared, int thread, int slot) {
  if (thread >= kBatch) return;
  const uint32_t chunks = (uint32_t)(shared.plan.chunks / Operands::kPerPass);
  shared.at[0][thread] = shared.row[slot][thread] * chunks;
  shared.at[1][thread] = shared.row[next_slot(slot)][thread] * chunks;
}

/* Rows of the first three batches; the two that follow are under way; no gradient yet. */
template <class Operands, class Team>
EC_DEVICE void start(const Team& team, PerThread<Own, kHostThreads>& own, int64_t begin) {
  team.each_thread([&](int t) {
    ClusterShared& shared = team.shared(t);
    const Plan& plan = shared.plan;
    const int i = team.in_block(t);
    shared.half[1].exchange.back.dz[i / 128][i / kLanes % 4][i % kLanes] = {};
    if (i >= kBatch) return;
    for (int64_t batch = begin - 1; batch <= begin + 1; ++batch)
      shared.row[slot_of(batch)][i] = (uint32_t)plan.rows[position_of(plan, batch, i)];
    own[t].row = (uint32_t)plan.rows[position_of(plan, begin + 2, i)];
    own[t].position = position_of(plan, begin + 3, i);
  });
  team.each_thread([&](int t) { aim<Operands>(team.shared(t), team.in_block(t), slot_of(begin - 1)); });
  team.each_alone([&](int t) { Operands::vacate(team, t, 0); });
  team.each_alone([&](int t) { Operands::ask(team, t, 0, 0); });
}

}  // namespace ec
#endif
