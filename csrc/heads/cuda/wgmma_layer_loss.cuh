/* What LargeLayer does once its product is done (wgmma_layer.cuh): the block's activations and its parts of
 * the logits, the rows' loss, and the gradients; and what lies in its shared memory.
 */
#ifndef EMBEDCACHE_CUDA_WGMMA_LAYER_LOSS_CUH
#define EMBEDCACHE_CUDA_WGMMA_LAYER_LOSS_CUH

#include "wgmma_tile.cuh"

namespace ec {

constexpr int kActivationStride = kLargeUnits + 8; /* pairs of 16 lanes hit different banks */

/* Where the stages were, once all products are done. */
struct LargeAfter {
  float a[kLargeRows * kActivationStride];
  float part[4][kLargeOutputs][kLargeRows]; /* of the logits, by a fourth of the block's units */
  double loss[kLargeRows];
  float d[kLargeRows][kLargeOutputs]; /* logits, then the gradient by them */
};

struct LargeShared {
  LargeTile tile;
  union {
    float part[kLargeUnitTiles][kLargeOutputs][kLargeRows]; /* of the logits, by each unit tile */
    double weight_of_thread[kThreads];                      /* before */
  };
  float w2[kLargeOutputs][kLargeUnits], b1[kLargeUnits];
  uint32_t row[kLargeRows]; /* of x */
  Mbarrier parts;
  Loss loss;
  double weight;
  int unit_tile, first_row, share; /* of the block, and which share of images it copies */

  EC_DEVICE_METHOD LargeAfter& after() {
    void* const at = tile.stage;
    return *(LargeAfter*)at;
  }
};
static_assert(sizeof(LargeAfter) <= sizeof(LargeTile::stage), "it fits where the stages were");
static_assert(sizeof(LargeShared) <= 232448, "it fits a multiprocessor of compute capability 9.0");

struct LargeLayerLoss {
  using Shared = LargeShared;
  using Team = Cluster<Shared>;

  /* 32 calls of Philox, four bits each. */
  struct Dropped {
    uint32_t bits[4];
  };

  /* What a block works on. */
  struct Place {
    const Launch& launch;
    const Head& head;
    const View& view;
    LargeScratch scratch;
    Stretch stretch;
    uint32_t threshold;
    float scale;
    int unit_tiles, first_row; /* of the cluster */
  };

  /* The sums become activations, also in shared memory; and a fourth of the block's parts of the logits. */
  static EC_DEVICE_METHOD void activate(const Team& team, const Place& place, int t, float* a,
                                        const Dropped& dropped) {
    Shared& shared = team.shared(t);
    LargeAfter& after = shared.after();
    const int thread = team.in_block(t), g = thread % kLanes / 4, q = thread % 4;
    const int row = thread / kLanes * 16 + g;
    EC_UNROLL
    for (int j = 0; j < 32; ++j) {
      const FragmentB bias = *(const FragmentB*)(shared.b1 + 8 * j + 2 * q);
      EC_UNROLL
      for (int i = 0; i < 4; ++i) {
        const int n = j / 8 * 8 + j % 2 * 4 + i, word = j % 8 / 2;
        const bool is_dropped = dropped.bits[3 - n / 8] >> (28 - n % 8 * 4 + word) & 1;
        const float value = a[4 * j + i] + bias.x[i % 2];
        a[4 * j + i] = !is_dropped && !(value < 0.0f) ? value * place.scale : 0.0f;
      }
      EC_UNROLL
      for (int h = 0; h < 2; ++h)
        *(FragmentB*)(after.a + (row + 8 * h) * kActivationStride + 8 * j +
                      2 * q) = {{a[4 * j + 2 * h], a[4 * j + 2 * h + 1]}};
    }
    for (int c = 0; c < place.head.shape.outputs; ++c) {
      float sum[2] = {};
      EC_UNROLL
      for (int j = 0; j < 32; ++j) {
        const FragmentB w = *(const FragmentB*)(&shared.w2[c][8 * j + 2 * q]);
        EC_UNROLL
        for (int i = 0; i < 4; ++i) sum[i / 2] = fmaf(a[4 * j + i], w.x[i % 2], sum[i / 2]);
      }
      after.part[q][c][row] = sum[0];
      after.part[q][c][row + 8] = sum[1];
    }
  }

  /* The block's parts of the logits, four rows at a time, into all blocks with the same rows. */
  static EC_DEVICE_METHOD void push_parts(const Team& team, const Place& place, int t) {
    Shared& shared = team.shared(t);
    const int own = team.shared(t).unit_tile, outputs = place.head.shape.outputs;
    if (team.in_block(t) == 0) arrive_expect(shared.parts, place.unit_tiles * outputs * kLargeRows * 4);
    for (int e = team.in_block(t); e < outputs * (kLargeRows / 4); e += kThreads) {
      const int c = e / (kLargeRows / 4), row = e % (kLargeRows / 4) * 4;
      Quad sum = *(const Quad*)&shared.after().part[0][c][row];
      for (int q = 1; q < 4; ++q) {
        const Quad more = *(const Quad*)&shared.after().part[q][c][row];
        EC_UNROLL
        for (int i = 0; i < 4; ++i) sum.x[i] += more.x[i];
      }
      for (int tile = 0; tile < place.unit_tiles; ++tile) {
        const int rank = team.rank(t) - own + tile;
        push(team.remote(t, rank, &shared.part[own][c][row]), sum, team.remote(t, rank, &shared.parts));
      }
    }
  }

  /* A row's logits, loss and gradient by the logits. */
  static EC_DEVICE_METHOD void row_loss(const Team& team, const Place& place, int t) {
    Shared& shared = team.shared(t);
    wait(shared.parts, 0);
    const int i = team.in_block(t), outputs = place.head.shape.outputs;
    if (i >= kLargeRows) return;
    float* d = shared.after().d[i];
    const bool inside = team.shared(t).first_row + i < place.stretch.rows;
    const Loss& l = shared.loss;
    const float* b2 = split_parameters(place.head.state, place.head.shape).b2;
    for (int c = 0; c < kLargeOutputs; ++c) {
      float sum = inside && c < outputs ? b2[c] : 0.0f;
      for (int tile = 0; inside && c < outputs && tile < place.unit_tiles; ++tile)
        sum += shared.part[tile][c][i];
      d[c] = sum;
    }
    shared.after().loss[i] = 0.0;
    if (!inside) return;
    const uint32_t row = shared.row[i];
    const float* targets = place.view.targets ? place.view.targets + (int64_t)row * outputs : nullptr;
    const bool classes = l.kind == EC_KIND_CLASSES;
    const int32_t y = classes ? place.view.y[row] : 0;
    const double log_sum = classes ? ec_log_sum_exp(d, outputs) : 0.0;
    double mass = 0;
    shared.after().loss[i] = classes                    ? class_loss(l, d, y, log_sum, &mass)
                             : l.kind == EC_KIND_LABELS ? label_loss(l, d, targets)
                                                        : number_loss(l, d, targets);
    const double sample = sample_weight_of(place.view.sample_weight, row);
    shared.after().loss[i] *= sample;
    for (int c = 0; c < outputs; ++c) {
      const double softmax = classes ? exp((double)d[c] - log_sum) : 0.0;
      d[c] = (float)(loss_gradient(l, d[c], c, y, targets, softmax, log_sum, mass) * sample / shared.weight);
    }
  }

  /* A unit's column: dz of all rows, and the sums over them for b1 and w2. */
  template <int kMost>
  static EC_DEVICE_METHOD void backward(const Team& team, const Place& place, int t) {
    Shared& shared = team.shared(t);
    const LargeAfter& after = shared.after();
    const int i = team.in_block(t), unit = team.shared(t).unit_tile * kLargeUnits + i,
              row0 = team.shared(t).first_row;
    const int64_t units = (int64_t)place.launch.large_shape.unit_tiles * kLargeUnits,
                  tile = row0 / kLargeRows;
    float w[kMost], of_w[kMost] = {}, of_b = 0.0f;
    EC_UNROLL
    for (int c = 0; c < kMost; ++c) w[c] = shared.w2[c][i];
    uint16_t* dz = place.scratch.dz + place_in_gradient(place.unit_tiles, row0, unit / kLine * kLine);
    for (int line = 0; line < kLargeRows; line += kLinesOfSwizzle) {
      if (line == kLine) dz += (int64_t)place.unit_tiles * kImage - kLine * kLine; /* the next image */
      EC_UNROLL
      for (int k = 0; k < kLinesOfSwizzle; ++k) {
        const float a = after.a[(line + k) * kActivationStride + i];
        float gradient = 0.0f;
        EC_UNROLL
        for (int c = 0; c < kMost; ++c) {
          gradient = fmaf(after.d[line + k][c], w[c], gradient);
          of_w[c] = fmaf(after.d[line + k][c], a, of_w[c]);
        }
        gradient = a > 0.0f ? gradient * place.scale : 0.0f;
        of_b += gradient;
        dz[place_in_line(k, i % kLine)] = to_bf16(gradient);
      }
      dz += kLinesOfSwizzle * kLine;
    }
    place.scratch.b1[tile * units + unit] = of_b;
    EC_UNROLL
    for (int c = 0; c < kMost; ++c)
      if (c < place.head.shape.outputs)
        place.scratch.w2[(tile * place.launch.large_shape.outputs + c) * units + unit] = of_w[c];
  }

  /* Four chains side by side: a single one waits for itself. */
  template <class T, class F>
  static EC_DEVICE_METHOD T sum_of_rows(F f) {
    T sum[4] = {};
    for (int row = 0; row < kLargeRows; row += 4) {
      EC_UNROLL
      for (int k = 0; k < 4; ++k) sum[k] += f(row + k);
    }
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }

  /* By one block of each row tile: sums over its rows; by one of the head: what the step needs. */
  static EC_DEVICE_METHOD void tell(const Team& team, const Place& place, int t) {
    Shared& shared = team.shared(t);
    const int i = team.in_block(t), row0 = team.shared(t).first_row, tile = row0 / kLargeRows;
    if (team.shared(t).unit_tile > 0) return;
    if (i < place.head.shape.outputs) {
      place.scratch.b2[tile * kLargeOutputs + i] =
          sum_of_rows<float>([&](int row) { return shared.after().d[row][i]; });
    } else if (i == kLanes) {
      place.scratch.loss[tile] = sum_of_rows<double>([&](int row) { return shared.after().loss[row]; });
    } else if (i == 2 * kLanes && tile == 0) {
      const Stretch& s = place.stretch;
      *place.scratch.step = {adamw_of_step(place.head.spec, s.step, s.all_steps), s.rows, shared.weight};
    }
  }
};

}  // namespace ec
#endif
