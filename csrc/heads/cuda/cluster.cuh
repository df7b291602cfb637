/* TrainClusters: a head per thread-block cluster, its state on the chip for all the steps of a launch. For
 * small batches (up to 32 rows), in TF32.
 *
 * Block r of the cluster owns hidden units 32 r .. 32 r + 31. Of the first layer a thread owns the weights
 * that its fragments hold, w, m and v alike, so they lie in shared memory (or, v, in registers) as that
 * thread's private numbers. One pass over them a step does everything (docs/engine.md has the picture):
 *
 *   gradient tile = dz' x of this batch  ->  AdamW  ->  z += updated weights times x of the next batch
 *
 * x streams from L2 through cp.async, 64 inputs at a time, each warp its own 8 of them. Then the warps' sums
 * of z are added, and every block pushes its part of the logits into all blocks' shared memory.
 * cluster_math.cuh holds what comes between.
 *
 * What bounds it, for each block and step of 32 rows with D inputs: x from L2, 256 D bytes (3,100 cycles at
 * 64 B a cycle and D 768); the state through shared memory, 512 D bytes (3,100 cycles at 128 B); roots and
 * quotients, 64 D at 16 a cycle (3,100); 2 D mma (some 3,000). They overlap; what comes between the passes
 * does not. The 16 blocks of a head with 512 units read 3.1 MB of x a step: with all processors busy, L2 is
 * the bound. NOT YET RUN ON A GPU.
 */
#ifndef EMBEDCACHE_CUDA_CLUSTER_CUH
#define EMBEDCACHE_CUDA_CLUSTER_CUH

#include "cluster_math.cuh"

namespace ec {

/* kHeldChunks: chunks whose v is in registers (it makes the loop over them straight code); 0: none, and then
 * what does not fit in shared memory, v first and then m, stays in device memory, which is to say in L2. */
template <int kHeldChunks>
struct TrainClusters {
  using Shared = ClusterShared;
  static constexpr int kAll = kHostThreads;

  struct Held {
    Quad v[kHeldChunks > 0 ? kHeldChunks : 1][2];
  };

  /* A thread's part of a chunk. */
  struct Work {
    FragmentB now[4], next[4]; /* x of this batch and of the next */
    FragmentC gradient[2];
    FragmentA w[2];
  };

  using Team = Cluster<Shared>;
  static constexpr bool kMomentsOnChip = kHeldChunks > 0;

  static EC_DEVICE_METHOD Quad& moment(Shared& shared, int array, int chunk, int tile, int i) {
    if (kMomentsOnChip) return shared.slots[2 * kHeldChunks + 2 * chunk + tile][i];
    return shared.plan.moments[array][(2 * chunk + tile) * kThreads + i];
  }

  /* f(chunk, tile, w, m, v) for a thread's quads. */
  template <class F>
  static EC_DEVICE_METHOD void each_quad(Shared& shared, Held& held, int i, F f) {
    const int chunks = shared.plan.chunks;
    if constexpr (kHeldChunks > 0) {
      EC_UNROLL
      for (int k = 0; k < kHeldChunks; ++k) {
        EC_UNROLL
        for (int tile = 0; tile < 2; ++tile)
          if (k < chunks)
            f(k, tile, shared.slots[2 * k + tile][i], moment(shared, 0, k, tile, i), held.v[k][tile]);
      }
    } else {
      for (int k = 0; k < chunks; ++k)
        for (int tile = 0; tile < 2; ++tile)
          f(k, tile, shared.slots[2 * k + tile][i], moment(shared, 0, k, tile, i),
            moment(shared, 1, k, tile, i));
    }
  }

  /* The state from device memory onto the chip, or back. */
  static EC_DEVICE_METHOD void move_state(const Team& team, PerThread<Held, kAll>& held,
                                          PerThread<Own, kAll>& own, bool load) {
    team.each_thread([&](int t) {
      Shared& shared = team.shared(t);
      const Plan& plan = shared.plan;
      const int i = team.in_block(t);
      const bool m_moves = plan.moments[0] != plan.m, v_moves = kMomentsOnChip || plan.moments[1] != plan.v;
      each_quad(shared, held[t], i, [&](int chunk, int tile, Quad& w, Quad& m, Quad& v) {
        const int64_t at = (int64_t)(2 * chunk + tile) * kThreads + i;
        move_weights(plan, chunk, tile, i, w, load);
        if (m_moves) load ? (void)(m = plan.m[at]) : (void)(plan.m[at] = m);
        if (v_moves) load ? (void)(v = plan.v[at]) : (void)(plan.v[at] = v);
      });
      move_small(team, t, own[t], load);
    });
  }

  static EC_DEVICE_METHOD void adamw(Shared& shared, Held& held, Work& work, int chunk, int i, int ahead) {
    const Constants constants = shared.adamw[ahead];
    EC_UNROLL
    for (int tile = 0; tile < 2; ++tile) {
      Quad& w_at = shared.slots[2 * chunk + tile][i];
      Quad& m_at = moment(shared, 0, chunk, tile, i);
      Quad w = w_at, m = m_at,
           v = kMomentsOnChip ? held.v[kHeldChunks > 0 ? chunk : 0][tile] : moment(shared, 1, chunk, tile, i);
      EC_UNROLL
      for (int e = 0; e < 4; ++e)
        fast_adamw_update(work.gradient[tile].x[from_c(e)], &w.x[e], &m.x[e], &v.x[e], constants);
      w_at = w;
      m_at = m;
      (kMomentsOnChip ? held.v[kHeldChunks > 0 ? chunk : 0][tile] : moment(shared, 1, chunk, tile, i)) = v;
      work.w[tile] = {{to_tf32(w.x[0]), to_tf32(w.x[1]), to_tf32(w.x[2]), to_tf32(w.x[3])}};
    }
  }

  /* One chunk of 64 inputs of step i: their gradient, AdamW, and their part of the next batch's z. */
  static EC_DEVICE_METHOD void chunk_pass(const Team& team, PerThread<Held, kAll>& held,
                                          PerThread<Sums, kAll>& sums, int chunk, int ahead) {
    PerThread<Work, kAll> work;
    team.each_lane([&](int t) { copy_wait<1>(t); });
    team.each_lane([&](int t) {
      load_x(team.shared(t), chunk % 2, team.in_block(t), work[t].now, work[t].next);
      work[t].gradient[0] = work[t].gradient[1] = {};
    });
    team.each_alone([&](int t) { copy_x(team.shared(t), t, team.in_block(t), chunk + 2); });
    EC_UNROLL
    for (int k = 0; k < 4; ++k) {
      EC_UNROLL
      for (int tile = 0; tile < 2; ++tile)
        multiply(
            team, [&](int t) -> FragmentC& { return work[t].gradient[tile]; },
            [&](int t) { return sums[t].dz[tile][k]; }, [&](int t) { return work[t].now[k]; });
    }
    team.each_alone([&](int t) { adamw(team.shared(t), held[t], work[t], chunk, team.in_block(t), ahead); });
    EC_UNROLL
    for (int tile = 0; tile < 2; ++tile) {
      EC_UNROLL
      for (int n = 0; n < 4; ++n)
        multiply(
            team, [&](int t) -> FragmentC& { return sums[t].z[tile][n]; },
            [&](int t) { return work[t].w[tile]; }, [&](int t) { return work[t].next[n]; });
    }
  }

  static EC_DEVICE_METHOD void pass(const Team& team, PerThread<Held, kAll>& held,
                                    PerThread<Sums, kAll>& sums, int ahead) {
    const int chunks = team.any().plan.chunks;
    if constexpr (kHeldChunks > 0) {
      EC_UNROLL
      for (int chunk = 0; chunk < kHeldChunks; ++chunk)
        if (chunk < chunks) chunk_pass(team, held, sums, chunk, ahead);
    } else {
      for (int chunk = 0; chunk < chunks; ++chunk) chunk_pass(team, held, sums, chunk, ahead);
    }
  }

  /* Steps begin .. end - 1 of the epoch, as iterations begin - 1 .. end - 1: iteration i updates by batch i
   * and runs batch i + 1 forward. The first updates nothing, the last runs a batch forward in vain. False if
   * a loss was not finite: then that batch has updated nothing. */
  static EC_DEVICE_METHOD bool steps(const Team& team, PerThread<Held, kAll>& held, PerThread<Own, kAll>& own,
                                     int64_t begin, int64_t end) {
    start(team, own, begin);
    int slot = slot_of(begin - 1), parity = 0, ahead = kTable;
    for (int64_t i = begin - 1;; ++i) {
      PerThread<Sums, kAll> sums;
      team.each_thread([&](int t) {
        update_small(team, t, own[t], ahead);
        load_dz(team.shared(t), team.in_block(t), sums[t]);
      });
      team.each_alone([&](int t) {
        const Shared& shared = team.shared(t);
        copy_x(team.shared(t), t, team.in_block(t), 1);
        draw(shared.plan, team.in_block(t), shared.plan.first_step + i + 1, own[t]);
      });
      pass(team, held, sums, ahead);
      if (i + 1 == end) return true;
      ahead = ahead + 1 < kTable ? ahead + 1 : 0;
      slot = next_slot(slot);
      forward_rest(team, own, sums, i + 1, slot, parity, ahead);
      parity ^= 1;
      if (!isfinite(team.any().loss)) return false;
      backward_start(team, own, i + 1, slot);
    }
  }

  static EC_DEVICE_METHOD void run(const Team& team, const Launch& launch) {
    const int number = launch.active[team.index()];
    const Head& head = launch.heads[number];
    Tally& tally = launch.tallies[number];
    const int64_t all = (launch.tasks[head.spec.task].train.n + launch.batch_size - 1) / launch.batch_size;
    const int64_t end = all < launch.step_end ? all : launch.step_end;
    if (tally.diverged || launch.step_begin >= end) return;
    team.each_thread_of_all([&](int t) {
      Shared& shared = team.shared(t);
      if (team.in_block(t) > 0) return;
      make_plan(shared, launch, head, tally, team.rank(t), kMomentsOnChip);
      init(shared.room, team.blocks());
      init(shared.arrived, 1);
      fence_init();
    });
    PerThread<Held, kAll> held;
    PerThread<Own, kAll> own;
    move_state(team, held, own, true);
    const bool finite = steps(team, held, own, launch.step_begin, end);
    team.each_alone([&](int t) { copy_wait<0>(t); }); /* x of a batch that was given up */
    move_state(team, held, own, false);
    team.each_thread_of_all([&](int t) { /* none may go while another writes to it */
                                         if (team.rank(t) > 0 || team.in_block(t) > 0) return;
                                         tally.train_loss = team.shared(t).epoch_loss;
                                         tally.rows += team.shared(t).rows_done;
                                         tally.diverged = !finite;
    });
  }
};

}  // namespace ec
#endif
