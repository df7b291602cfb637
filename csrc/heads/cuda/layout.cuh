/* What lies in device memory: views, tasks, heads with their state, and each block's scratch. */
#ifndef EMBEDCACHE_CUDA_LAYOUT_CUH
#define EMBEDCACHE_CUDA_LAYOUT_CUH

#include "../losses/losses.h"
#include "tile.cuh"

namespace ec {

/* An ec_view whose buffers are on the device; x is dense there. */
struct View {
  const void* x;              /* [., dim] */
  const int32_t* y;           /* [.], or NULL */
  const float* targets;       /* [., outputs], or NULL */
  const int64_t* rows;        /* [n] */
  const float* sample_weight; /* [.], or NULL */
  uint32_t n;
  int32_t dtype;
  const float* ready;    /* [., ready_stride(dim)] for products alone, by Prepare or PreparePlain, or NULL */
  const uint16_t* wide;  /* [., wide_stride(dim)] as PrepareWide makes it: x in bfloat16, or NULL */
  const uint16_t* lines; /* [., ready_stride(dim)] as PrepareLines makes it: x in bfloat16, or NULL */
  const float* plain;    /* [., ready_stride(dim)] as PreparePlain makes it: x in float32, or NULL */
};

/* Inputs that the TF32 kernels take at a time: x is padded with zeros to a multiple of them. */
constexpr int kChunk = 64;
EC_FN int32_t chunk_count(int32_t dim) { return (dim + kChunk - 1) / kChunk; }
EC_FN int64_t ready_stride(int32_t dim) { return (int64_t)chunk_count(dim) * kChunk; }

/* In bfloat16: 128 inputs at a time, of which the first 64 follow a second time. So a copy of 128 numbers may
 * begin with any of the first eight groups of 8, and rows that lie below each other can be turned against
 * each other by one group: then no column's groups share a bank. */
constexpr int kWideChunk = 128, kWideStored = kWideChunk + kWideChunk / 2;
EC_FN int32_t wide_chunk_count(int32_t dim) { return (dim + kWideChunk - 1) / kWideChunk; }
EC_FN int64_t wide_stride(int32_t dim) { return (int64_t)wide_chunk_count(dim) * kWideStored; }

struct Task {
  View train, val;
  int32_t dim, outputs, kind;
  const float *mean, *inv_std; /* [dim], or both NULL */
  const float* class_weight;   /* [outputs] or NULL: of the validation loss */
};

struct Shape {
  int32_t dim, hidden, outputs;
};

EC_FN int32_t features(Shape s) { return s.hidden > 0 ? s.hidden : s.dim; } /* what the last layer sees */

EC_FN int64_t parameter_count(Shape s) {
  return (int64_t)s.hidden * (s.dim + 1) + (int64_t)s.outputs * (features(s) + 1);
}

struct Parameters {
  float *w1, *b1, *w2, *b2;
};

EC_FN Parameters split_parameters(float* base, Shape s) {
  Parameters p;
  p.w1 = base;
  p.b1 = p.w1 + (int64_t)s.hidden * s.dim;
  p.w2 = p.b1 + s.hidden;
  p.b2 = p.w2 + (int64_t)s.outputs * features(s);
  return p;
}

/* A head: its settings and where its state is. state holds four arrays of `stride` floats one after the
 * other: the weights, AdamW's m and v, and the best epoch's weights. The first parameter_count() of each
 * count; only cluster.cuh lays m and v out in a way of its own. */
struct Head {
  ec_head spec;
  Shape shape;
  float* state;
  int64_t stride;
  const uint32_t* order; /* the epoch's training positions in order, shared by heads of equal seed and n */
  const float* class_weight; /* [outputs] or NULL: of the training loss; spec has the host's pointer */
  int64_t* counts;           /* [3][outputs] of the validation rows: see count_rows() */
  uint16_t* images;          /* w1 as LargeLayer reads it, or NULL */
};

/* What a head's launches tell the host. */
struct Tally {
  double train_loss; /* sum over the epoch's batches of loss x rows */
  double val_loss, val_weight;
  int64_t val_correct;
  int64_t rows; /* training rows finished since the beginning */
  int32_t diverged;
  int32_t bad_weights; /* in the end: not all of the best are finite */
};

struct Order {
  uint64_t seed;
  uint32_t n;
  uint32_t *positions, *spare; /* [n] each */
};

/* One block's scratch memory. A block works on one head at a time, so it is needed per block, not per head.
 */
struct Scratch {
  int64_t* row;           /* [rows] row numbers of x */
  double* log_sum;        /* [rows] log-sum-exp of the logits */
  double *loss, *weight;  /* [rows] numerator and denominator of the loss */
  double* mass;           /* [rows] of the gradient, where the loss is not EC_LOSS_NLL */
  float* hidden;          /* [rows, hidden] after ReLU and dropout */
  float* hidden_gradient; /* [rows, hidden] */
  float* logits;          /* [rows, outputs]; the gradient takes their place */
  int32_t *y, *predicted; /* [rows] class; what the head would say, see predict() */
  uint32_t* x_row;        /* [rows] as row, for stacked.cuh */
};

/* Sizes of the scratch, largest over the bank; rows a multiple of 4, so that all of it is aligned to 16. */
struct ScratchShape {
  int64_t rows, hidden, outputs;
};

EC_FN int64_t scratch_bytes(ScratchShape s) {
  const int64_t bytes = s.rows * (5 * 8 + 3 * 4 + 2 * 4 * s.hidden + 4 * s.outputs);
  return (bytes + 255) / 256 * 256;
}

EC_FN Scratch scratch_of_block(char* base, ScratchShape s, int block) {
  char* at = base + scratch_bytes(s) * block;
  Scratch out;
  out.row = (int64_t*)at;
  out.log_sum = (double*)(out.row + s.rows);
  out.loss = out.log_sum + s.rows;
  out.weight = out.loss + s.rows;
  out.mass = out.weight + s.rows;
  out.hidden = (float*)(out.mass + s.rows);
  out.hidden_gradient = out.hidden + s.rows * s.hidden;
  out.logits = out.hidden_gradient + s.rows * s.hidden;
  out.y = (int32_t*)(out.logits + s.rows * s.outputs);
  out.predicted = out.y + s.rows;
  out.x_row = (uint32_t*)(out.predicted + s.rows);
  return out;
}

/* Some rows of x as the heads see them: gathered, widened to float, standardized. A source for tile_product.
 */
struct Input {
  const void* x;
  const int64_t* row;
  const float *mean, *inv_std;
  int32_t dim, dtype;
  static constexpr bool k_contiguous = true;

  EC_DEVICE_METHOD float at(int64_t row_of_x, int k) const {
    const int64_t at = row_of_x * dim + k;
    const float value = dtype == EC_FLOAT16 ? half_to_float(((const uint16_t*)x)[at]) : ((const float*)x)[at];
    return mean ? (value - mean[k]) * inv_std[k] : value;
  }
  EC_DEVICE_METHOD float operator()(int i, int k) const { return at(row[i], k); }
};

/* Sizes of the scratch of heads that LargeLayer trains, largest over the bank; 0 if there are none. */
struct LargeShape {
  int64_t row_tiles, unit_tiles, outputs;
};

/* What OutputLayer tells FirstGradient of a head's step. */
struct StackedStep {
  ec_adamw adamw;
  int32_t rows; /* 0: nothing to update by */
};

/* The argument of every kernel. Blocks share out the heads (or orders) of the `active` list. */
struct Launch {
  const Task* tasks;
  const Head* heads;
  Tally* tallies;        /* [heads] */
  const Order* orders;   /* for Shuffle */
  const int32_t* active; /* [n_active] numbers of heads, or of orders for Shuffle */
  int32_t n_active;
  int32_t batch_size, epochs;
  uint32_t epoch;
  uint32_t step_begin, step_end; /* steps of this epoch that TrainSteps runs */
  char* scratch;
  ScratchShape scratch_shape;
  StackedStep* steps; /* [slots of the scratch] */
  int32_t dim;        /* largest of the bank */
  Input source;       /* for Prepare: all of a view's x */
  int64_t source_rows;
  float* ready;
  uint16_t *wide, *lines;
  char* large; /* scratch of LargeLayer, see large_scratch() */
  LargeShape large_shape;
};

/* What a head's rows are scored by, in training or in validation. */
struct Loss {
  int32_t kind, outputs;
  double smoothing, even; /* even: smoothing / outputs */
  const float* weight;    /* [outputs] or NULL */
  double weights;         /* their sum */
  ec_loss loss;
};

EC_FN ec_loss loss_of(const ec_head& spec) {
  ec_loss loss;
  loss.number = spec.loss;
  loss.setting = spec.loss_setting;
  return loss;
}

EC_FN Loss make_loss(const Task& task, const float* weight, double smoothing, ec_loss which) {
  Loss loss = {task.kind, task.outputs,         smoothing, smoothing / (double)task.outputs,
               weight,    (double)task.outputs, which};
  if (!weight) return loss;
  loss.weights = 0;
  for (int32_t c = 0; c < loss.outputs; ++c) loss.weights += weight[c];
  return loss;
}

/* What a block is busy with: one head on one view. It lies in shared memory, because its pointers would take
 * a third of the registers. */
struct Job {
  Shape shape;
  Parameters p;
  int64_t stride; /* from a weight to its m, from m to v */
  Scratch scratch;
  Input x; /* the rows that gather() has looked up */
  Loss loss;
  const float *targets, *sample_weight; /* the view's */
};

/* What a row's loss is multiplied by. weights: [.] of x's rows, or NULL. */
EC_FN double sample_weight_of(const float* weights, int64_t row) {
  return weights ? (double)weights[row] : 1.0;
}

/* Of the batch's row i, where the loss has targets. */
EC_FN const float* targets_of(const Job& job, int64_t i) {
  return job.targets ? job.targets + job.scratch.row[i] * job.loss.outputs : nullptr;
}

EC_DEVICE void start_job(const Block& block, Job& job, const Launch& launch, const Head& head, int slot,
                         bool training) {
  one_thread(block, [&] {
    const Task& task = launch.tasks[head.spec.task];
    const View& view = training ? task.train : task.val;
    job.shape = head.shape;
    job.p = split_parameters(head.state, head.shape);
    job.stride = head.stride;
    job.scratch = scratch_of_block(launch.scratch, launch.scratch_shape, slot);
    job.x = {view.x, job.scratch.row, task.mean, task.inv_std, task.dim, view.dtype};
    job.loss = training ? make_loss(task, head.class_weight, head.spec.label_smoothing, loss_of(head.spec))
                        : make_loss(task, task.class_weight, 0.0, ec_loss{EC_LOSS_NLL, 0.0});
    job.targets = view.targets;
    job.sample_weight = view.sample_weight;
  });
}

}  // namespace ec
#endif
