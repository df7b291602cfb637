/* TrainClusters: a head per thread-block cluster, its state on the chip for all the steps of a launch. For
 * small batches (up to 32 rows), in TF32 or bfloat16, or in float32 by TF32's parts.
 *
 * Block r of the cluster owns hidden units 32 r .. 32 r + 31. Of the first layer a thread owns the weights
 * that its fragments hold, w, m and v alike, so they lie in shared memory (or, v, in registers) as that
 * thread's private numbers. One pass over them a step does everything (docs/engine.md has the picture):
 *
 *   gradient tile = dz' x of this batch  ->  AdamW  ->  z += updated weights times x of the next batch
 *
 * x streams from L2, 64 or 128 inputs at a time, each warp its own 8 or 16 of them: cluster_tf32.cuh and
 * cluster_bf16.cuh have the pass. Then the warps' sums of z are added, and every block pushes its part of the
 * logits into all blocks' shared memory: cluster_math.cuh holds what comes between the passes.
 *
 * What bounds it, for each block and step of 32 rows with D inputs: the state through shared memory, 512 D
 * bytes (3,100 cycles at 128 B and D 768); roots and quotients, 64 D at 16 a cycle (3,100); 2 D mma of TF32
 * (some 3,000), half of them in bfloat16; x from L2, 256 D bytes in TF32 (3,100 cycles at 64 B a cycle),
 * which is 3.1 MB a step for the 16 blocks of a head with 512 units; a sixteenth of a half of it in bfloat16.
 * They overlap; what comes between the passes does not. README.md has what an H200 takes for it.
 */
#ifndef EMBEDCACHE_CUDA_CLUSTER_CUH
#define EMBEDCACHE_CUDA_CLUSTER_CUH

#include "cluster_bf16.cuh"
#include "cluster_loss.cuh"
#include "cluster_math.cuh"
#include "cluster_split.cuh"
#include "cluster_tf32.cuh"

namespace ec {

/* Operands: Tf32, Bf16 or Split. kOutputs: at most so many. kHeldChunks: chunks whose v is in registers (it
 * makes the loop over them straight code); 0: none, and then what does not fit in shared memory, v first and
 * then m, stays in device memory, which is to say in L2. */
template <class Operands, int kHeldChunks, int kOutputs>
struct TrainClusters {
  using Shared = ClusterShared;
  using Sums = typename Operands::Sums;
  static constexpr int kAll = kHostThreads;

  struct Held {
    Quad v[kHeldChunks > 0 ? kHeldChunks : 1][2];
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
        move_weights<Operands>(plan, chunk, tile, i, w, load);
        if (m_moves) load ? (void)(m = plan.m[at]) : (void)(plan.m[at] = m);
        if (v_moves) load ? (void)(v = plan.v[at]) : (void)(plan.v[at] = v);
      });
      move_small(team, t, own[t], load);
    });
  }

  /* AdamW for a quad; its weights as they are then. */
  static EC_DEVICE_METHOD Quad update(Shared& shared, Held& held, const Quad& gradient, int chunk, int tile,
                                      int i, const Constants& constants) {
    Quad& w_at = shared.slots[2 * chunk + tile][i];
    Quad& m_at = moment(shared, 0, chunk, tile, i);
    Quad w = w_at, m = m_at,
         v = kMomentsOnChip ? held.v[kHeldChunks > 0 ? chunk : 0][tile] : moment(shared, 1, chunk, tile, i);
    adamw(gradient, w, m, v, constants);
    w_at = w;
    m_at = m;
    (kMomentsOnChip ? held.v[kHeldChunks > 0 ? chunk : 0][tile] : moment(shared, 1, chunk, tile, i)) = v;
    return w;
  }

  static EC_DEVICE_METHOD void pass(const Team& team, PerThread<Held, kAll>& held,
                                    PerThread<Sums, kAll>& sums, int ahead, int& phases) {
    const int chunks = team.any().plan.chunks / Operands::kPerPass;
    const Constants constants = team.any().adamw[ahead];
    const auto updated = [&](int t, const Quad& gradient, int chunk, int tile) {
      return update(team.shared(t), held[t], gradient, chunk, tile, team.in_block(t), constants);
    };
    if constexpr (kHeldChunks > 0) {
      EC_UNROLL
      for (int chunk = 0; chunk < kHeldChunks / Operands::kPerPass; ++chunk)
        if (chunk < chunks) Operands::chunk_pass(team, sums, chunk, chunks, phases, updated);
    } else {
      for (int chunk = 0; chunk < chunks; ++chunk)
        Operands::chunk_pass(team, sums, chunk, chunks, phases, updated);
    }
    team.each_thread([](int) {}); /* others may still read x where the sums go, and where x begins */
  }

  /* Steps begin .. end - 1 of the epoch, as iterations begin - 1 .. end - 1: iteration i updates by batch i
   * and runs batch i + 1 forward. The first updates nothing, the last runs a batch forward in vain. False if
   * a loss was not finite: then that batch has updated nothing. */
  static EC_DEVICE_METHOD bool steps(const Team& team, PerThread<Held, kAll>& held, PerThread<Own, kAll>& own,
                                     int64_t begin, int64_t end) {
    start<Operands>(team, own, begin);
    int slot = slot_of(begin - 1), parity = 0, ahead = kTable, phases = 0, rows = 0;
    draw(team, own, begin);
    for (int64_t i = begin - 1;; ++i) {
      PerThread<Sums, kAll> sums;
      team.each_lane([&](int t) {
        update_small(team, t, own[t], ahead);
        if (rows > 0 && team.in_block(t) == kThreads - 1) add_loss(team.shared(t), rows);
        Operands::load_dz(team.shared(t), team.in_block(t), sums[t]);
      });
      Operands::leave_exchange(team, phases);
      pass(team, held, sums, ahead, phases);
      if (i + 1 == end) return finish(team, phases, true);
      ahead = ahead + 1 < kTable ? ahead + 1 : 0;
      slot = next_slot(slot);
      rows = rows_of(team.any().plan, i + 1);
      forward_rest<Operands, kOutputs>(team, own, sums, i + 1, slot, parity, ahead, phases);
      backward_start<kOutputs>(team, own, rows, slot, parity);
      parity ^= 1;
      if (!is_finite(team.any())) return finish(team, phases, false);
    }
  }

  static EC_DEVICE_METHOD bool finish(const Team& team, int phases, bool finite) {
    Operands::drain(team, phases, finite);
    return finite;
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
      make_plan<Operands>(shared, launch, head, tally, team.rank(t), kMomentsOnChip);
      for (int half = 0; half < 2; ++half) {
        init(shared.read[half], kWarps);
        init(shared.vacated[half], team.blocks());
      }
      Operands::begin(shared);
      init(shared.arrived, 1);
      fence_init();
    });
    PerThread<Held, kAll> held;
    PerThread<Own, kAll> own;
    move_state(team, held, own, true);
    const bool finite = steps(team, held, own, launch.step_begin, end);
    move_state(team, held, own, false);
    team.each_thread_of_all([&](int t) { /* none may go while another writes to it */
                                         if (team.rank(t) > 0 || team.in_block(t) > 0) return;
                                         tally.train_loss = team.shared(t).epoch_loss;
                                         tally.rows += team.shared(t).rows_done;
                                         tally.diverged = !finite;
    });
  }
};

/* The most blocks of a cluster that trains a head. */
template <class Device>
int max_cluster(const Device& device) {
  return device.template max_cluster<TrainClusters<Tf32, 0, kClusterOutputs>>();
}

/* Clusters of so many blocks at the same time. */
template <class Device>
int active_clusters(const Device& device, int blocks) {
  return device.template active_clusters<TrainClusters<Tf32, 0, kClusterOutputs>>(blocks);
}

}  // namespace ec
#endif
