/* Large batches in TF32: three kernels a step over many heads at once, FirstLayer, OutputLayer
 * (stacked_output.cuh) and FirstGradient; and FirstLayer again for validation. A block has one 128 x 128 tile
 * of one head's product; heads of one order read the same rows of x, which then come from L2.
 *
 * Fused: the gather of x (its rows are found while they are copied), bias, ReLU and dropout into the first
 * product's epilogue, AdamW into the gradient's: a gradient lives in registers only.
 *
 * What bounds it, for 768-512-2 and 1,024 rows, a head and step: 1.62 GFLOP (3.3 us at the 494 TFLOP/s of an
 * H100's tensor cores, which mma.sync does not reach); from device memory w, m and v once read and written
 * and w once more (11 MB) and 4 to 5 passes over the activations (2.1 MB each), 6 us at 3.35 TB/s. NOT YET
 * RUN ON A GPU.
 */
#ifndef EMBEDCACHE_CUDA_STACKED_CUH
#define EMBEDCACHE_CUDA_STACKED_CUH

#include "stacked_output.cuh"
#include "stacked_tile.cuh"

namespace ec {

constexpr int kRowsOfTable = 128; /* of x, that a block looks up at a time */

EC_FN int tiles(int64_t n) { return (int)((n + kStackTile - 1) / kStackTile); }

/* hidden = dropout(relu(x w1' + b1)) of a batch (kTraining) or of a chunk of the validation rows. */
template <bool kTraining>
struct FirstLayer {
  static constexpr int kBlocksPerProcessor = 2;
  struct Shared {
    StackedTile<false> tile;
    uint32_t row[kRowsOfTable];
  };

  static int blocks(const Launch& launch) {
    return launch.n_active * tiles(launch.scratch_shape.rows) * tiles(launch.scratch_shape.hidden);
  }

  /* Bias, ReLU and dropout of units column .. column + 1, + 16, + 32, + 48. */
  static EC_DEVICE_METHOD void store(const Head& head, const Parameters& p, float* hidden, int row,
                                     int column, int64_t step, const FourPairs& z) {
    const uint32_t threshold = kTraining ? ec_dropout_threshold(head.spec.dropout) : 0;
    const float scale = kTraining ? ec_dropout_scale(head.spec.dropout) : 1.0f;
    FourPairs out;
    EC_UNROLL
    for (int e = 0; e < 2; ++e) {
      ec_words words = {};
      const uint32_t unit = (uint32_t)(column + e);
      if (threshold)
        words = ec_philox(head.spec.seed, unit / 64 * 16 + unit % 16, (uint32_t)row, (uint32_t)step,
                          EC_DOMAIN_DROPOUT);
      EC_UNROLL
      for (int w = 0; w < 4; ++w) {
        if (column + 16 * w >= head.shape.hidden) continue;
        const float value = z.pair[w].x[e] + p.b1[column + 16 * w + e];
        const bool dropped = kTraining && words.word[w] < threshold;
        const bool kept = !dropped && !(value < 0.0f);
        out.pair[w].x[e] = kept ? value * scale : 0.0f;
      }
    }
    EC_UNROLL
    for (int w = 0; w < 4; ++w)
      if (column + 16 * w < head.shape.hidden)
        *(FragmentB*)(hidden + (int64_t)row * head.shape.hidden + column + 16 * w) = out.pair[w];
  }

  static EC_DEVICE_METHOD void run(const Block& block, Shared& shared, const Launch& launch) {
    const int unit_tiles = tiles(launch.scratch_shape.hidden),
              all = tiles(launch.scratch_shape.rows) * unit_tiles;
    const int slot = block.index() / all, row0 = block.index() % all / unit_tiles * kStackTile,
              unit0 = block.index() % unit_tiles * kStackTile;
    const Head& head = launch.heads[launch.active[slot]];
    const Task& task = launch.tasks[head.spec.task];
    const View& view = kTraining ? task.train : task.val;
    const Stretch stretch = stretch_of(launch, view, kTraining);
    if (launch.tallies[launch.active[slot]].diverged || row0 >= stretch.rows || unit0 >= head.shape.hidden)
      return;
    each_index(block, kRowsOfTable, [&](int64_t i) {
      const int64_t at = stretch.first + (row0 + i < stretch.rows ? row0 + i : 0);
      shared.row[i] = (uint32_t)view.rows[kTraining ? head.order[at] : at];
    });
    const Parameters p = split_parameters(head.state, head.shape);
    float* hidden = scratch_of_block(launch.scratch, launch.scratch_shape, slot).hidden;
    const StackedRows x = {view.ready, ready_stride(task.dim), shared.row, 0, kStackTile, task.dim};
    const StackedRows w1 = {p.w1, task.dim, nullptr, unit0, head.shape.hidden, task.dim};
    stacked_product<false, false, true>(
        block, shared.tile, task.dim, x, w1, [&](int row, int column, const FourPairs& z) {
          if (row0 + row < stretch.rows) store(head, p, hidden, row0 + row, unit0 + column, stretch.step, z);
        });
  }
};

/* w1 by AdamW, from the gradient dz' x, unless the batch's loss was not finite. */
struct FirstGradient {
  static constexpr int kBlocksPerProcessor = 2;
  struct Shared {
    StackedTile<true> tile;
  };

  static int blocks(const Launch& launch) {
    return launch.n_active * tiles(launch.scratch_shape.hidden) * tiles(launch.dim);
  }

  static EC_DEVICE_METHOD void run(const Block& block, Shared& shared, const Launch& launch) {
    const int input_tiles = tiles(launch.dim), all = tiles(launch.scratch_shape.hidden) * input_tiles;
    const int slot = block.index() / all, unit0 = block.index() % all / input_tiles * kStackTile,
              input0 = block.index() % input_tiles * kStackTile;
    const Head& head = launch.heads[launch.active[slot]];
    const Task& task = launch.tasks[head.spec.task];
    const StackedStep& step = launch.steps[slot];
    const Shape s = head.shape;
    if (step.rows == 0 || unit0 >= s.hidden || input0 >= s.dim) return;
    const Scratch scratch = scratch_of_block(launch.scratch, launch.scratch_shape, slot);
    const StackedColumns dz = {scratch.hidden_gradient, s.hidden, nullptr, unit0, s.hidden, step.rows};
    const StackedColumns x = {task.train.ready, ready_stride(s.dim), scratch.x_row, input0, s.dim, step.rows};
    const ec_adamw adamw = step.adamw; /* a copy: the compiler must think that stores to w change the other */
    stacked_product<true, true, false>(
        block, shared.tile, step.rows, dz, x, [&](int row, int column, const FourPairs& gradient) {
          if (unit0 + row >= s.hidden) return;
          float* at = head.state + (int64_t)(unit0 + row) * s.dim + input0 + column;
          update_pairs<16>(
              at, head.stride, s.dim - input0 - column, adamw, [&](int i) { return gradient.pair[i].x; },
              [](int, const FragmentB&) {});
        });
  }
};

}  // namespace ec
#endif
