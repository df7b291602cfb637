/* TrainSteps: a head per thread block, which runs all the steps of an epoch (or of a stretch of it) in one
 * launch.
 *
 * One step fuses: the gather of the batch's rows with half-to-float and standardization (while tiles of x are
 * loaded); bias, ReLU and dropout (epilogue of the first product); loss and gradient; and AdamW,
 * in the epilogue of the weight-gradient products: a gradient lives in registers only and is never stored.
 *
 * Memory per step and head, B rows: the state, weights read three times and written once, m and v read and
 * written (28 bytes per parameter, 11 MB at 768-512-2); x twice, B dim values (L2); the scratch, B (2 hidden
 * + outputs) floats, a few times (L1 and L2). At batch 32 the state is the bound: 264 heads at once are 1.2
 * GB, so it comes from HBM. At large batches the float32 arithmetic on the CUDA cores is. Only what
 * the faster kernels do not take comes here (README.md).
 */
#ifndef EMBEDCACHE_CUDA_TRAIN_CUH
#define EMBEDCACHE_CUDA_TRAIN_CUH

#include "forward.cuh"
#include "loss.cuh"

namespace ec {

EC_DEVICE ec_adamw adamw_of_step(const ec_head& spec, int64_t step, int64_t total) {
  const double lr = spec.lr * ec_lr_factor(spec.schedule, spec.warmup, step, total);
  return ec_adamw_at(lr, spec.beta1, spec.beta2, spec.eps, spec.weight_decay, step + 1);
}

struct TrainSteps {
  static constexpr int kBlocksPerProcessor = 2;
  struct Shared {
    Tile tile;
    Job job;
    ec_adamw adamw;
    double loss;       /* of the batch */
    double weight;     /* of the batch: its loss is the rows' sum over this */
    double epoch_loss; /* sum of loss x rows so far */
    int64_t rows;      /* finished by this launch */
  };

  /* The batch's loss in shared.loss; the logits become its gradient. */
  static EC_DEVICE_METHOD void batch_loss(const Block& block, Shared& shared, int rows) {
    const Job& job = shared.job;
    const Scratch& scratch = job.scratch;
    row_losses(block, job, rows);
    one_thread(block, [&] {
      double loss = 0, weight = 0;
      for (int i = 0; i < rows; ++i) {
        loss += scratch.loss[i];
        weight += scratch.weight[i];
      }
      shared.loss = loss / weight;
      shared.weight = weight;
    });
    loss_gradients(block, job, rows, shared.weight);
  }

  /* The gradient that reaches the first layer: through w2 as it was in the forward pass. A unit that is above
   * 0 after ReLU and dropout was let through by both. */
  static EC_DEVICE_METHOD void back_to_hidden(const Block& block, Shared& shared, int rows, float scale) {
    const int hidden = shared.job.shape.hidden, outputs = shared.job.shape.outputs;
    const Scratch& scratch = shared.job.scratch;
    tile_product(block, shared.tile, rows, hidden, outputs, Matrix{scratch.logits, outputs},
                 transposed(Matrix{shared.job.p.w2, hidden}), [&](int i, int j, float sum) {
                   const int64_t at = (int64_t)i * hidden + j;
                   scratch.hidden_gradient[at] = scratch.hidden[at] > 0.0f ? sum * scale : 0.0f;
                 });
  }

  static EC_DEVICE_METHOD void adamw(const Shared& shared, float gradient, float* at) {
    const int64_t stride = shared.job.stride;
    ec_adamw_update(gradient, at, at + stride, at + 2 * stride, shared.adamw);
  }

  /* AdamW for b [outputs] by the sums of the gradient [rows, outputs]. */
  static EC_DEVICE_METHOD void update_bias(const Block& block, Shared& shared, int outputs, int rows,
                                           const float* gradient, float* b) {
    each_index(block, outputs, [&](int64_t j) {
      float sum = 0.0f;
      for (int i = 0; i < rows; ++i) sum += gradient[(int64_t)i * outputs + j];
      adamw(shared, sum, b + j);
    });
  }

  /* One layer's AdamW step: w [outputs, inputs] by the product gradient' a, b [outputs] by the gradient's
   * sums. */
  template <class Source>
  static EC_DEVICE_METHOD void update_layer(const Block& block, Shared& shared, int outputs, int inputs,
                                            int rows, const float* gradient, const Source& a, float* w,
                                            float* b) {
    tile_product(block, shared.tile, outputs, inputs, rows, transposed(Matrix{gradient, outputs}),
                 transposed(a),
                 [&](int i, int j, float sum) { adamw(shared, sum, w + (int64_t)i * inputs + j); });
    update_bias(block, shared, outputs, rows, gradient, b);
  }

  static EC_DEVICE_METHOD void update(const Block& block, Shared& shared, int rows, float scale) {
    const Shape s = shared.job.shape;
    const Parameters& p = shared.job.p;
    const Scratch& scratch = shared.job.scratch;
    if (s.hidden > 0) {
      back_to_hidden(block, shared, rows, scale);
      update_layer(block, shared, s.outputs, s.hidden, rows, scratch.logits, Matrix{scratch.hidden, s.hidden},
                   p.w2, p.b2);
      update_layer(block, shared, s.hidden, s.dim, rows, scratch.hidden_gradient, shared.job.x, p.w1, p.b1);
    } else {
      update_layer(block, shared, s.outputs, s.dim, rows, scratch.logits, shared.job.x, p.w2, p.b2);
    }
  }

  /* The head's optimizer step `number` of `total` over the batch that was gathered; false if its loss is not
   * finite, and then nothing has been updated. */
  static EC_DEVICE_METHOD bool step(const Block& block, Shared& shared, const ec_head& spec, int rows,
                                    int64_t number, int64_t total) {
    const uint32_t threshold = ec_dropout_threshold(spec.dropout);
    const float scale = ec_dropout_scale(spec.dropout);
    forward(block, shared.tile, shared.job, rows, [&](int i, int j, float value) {
      if (threshold == 0) return value;
      return ec_dropout_word(spec.seed, (uint32_t)number, (uint32_t)i, (uint32_t)j) < threshold
                 ? 0.0f
                 : value * scale;
    });
    batch_loss(block, shared, rows);
    if (!isfinite(shared.loss)) return false;
    one_thread(block, [&] {
      shared.adamw = adamw_of_step(spec, number, total);
      shared.epoch_loss += shared.loss * rows;
      shared.rows += rows;
    });
    update(block, shared, rows, scale);
    return true;
  }

  static EC_DEVICE_METHOD void run(const Block& block, Shared& shared, const Launch& launch) {
    for (int slot = block.index(); slot < launch.n_active; slot += block.count()) {
      const Head& head = launch.heads[launch.active[slot]];
      const Task& task = launch.tasks[head.spec.task];
      Tally& tally = launch.tallies[launch.active[slot]];
      bool finite = !tally.diverged;
      start_job(block, shared.job, launch, head, block.index(), true);
      one_thread(block, [&] {
        shared.epoch_loss = launch.step_begin == 0 ? 0.0 : tally.train_loss;
        shared.rows = 0;
      });
      const int64_t n = task.train.n, batch = launch.batch_size, steps = (n + batch - 1) / batch;
      const int64_t end = steps < launch.step_end ? steps : launch.step_end;
      for (int64_t s = launch.step_begin; s < end && finite; ++s) {
        const int64_t first = s * batch;
        const int rows = (int)(n - first < batch ? n - first : batch);
        gather(block, shared.job, task.train, head.order, first, rows);
        finite = step(block, shared, head.spec, rows, launch.epoch * steps + s, launch.epochs * steps);
      }
      one_thread(block, [&] {
        tally.train_loss = shared.epoch_loss;
        tally.rows += shared.rows;
        tally.diverged = !finite;
      });
    }
  }
};

}  // namespace ec
#endif
