/* Validate: each active head's loss, accuracy and counts for F1 on its validation rows, a head per block,
 * without dropout.
 *
 * A launch takes the chunks of rows from step_begin to step_end and adds them to the head's tally.
 *
 * Fuses gather, standardization, both layers and the loss for one batch of rows after the other; no logits
 * leave the scratch. Memory: the weights once per batch of rows (4 bytes per parameter), the rows of x once
 * per 128 units. Bound by float32 arithmetic on the CUDA cores, like the forward third of a training step.
 */
#ifndef EMBEDCACHE_CUDA_VALIDATE_CUH
#define EMBEDCACHE_CUDA_VALIDATE_CUH

#include "forward.cuh"
#include "loss.cuh"

namespace ec {

struct Validate {
  static constexpr int kBlocksPerProcessor = 2;
  struct Shared {
    Tile tile;
    Job job;
    double loss, weight;
    int64_t correct;
  };

  static EC_DEVICE_METHOD void add_rows(const Block& block, Shared& shared, int rows, int64_t* counts) {
    const Scratch& scratch = shared.job.scratch;
    const Loss& l = shared.job.loss;
    row_losses(block, shared.job, rows);
    each_index(block, rows, [&](int64_t i) {
      scratch.predicted[i] = predict(l, scratch.logits + i * l.outputs, targets_of(shared.job, i));
    });
    count_rows(block, shared.job, rows, counts);
    one_thread(block, [&] {
      for (int i = 0; i < rows; ++i) {
        shared.loss += scratch.loss[i];
        shared.weight += scratch.weight[i];
        shared.correct += scratch.predicted[i] == (l.kind == EC_KIND_CLASSES ? scratch.y[i] : 1);
      }
    });
  }

  /* Goes on from what the head's tally has, or begins with `fresh` sums. */
  static EC_DEVICE_METHOD void start(const Block& block, Shared& shared, const Launch& launch,
                                     const Head& head, int slot, const Tally& tally, bool fresh) {
    start_job(block, shared.job, launch, head, slot, false);
    if (fresh) each_index(block, 3 * (int64_t)head.shape.outputs, [&](int64_t i) { head.counts[i] = 0; });
    one_thread(block, [&] {
      shared.loss = fresh ? 0.0 : tally.val_loss;
      shared.weight = fresh ? 0.0 : tally.val_weight;
      shared.correct = fresh ? 0 : tally.val_correct;
    });
  }

  static EC_DEVICE_METHOD void finish(const Block& block, const Shared& shared, Tally& tally) {
    one_thread(block, [&] {
      tally.val_loss = shared.loss;
      tally.val_weight = shared.weight;
      tally.val_correct = shared.correct;
    });
  }

  static EC_DEVICE_METHOD void run(const Block& block, Shared& shared, const Launch& launch) {
    for (int slot = block.index(); slot < launch.n_active; slot += block.count()) {
      const Head& head = launch.heads[launch.active[slot]];
      const Task& task = launch.tasks[head.spec.task];
      Tally& tally = launch.tallies[launch.active[slot]];
      const int64_t n = task.val.n, chunk = launch.scratch_shape.rows, from = launch.step_begin * chunk,
                    to = n < launch.step_end * chunk ? n : launch.step_end * chunk;
      if (from >= to) continue;
      start(block, shared, launch, head, block.index(), tally, launch.step_begin == 0);
      for (int64_t first = from; first < to; first += chunk) {
        const int rows = (int)(n - first < chunk ? n - first : chunk);
        gather(block, shared.job, task.val, nullptr, first, rows);
        forward(block, shared.tile, shared.job, rows, [](int, int, float value) { return value; });
        add_rows(block, shared, rows, head.counts);
      }
      finish(block, shared, tally);
    }
  }
};

}  // namespace ec
#endif
