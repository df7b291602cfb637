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
constexpr int kSmall = (kClusterOutputs + 1) * kUnits + kClusterOutputs; /* parameters, at most */
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
  const float *targets, *sample_weight;
  const ec_head* spec; /* in device memory; what a step needs of it is here: */
  uint64_t seed;
  Parameters p;
  Quad* moments[2];     /* where the passes find m and v: on the chip if they fit */
  Quad *m, *v;          /* this block's, in device memory */
  float *own_m, *own_v; /* [kThreads] of the small parameters, there */
  Loss loss;
  int64_t n, batch, first_step, all_steps; /* the epoch's first step counts from the head's first */
  double over_full,
      over_last; /* 1 / the weight of a batch's rows, without weights of classes; of the last's */
  uint32_t threshold;
  float scale;
  int32_t chunks, dim, hidden, outputs, unit0;
};

struct Exchange {
  /* Of the logits, what each block has pushed, for each warp's four rows; then that warp's sums of the small
   * parameters' gradients: see part_of(). */
  alignas(16) float parts[kWarps * kMaxCluster * 4 * kClusterOutputs];
  Quad dz[2][4][kLanes]; /* FragmentA of 16 units and 8 rows; lane i's is in place z_place(i) */
};

union Half {
  float x[kWarps][2][kBatch][8];         /* of this batch (rows in the order of place()) and of the next */
  uint16_t wide[2 * kBatch][kWideChunk]; /* of both batches, in bfloat16: see cluster_bf16.cuh */
  Quad z[kWarps][4][kLanes];             /* FragmentC of 16 units and 8 rows; places as dz's */
  Exchange exchange;
};

/* AdamW's constants for m and v over their rates: fewer operations a weight. One load of 16 bytes and one of
 * 4. */
struct alignas(16) Constants {
  float m_rate, v_rate, root, eps, decay;
};

struct ClusterShared {
  Quad slots[kSlots][kThreads];
  Half half[2];
  float small[kSmall];
  int32_t y[kBatch];       /* of the batch that the logits are of */
  uint32_t row[3][kBatch]; /* of x; batch b in b % 3 */
  uint32_t at[2][kBatch];  /* where x of those rows begins, in chunks: of the pass's batch and of the next */
  Mbarrier read[2], vacated[2]; /* of the halves: by all warps; by all blocks, see announce() */
  Mbarrier landed[2];           /* x has, see cluster_bf16.cuh */
  Mbarrier arrived;             /* all parts of the logits have */
  Constants
      adamw[kTable + 1]; /* constants of some steps to come; the last: of an iteration without an update */
  double loss[kWarps];   /* of the batch: of each warp's rows, over the batch's weight */
  double epoch_loss;     /* of the epoch so far */
  int64_t rows_done;
  Plan plan;
};
static_assert(sizeof(Exchange) <= sizeof(float) * kWarps * 2 * kBatch * 8, "the exchange fits in a half");
static_assert(kSmall <= kMaxCluster * 4 * kClusterOutputs && 2 * kUnits + 1 <= kMaxCluster * 4 * 2,
              "a warp's sums fit where its parts of the logits were");
static_assert(sizeof(ClusterShared) <= 232448, "what a block may have of compute capability 9.0");

/* A thread's own small parameter, its hidden units, and what it fetches ahead for its row. */
struct Own {
  float m, v;
  float a[4];    /* after ReLU and dropout: [2 unit + row] of its Seat */
  uint32_t kept; /* bit 2 unit + row: dropout leaves it */
  uint32_t position, row;
  int32_t y;
};

/* Which units and rows a thread has between the passes: units 16 tile + g and 8 more, rows 8 n + 2 q and the
 * next. That is what FragmentC of 16 units and 8 rows gives lane 4 g + q of every warp. */
struct Seat {
  int tile, g, n, q;
  EC_DEVICE_METHOD explicit Seat(int thread)
      : tile(thread / 16 % 2),
        g(thread / 2 % 8),
        n(thread / kLanes / 2),
        q(thread / kLanes % 2 * 2 + thread % 2) {}
  EC_DEVICE_METHOD int unit(int h) const { return 16 * tile + g + 8 * h; }
  EC_DEVICE_METHOD int row(int e) const { return 8 * n + 2 * q + e; }
  EC_DEVICE_METHOD int fragment_lane() const { return 4 * g + q; }
};
/* How far away the lane is that has the warp's other two rows, its units 8 lanes on, or the other tile. */
constexpr int kOtherRows = 1, kOtherOutput = 2, kOtherTile = 16;

/* Where lane i's quads of a fragment are: no eight lanes in a row, nor eight threads' Seats, share a bank. */
EC_DEVICE int z_place(int i) { return i ^ (i >> 2 & 2); }

/* set(t, value of the lane so many away): lanes is a power of two, whose bit the other's number lacks or has.
 */
template <class Team, class Get, class Set>
EC_DEVICE void swap(const Team& team, int lanes, Get get, Set set) {
#ifdef EC_HOST_EMULATION
  using T = decltype(get(0));
  team.each_warp([&](int t) { return get(t); },
                 [&](int first, int begin, int end, const T* all) {
                   for (int lane = begin; lane < end; ++lane) set(first + lane, all[lane ^ lanes]);
                 });
#else
  team.each_alone([&](int t) { set(t, __shfl_xor_sync(0xFFFFFFFFu, get(t), lanes)); });
#endif
}

constexpr float kNoStep = 1e18f; /* what m is divided by where nothing may move; its square is finite */

/* m and v are kept over their rates, so that a step adds the gradient and its square as they are. A rate of
 * 0, as a warm-up's first, leaves the weights alone. */
EC_DEVICE Constants scaled(const ec_adamw& a) {
  const double step = (double)a.rate * (double)a.m_rate;
  if (!(step > 1e-30)) return {a.m_rate, a.v_rate, 0.0f, kNoStep, a.decay};
  return {a.m_rate, a.v_rate, (float)(sqrt((double)a.v_rate) / step), (float)((double)a.eps / step), a.decay};
}

/* ec_adamw_update of such m and v to some 2^-22 in the step, as fast_adamw_update. */
EC_DEVICE void adamw(float gradient, float* w, float* m, float* v, const Constants& a) {
  *m = fmaf(-a.m_rate, *m, *m) + gradient;
  *v = fmaf(gradient, gradient, fmaf(-a.v_rate, *v, *v));
  const float over = fast_quotient(1.0f, fmaf(a.root, fast_root(*v), a.eps));
  *w = fmaf(-*m, over, fmaf(-a.decay, *w, *w));
}

/* The same of a quad, two quotients by one reciprocal: the special-function unit is what a pass waits for. */
EC_DEVICE void adamw(const Quad& gradient, Quad& w, Quad& m, Quad& v, const Constants& a) {
  float under[4];
  EC_UNROLL
  for (int e = 0; e < 4; ++e) {
    m.x[e] = fmaf(-a.m_rate, m.x[e], m.x[e]) + gradient.x[e];
    v.x[e] = fmaf(gradient.x[e], gradient.x[e], fmaf(-a.v_rate, v.x[e], v.x[e]));
    under[e] = fmaf(a.root, fast_root(v.x[e]), a.eps);
    w.x[e] = fmaf(-a.decay, w.x[e], w.x[e]);
  }
  EC_UNROLL
  for (int e = 0; e < 4; e += 2) {
    const float over = fast_quotient(1.0f, under[e] * under[e + 1]);
    w.x[e] = fmaf(-m.x[e], over * under[e + 1], w.x[e]);
    w.x[e + 1] = fmaf(-m.x[e + 1], over * under[e], w.x[e + 1]);
  }
}

/* ---- Who may write to the halves ----
 *
 * Each warp says once that it has read what is in a half (read_half). Then the block tells all blocks
 * (announce), and whoever writes into the other blocks' halves waits for those (vacated). */

EC_DEVICE void read_half(ClusterShared& shared, int thread, int half) {
  if (thread % kLanes == 0) arrive_here(shared.read[half]);
}

/* The calling thread tells block `rank`, if there is one. */
template <class Team>
EC_DEVICE void announce(const Team& team, int t, int rank, int half, int parity) {
  ClusterShared& shared = team.shared(t);
  if (rank >= team.blocks()) return;
  wait(shared.read[half], parity);
  arrive(team.remote(t, rank, &shared.vacated[half]));
}

EC_DEVICE bool is_warp(int thread, int warp) { return thread / kLanes == warp; }

/* Where a block's part of the logits is put for a warp's four rows: four numbers for each output. Two
 * outputs' places at least: rows, outputs and four blocks then lie in different banks, and there is room for
 * the warp's sums once it has read them. */
EC_DEVICE float* part_of(ClusterShared& shared, int warp, int rank) {
  const int outputs = shared.plan.outputs > 1 ? shared.plan.outputs : 2;
  return &shared.half[1].exchange.parts[(warp * kMaxCluster + rank) * 4 * outputs];
}

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
  p.sample_weight = view.sample_weight;
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
  const double of_row = p.loss.kind == EC_KIND_CLASSES ? 1.0 : (double)p.outputs;
  p.over_full = 1.0 / (of_row * (double)p.batch);
  p.over_last = 1.0 / (of_row * (double)(p.n - (steps - 1) * p.batch));
  const int64_t quads = 2 * p.chunks * kThreads, all = cluster_floats(p.hidden, p.dim);
  p.m = (Quad*)(head.state + head.stride) + rank * quads;
  p.v = (Quad*)(head.state + 2 * head.stride) + rank * quads;
  p.own_m = head.state + head.stride + all - cluster_blocks(p.hidden) * kThreads + rank * kThreads;
  p.own_v = p.own_m + head.stride;
  p.moments[0] = 4 * p.chunks <= kSlots ? &shared.slots[2 * p.chunks][0] : p.m;
  p.moments[1] = !v_held && 6 * p.chunks <= kSlots ? &shared.slots[4 * p.chunks][0] : p.v;
  shared.epoch_loss = launch.step_begin == 0 ? 0.0 : tally.train_loss;
  shared.rows_done = 0;
  shared.adamw[kTable] = {0.0f, 0.0f, 0.0f, kNoStep, 0.0f};
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
    if (i < kSmall) shared.small[i] = at ? *at : 0.0f;
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

/* Rows of batch i. */
EC_DEVICE int rows_of(const Plan& plan, int64_t i) {
  const int64_t left = plan.n - i * plan.batch;
  return (int)(left < plan.batch ? left : plan.batch);
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
    shared.half[1].exchange.dz[i / 128][i / kLanes % 4][i % kLanes] = {};
    if (i >= kBatch) return;
    for (int64_t batch = begin - 1; batch <= begin + 1; ++batch)
      shared.row[slot_of(batch)][i] = (uint32_t)plan.rows[position_of(plan, batch, i)];
    own[t].row = (uint32_t)plan.rows[position_of(plan, begin + 2, i)];
    own[t].position = position_of(plan, begin + 3, i);
    own[t].y = plan.y ? plan.y[shared.row[slot_of(begin)][i]] : 0;
  });
  team.each_thread([&](int t) { aim<Operands>(team.shared(t), team.in_block(t), slot_of(begin - 1)); });
  Operands::first_copy(team);
}

}  // namespace ec
#endif
