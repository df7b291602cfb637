/* What a cluster does with a head between the passes over its first layer (cluster.cuh): activation, logits,
 * loss, the gradient back to the hidden units, and AdamW for the small parameters.
 *
 * Every block of the cluster computes loss and gradient of all rows from the same sums, added in the same
 * order: so they agree to the bit, and nobody waits for one of them. Nothing here touches memory beyond the
 * processor but for the rows' numbers and classes, which are fetched a step and two ahead: bound by latency,
 * that of nine barriers, of the exchange and of the loads and special functions between them.
 */
#ifndef EMBEDCACHE_CUDA_CLUSTER_MATH_CUH
#define EMBEDCACHE_CUDA_CLUSTER_MATH_CUH

#include "cluster_state.cuh"

namespace ec {

/* ---- Forward, from z on ---- */

/* Which of the thread's four units and rows of a step dropout leaves. Drawn ahead of the step. */
EC_DEVICE void draw(const Plan& plan, int thread, int64_t step, Own& own) {
  own.kept = 15;
  if (!plan.threshold) return;
  const int n = thread / 64, h = thread / kLanes % 2, lane = thread % kLanes;
  const uint32_t unit = (uint32_t)(plan.unit0 / 64 * 16 + 8 * h + lane / 4);
  EC_UNROLL
  for (int e = 0; e < 2; ++e) {
    const uint32_t row = (uint32_t)(8 * n + lane % 4 * 2 + e);
    const ec_words words = ec_philox(plan.seed, unit, row, (uint32_t)step, EC_DOMAIN_DROPOUT);
    EC_UNROLL
    for (int tile = 0; tile < 2; ++tile) {
      const uint32_t word = plan.unit0 % 64 ? words.word[2 + tile] : words.word[tile];
      if (word < plan.threshold) own.kept &= ~(1u << (2 * tile + e));
    }
  }
}

/* z of the thread's four units and rows, [tile][row], summed over the warps: bias, ReLU, dropout. */
EC_DEVICE void activate(const ClusterShared& shared, int thread, Own& own) {
  const Plan& plan = shared.plan;
  const int n = thread / 64, h = thread / kLanes % 2, lane = thread % kLanes;
  const int unit = 8 * h + lane / 4;
  FragmentB z[2] = {};
  EC_UNROLL
  for (int tile = 0; tile < 2; ++tile) {
    EC_UNROLL
    for (int warp = 0; warp < kWarps; ++warp) {
      const FragmentB part = *(const FragmentB*)&shared.half[tile].z[warp][n][lane][2 * h];
      z[tile].x[0] += part.x[0];
      z[tile].x[1] += part.x[1];
    }
  }
  EC_UNROLL
  for (int e = 0; e < 2; ++e) {
    EC_UNROLL
    for (int tile = 0; tile < 2; ++tile) {
      const float value = z[tile].x[e] + shared.small[plan.outputs * kUnits + 16 * tile + unit];
      const bool kept = own.kept >> (2 * tile + e) & 1;
      own.a[tile][e] = value < 0.0f || !kept ? 0.0f : value * plan.scale;
    }
  }
}

/* The row's loss and its weight; exp and log of the special-function unit. */
EC_DEVICE void row_loss(const Plan& plan, Exchange& exchange, int r, uint32_t row, int32_t y) {
  const Loss& l = plan.loss;
  const float* logits = exchange.logits[r];
  const float* targets = plan.targets ? plan.targets + (int64_t)row * l.outputs : nullptr;
  exchange.back.weight[r] = row_weight(l, y);
  if (l.kind != EC_KIND_CLASSES) {
    exchange.back.loss[r] =
        l.kind == EC_KIND_LABELS ? label_loss(l, logits, targets) : number_loss(l, logits, targets);
    return;
  }
  float top = logits[0], sum = 0.0f;
  for (int c = 1; c < l.outputs; ++c) top = logits[c] > top ? logits[c] : top;
  for (int c = 0; c < l.outputs; ++c) sum += fast_exp(logits[c] - top);
  exchange.back.log_sum[r] = top + logf(sum);
  exchange.back.loss[r] = class_loss(l, logits, y, exchange.back.log_sum[r], exchange.back.mass + r);
}

/* AdamW's constants of a step (from 0). */
EC_DEVICE Constants adamw_of(const Plan& plan, int64_t step) {
  const ec_head& s = *plan.spec;
  const double lr = s.lr * ec_lr_factor(s.schedule, s.warmup, step, plan.all_steps);
  return {ec_adamw_at(lr, s.beta1, s.beta2, s.eps, s.weight_decay, step + 1)};
}

/* Rows of batch i. */
EC_DEVICE int rows_of(const Plan& plan, int64_t i) {
  const int64_t left = plan.n - i * plan.batch;
  return (int)(left < plan.batch ? left : plan.batch);
}

/* Batch i from the warps' sums of z to its loss, in shared.loss; its x, and that of the batch that follows,
 * is asked for on the way. slot: of the batch, in shared.row.
 *
 * Every block pushes its part of the logits into every block: into memory that held sums of z, so each first
 * says that it is done with those (room). parity: of the exchanges so far in this launch.
 * ahead: which of shared.adamw is this step's; at 0 a warp fills them for as many steps.
 * phases: of x's copies, where the operands have any. */
template <class Operands, class Team>
EC_DEVICE void forward_rest(const Team& team, PerThread<Own, kHostThreads>& own,
                            PerThread<typename Operands::Sums, kHostThreads>& sums, int64_t i, int slot,
                            int parity, int ahead, int phases) {
  team.each_thread([&](int t) {
    const int thread = team.in_block(t), warp = thread / kLanes, lane = thread % kLanes;
    for (int tile = 0; tile < 2; ++tile)
      for (int n = 0; n < 4; ++n) *(Quad*)team.shared(t).half[tile].z[warp][n][lane] = sums[t].z[tile][n];
  });
  team.each_thread([&](int t) {
    ClusterShared& shared = team.shared(t);
    activate(shared, team.in_block(t), own[t]);
    aim<Operands>(shared, team.in_block(t), slot);
    Operands::fence();
  });
  team.each_thread([&](int t) {
    ClusterShared& shared = team.shared(t);
    const Plan& plan = shared.plan;
    const int thread = team.in_block(t), n = thread / 64, h = thread / kLanes % 2, lane = thread % kLanes;
    for (int tile = 0; tile < 2; ++tile)
      for (int e = 0; e < 2; ++e)
        shared.half[1].exchange.a[16 * tile + 8 * h + lane / 4][8 * n + lane % 4 * 2 + e] = own[t].a[tile][e];
    Operands::vacate(team, t, 0);
    if (thread == kThreads - 1) arrive_expect(shared.arrived, team.blocks() * plan.outputs * kBatch * 4);
    if (thread / kLanes == 1 && lane < team.blocks()) arrive(team.remote(t, lane, &shared.room));
    if (thread >= kBatch) return;
    shared.row[next_slot(next_slot(slot))][thread] = own[t].row;
    own[t].row = (uint32_t)plan.rows[own[t].position];
    own[t].position = position_of(plan, i + 4, thread);
    own[t].y = plan.y ? plan.y[shared.row[slot][thread]] : 0;
  });
  team.each_alone([&](int t) { Operands::ask(team, t, 0, phases); });
  team.each_thread([&](int t) { /* the block's units' part of the logits */
                                ClusterShared& shared = team.shared(t);
                                Exchange& exchange = shared.half[1].exchange;
                                const int e = team.in_block(t), r = e % kBatch, c = e / kBatch;
                                if (c >= shared.plan.outputs) return;
                                float sum = 0.0f;
                                EC_UNROLL
                                for (int u = 0; u < kUnits; ++u)
                                  sum = fmaf(exchange.a[u][r], shared.small[c * kUnits + u], sum);
                                exchange.own_part[e] = sum;
  });
  team.each_alone(
      [&](int t) { /* to all blocks: a thread has four rows for one of them at a time */
                   ClusterShared& shared = team.shared(t);
                   Exchange& exchange = shared.half[1].exchange;
                   const int blocks = team.blocks(), all = shared.plan.outputs * kBatch / 4 * blocks;
                   if (team.in_block(t) >= all) return;
                   wait(shared.room, parity);
                   for (int i = team.in_block(t); i < all; i += kThreads) {
                     const int rank = i & (blocks - 1),
                               first = (i >> shared.plan.log_blocks) * 4; /* a power of two */
                     push(team.remote(t, rank, &exchange.parts[team.rank(t)][first]),
                          *(const Quad*)&exchange.own_part[first], team.remote(t, rank, &shared.arrived));
                   }
      });
  team.each_thread([&](int t) {
    ClusterShared& shared = team.shared(t);
    Exchange& exchange = shared.half[1].exchange;
    const int e = team.in_block(t), c = e / kBatch, outputs = shared.plan.outputs;
    if (c >= outputs) return;
    wait(shared.arrived, parity);
    float sum = shared.small[(outputs + 1) * kUnits + c];
    EC_UNROLL
    for (int rank = 0; rank < kMaxCluster; ++rank) {
      const float part = exchange.parts[rank][e];
      sum += rank < team.blocks() ? part : 0.0f;
    }
    exchange.logits[e % kBatch][c] = sum;
  });
  team.each_lane([&](int t) { /* what comes up to the next barrier of the block is the first warp's affair */
                              ClusterShared& shared = team.shared(t);
                              Exchange& exchange = shared.half[1].exchange;
                              const int r = team.in_block(t);
                              if (ahead == 0 && r >= kThreads - kTable)
                                shared.adamw[r % kTable] =
                                    adamw_of(shared.plan, shared.plan.first_step + i + r % kTable);
                              if (r >= kBatch) return;
                              exchange.y[r] = own[t].y;
                              exchange.back.loss[r] = exchange.back.weight[r] = 0.0;
                              if (r < rows_of(shared.plan, i))
                                row_loss(shared.plan, exchange, r, shared.row[slot][r], own[t].y);
  });
  team.each_lane([&](int t) { /* 32 numbers in two rounds: fewer additions one after the other */
                              Exchange& exchange = team.shared(t).half[1].exchange;
                              const int j = team.in_block(t) % 8, which = team.in_block(t) / 8;
                              if (which > 1) return;
                              const double* from =
                                  (which ? exchange.back.weight : exchange.back.loss) + 4 * j;
                              exchange.back.part[which][j] = (from[0] + from[1]) + (from[2] + from[3]);
  });
  team.each_thread([&](int t) {
    ClusterShared& shared = team.shared(t);
    if (team.in_block(t) > 0) return;
    const auto& part = shared.half[1].exchange.back.part;
    double sum[2] = {0, 0};
    for (int j = 0; j < 8; ++j)
      for (int which = 0; which < 2; ++which) sum[which] += part[which][j];
    shared.over_weight = 1.0 / sum[1];
    shared.loss = sum[0] / sum[1];
  });
}

/* ---- Backward, to the hidden units ---- */

template <class Team>
EC_DEVICE void backward_start(const Team& team, PerThread<Own, kHostThreads>& own, int64_t i, int slot) {
  team.each_thread([&](int t) {
    ClusterShared& shared = team.shared(t);
    const Plan& plan = shared.plan;
    Exchange& exchange = shared.half[1].exchange;
    const int e = team.in_block(t), r = e % kBatch, c = e / kBatch, rows = rows_of(plan, i);
    if (e == kThreads - 1) { /* in a warp that has nothing else to do */
      shared.epoch_loss += shared.loss * rows;
      shared.rows_done += rows;
    }
    if (c >= plan.outputs) return;
    const float* targets =
        plan.targets ? plan.targets + (int64_t)shared.row[slot][r] * plan.outputs : nullptr;
    const float z = exchange.logits[r][c];
    const double softmax = plan.loss.kind == EC_KIND_CLASSES ? fast_exp(z - exchange.back.log_sum[r]) : 0.0;
    const double gradient = loss_gradient(plan.loss, z, c, exchange.y[r], targets, softmax,
                                          exchange.back.log_sum[r], exchange.back.mass[r]);
    exchange.gradient[r][c] = r < rows ? (float)(gradient * shared.over_weight) : 0.0f;
  });
  team.each_thread([&](int t) { /* through w2 as it was, dropout and ReLU */
                                ClusterShared& shared = team.shared(t);
                                Exchange& exchange = shared.half[1].exchange;
                                const int thread = team.in_block(t), n = thread / 64, h = thread / kLanes % 2,
                                          lane = thread % kLanes;
                                float sum[2][2] = {}; /* [tile][row] */
                                EC_UNROLL
                                for (int c = 0; c < kClusterOutputs; ++c) {
                                  if (c >= shared.plan.outputs) break;
                                  EC_UNROLL
                                  for (int tile = 0; tile < 2; ++tile) {
                                    EC_UNROLL
                                    for (int e = 0; e < 2; ++e)
                                      sum[tile][e] =
                                          fmaf(exchange.gradient[8 * n + lane % 4 * 2 + e][c],
                                               shared.small[c * kUnits + 16 * tile + 8 * h + lane / 4],
                                               sum[tile][e]);
                                  }
                                }
                                EC_UNROLL
                                for (int tile = 0; tile < 2; ++tile) {
                                  EC_UNROLL
                                  for (int e = 0; e < 2; ++e)
                                    exchange.back.dz[tile][n][lane].x[h + 2 * e] =
                                        own[t].a[tile][e] > 0.0f ? sum[tile][e] * shared.plan.scale : 0.0f;
                                }
  });
}

/* AdamW for the thread's small parameter, whose gradient is a sum over the batch. */
template <class Team>
EC_DEVICE void update_small(const Team& team, int t, Own& own, int ahead) {
  ClusterShared& shared = team.shared(t);
  const Exchange& exchange = shared.half[1].exchange;
  const int i = team.in_block(t), outputs = shared.plan.outputs, c = i / kUnits, u = i % kUnits;
  if (ahead == kTable || i >= (outputs + 1) * kUnits + outputs) return;
  float sum = 0.0f;
  if (c < outputs) {
    EC_UNROLL
    for (int r = 0; r < kBatch; ++r) sum = fmaf(exchange.gradient[r][c], exchange.a[u][r], sum);
  } else if (c == outputs) {
    for (int k = 0; k < 4; ++k)
      for (int q = 0; q < 4; ++q)
        for (int e = 0; e < 2; ++e) sum += exchange.back.dz[u / 16][k][u % 8 * 4 + q].x[u / 8 % 2 + 2 * e];
  } else {
    EC_UNROLL
    for (int r = 0; r < kBatch; ++r) sum += exchange.gradient[r][u];
  }
  fast_adamw_update(sum, &shared.small[i], &own.m, &own.v, shared.adamw[ahead]);
}

}  // namespace ec
#endif
