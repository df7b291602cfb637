/* Large batches in TF32, or (kSplit) in float32: three kernels a step over many heads at once, FirstLayer,
 * OutputLayer (stacked_output.cuh) and FirstGradient; and FirstLayer again for validation. A block has one
 * 128 x 128 tile of one head's product; heads of one order read the same rows of x, which then come from L2.
 *
 * Fused: the gather of x (its rows are found while they are copied), bias, ReLU and dropout into the first
 * product's epilogue, AdamW into the gradient's: a gradient lives in registers only.
 *
 * What bounds it, for 768-512-2 and 1,024 rows, a head and step: 1.62 GFLOP (3.3 us at the 494 TFLOP/s of an
 * H100's tensor cores, which mma.sync does not reach); from device memory w, m and v once read and written
 * and w once more (11 MB) and 4 to 5 passes over the activations (2.1 MB each), 6 us at 3.35 TB/s. In
 * float32 three times the products of the tensor cores.
 */
#ifndef EMBEDCACHE_CUDA_STACKED_CUH
#define EMBEDCACHE_CUDA_STACKED_CUH

#include <type_traits>

#include "stacked_output.cuh"
#include "stacked_tile.cuh"

namespace ec {

EC_FN int tiles(int64_t n) { return (int)((n + kStackTile - 1) / kStackTile); }

/* Which tile of which head a block has; in shared memory for what follows the product, in which registers are
 * short. */
struct StackedPlace {
  int slot, row0, column0;
};

/* Of `rows` x `columns` tiles a head. */
EC_DEVICE StackedPlace stacked_place(const Block& block, int rows, int columns) {
  const int tile = block.index() % (rows * columns);
  return {block.index() / (rows * columns), tile / columns * kStackTile, tile % columns * kStackTile};
}

/* hidden = dropout(relu(x w1' + b1)) of a batch (kTraining) or of a chunk of the validation rows. */
template <bool kTraining, bool kSplit>
struct FirstLayer {
  using Operands = std::conditional_t<kSplit, SplitOperands, RoundedOperands<false, true>>;
  static constexpr int kBlocksPerProcessor = 2;
  struct Shared {
    StackedTile<false> tile;
    StackedPlace place;
  };

  static EC_FN_METHOD int row_tiles(const Launch& launch) {
    const int64_t rows = launch.scratch_shape.rows;
    return tiles(kTraining && launch.batch_size < rows ? launch.batch_size : rows);
  }

  static int blocks(const Launch& launch) {
    return launch.n_active * row_tiles(launch) * tiles(launch.scratch_shape.hidden);
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
    PerThread<StackedSums> sums;
    {
      const StackedPlace place = stacked_place(block, row_tiles(launch), tiles(launch.scratch_shape.hidden));
      const int number = launch.active[place.slot], row0 = place.row0, unit0 = place.column0;
      if (launch.tallies[number].diverged) return;
      const Head& head = launch.heads[number];
      const Task& task = launch.tasks[head.spec.task];
      const View& view = kTraining ? task.train : task.val;
      const Stretch stretch = stretch_of(launch, view, kTraining);
      if (row0 >= stretch.rows || unit0 >= head.shape.hidden) return;
      one_thread(block, [&] { shared.place = place; });
      const auto x = stacked_rows(task.dim, [&](int line) {
        const int row = row0 + line < stretch.rows ? row0 + line : stretch.rows - 1;
        const int64_t at = stretch.first + row;
        return view.ready + view.rows[kTraining ? head.order[at] : at] * ready_stride(task.dim);
      });
      const auto w1 = stacked_rows(task.dim, [&](int line) {
        const int last = head.shape.hidden - 1, unit = unit0 + line < last ? unit0 + line : last;
        return split_parameters(head.state, head.shape).w1 + (int64_t)unit * task.dim;
      });
      stacked_product<false, Operands>(block, shared.tile, task.dim, x, w1, sums);
    }
    const StackedPlace place = shared.place;
    const Head& head = launch.heads[launch.active[place.slot]];
    const Task& task = launch.tasks[head.spec.task];
    const Stretch stretch = stretch_of(launch, kTraining ? task.train : task.val, kTraining);
    const Parameters p = split_parameters(head.state, head.shape);
    float* hidden = scratch_of_block(launch.scratch, launch.scratch_shape, place.slot).hidden;
    each_sum(block, sums, [&](int row, int column, const FourPairs& z) {
      if (place.row0 + row < stretch.rows)
        store(head, p, hidden, place.row0 + row, place.column0 + column, stretch.step, z);
    });
  }
};

/* w1 by AdamW, from the gradient dz' x, unless the batch's loss was not finite. */
template <bool kSplit>
struct FirstGradient {
  using Operands = std::conditional_t<kSplit, SplitOperands, RoundedOperands<true, false>>;
  static constexpr int kBlocksPerProcessor = 2;
  struct Shared {
    StackedTile<true> tile;
    StackedPlace place;
  };

  static int blocks(const Launch& launch) {
    return launch.n_active * tiles(launch.scratch_shape.hidden) * tiles(launch.dim);
  }

  static EC_DEVICE_METHOD void run(const Block& block, Shared& shared, const Launch& launch) {
    PerThread<StackedSums> sums;
    {
      const StackedPlace place = stacked_place(block, tiles(launch.scratch_shape.hidden), tiles(launch.dim));
      const int slot = place.slot, unit0 = place.row0, input0 = place.column0;
      const Head& head = launch.heads[launch.active[slot]];
      const View& train = launch.tasks[head.spec.task].train;
      const Shape s = head.shape;
      const int rows = launch.steps[slot].rows;
      if (rows == 0 || unit0 >= s.hidden || input0 >= s.dim) return;
      one_thread(block, [&] { shared.place = place; });
      const Scratch scratch = scratch_of_block(launch.scratch, launch.scratch_shape, slot);
      const uint32_t* const x_row = scratch.x_row;
      const auto dz = stacked_columns(scratch.hidden_gradient + unit0, s.hidden, rows, s.hidden - unit0,
                                      [](uint32_t k) { return k; });
      const auto x = stacked_columns(train.ready + input0, ready_stride(s.dim), rows, s.dim - input0,
                                     [=](uint32_t k) { return x_row[k]; });
      stacked_product<true, Operands>(block, shared.tile, rows, dz, x, sums);
    }
    const StackedPlace place = shared.place;
    const Head& head = launch.heads[launch.active[place.slot]];
    const Shape s = head.shape;
    const int64_t stride = head.stride; /* copies: the compiler must think that stores to w change the rest */
    float* const state = head.state;
    const ec_adamw adamw = launch.steps[place.slot].adamw;
    each_sum(block, sums, [&](int row, int column, const FourPairs& gradient) {
      const int unit = place.row0 + row, input = place.column0 + column;
      if (unit >= s.hidden) return;
      update_pairs<16>(
          state + (int64_t)unit * s.dim + input, stride, s.dim - input, adamw,
          [&](int i) { return gradient.pair[i].x; }, [](int, const FragmentB&) {});
    });
  }
};

}  // namespace ec
#endif
