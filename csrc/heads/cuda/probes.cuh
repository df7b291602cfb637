/* TrainProbes: linear probes, one or some of a task and seed to a block, for all the steps of a launch; their
 * weights in shared memory, the moments in registers. In float32.
 *
 * x of a batch is read from device memory once, into shared memory, and used twice there, in two phases a
 * step with a barrier of the block after each:
 *
 *   forward   a warp has rows w, w + 8, w + 16 and w + 24, whose columns its lanes share out: it multiplies,
 *             adds up over its lanes and computes its rows' loss and gradient by itself
 *   backward  a thread has columns t, t + 256, ... of all outputs: their gradient over all rows, and AdamW
 *
 * A sum's order depends on neither the other probes of the block nor on how many it could have.
 *
 * What bounds it, a step of 32 rows with D inputs: x from L2 or device memory, 128 D bytes a block (some
 * 4,000 cycles at D 768, if all 132 processors of an H100 read it at once); shared memory, 3 x 128 D bytes of
 * x and 32 D bytes of weights an output (2,700 cycles for two outputs); 64 D products an output (800 for
 * two). So probes that share their x gain by it.
 */
#ifndef EMBEDCACHE_CUDA_PROBES_CUH
#define EMBEDCACHE_CUDA_PROBES_CUH

#include "probes_loss.cuh"
#include "probes_state.cuh"

namespace ec {

/* kColumns: of a thread. kOutputs, kProbes: of a block, at most. The list of heads has kProbes numbers for
 * each block; those after its last probe are -1. */
template <int kColumns, int kOutputs, int kProbes>
struct TrainProbes {
  using Shared = ProbeShared<kColumns, kOutputs, kProbes>;
  using Team = Cluster<Shared>;
  static constexpr int kAll = kHostThreads, kStride = Shared::kStride;
  static_assert(sizeof(Shared) <= kBlockBytes, "what a block may have of compute capability 9.0");

  struct Own {
    float m[kColumns][kOutputs], v[kColumns][kOutputs];
    float b_m, b_v; /* of bias t */
    double loss;    /* probe t's, of the epoch so far */
    int64_t rows;   /* that probe t has done in this launch */
    uint32_t alive; /* bit g: probe g's losses have been finite */
    RowAhead ahead;
  };

  /* Of the lane's columns, then of one of the warp's logits. */
  struct Sums {
    float z[kRowsOfWarp * kOutputs];
  };

  template <class T>
  using Each = PerThread<T, kAll>;

  /* The state from device memory onto the chip, or back. f(at, place, k, column): an output's weight. */
  template <class F>
  static EC_DEVICE_METHOD void each_weight(Shared& shared, int thread, F f) {
    EC_UNROLL
    for (int k = 0; k < kOutputs; ++k) {
      const int g = shared.probe_of[k];
      if (g < 0) continue;
      const ProbePlan& p = shared.probe[g];
      EC_UNROLL
      for (int j = 0; j < kColumns; ++j) {
        const int column = thread + j * kThreads;
        if (column >= shared.task.dim) continue;
        f(p.w + (int64_t)(k - p.first) * shared.task.dim + column, p.stride,
          shared.pool[k * kStride + column], j, k);
      }
    }
  }

  static EC_DEVICE_METHOD void load(const Team& team, Each<Own>& own, const Launch& launch) {
    team.each_thread([&](int t) {
      Shared& shared = team.shared(t);
      for (int i = team.in_block(t); i < Shared::kPool; i += kThreads) shared.pool[i] = 0.0f;
      for (int i = team.in_block(t); i < kProbeRows * kOutputs; i += kThreads)
        shared.dz[i / kOutputs][i % kOutputs] = 0.0f;
      fence_copies();
      start_rows(team, t, own[t].ahead);
    });
    team.each_alone([&](int t) { start_x(team, t); });
    team.each_thread([&](int t) {
      Shared& shared = team.shared(t);
      const int i = team.in_block(t);
      each_weight(shared, i, [&](const float* at, int64_t stride, float& w, int j, int k) {
        w = at[0];
        own[t].m[j][k] = at[stride];
        own[t].v[j][k] = at[2 * stride];
      });
      for (int g = 0; g < shared.task.probes; ++g)
        if (!launch.tallies[shared.probe[g].number].diverged) own[t].alive |= 1u << g;
      if (i < shared.task.probes)
        own[t].loss = launch.step_begin == 0 ? 0.0 : launch.tallies[shared.probe[i].number].train_loss;
      if (i >= kOutputs || shared.probe_of[i] < 0) return;
      const ProbePlan& p = shared.probe[shared.probe_of[i]];
      const float* at = p.b + (i - p.first);
      shared.b[i] = at[0];
      own[t].b_m = at[p.stride];
      own[t].b_v = at[2 * p.stride];
    });
  }

  static EC_DEVICE_METHOD void store(const Team& team, Each<Own>& own, const Launch& launch) {
    team.each_alone([&](int t) {
      Shared& shared = team.shared(t);
      const int i = team.in_block(t);
      each_weight(shared, i, [&](float* at, int64_t stride, float& w, int j, int k) {
        at[0] = w;
        at[stride] = own[t].m[j][k];
        at[2 * stride] = own[t].v[j][k];
      });
      if (i < shared.task.probes) {
        Tally& tally = launch.tallies[shared.probe[i].number];
        tally.train_loss = own[t].loss;
        tally.rows += own[t].rows;
        tally.diverged = !(own[t].alive >> i & 1);
      }
      if (i >= kOutputs || shared.probe_of[i] < 0) return;
      const ProbePlan& p = shared.probe[shared.probe_of[i]];
      float* at = p.b + (i - p.first);
      at[0] = shared.b[i];
      at[p.stride] = own[t].b_m;
      at[2 * p.stride] = own[t].b_v;
    });
  }

  /* ---- Forward ---- */

  /* The slot of the batch's row r, or of its first where there is no such row: that is what it then counts
   * for. */
  static EC_DEVICE_METHOD const float* x_of(Shared& shared, int base, int r, int rows) {
    const int slot = base + (r < rows ? r : 0);
    return shared.slot(slot < shared.task.slots ? slot : slot - shared.task.slots);
  }

  /* Logits of the warp's rows of `first` and those that follow, without biases, of the lane's columns. */
  static EC_DEVICE_METHOD void multiply_rows(Shared& shared, int thread, int base, int first, int rows,
                                             Sums& sums) {
    const int lane = thread % kLanes;
    const float* x[kRowsOfWarp];
    EC_UNROLL
    for (int q = 0; q < kRowsOfWarp; ++q)
      x[q] = x_of(shared, base, first + q * kWarps + thread / kLanes, rows);
    EC_UNROLL
    for (int i = 0; i < kRowsOfWarp * kOutputs; ++i) sums.z[i] = 0.0f;
    EC_UNROLL
    for (int j = 0; j < kStride / kColumnsOfWarp; ++j) {
      const int column = 4 * lane + j * kColumnsOfWarp;
      Quad of_row[kRowsOfWarp];
      EC_UNROLL
      for (int q = 0; q < kRowsOfWarp; ++q) of_row[q] = *(const Quad*)(x[q] + column);
      EC_UNROLL
      for (int k = 0; k < kOutputs; ++k) {
        const Quad w = *(const Quad*)(shared.pool + k * kStride + column);
        EC_UNROLL
        for (int q = 0; q < kRowsOfWarp; ++q) {
          EC_UNROLL
          for (int e = 0; e < 4; ++e)
            sums.z[q * kOutputs + k] = fmaf(of_row[q].x[e], w.x[e], sums.z[q * kOutputs + k]);
        }
      }
    }
  }

  /* Adds up over the warp's lanes, which take a half of the sums each where there are some, until each has
   * one: sum number lane / kLanesOfSum, which is 0 in what it had. */
  static constexpr int kLanesOfSum = kLanes / (kRowsOfWarp * kOutputs);

  template <int kLeft = kRowsOfWarp * kOutputs, int kAway = kLanes / 2>
  static EC_DEVICE_METHOD void add_lanes(const Team& team, Each<Sums>& sums) {
    constexpr int kHalf = kLeft / 2,
                  kThen = kHalf > 0 ? kHalf : 1; /* 0: each has one, the same as some others */
    EC_UNROLL
    for (int i = 0; i < kThen; ++i)
      swap(
          team, kAway, [&](int t) { return t & kAway ? sums[t].z[i] : sums[t].z[i + kHalf]; },
          [&](int t, float other) {
            sums[t].z[i] = (t & kAway ? sums[t].z[i + kHalf] : sums[t].z[i]) + other;
          });
    if constexpr (kAway > 1) add_lanes<kThen, kAway / 2>(team, sums);
  }

  /* Batch b to the gradient by its logits. base: slot of its first row. */
  static EC_DEVICE_METHOD void forward(const Team& team, int b, int base, int rows, int ahead) {
    Each<Sums> sums;
    Each<LaneRow<kOutputs>> back;
    team.each_alone([&](int t) { /* each probe's constants by a warp */
                                 Shared& shared = team.shared(t);
                                 const int g = team.in_block(t) / kLanes, i = t % kTable;
                                 if (ahead == 0 && g < shared.task.probes)
                                   shared.adamw[g][i] =
                                       adamw_of(shared.task, *shared.probe[g].spec,
                                                shared.task.first_step + shared.task.begin + b + i);
    });
    weigh<kOutputs>(team, back, rows);
    team.each_lane([&](int t) { wait(team.shared(t).landed[b % 2], b / 2 % 2); });
    for (int first = 0; first < rows; first += kRowsOfPass) {
      team.each_alone(
          [&](int t) { multiply_rows(team.shared(t), team.in_block(t), base, first, rows, sums[t]); });
      add_lanes(team, sums);
      team.each_lane([&](int t) {
        Shared& shared = team.shared(t);
        const int lane = t % kLanes, number = lane / kLanesOfSum;
        if (lane % kLanesOfSum == 0)
          shared.logits[team.in_block(t) / kLanes][number / kOutputs][number % kOutputs] = sums[t].z[0];
      });
      team.each_lane([&](int t) { row_of_probe(team.shared(t), team.in_block(t), b, first, rows, back[t]); });
    }
    EC_UNROLL
    for (int lanes = 1; lanes < kRowsOfWarp; lanes *= 2) {
      swap(
          team, lanes, [&](int t) { return back[t].loss; },
          [&](int t, double other) { back[t].loss += other; });
      EC_UNROLL
      for (int c = 0; c < kOutputs; ++c)
        swap(
            team, lanes, [&](int t) { return back[t].b_sum[c]; },
            [&](int t, float other) { back[t].b_sum[c] += other; });
    }
    team.each_thread([&](int t) {
      Shared& shared = team.shared(t);
      const int g = t % kLanes / kRowsOfWarp, warp = team.in_block(t) / kLanes;
      if (t % kRowsOfWarp || g >= shared.task.probes) return;
      shared.loss[g][warp] = back[t].loss;
      shared.bad[g][warp] = !isfinite(back[t].loss);
      EC_UNROLL
      for (int c = 0; c < kOutputs; ++c)
        if (c < shared.probe[g].loss.outputs)
          shared.b_sum[warp][shared.probe[g].first + c] = back[t].b_sum[c];
    });
  }

  /* ---- Backward ---- */

  /* The gradient of the thread's columns. */
  static EC_DEVICE_METHOD void gradients(Shared& shared, int thread, int base, int rows,
                                         float (&sum)[kColumns][kOutputs]) {
    const int slots = shared.task.slots;
    EC_UNROLL
    for (int j = 0; j < kColumns; ++j) {
      EC_UNROLL
      for (int k = 0; k < kOutputs; ++k) sum[j][k] = 0.0f;
    }
    EC_UNROLL_2
    for (int r = 0; r < rows; r += kRowsAtOnce) {
      const int slot = base + r;
      const float* x = shared.slot(slot < slots ? slot : slot - slots) + thread;
      float dz[kRowsAtOnce * kOutputs];
      EC_UNROLL
      for (int i = 0; i < kOutputs; ++i) *(Quad*)&dz[4 * i] = *(const Quad*)(&shared.dz[r][0] + 4 * i);
      EC_UNROLL
      for (int e = 0; e < kRowsAtOnce; ++e) {
        EC_UNROLL
        for (int j = 0; j < kColumns; ++j) {
          const float value = x[e * kStride + j * kThreads];
          EC_UNROLL
          for (int k = 0; k < kOutputs; ++k) sum[j][k] = fmaf(dz[e * kOutputs + k], value, sum[j][k]);
        }
      }
    }
  }

  /* Which probes' losses are finite. */
  static EC_DEVICE_METHOD uint32_t finite(const Shared& shared) {
    uint32_t all = 0;
    EC_UNROLL
    for (int g = 0; g < kProbes; ++g) {
      int32_t bad = 0;
      EC_UNROLL
      for (int warp = 0; warp < kWarps; ++warp) bad |= shared.bad[g][warp];
      if (!bad) all |= 1u << g;
    }
    return all;
  }

  /* The bias, and the probe's loss, that are the thread's. */
  static EC_DEVICE_METHOD void update_small(Shared& shared, int i, int rows, int ahead, Own& own) {
    if (i < kOutputs && shared.probe_of[i] >= 0 && own.alive >> shared.probe_of[i] & 1) {
      float sum = 0.0f;
      EC_UNROLL
      for (int warp = 0; warp < kWarps; ++warp) sum += shared.b_sum[warp][i];
      adamw(sum, &shared.b[i], &own.b_m, &own.b_v, shared.adamw[shared.probe_of[i]][ahead]);
    }
    if (i < kProbes && i < shared.task.probes && own.alive >> i & 1) {
      double sum = 0.0;
      EC_UNROLL
      for (int warp = 0; warp < kWarps; ++warp) sum += shared.loss[i][warp];
      own.loss += sum * (double)rows;
      own.rows += rows;
    }
  }

  static EC_DEVICE_METHOD void update(Shared& shared, int i, const float (&gradient)[kColumns][kOutputs],
                                      int ahead, Own& own) {
    EC_UNROLL
    for (int k = 0; k < kOutputs; ++k) {
      const int g = shared.probe_of[k];
      if (g < 0 || !(own.alive >> g & 1)) continue;
      const Constants constants = shared.adamw[g][ahead];
      EC_UNROLL
      for (int j = 0; j < kColumns; ++j) {
        const int column = i + j * kThreads;
        if (column < shared.task.dim)
          adamw(gradient[j][k], &shared.pool[k * kStride + column], &own.m[j][k], &own.v[j][k], constants);
      }
    }
  }

  static EC_DEVICE_METHOD void backward(const Team& team, Each<Own>& own, int b, int base, int rows,
                                        int ahead) {
    team.each_thread([&](int t) {
      Shared& shared = team.shared(t);
      const int i = team.in_block(t);
      float gradient[kColumns][kOutputs];
      look_ahead(shared, i, b, own[t].ahead);
      own[t].alive &= finite(shared);
      update_small(shared, i, rows, ahead, own[t]);
      gradients(shared, i, base, rows, gradient);
      update(shared, i, gradient, ahead, own[t]);
    });
    team.each_alone([&](int t) { ask_for_x(team, t, b, base); });
  }

  static EC_DEVICE_METHOD void run(const Team& team, const Launch& launch) {
    const int32_t* numbers = launch.active + (int64_t)team.index() * kProbes;
    team.each_thread([&](int t) {
      Shared& shared = team.shared(t);
      if (team.in_block(t) > 0) return;
      make_probe_plan(shared, launch, numbers);
      for (Mbarrier& landed : shared.landed) init(landed, 1);
      fence_init();
    });
    const ProbeTask& task = team.any().task;
    if (task.batches <= 0) return;
    Each<Own> own;
    load(team, own, launch);
    int base = 0, ahead = 0;
    for (int b = 0, batches = task.batches; b < batches; ++b) {
      const int rows = rows_of(task, b);
      forward(team, b, base, rows, ahead);
      backward(team, own, b, base, rows, ahead);
      base = base + task.padded < task.slots ? base + task.padded : base + task.padded - task.slots;
      ahead = ahead + 1 < kTable ? ahead + 1 : 0;
    }
    store(team, own, launch);
  }
};

}  // namespace ec
#endif
