/* A head's forward pass over some rows, for training and for validation, and the weights it starts from. */
#ifndef EMBEDCACHE_CUDA_FORWARD_CUH
#define EMBEDCACHE_CUDA_FORWARD_CUH

#include "layout.cuh"

namespace ec {

/* Looks up rows first .. first + rows - 1 of a view (in `order`, or as they stand) and their classes, if they
 * have. */
EC_DEVICE void gather(const Block& block, const Job& job, const View& view, const uint32_t* order,
                      int64_t first, int rows) {
  each_index(block, rows, [&](int64_t i) {
    const int64_t row = view.rows[order ? order[first + i] : first + i];
    job.scratch.row[i] = row;
    job.scratch.x_row[i] = (uint32_t)row;
    job.scratch.y[i] = view.y ? view.y[row] : 0;
  });
}

/* logits = a w2' + b2. Few outputs: narrow tiles, which waste less. */
template <class Source>
EC_DEVICE void output_layer(const Block& block, Tile& tile, const Job& job, int rows, const Source& a) {
  const int outputs = job.shape.outputs, inputs = features(job.shape);
  const Matrix w2 = {job.p.w2, inputs};
  const auto store = [&](int i, int j, float sum) {
    job.scratch.logits[(int64_t)i * outputs + j] = sum + job.p.b2[j];
  };
  if (outputs <= kLanes) {
    tile_product<1>(block, tile, rows, outputs, inputs, a, w2, store);
  } else {
    tile_product(block, tile, rows, outputs, inputs, a, w2, store);
  }
}

/* hidden = dropout(relu(x w1' + b1)), in the product's epilogue; then the logits.
 * dropout(i, j, value) returns what is left of a unit. */
template <class Dropout>
EC_DEVICE void forward(const Block& block, Tile& tile, const Job& job, int rows, const Dropout& dropout) {
  const Shape s = job.shape;
  const Scratch& scratch = job.scratch;
  if (s.hidden > 0) {
    tile_product(block, tile, rows, s.hidden, s.dim, job.x, Matrix{job.p.w1, s.dim},
                 [&](int i, int j, float sum) {
                   const float z = sum + job.p.b1[j];
                   scratch.hidden[(int64_t)i * s.hidden + j] = dropout(i, j, z < 0.0f ? 0.0f : z);
                 });
    output_layer(block, tile, job, rows, Matrix{scratch.hidden, s.hidden});
  } else {
    output_layer(block, tile, job, rows, job.x);
  }
}

/* Initialize: the weights of `active` heads from their seeds, or a probe's to 0; AdamW's moments and the best
 * weights to 0. What the host gives them to start from follows (group.cuh).
 *
 * Fuses nothing; writes the whole state once (16 bytes per parameter), bound by that. */
struct Initialise {
  struct Shared {};
  static constexpr int kBlocksPerProcessor = 2;

  static EC_DEVICE_METHOD void fill(const Block& block, uint64_t seed, uint32_t tensor, int64_t count,
                                    int fan_in, float* w) {
    const float bound = ec_init_bound(fan_in);
    each_index(block, count, [&](int64_t e) { w[e] = ec_init_value(seed, tensor, (uint64_t)e, bound); });
  }

  static EC_DEVICE_METHOD void run(const Block& block, Shared&, const Launch& launch) {
    for (int slot = block.index(); slot < launch.n_active; slot += block.count()) {
      const Head& head = launch.heads[launch.active[slot]];
      const Shape s = head.shape;
      const Parameters p = split_parameters(head.state, s);
      const int64_t into = features(s);
      if (s.hidden > 0) {
        fill(block, head.spec.seed, EC_TENSOR_W1, (int64_t)s.hidden * s.dim, s.dim, p.w1);
        fill(block, head.spec.seed, EC_TENSOR_B1, s.hidden, s.dim, p.b1);
        fill(block, head.spec.seed, EC_TENSOR_W2, s.outputs * into, (int)into, p.w2);
        fill(block, head.spec.seed, EC_TENSOR_B2, s.outputs, (int)into, p.b2);
      } else {
        each_index(block, parameter_count(s), [&](int64_t e) { head.state[e] = 0.0f; });
      }
      each_index(block, 3 * head.stride, [&](int64_t e) { head.state[head.stride + e] = 0.0f; });
    }
  }
};

}  // namespace ec
#endif
