/* What a cluster does with a head between the passes over its first layer (cluster.cuh), up to the logits:
 * the warps' sums of z, activation, dropout, and the exchange of the blocks' parts of the logits.
 *
 * A warp has four rows and all of the block's units; a lane two of the rows and two units (Seat). So what
 * comes between the passes stays within a warp, from lane to lane (swap), but for three barriers of the
 * block: before the warps' sums of z are stored, after it, and once their gradient is. cluster_loss.cuh goes
 * on from the logits.
 */
#ifndef EMBEDCACHE_CUDA_CLUSTER_MATH_CUH
#define EMBEDCACHE_CUDA_CLUSTER_MATH_CUH

#include "cluster_state.cuh"

namespace ec {

/* Dropout of the thread's units and rows in a step: its bits of Own::kept. Drawn ahead of the step. Four
 * words come at a time, for units 16 apart: two of them are this lane's and two another's, which draws the
 * other row. */
template <class Team>
EC_DEVICE void draw(const Team& team, PerThread<Own, kHostThreads>& own, int64_t i) {
  PerThread<uint32_t, kHostThreads> lent;
  team.each_alone([&](int t) {
    const Plan& plan = team.shared(t).plan;
    const Seat seat(team.in_block(t));
    own[t].kept = 15;
    lent[t] = 15;
    if (!plan.threshold) return;
    EC_UNROLL
    for (int h = 0; h < 2; ++h) {
      const uint32_t unit = (uint32_t)(plan.unit0 / 64 * 16 + 8 * h + seat.g);
      const ec_words words = ec_philox(plan.seed, unit, (uint32_t)seat.row(seat.tile),
                                       (uint32_t)(plan.first_step + i), EC_DOMAIN_DROPOUT);
      const bool upper = plan.unit0 % 64 != 0;
      const uint32_t first = upper ? words.word[2] : words.word[0],
                     second = upper ? words.word[3] : words.word[1];
      const uint32_t bit = 1u << (2 * h + seat.tile);
      if ((seat.tile ? second : first) < plan.threshold) own[t].kept &= ~bit;
      if ((seat.tile ? first : second) < plan.threshold) lent[t] &= ~bit;
    }
  });
  swap(team, kOtherTile, [&](int t) { return lent[t]; }, [&](int t, uint32_t bits) { own[t].kept &= bits; });
}

/* z of the thread's units and rows, summed over the warps: bias, ReLU, dropout. */
EC_DEVICE void activate(const ClusterShared& shared, int thread, Own& own) {
  const Plan& plan = shared.plan;
  const Seat seat(thread);
  Quad z = {};
  EC_UNROLL
  for (int warp = 0; warp < kWarps; ++warp) {
    const Quad part = shared.half[seat.tile].z[warp][seat.n][z_place(seat.fragment_lane())];
    EC_UNROLL
    for (int e = 0; e < 4; ++e) z.x[e] += part.x[e];
  }
  EC_UNROLL
  for (int e = 0; e < 4; ++e) {
    const float value = z.x[e] + shared.small[plan.outputs * kUnits + seat.unit(e / 2)];
    own.a[e] = value < 0.0f || !(own.kept >> e & 1) ? 0.0f : value * plan.scale;
  }
}

/* Two outputs' parts of the logits: of four rows for one output, as a lane pushes them to one block. */
struct Pushed {
  float part[2][2]; /* [output][row] */
  Quad rows;
};

/* The block's units' part of the logits of outputs `first` and the next, summed over lanes and handed on so
 * that each lane has four rows of one output, which it pushes into one block. */
template <class Team>
EC_DEVICE void push_logits(const Team& team, PerThread<Own, kHostThreads>& own, int first, int parity) {
  PerThread<Pushed, kHostThreads> pushed;
  team.each_alone([&](int t) {
    const ClusterShared& shared = team.shared(t);
    const Seat seat(team.in_block(t));
    EC_UNROLL
    for (int k = 0; k < 2; ++k) {
      const bool is = first + k < shared.plan.outputs;
      const float* w2 = &shared.small[(first + k) * kUnits];
      const float w[2] = {is ? w2[seat.unit(0)] : 0.0f, is ? w2[seat.unit(1)] : 0.0f};
      EC_UNROLL
      for (int e = 0; e < 2; ++e) pushed[t].part[k][e] = fmaf(own[t].a[2 + e], w[1], own[t].a[e] * w[0]);
    }
  });
  /* Lanes of tile 0 go on with the first row, of tile 1 with the second; of even g with the first output. */
  for (int k = 0; k < 2; ++k)
    swap(
        team, kOtherTile,
        [&](int t) { return Seat(team.in_block(t)).tile ? pushed[t].part[k][0] : pushed[t].part[k][1]; },
        [&](int t, float other) {
          pushed[t].part[k][0] =
              (Seat(team.in_block(t)).tile ? pushed[t].part[k][1] : pushed[t].part[k][0]) + other;
        });
  swap(
      team, kOtherOutput,
      [&](int t) { return Seat(team.in_block(t)).g % 2 ? pushed[t].part[0][0] : pushed[t].part[1][0]; },
      [&](int t, float other) {
        pushed[t].part[0][0] =
            (Seat(team.in_block(t)).g % 2 ? pushed[t].part[1][0] : pushed[t].part[0][0]) + other;
      });
  EC_UNROLL
  for (int lanes = 2 * kOtherOutput; lanes <= 4 * kOtherOutput; lanes *= 2)
    swap(
        team, lanes, [&](int t) { return pushed[t].part[0][0]; },
        [&](int t, float other) { pushed[t].part[0][0] += other; });
  swap(
      team, kOtherTile, [&](int t) { return pushed[t].part[0][0]; },
      [&](int t, float other) {
        const bool tile = Seat(team.in_block(t)).tile;
        pushed[t].rows.x[0] = tile ? other : pushed[t].part[0][0];
        pushed[t].rows.x[1] = tile ? pushed[t].part[0][0] : other;
      });
  EC_UNROLL
  for (int e = 0; e < 2; ++e)
    swap(
        team, kOtherRows, [&](int t) { return pushed[t].rows.x[e]; },
        [&](int t, float other) { pushed[t].rows.x[2 + e] = other; });
  team.each_alone([&](int t) {
    ClusterShared& shared = team.shared(t);
    const int thread = team.in_block(t), lane = thread % kLanes, output = first + lane / 2 % 2;
    const int rank = lane % 2 | (lane / 2 & 14);
    if (output >= shared.plan.outputs || rank >= team.blocks()) return;
    Quad rows = pushed[t].rows;
    if (lane % 2) rows = {{rows.x[2], rows.x[3], rows.x[0], rows.x[1]}};
    wait(shared.vacated[0], parity);
    float* to = part_of(shared, thread / kLanes, team.rank(t)) + 4 * output;
    push(team.remote(t, rank, to), rows, team.remote(t, rank, &shared.arrived));
  });
}

/* AdamW's constants of a step (from 0). */
EC_DEVICE Constants adamw_of(const Plan& plan, int64_t step) {
  const ec_head& s = *plan.spec;
  const double lr = s.lr * ec_lr_factor(s.schedule, s.warmup, step, plan.all_steps);
  return scaled(ec_adamw_at(lr, s.beta1, s.beta2, s.eps, s.weight_decay, step + 1));
}

/* What the first warp looks up for batches to come, and does not wait for: i is this batch. */
EC_DEVICE void look_ahead(ClusterShared& shared, int row, Own& own, int64_t i, int slot) {
  const Plan& plan = shared.plan;
  own.y = plan.y ? plan.y[shared.row[next_slot(slot)][row]] : 0;
  shared.row[next_slot(next_slot(slot))][row] = own.row;
  own.row = (uint32_t)plan.rows[own.position];
  own.position = position_of(plan, i + 4, row);
}

/* The epoch's loss, by one thread once all of the batch's are there. rows: of that batch. */
EC_DEVICE void add_loss(ClusterShared& shared, int64_t rows) {
  double sum[2] = {0, 0};
  EC_UNROLL
  for (int warp = 0; warp < kWarps; ++warp) sum[warp % 2] += shared.loss[warp];
  shared.epoch_loss += (sum[0] + sum[1]) * (double)rows;
  shared.rows_done += rows;
}

/* Batch i from the warps' sums of z to the blocks' parts of its logits, which are on their way then; its x,
 * and that of the batch that follows, is asked for. slot: of the batch, in shared.row.
 *
 * Every block pushes its part of the logits into every block: into memory that held sums of z, so each waits
 * until all have read those.
 * parity: of the exchanges so far in this launch. phases: of x's copies, where the operands have any.
 * ahead: which of shared.adamw is this step's; at 0 a warp fills them for as many steps. */
template <class Operands, int kOutputs, class Team>
EC_DEVICE void forward_rest(const Team& team, PerThread<Own, kHostThreads>& own,
                            PerThread<typename Operands::Sums, kHostThreads>& sums, int64_t i, int slot,
                            int parity, int ahead, int phases) {
  team.each_thread([&](int t) {
    ClusterShared& shared = team.shared(t);
    const int thread = team.in_block(t), warp = thread / kLanes, lane = thread % kLanes;
    EC_UNROLL
    for (int tile = 0; tile < 2; ++tile) {
      EC_UNROLL
      for (int n = 0; n < 4; ++n) shared.half[tile].z[warp][n][z_place(lane)] = sums[t].z[tile][n];
    }
    aim<Operands>(shared, thread, slot);
    if (thread < kBatch) shared.y[thread] = own[t].y;
    if (thread == kThreads - 1)
      arrive_expect(shared.arrived, team.blocks() * shared.plan.outputs * kBatch * 4);
  });
  team.each_lane([&](int t) {
    activate(team.shared(t), team.in_block(t), own[t]);
    Operands::fence();
  });
  const int vacated = Operands::parity_of(parity, phases);
  team.each_alone([&](int t) { read_half(team.shared(t), team.in_block(t), 0); });
  team.each_alone([&](int t) { /* each warp tells two blocks */
                               const int warp = team.in_block(t) / kLanes, lane = t % kLanes;
                               if (lane < 2) announce(team, t, 2 * warp + lane, 0, vacated);
  });
  push_logits(team, own, 0, vacated);
  if (kOutputs > 2)
    for (int first = 2, outputs = team.any().plan.outputs; first < outputs; first += 2)
      push_logits(team, own, first, vacated);
  team.each_alone([&](int t) {
    ClusterShared& shared = team.shared(t);
    const int thread = team.in_block(t);
    Operands::ask_first(team, t, phases);
    if (thread < kBatch) look_ahead(shared, thread, own[t], i, slot);
    if (ahead == 0 && thread >= kThreads - kTable)
      shared.adamw[thread % kTable] = adamw_of(shared.plan, shared.plan.first_step + i + thread % kTable);
  });
  draw(team, own, i + 1); /* while the parts are under way */
}

}  // namespace ec
#endif
