/* Linear probes from the logits of a warp's rows to their loss and gradient (probes.cuh): lane 4 g + q has
 * the warp's row q and the block's probe g. */
#ifndef EMBEDCACHE_CUDA_PROBES_LOSS_CUH
#define EMBEDCACHE_CUDA_PROBES_LOSS_CUH

#include "probes_state.cuh"

namespace ec {

/* A lane's row of a probe. */
template <int kOutputs>
struct LaneRow {
  float logit[kOutputs], gradient[kOutputs], b_sum[kOutputs];
  double over_weight, loss;
};

/* 1 / what a batch's rows weigh together, for the lanes of each probe. */
template <int kOutputs, class Team>
EC_DEVICE void weigh(const Team& team, PerThread<LaneRow<kOutputs>, kHostThreads>& back, int rows) {
  team.each_alone([&](int t) {
    const auto& shared = team.shared(t);
    const int g = t % kLanes / kRowsOfWarp;
    back[t].over_weight = 0.0;
    if (g < shared.task.probes)
      back[t].over_weight = rows < shared.task.batch ? shared.probe[g].over_last : shared.probe[g].over_full;
  });
  for (int g = 0, probes = team.any().task.probes; g < probes; ++g) {
    const Loss& loss = team.any().probe[g].loss;
    if (loss.kind != EC_KIND_CLASSES || !loss.weight) continue;
    PerThread<double, kHostThreads> sum;
    team.each_alone([&](int t) {
      const auto& shared = team.shared(t);
      sum[t] = 0.0;
      for (int r = t % kLanes; r < rows; r += kLanes) sum[t] += row_weight(shared.probe[g].loss, shared.y[r]);
    });
    for (int lanes = 1; lanes < kLanes; lanes *= 2)
      swap(team, lanes, [&](int t) { return sum[t]; }, [&](int t, double other) { sum[t] += other; });
    team.each_alone([&](int t) {
      if (t % kLanes / kRowsOfWarp == g) back[t].over_weight = 1.0 / sum[t];
    });
  }
}

/* Loss and gradient of the lane's row of a probe: lane 4 g + q has the warp's row q and probe g. */
template <int kOutputs, class Shared>
EC_DEVICE void row_of_probe(Shared& shared, int thread, int b, int first, int rows, LaneRow<kOutputs>& back) {
  const int g = thread % kLanes / kRowsOfWarp, q = thread % kRowsOfWarp, warp = thread / kLanes;
  const int r = first + q * kWarps + warp;
  if (g >= shared.task.probes || r >= kProbeRows) return;
  const ProbePlan& p = shared.probe[g];
  const int outputs = p.loss.outputs;
  EC_UNROLL
  for (int c = 0; c < kOutputs; ++c) {
    back.logit[c] = c < outputs ? shared.logits[warp][q][p.first + c] + shared.b[p.first + c] : 0.0f;
    back.gradient[c] = 0.0f;
  }
  if (r < rows) {
    const uint32_t row = shared.row[b % 4][r];
    const double over = back.over_weight * sample_weight_of(shared.task.sample_weight, row);
    back.loss += over * row_loss<kOutputs>(p.loss, shared.y[r], shared.task.targets, row, over, back);
  }
  EC_UNROLL
  for (int c = 0; c < kOutputs; ++c) {
    if (c >= outputs) break;
    shared.dz[r][p.first + c] = back.gradient[c];
    back.b_sum[c] += back.gradient[c];
  }
}

}  // namespace ec
#endif
