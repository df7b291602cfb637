/* What a cluster does with a head from the blocks' parts of the logits (cluster_math.cuh) to the gradient of
 * the hidden units, and AdamW for the small parameters.
 *
 * Every block of the cluster computes loss and gradient of all rows from the same sums, added in the same
 * order: so they agree to the bit, and nobody waits for one of them. A row is that of 8 lanes of a warp.
 */
#ifndef EMBEDCACHE_CUDA_CLUSTER_LOSS_CUH
#define EMBEDCACHE_CUDA_CLUSTER_LOSS_CUH

#include "cluster_state.cuh"
#include "row_loss.cuh"

namespace ec {

/* A thread's row once its logits are there, then its two rows and units. */
template <int kOutputs>
struct Back {
  float logit[kOutputs + kOutputs % 2];
  float gradient[kOutputs];                 /* of the thread's row, by its logits */
  float both[2][kOutputs];                  /* of its two rows */
  float sum[kOutputs + 1][2], b2[kOutputs]; /* of w2 and b1, by unit */
  double loss;                              /* of the row, then of the warp's */
};

/* 1 / what a batch's rows weigh together, the same in all lanes. */
template <class Team>
EC_DEVICE void weigh(const Team& team, PerThread<double, kHostThreads>& over_weight, int rows) {
  const Loss& loss = team.any().plan.loss;
  const bool differ = loss.kind == EC_KIND_CLASSES && loss.weight;
  team.each_alone([&](int t) {
    const ClusterShared& shared = team.shared(t);
    const int row = t % kLanes;
    over_weight[t] = rows < shared.plan.batch ? shared.plan.over_last : shared.plan.over_full;
    if (differ) over_weight[t] = row < rows ? row_weight(shared.plan.loss, shared.y[row]) : 0.0;
  });
  if (!differ) return;
  for (int lanes = 1; lanes < kLanes; lanes *= 2)
    swap(
        team, lanes, [&](int t) { return over_weight[t]; },
        [&](int t, double other) { over_weight[t] += other; });
  team.each_alone([&](int t) { over_weight[t] = 1.0 / over_weight[t]; });
}

/* The logits of outputs `first` and the next for the thread's row: 8 lanes share out two outputs and the
 * blocks. */
template <int kOutputs, class Team>
EC_DEVICE void sum_parts(const Team& team, PerThread<Back<kOutputs>, kHostThreads>& back, int first) {
  PerThread<float, kHostThreads> sum;
  team.each_alone([&](int t) {
    ClusterShared& shared = team.shared(t);
    const int thread = team.in_block(t), outputs = shared.plan.outputs;
    const Seat seat(thread);
    const int output = first + seat.g % 2;
    const float* const from = part_of(shared, thread / kLanes, 0) + 4 * output + seat.row(seat.tile) % 4;
    const int stride = part_of(shared, 0, 1) - part_of(shared, 0, 0);
    sum[t] = 0.0f;
    EC_UNROLL
    for (int rank = seat.g / 2; rank < kMaxCluster; rank += 4)
      if (output < outputs && rank < team.blocks()) sum[t] += from[rank * stride];
  });
  EC_UNROLL
  for (int lanes = 2 * kOtherOutput; lanes <= 4 * kOtherOutput; lanes *= 2)
    swap(team, lanes, [&](int t) { return sum[t]; }, [&](int t, float other) { sum[t] += other; });
  team.each_alone([&](int t) {
    const ClusterShared& shared = team.shared(t);
    const int output = first + Seat(team.in_block(t)).g % 2;
    if (output < shared.plan.outputs) sum[t] += shared.small[(shared.plan.outputs + 1) * kUnits + output];
  });
  swap(
      team, kOtherOutput, [&](int t) { return sum[t]; },
      [&](int t, float other) {
        const bool odd = Seat(team.in_block(t)).g % 2;
        back[t].logit[first] = odd ? other : sum[t];
        back[t].logit[first + 1] = odd ? sum[t] : other;
      });
}

/* By the gradient of the thread's rows: the gradient of its units' z, and what the rows add to that of w2 and
 * of the biases; through w2 as it was, dropout and ReLU. */
template <int kOutputs>
EC_DEVICE Quad backward(const ClusterShared& shared, int thread, const Own& own, Back<kOutputs>& back) {
  const Plan& plan = shared.plan;
  const Seat seat(thread);
  Quad dz = {}; /* as FragmentA: [h + 2 e] */
  EC_UNROLL
  for (int c = 0; c < kOutputs; ++c) {
    if (c >= plan.outputs) break;
    EC_UNROLL
    for (int h = 0; h < 2; ++h) {
      const float w2 = shared.small[c * kUnits + seat.unit(h)];
      back.sum[c][h] = fmaf(back.both[1][c], own.a[2 * h + 1], back.both[0][c] * own.a[2 * h]);
      EC_UNROLL
      for (int e = 0; e < 2; ++e) dz.x[h + 2 * e] = fmaf(back.both[e][c], w2, dz.x[h + 2 * e]);
    }
    back.b2[c] = back.both[0][c] + back.both[1][c];
  }
  EC_UNROLL
  for (int h = 0; h < 2; ++h) {
    EC_UNROLL
    for (int e = 0; e < 2; ++e)
      dz.x[h + 2 * e] = own.a[2 * h + e] > 0.0f ? dz.x[h + 2 * e] * plan.scale : 0.0f;
    back.sum[kOutputs][h] = dz.x[h] + dz.x[h + 2];
  }
  return dz;
}

/* Output c's sums over the thread's rows, of which the lane keeps one unit's, become sums over the warp's. */
template <int kOutputs, class Team>
EC_DEVICE void add_rows(const Team& team, PerThread<Back<kOutputs>, kHostThreads>& back, int c) {
  swap(
      team, kOtherRows, [&](int t) { return t % 2 ? back[t].sum[c][0] : back[t].sum[c][1]; },
      [&](int t, float other) {
        back[t].sum[c][0] = (t % 2 ? back[t].sum[c][1] : back[t].sum[c][0]) + other;
      });
}

/* Batch i from the parts of its logits to the gradients. Each warp says in shared.loss what its
 * rows add to the loss. rows: of the batch. */
template <int kOutputs, class Team>
EC_DEVICE void backward_start(const Team& team, PerThread<Own, kHostThreads>& own, int rows, int slot,
                              int parity) {
  PerThread<Back<kOutputs>, kHostThreads> back;
  PerThread<double, kHostThreads> over_weight;
  const int outputs = team.any().plan.outputs;
  weigh(team, over_weight, rows);
  team.each_alone([&](int t) { wait(team.shared(t).arrived, parity); });
  EC_UNROLL
  for (int first = 0; first < kOutputs; first += 2)
    if (first < outputs) sum_parts(team, back, first);
  team.each_lane([&](int t) {
    const ClusterShared& shared = team.shared(t);
    const Seat seat(team.in_block(t));
    const int r = seat.row(seat.tile);
    back[t].loss = 0.0;
    if (r < rows) {
      const uint32_t row = shared.row[slot][r];
      const double over = over_weight[t] * sample_weight_of(shared.plan.sample_weight, row);
      back[t].loss =
          over * row_loss<kOutputs>(shared.plan.loss, shared.y[r], shared.plan.targets, row, over, back[t]);
    } else {
      EC_UNROLL
      for (int c = 0; c < kOutputs; ++c) back[t].gradient[c] = 0.0f;
    }
  });
  EC_UNROLL
  for (int c = 0; c < kOutputs; ++c)
    if (c < outputs)
      swap(
          team, kOtherTile, [&](int t) { return back[t].gradient[c]; },
          [&](int t, float other) {
            const bool second = Seat(team.in_block(t)).tile;
            back[t].both[0][c] = second ? other : back[t].gradient[c];
            back[t].both[1][c] = second ? back[t].gradient[c] : other;
          });
  team.each_alone([&](int t) {
    const int thread = team.in_block(t);
    const Seat seat(thread);
    ClusterShared& shared = team.shared(t);
    shared.half[1].exchange.dz[seat.tile][seat.n][z_place(seat.fragment_lane())] =
        backward(shared, thread, own[t], back[t]);
  });
  EC_UNROLL
  for (int c = 0; c <= kOutputs; ++c)
    if (c < outputs || c == kOutputs) add_rows(team, back, c);
  EC_UNROLL
  for (int c = 0; c < kOutputs; ++c)
    if (c < outputs)
      swap(
          team, kOtherRows, [&](int t) { return back[t].b2[c]; },
          [&](int t, float other) { back[t].b2[c] += other; });
  EC_UNROLL
  for (int lanes = kOtherRows; lanes <= kOtherTile; lanes *= kOtherTile)
    swap(
        team, lanes, [&](int t) { return back[t].loss; },
        [&](int t, double other) { back[t].loss += other; });
  team.each_thread([&](int t) {
    ClusterShared& shared = team.shared(t);
    const int thread = team.in_block(t), unit = Seat(thread).unit(thread % 2);
    float* const sums = part_of(shared, thread / kLanes, 0);
    EC_UNROLL
    for (int c = 0; c < kOutputs; ++c) {
      if (c >= outputs) break;
      sums[c * kUnits + unit] = back[t].sum[c][0];
      if (thread % kLanes == 0) sums[(outputs + 1) * kUnits + c] = back[t].b2[c];
    }
    sums[outputs * kUnits + unit] = back[t].sum[kOutputs][0];
    if (thread % kLanes == 0) shared.loss[thread / kLanes] = back[t].loss;
  });
}

/* Whether the loss of the batch is finite. */
EC_DEVICE bool is_finite(const ClusterShared& shared) {
  double sum = 0.0;
  EC_UNROLL
  for (int warp = 0; warp < kWarps; ++warp) sum += shared.loss[warp];
  return isfinite(sum);
}

/* AdamW for the thread's small parameter, whose gradient is a sum over the warps. */
template <class Team>
EC_DEVICE void update_small(const Team& team, int t, Own& own, int ahead) {
  ClusterShared& shared = team.shared(t);
  const Plan& plan = shared.plan;
  const int thread = team.in_block(t);
  if (ahead == kTable || thread >= (plan.outputs + 1) * kUnits + plan.outputs) return;
  float sum = 0.0f;
  EC_UNROLL
  for (int warp = 0; warp < kWarps; ++warp) sum += part_of(shared, warp, 0)[thread];
  adamw(sum, &shared.small[thread], &own.m, &own.v, shared.adamw[ahead]);
}

}  // namespace ec
#endif
