/* The operands of a cluster's passes in TF32 (cluster.cuh): where a thread's weights are, and how x comes:
 * each warp copies its own 8 of 64 inputs in the background (cp.async), two chunks ahead. */
#ifndef EMBEDCACHE_CUDA_CLUSTER_TF32_CUH
#define EMBEDCACHE_CUDA_CLUSTER_TF32_CUH

#include "cluster_state.cuh"

namespace ec {

struct Tf32 {
  struct Sums {
    FragmentA dz[2][4];
    FragmentC z[2][4];
  };

  /* A thread's part of a chunk. */
  struct Work {
    FragmentB now[4], next[4]; /* x of this batch and of the next */
    FragmentC gradient[2];
    FragmentA w[2];
  };

  static constexpr int kPerPass = 1; /* chunks of 64 inputs that a pass takes at a time */

  static EC_FN_METHOD int chunks(int dim) { return chunk_count(dim); }
  static EC_FN_METHOD const void* x_of(const View& view) { return view.ready; }

  /* Quads lie as FragmentA, so that the updated weights are an operand as they stand: the gradient's
   * FragmentC has the same numbers, those in the middle swapped. */
  static EC_DEVICE_METHOD int unit_of(int i, int tile, int e) {
    return 16 * tile + i % kLanes / 4 + e % 2 * 8;
  }
  static EC_DEVICE_METHOD int input_of(int i, int chunk, int e) {
    return chunk * kChunk + i / kLanes * 8 + i % 4 * 2 + e / 2;
  }

  static EC_DEVICE_METHOD void load_dz(const ClusterShared& shared, int thread, Sums& sums) {
    EC_UNROLL
    for (int tile = 0; tile < 2; ++tile) {
      EC_UNROLL
      for (int k = 0; k < 4; ++k) {
        EC_UNROLL
        for (int e = 0; e < 4; ++e)
          sums.dz[tile][k].x[e] = to_tf32(shared.half[1].exchange.dz[tile][k][z_place(thread % kLanes)].x[e]);
        sums.z[tile][k] = {};
      }
    }
  }

  static EC_DEVICE_METHOD void fence() {}

  static EC_DEVICE_METHOD void begin(ClusterShared&) {}

  /* Only the exchange writes into other blocks' halves. */
  static EC_DEVICE_METHOD int parity_of(int parity, int) { return parity; }

  template <class Team>
  static EC_DEVICE_METHOD void first_copy(const Team& team) {
    team.each_alone([&](int t) { ask_first(team, t, 0); });
  }

  /* Where the exchange is each warp puts x of its own. */
  template <class Team>
  static EC_DEVICE_METHOD void leave_exchange(const Team& team, int) {
    team.each_thread([](int) {});
    team.each_alone([&](int t) { ask(team, t, 1, 0); });
  }

  template <class Team>
  static EC_DEVICE_METHOD void ask_first(const Team& team, int t, int) {
    ask(team, t, 0, 0);
  }

  /* Rows 2q and 2q + 1 of eight lie in places q and q + 4, where the gradient's k slots look for them. */
  static EC_DEVICE_METHOD int place(int row) { return row / 8 * 8 + row % 2 * 4 + row % 8 / 2; }

  /* The warp's 8 inputs of a chunk, of this batch and the next; each lane asks for 16 bytes of four rows. */
  template <class Team>
  static EC_DEVICE_METHOD void ask(const Team& team, int t, int chunk, int) {
    ClusterShared& shared = team.shared(t);
    const Plan& plan = shared.plan;
    const int warp = team.in_block(t) / kLanes, lane = team.in_block(t) % kLanes, column = lane % 2 * 4;
    if (chunk < plan.chunks) {
      const float* x = (const float*)plan.x + warp * 8 + column;
      const float* from[4]; /* all looked up before the first copy */
      EC_UNROLL
      for (int part = 0; part < 4; ++part)
        from[part] = x + (uint64_t)shared.at[part / 2][part % 2 * 16 + lane / 2] * kChunk;
      EC_UNROLL
      for (int part = 0; part < 4; ++part) {
        const int next = part / 2, row = part % 2 * 16 + lane / 2;
        copy_async(t, &shared.half[chunk % 2].x[warp][next][next ? row : place(row)][column],
                   from[part] + chunk * kChunk);
      }
    }
    copy_commit(t);
  }

  static EC_DEVICE_METHOD void load_now(const ClusterShared& shared, int half, int thread, FragmentB* now) {
    const int g = thread % kLanes / 4, q = thread % 4;
    const auto& x = shared.half[half].x[thread / kLanes][0];
    EC_UNROLL
    for (int k = 0; k < 4; ++k) now[k] = {{x[8 * k + q][g], x[8 * k + q + 4][g]}};
  }

  static EC_DEVICE_METHOD void load_next(const ClusterShared& shared, int half, int thread, FragmentB* next) {
    const int g = thread % kLanes / 4, q = thread % 4;
    const auto& x = shared.half[half].x[thread / kLanes][1];
    EC_UNROLL
    for (int n = 0; n < 4; ++n) next[n] = *(const FragmentB*)&x[8 * n + g][2 * q];
  }

  /* One chunk: its gradient, AdamW, and its part of the next batch's z. update(t, gradient, chunk, tile)
   * gives the updated weights. */
  template <class Team, class Update>
  static EC_DEVICE_METHOD void chunk_pass(const Team& team, PerThread<Sums, kHostThreads>& sums, int chunk,
                                          int, int& phases, Update update) {
    PerThread<Work, kHostThreads> work;
    team.each_lane([&](int t) { copy_wait<1>(t); });
    team.each_lane([&](int t) {
      load_now(team.shared(t), chunk % 2, team.in_block(t), work[t].now);
      load_next(team.shared(t), chunk % 2, team.in_block(t), work[t].next);
      work[t].gradient[0] = work[t].gradient[1] = {};
    });
    team.each_alone([&](int t) { ask(team, t, chunk + 2, phases); });
    EC_UNROLL
    for (int k = 0; k < 4; ++k) {
      EC_UNROLL
      for (int tile = 0; tile < 2; ++tile)
        multiply(
            team, [&](int t) -> FragmentC& { return work[t].gradient[tile]; },
            [&](int t) { return sums[t].dz[tile][k]; }, [&](int t) { return work[t].now[k]; });
    }
    team.each_alone([&](int t) {
      EC_UNROLL
      for (int tile = 0; tile < 2; ++tile) {
        const FragmentC& g = work[t].gradient[tile];
        const Quad w = update(t, Quad{{g.x[0], g.x[2], g.x[1], g.x[3]}}, chunk, tile);
        work[t].w[tile] = {{to_tf32(w.x[0]), to_tf32(w.x[1]), to_tf32(w.x[2]), to_tf32(w.x[3])}};
      }
    });
    EC_UNROLL
    for (int tile = 0; tile < 2; ++tile) {
      EC_UNROLL
      for (int n = 0; n < 4; ++n)
        multiply(
            team, [&](int t) -> FragmentC& { return sums[t].z[tile][n]; },
            [&](int t) { return work[t].w[tile]; }, [&](int t) { return work[t].next[n]; });
    }
  }

  /* x of a batch that was given up. */
  template <class Team>
  static EC_DEVICE_METHOD void drain(const Team& team, int, bool) {
    team.each_alone([&](int t) { copy_wait<0>(t); });
  }
};

}  // namespace ec
#endif
