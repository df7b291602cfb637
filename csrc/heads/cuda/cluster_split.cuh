/* The operands of a cluster's passes in float32 (cluster.cuh), by TF32's tensor cores (split.cuh). Where
 * weights are and how x comes is as in TF32; x is not rounded.
 */
#ifndef EMBEDCACHE_CUDA_CLUSTER_SPLIT_CUH
#define EMBEDCACHE_CUDA_CLUSTER_SPLIT_CUH

#include "cluster_tf32.cuh"
#include "split.cuh"

namespace ec {

struct Split : Tf32 {
  struct Work {
    FragmentB x[4]; /* of this batch, then of the next */
    FragmentC gradient[2];
    SplitA a, w[2];
    SplitB b;
  };

  static EC_DEVICE_METHOD void load_dz(const ClusterShared& shared, int thread, Sums& sums) {
    EC_UNROLL
    for (int tile = 0; tile < 2; ++tile) {
      EC_UNROLL
      for (int k = 0; k < 4; ++k) {
        sums.dz[tile][k] = shared.half[1].exchange.dz[tile][k][z_place(thread % kLanes)];
        sums.z[tile][k] = {};
      }
    }
  }

  template <class Team, class Update>
  static EC_DEVICE_METHOD void chunk_pass(const Team& team, PerThread<Sums, kHostThreads>& sums, int chunk,
                                          int, int& phases, Update update) {
    PerThread<Work, kHostThreads> work;
    team.each_lane([&](int t) { copy_wait<1>(t); });
    team.each_lane([&](int t) {
      load_now(team.shared(t), chunk % 2, team.in_block(t), work[t].x);
      work[t].gradient[0] = work[t].gradient[1] = {};
    });
    EC_UNROLL
    for (int k = 0; k < 4; ++k) {
      team.each_alone([&](int t) { work[t].b.set(work[t].x[k]); });
      EC_UNROLL
      for (int tile = 0; tile < 2; ++tile) {
        team.each_alone([&](int t) { work[t].a.set(sums[t].dz[tile][k]); });
        multiply_split(
            team, [&](int t) -> FragmentC& { return work[t].gradient[tile]; },
            [&](int t) -> const SplitA& { return work[t].a; },
            [&](int t) -> const SplitB& { return work[t].b; });
      }
    }
    team.each_alone([&](int t) {
      EC_UNROLL
      for (int tile = 0; tile < 2; ++tile) {
        const FragmentC& g = work[t].gradient[tile];
        work[t].w[tile].set(update(t, Quad{{g.x[0], g.x[2], g.x[1], g.x[3]}}, chunk, tile));
      }
    });
    team.each_lane([&](int t) { load_next(team.shared(t), chunk % 2, team.in_block(t), work[t].x); });
    team.each_alone([&](int t) { ask(team, t, chunk + 2, phases); });
    EC_UNROLL
    for (int n = 0; n < 4; ++n) {
      team.each_alone([&](int t) { work[t].b.set(work[t].x[n]); });
      EC_UNROLL
      for (int tile = 0; tile < 2; ++tile)
        multiply_split(
            team, [&](int t) -> FragmentC& { return sums[t].z[tile][n]; },
            [&](int t) -> const SplitA& { return work[t].w[tile]; },
            [&](int t) -> const SplitB& { return work[t].b; });
    }
  }
};

}  // namespace ec
#endif
