/* What large batches do between the two big products (stacked.cuh), a head per block: OutputLayer: logits,
 * loss, AdamW for all but w1, and the gradient back to the hidden units; Scores: logits and scores of
 * validation rows.
 *
 * With few outputs a thread has a row (logits) and then a unit (everything backward, in one pass over the
 * activations): bound by those two passes, 8 B H bytes. With more, the plain products of tile.cuh do it.
 */
#ifndef EMBEDCACHE_CUDA_STACKED_OUTPUT_CUH
#define EMBEDCACHE_CUDA_STACKED_OUTPUT_CUH

#include "mma.cuh"
#include "train.cuh"
#include "validate.cuh"

namespace ec {

constexpr int kFewOutputs = 8;
constexpr int kAhead = 8; /* rows under way at once in few_backward() */

/* Which rows a launch takes, and the head's step they are. */
struct Stretch {
  int64_t first, step, all_steps;
  int rows; /* 0 where the head has none left */
};

EC_DEVICE Stretch stretch_of(const Launch& launch, const View& view, bool training) {
  const int64_t most = training ? launch.batch_size : launch.scratch_shape.rows;
  const int64_t first = launch.step_begin * most, left = (int64_t)view.n - first,
                steps = (view.n + most - 1) / most;
  const int64_t rows = left < 0 ? 0 : left < most ? left : most; /* left may be far below what int holds */
  return {first, launch.epoch * steps + launch.step_begin, launch.epochs * steps, (int)rows};
}

/* logits = hidden w2' + b2, a row per thread. */
template <int kMost>
EC_DEVICE void few_logits(const Block& block, const Job& job, int rows) {
  const int outputs = job.shape.outputs, hidden = job.shape.hidden;
  each_index(block, rows, [&](int64_t i) {
    float sum[kMost] = {};
    for (int u = 0; u < hidden; u += 4) {
      const Quad a = *(const Quad*)(job.scratch.hidden + i * hidden + u);
      EC_UNROLL
      for (int c = 0; c < kMost; ++c) {
        if (c >= outputs) continue;
        const float* w = job.p.w2 + (int64_t)c * hidden + u;
        EC_UNROLL
        for (int e = 0; e < 4; ++e) sum[c] = fmaf(a.x[e], w[e], sum[c]);
      }
    }
    EC_UNROLL
    for (int c = 0; c < kMost; ++c)
      if (c < outputs) job.scratch.logits[i * outputs + c] = sum[c] + job.p.b2[c];
  });
}

/* The gradient by the hidden units, and AdamW for w2 and b1: a unit per thread, all in one pass over the
 * rows. */
template <int kMost>
EC_DEVICE void few_backward(const Block& block, TrainSteps::Shared& shared, int rows, float scale) {
  const Job& job = shared.job;
  const int outputs = job.shape.outputs, hidden = job.shape.hidden;
  each_index(block, hidden, [&](int64_t u) {
    float w[kMost] = {}, sum[kMost] = {}, bias = 0.0f;
    EC_UNROLL
    for (int c = 0; c < kMost; ++c)
      if (c < outputs) w[c] = job.p.w2[(int64_t)c * hidden + u];
    for (int i0 = 0; i0 < rows; i0 += kChain) { /* shorter sums: smaller rounding errors */
      const int end = rows < i0 + kChain ? rows : i0 + kChain;
      float piece[kMost] = {}, bias_piece = 0.0f;
      for (int i1 = i0; i1 < end; i1 += kAhead) {
        float a[kAhead]; /* loaded before the first store, which the compiler would not overtake */
        EC_UNROLL
        for (int k = 0; k < kAhead; ++k)
          a[k] = i1 + k < end ? job.scratch.hidden[(int64_t)(i1 + k) * hidden + u] : 0.0f;
        EC_UNROLL
        for (int k = 0; k < kAhead; ++k) {
          if (i1 + k >= end) continue;
          float dz = 0.0f;
          EC_UNROLL
          for (int c = 0; c < kMost; ++c) {
            if (c >= outputs) continue;
            const float gradient = job.scratch.logits[(int64_t)(i1 + k) * outputs + c];
            dz = fmaf(gradient, w[c], dz);
            piece[c] = fmaf(gradient, a[k], piece[c]);
          }
          dz = a[k] > 0.0f ? dz * scale : 0.0f;
          bias_piece += dz;
          job.scratch.hidden_gradient[(int64_t)(i1 + k) * hidden + u] = dz;
        }
      }
      EC_UNROLL
      for (int c = 0; c < kMost; ++c) sum[c] += piece[c];
      bias += bias_piece;
    }
    EC_UNROLL
    for (int c = 0; c < kMost; ++c)
      if (c < outputs) TrainSteps::adamw(shared, sum[c], job.p.w2 + (int64_t)c * hidden + u);
    TrainSteps::adamw(shared, bias, job.p.b1 + u);
  });
  TrainSteps::update_bias(block, shared, outputs, rows, job.scratch.logits, job.p.b2);
}

EC_DEVICE void stacked_logits(const Block& block, Tile& tile, const Job& job, int rows) {
  const int hidden = job.shape.hidden;
  if (job.shape.outputs <= 2) {
    few_logits<2>(block, job, rows);
  } else if (job.shape.outputs <= kFewOutputs) {
    few_logits<kFewOutputs>(block, job, rows);
  } else {
    output_layer(block, tile, job, rows, Matrix{job.scratch.hidden, hidden});
  }
}

struct OutputLayer {
  using Shared = TrainSteps::Shared;
  static constexpr int kBlocksPerProcessor = 2;

  static int blocks(const Launch& launch) { return launch.n_active; }

  static EC_DEVICE_METHOD void backward(const Block& block, Shared& shared, int rows, float scale) {
    const Job& job = shared.job;
    const Shape s = job.shape;
    if (s.outputs <= 2) {
      few_backward<2>(block, shared, rows, scale);
    } else if (s.outputs <= kFewOutputs) {
      few_backward<kFewOutputs>(block, shared, rows, scale);
    } else {
      TrainSteps::back_to_hidden(block, shared, rows, scale);
      TrainSteps::update_layer(block, shared, s.outputs, s.hidden, rows, job.scratch.logits,
                               Matrix{job.scratch.hidden, s.hidden}, job.p.w2, job.p.b2);
      TrainSteps::update_bias(block, shared, s.hidden, rows, job.scratch.hidden_gradient, job.p.b1);
    }
  }

  static EC_DEVICE_METHOD void run(const Block& block, Shared& shared, const Launch& launch) {
    const int slot = block.index();
    const Head& head = launch.heads[launch.active[slot]];
    const View& view = launch.tasks[head.spec.task].train;
    Tally& tally = launch.tallies[launch.active[slot]];
    const Stretch stretch = stretch_of(launch, view, true);
    const bool going = !tally.diverged && stretch.rows > 0;
    one_thread(block, [&] { launch.steps[slot].rows = 0; });
    if (!going) return;
    start_job(block, shared.job, launch, head, slot, true);
    gather(block, shared.job, view, head.order, stretch.first, stretch.rows);
    stacked_logits(block, shared.tile, shared.job, stretch.rows);
    TrainSteps::batch_loss(block, shared, stretch.rows);
    const bool finite = isfinite(shared.loss);
    one_thread(block, [&] {
      tally.diverged = !finite;
      if (!finite) return;
      shared.adamw = adamw_of_step(head.spec, stretch.step, stretch.all_steps);
      launch.steps[slot] = {shared.adamw, stretch.rows};
      tally.train_loss = (launch.step_begin == 0 ? 0.0 : tally.train_loss) + shared.loss * stretch.rows;
      tally.rows += stretch.rows;
    });
    if (finite) backward(block, shared, stretch.rows, ec_dropout_scale(head.spec.dropout));
  }
};

struct Scores {
  using Shared = Validate::Shared;
  static constexpr int kBlocksPerProcessor = 2;

  static int blocks(const Launch& launch) { return launch.n_active; }

  static EC_DEVICE_METHOD void run(const Block& block, Shared& shared, const Launch& launch) {
    const int slot = block.index();
    const Head& head = launch.heads[launch.active[slot]];
    const View& view = launch.tasks[head.spec.task].val;
    Tally& tally = launch.tallies[launch.active[slot]];
    const Stretch stretch = stretch_of(launch, view, false);
    if (stretch.rows <= 0) return;
    Validate::start(block, shared, launch, head, slot, tally, launch.step_begin == 0);
    gather(block, shared.job, view, nullptr, stretch.first, stretch.rows);
    stacked_logits(block, shared.tile, shared.job, stretch.rows);
    Validate::add_rows(block, shared, stretch.rows, head.counts);
    Validate::finish(block, shared, tally);
  }
};

}  // namespace ec
#endif
