/* The operands of a cluster's passes in bfloat16 (cluster.cuh), weights and moments in float32 all the same:
 * the twin of ../cpu's compute bfloat16.
 *
 * x comes 128 inputs at a time, once for all blocks of the cluster: each of them copies its share of the rows
 * into all of them, and goes on with a chunk once all of its bytes have landed. Each says by an arrival of
 * each of its warps in every block when a half is vacated; who copies waits for them all. A row's groups of 8
 * inputs are turned by its number (layout.cuh has why): place p of row r holds group (p + r % 8) % 16.
 *
 * phases: bit h is the parity of half h's copies, and of what is vacated before each of them.
 */
#ifndef EMBEDCACHE_CUDA_CLUSTER_BF16_CUH
#define EMBEDCACHE_CUDA_CLUSTER_BF16_CUH

#include "cluster_state.cuh"
#include "mma_bf16.cuh"

namespace ec {

struct Bf16 {
  struct Sums {
    Pairs dz[2][2]; /* FragmentA16 of 16 units and 16 rows */
    FragmentC z[2][4];
  };

  /* A thread's part of a chunk. */
  struct Work {
    Pairs now[2],
        next[2]; /* x: of 8 inputs and all rows of this batch; of 16 inputs and 16 rows of the next */
    FragmentC gradient[2][2]; /* [8 inputs][16 units] */
    Pairs w[2];
  };

  static constexpr int kPerPass = 2;
  static constexpr int kRowBytes = 2 * kWideChunk, kChunkBytes = 2 * kBatch * kRowBytes;

  static EC_FN_METHOD int chunks(int dim) { return kPerPass * wide_chunk_count(dim); }
  static EC_FN_METHOD const void* x_of(const View& view) { return view.wide; }

  /* Quads lie as the gradient's FragmentC: a warp has 16 inputs of 128. */
  static EC_DEVICE_METHOD int unit_of(int i, int tile, int e) {
    return 16 * tile + i % kLanes / 4 + e / 2 * 8;
  }
  static EC_DEVICE_METHOD int input_of(int i, int chunk, int e) {
    return chunk / 2 * kWideChunk + i / kLanes * 16 + chunk % 2 * 8 + i % 4 * 2 + e % 2;
  }

  static EC_DEVICE_METHOD void load_dz(const ClusterShared& shared, int thread, Sums& sums) {
    EC_UNROLL
    for (int tile = 0; tile < 2; ++tile) {
      EC_UNROLL
      for (int k = 0; k < 4; ++k) {
        const Quad dz = shared.half[1].exchange.dz[tile][k][z_place(thread % kLanes)];
        sums.dz[tile][k / 2].x[k % 2 * 2] = pair(dz.x[0], dz.x[2]);
        sums.dz[tile][k / 2].x[k % 2 * 2 + 1] = pair(dz.x[1], dz.x[3]);
        sums.z[tile][k] = {};
      }
    }
    fence();
  }

  /* Of what the thread has written where x will be copied. */
  static EC_DEVICE_METHOD void fence() { fence_copies(); }

  /* By one thread of each block. */
  static EC_DEVICE_METHOD void begin(ClusterShared& shared) {
    for (Mbarrier& landed : shared.landed) init(landed, 1);
  }

  /* The parity of what is vacated before the next copies into the first half. */
  static EC_DEVICE_METHOD int parity_of(int, int phases) { return phases & 1; }

  template <class Team>
  static EC_DEVICE_METHOD void first_copy(const Team& team) {
    team.each_alone([&](int t) { read_half(team.shared(t), team.in_block(t), 0); });
    team.each_alone([&](int t) {
      if (is_warp(team.in_block(t), asker(0))) announce(team, t, t % kLanes, 0, 0);
    });
    team.each_alone([&](int t) { ask_first(team, t, 0); });
  }

  /* The warp is done with the exchange: x may come there, if there is more than a chunk of it. */
  template <class Team>
  static EC_DEVICE_METHOD void leave_exchange(const Team& team, int phases) {
    if (team.any().plan.chunks <= kPerPass) return;
    team.each_alone([&](int t) { read_half(team.shared(t), team.in_block(t), 1); });
    team.each_alone([&](int t) {
      if (is_warp(team.in_block(t), asker(1))) announce(team, t, t % kLanes, 1, phases >> 1 & 1);
    });
  }

  /* Which warp copies a chunk. */
  static EC_DEVICE_METHOD int asker(int chunk) { return kWarps - 1 - chunk % kWarps; }

  /* The block's rows of a chunk, into all blocks, by the lanes of a warp. */
  template <class Team>
  static EC_DEVICE_METHOD void ask(const Team& team, int t, int chunk, int phases) {
    const int lane = t % kLanes;
    if (!is_warp(team.in_block(t), asker(chunk))) return;
    if (lane == 0) arrive_expect(team.shared(t).landed[chunk % 2], kChunkBytes);
    copy_rows(team, t, chunk, lane, kLanes, phases);
  }

  /* Of the first chunk, by a lane of each warp: they have nothing else to do then. */
  template <class Team>
  static EC_DEVICE_METHOD void ask_first(const Team& team, int t, int phases) {
    const int warp = team.in_block(t) / kLanes;
    if (t % kLanes) return;
    if (warp == 0) arrive_expect(team.shared(t).landed[0], kChunkBytes);
    copy_rows(team, t, 0, warp, kWarps, phases);
  }

  /* Every row that is a thread's, of so many that share them out. */
  template <class Team>
  static EC_DEVICE_METHOD void copy_rows(const Team& team, int t, int chunk, int first, int threads,
                                         int phases) {
    ClusterShared& shared = team.shared(t);
    const int half = chunk % 2;
    int row = first * team.blocks() + team.rank(t);
    if (row >= 2 * kBatch) return;
    wait(shared.vacated[half], phases >> half & 1);
    for (; row < 2 * kBatch; row += threads * team.blocks()) {
      const uint16_t* x =
          (const uint16_t*)shared.plan.x + (uint64_t)shared.at[row / kBatch][row % kBatch] * kWideStored;
      copy_to_all(team, t, shared.half[half].wide[row], x + chunk * kWideStored + row % 8 * 8, kRowBytes,
                  &shared.landed[half]);
    }
  }

  static EC_DEVICE_METHOD const uint16_t* group(const Half& half, int row, int number) {
    return &half.wide[row][((number - row % 8) & 15) * 8];
  }

  template <class Team>
  static EC_DEVICE_METHOD void load_x(const Team& team, PerThread<Work, kHostThreads>& work, int h) {
    EC_UNROLL
    for (int k = 0; k < 2; ++k) {
      load_matrices<true>(
          team, [&](int t) -> Pairs& { return work[t].now[k]; },
          [&](int t) {
            const int warp = team.in_block(t) / kLanes, lane = t % kLanes;
            return group(team.shared(t).half[h], lane, 2 * warp + k);
          });
      load_matrices<false>(
          team, [&](int t) -> Pairs& { return work[t].next[k]; },
          [&](int t) {
            const int warp = team.in_block(t) / kLanes, lane = t % kLanes;
            return group(team.shared(t).half[h], kBatch + 16 * k + lane / 16 * 8 + lane % 8,
                         2 * warp + lane / 8 % 2);
          });
    }
  }

  static EC_DEVICE_METHOD FragmentB16 half_of(const Pairs& pairs, int which) {
    return {{pairs.x[2 * which], pairs.x[2 * which + 1]}};
  }

  /* As Tf32's, of 128 inputs. */
  template <class Team, class Update>
  static EC_DEVICE_METHOD void chunk_pass(const Team& team, PerThread<Sums, kHostThreads>& sums, int chunk,
                                          int chunks, int& phases, Update update) {
    PerThread<Work, kHostThreads> work;
    const int half = chunk % 2;
    const bool more = chunk + 2 < chunks;
    team.each_lane([&](int t) { wait(team.shared(t).landed[half], phases >> half & 1); });
    phases ^= 1 << half;
    load_x(team, work, half);
    if (more) team.each_alone([&](int t) { read_half(team.shared(t), team.in_block(t), half); });
    EC_UNROLL
    for (int part = 0; part < 2; ++part) {
      EC_UNROLL
      for (int k = 0; k < 2; ++k) {
        EC_UNROLL
        for (int tile = 0; tile < 2; ++tile)
          multiply16(
              team, [&](int t) -> FragmentC& { return work[t].gradient[part][tile]; },
              [&](int t) { return sums[t].dz[tile][k]; },
              [&](int t) { return half_of(work[t].now[part], k); });
      }
      if (part == 0 && chunk == 0 && chunks > 1) team.each_alone([&](int t) { ask(team, t, 1, phases); });
      team.each_alone([&](int t) {
        EC_UNROLL
        for (int tile = 0; tile < 2; ++tile) {
          const Quad w = update(t, work[t].gradient[part][tile], kPerPass * chunk + part, tile);
          work[t].w[tile].x[part * 2] = pair(w.x[0], w.x[1]);
          work[t].w[tile].x[part * 2 + 1] = pair(w.x[2], w.x[3]);
        }
        if (part == 0 && more && is_warp(team.in_block(t), asker(chunk + 2)))
          announce(team, t, t % kLanes, half, phases >> half & 1);
      });
    }
    if (more) team.each_alone([&](int t) { ask(team, t, chunk + 2, phases); });
    EC_UNROLL
    for (int tile = 0; tile < 2; ++tile) {
      EC_UNROLL
      for (int n = 0; n < 4; ++n)
        multiply16(
            team, [&](int t) -> FragmentC& { return sums[t].z[tile][n]; },
            [&](int t) { return work[t].w[tile]; },
            [&](int t) { return half_of(work[t].next[n / 2], n % 2); });
    }
  }

  /* x of a batch that was given up. */
  template <class Team>
  static EC_DEVICE_METHOD void drain(const Team& team, int phases, bool finished) {
    team.each_alone([&](int t) {
      if (!finished) wait(team.shared(t).landed[0], phases & 1);
    });
  }
};

}  // namespace ec
#endif
