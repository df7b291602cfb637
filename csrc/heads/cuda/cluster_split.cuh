/* The operands of a cluster's passes in float32 (cluster.cuh), by TF32's tensor cores: each number is the sum
 * of two of TF32, which hold 22 of its 24 bits, and of their four products the three larger ones are added,
 * the smaller ones first. Where weights are and how x comes is as in TF32; x is not rounded.
 */
#ifndef EMBEDCACHE_CUDA_CLUSTER_SPLIT_CUH
#define EMBEDCACHE_CUDA_CLUSTER_SPLIT_CUH

#include "cluster_tf32.cuh"

namespace ec {

/* The nearest number of TF32, with nothing below. */
EC_DEVICE float whole_tf32(float value) {
  const float rounded = to_tf32(value);
  uint32_t bits;
  memcpy(&bits, &rounded, 4);
  bits &= ~0x1FFFu;
  float whole;
  memcpy(&whole, &bits, 4);
  return whole;
}

/* A fragment as two of TF32: the product cuts off what `low` has beyond. */
template <class Fragment, int kCount>
struct SplitOf {
  Fragment high, low;

  EC_DEVICE_METHOD void set(const Fragment& of) {
    EC_UNROLL
    for (int e = 0; e < kCount; ++e) {
      high.x[e] = whole_tf32(of.x[e]);
      low.x[e] = of.x[e] - high.x[e];
    }
  }
};
using SplitA = SplitOf<FragmentA, 4>;
using SplitB = SplitOf<FragmentB, 2>;

/* c(t) += a(t) b(t) by every warp; all three give references. */
template <class Team, class C, class A, class B>
EC_DEVICE void multiply_split(const Team& team, C c, A a, B b) {
  multiply(team, c, [&](int t) { return a(t).low; }, [&](int t) { return b(t).high; });
  multiply(team, c, [&](int t) { return a(t).high; }, [&](int t) { return b(t).low; });
  multiply(team, c, [&](int t) { return a(t).high; }, [&](int t) { return b(t).high; });
}

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
