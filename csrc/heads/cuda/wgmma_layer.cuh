/* LargeLayer: the first half of a step for large batches in bfloat16: everything up to the gradient by the
 * hidden units.
 *
 * A block has 128 rows and 256 units of a head; the blocks of a cluster have all units, of 256 rows where the
 * batch is that long. Fused into the product's epilogue: bias, ReLU and dropout (its random words are drawn
 * while the tensor cores multiply); each block's parts of the logits, pushed into all blocks with the same
 * rows; loss, gradient by the logits; from activations that never leave the chip the gradients by b1, w2 and
 * b2, summed over the rows, and dz in bfloat16, which is all that LargeGradient has to read.
 *
 * Memory, for 768-512-2 and 1,024 rows, a head and step: reads x and w1 (1.6 and 0.8 MB from device
 * memory, 6.3 MB from L2), writes dz (1 MB). Bound: L2 and the tensor cores alike.
 */
#ifndef EMBEDCACHE_CUDA_WGMMA_LAYER_CUH
#define EMBEDCACHE_CUDA_WGMMA_LAYER_CUH

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

struct LargeLayer {
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

  static EC_FN_METHOD int blocks(int hidden) { return kSharers * unit_tiles(hidden); }

  static EC_FN_METHOD int clusters_of_head(const Launch& launch) {
    return (int)((launch.large_shape.row_tiles + kSharers - 1) / kSharers);
  }

  /* Of the batch: its row that row i of x is at place first + i of the epoch. */
  static EC_DEVICE_METHOD uint32_t row_of(const Place& place, int i) {
    return (uint32_t)place.view.rows[place.head.order[place.stretch.first + i]];
  }

  /* The thread's share of the sum of the batch's weights. */
  static EC_DEVICE_METHOD double own_weight(const Place& place, const Loss& loss, int thread) {
    double sum = 0;
    for (int i = thread; i < place.stretch.rows; i += kThreads)
      sum += row_weight(loss, place.view.y[row_of(place, i)]);
    return sum;
  }

  /* Settings into shared memory, by a block's first thread; the weight as it is where all rows weigh the
   * same.
   */
  static EC_DEVICE_METHOD void begin_block(const Team& team, const Place& place, int t) {
    const Head& head = place.head;
    Shared& shared = team.shared(t);
    shared.unit_tile = team.rank(t) % place.unit_tiles;
    shared.share = team.rank(t) / place.unit_tiles;
    shared.first_row = place.first_row + shared.share * kLargeRows;
    shared.loss = make_loss(place.launch.tasks[head.spec.task], head.class_weight, head.spec.label_smoothing,
                            loss_of(head.spec));
    const bool classes = shared.loss.kind == EC_KIND_CLASSES;
    shared.weight = place.stretch.rows * (classes ? 1.0 : (double)shared.loss.outputs);
    begin_tile(shared.tile, kSharers);
    init(shared.parts, 1);
    fence_init();
  }

  /* Settings, rows, w2 and b1 into shared memory; the barriers made. Ends with a barrier of the cluster. */
  static EC_DEVICE_METHOD void begin(const Team& team, const Place& place) {
    const Head& head = place.head;
    const Shape s = head.shape;
    const auto load = [&](int t) {
      Shared& shared = team.shared(t);
      const int unit_tile = team.rank(t) % place.unit_tiles,
                first_row = place.first_row + team.rank(t) / place.unit_tiles * kLargeRows;
      const int i = team.in_block(t), unit = unit_tile * kLargeUnits + i, row = first_row + i;
      const Parameters p = split_parameters(head.state, s);
      const bool is_unit = unit < s.hidden;
      shared.b1[i] = is_unit ? p.b1[unit] : 0.0f;
      for (int c = 0; c < kLargeOutputs; ++c)
        shared.w2[c][i] = is_unit && c < s.outputs ? p.w2[(int64_t)c * s.hidden + unit] : 0.0f;
      if (i < kLargeRows) {
        const uint32_t own = row < place.stretch.rows ? row_of(place, row) : 0;
        shared.row[i] = own;
        if (unit_tile == 0 && row < place.stretch.rows) place.scratch.row[row] = own;
      }
      if (i == 0) begin_block(team, place, t);
    };
    if (place.launch.tasks[head.spec.task].kind != EC_KIND_CLASSES || !head.class_weight)
      return team.each_thread_of_all(load);
    team.each_thread(load);
    team.each_thread([&](int t) {
      Shared& shared = team.shared(t);
      shared.weight_of_thread[team.in_block(t)] = own_weight(place, shared.loss, team.in_block(t));
    });
    team.each_thread_of_all([&](int t) {
      Shared& shared = team.shared(t);
      if (team.in_block(t) > 0) return;
      double sum = 0;
      for (int i = 0; i < kThreads; ++i) sum += shared.weight_of_thread[i];
      shared.weight = sum;
    });
  }

  /* Draw number n of 32 of a thread: for four units 16 apart, whose words the call has; a bit each. */
  static EC_DEVICE_METHOD uint32_t draw(const Team& team, const Place& place, int t, int n) {
    const int thread = team.in_block(t), lane = thread % kLanes;
    const int unit =
        team.shared(t).unit_tile * kLargeUnits + n / 8 * 64 + n / 4 % 2 * 8 + lane % 4 * 2 + n % 2;
    const int row = team.shared(t).first_row + thread / kLanes * 16 + lane / 4 + n / 2 % 2 * 8;
    const ec_words words = ec_philox(place.head.spec.seed, (uint32_t)(unit / 64 * 16 + unit % 16),
                                     (uint32_t)row, (uint32_t)place.stretch.step, EC_DOMAIN_DROPOUT);
    uint32_t bits = 0;
    EC_UNROLL
    for (int w = 0; w < 4; ++w) bits |= (uint32_t)(words.word[w] < place.threshold) << w;
    return bits;
  }

  /* kDrawsAtOnce draws from n on, side by side: each alone waits for itself. */
  static EC_DEVICE_METHOD void draw_some(const Team& team, const Place& place, int t, int n,
                                         Dropped& dropped) {
    uint32_t carried = 0;
    EC_UNROLL
    for (int k = 0; k < kDrawsAtOnce; ++k) carried = carried << 4 | draw(team, place, t, n + k);
    EC_UNROLL
    for (int i = 0; i < 4; ++i) {
      const uint32_t out = dropped.bits[i] >> (32 - 4 * kDrawsAtOnce);
      dropped.bits[i] = dropped.bits[i] << 4 * kDrawsAtOnce | carried;
      carried = out;
    }
  }

  static constexpr int kDraws = 32, kDrawsAtOnce = 4;

  /* Beside each chunk's product, so that they are done with the last. */
  static EC_DEVICE_METHOD int draws_of(int chunks) {
    return (kDraws / kDrawsAtOnce + chunks - 1) / chunks * kDrawsAtOnce;
  }

  struct Job {
    const Team& team;
    const Place& place;
    PerThread<LargeSums, kHostThreads>& sums;
    PerThread<Dropped, kHostThreads>& dropped;
    int chunks, draws;

    EC_DEVICE_METHOD Sharing sharing(int t) const {
      const Shared& shared = team.shared(t);
      return {shared.unit_tile, place.unit_tiles, kSharers, shared.share};
    }
    EC_DEVICE_METHOD const uint16_t* image(int t, int chunk) const {
      return place.head.images + ((int64_t)team.shared(t).unit_tile * chunks + chunk) * kImage;
    }
    EC_DEVICE_METHOD void gather(int t, LargeStage& stage, int chunk) const {
      const Shared& shared = team.shared(t);
      const int rows = place.stretch.rows - team.shared(t).first_row;
      EC_UNROLL
      for (int part = 0; part < kLargeRows * kPiece / kThreads; ++part) {
        const int e = team.in_block(t) + part * kThreads, line = e / kPiece, i = e % kPiece * kPiece;
        const uint16_t* from = place.view.lines + ((uint64_t)shared.row[line] * chunks + chunk) * kLine + i;
        copy_async(t, (float*)(stage.x + place_in_line(line, i)), (const float*)from, line < rows);
      }
    }
    EC_DEVICE_METHOD void multiply(int s, bool add) const {
      EC_UNROLL
      for (int k = 0; k < kLine; k += 16)
        multiply_group<256, Line::kDepth, Line::kDepth>(
            team, [&](int t) { return sums[t].x; },
            [&](int t) {
              const int group = team.in_block(t) / kGroupThreads;
              return operand(team.shared(t).tile.stage[s].x + group * 64 * kLine + k);
            },
            [&](int t) { return operand(team.shared(t).tile.stage[s].image + k); }, add || k > 0);
    }
    EC_DEVICE_METHOD void during(int chunk) const {
      if (place.threshold == 0) return;
      team.each_alone([&](int t) {
        for (int n = chunk * draws; n < (chunk + 1) * draws && n < kDraws; n += kDrawsAtOnce)
          draw_some(team, place, t, n, dropped[t]);
      });
    }
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
    for (int c = 0; c < outputs; ++c) {
      const double softmax = classes ? exp((double)d[c] - log_sum) : 0.0;
      d[c] = (float)(loss_gradient(l, d[c], c, y, targets, softmax, log_sum, mass) / shared.weight);
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

  static EC_DEVICE_METHOD void run(const Team& team, const Launch& launch) {
    const int of_head = clusters_of_head(launch), slot = team.index() / of_head;
    const int number = launch.active[slot], tiles = team.blocks() / kSharers;
    const Head& head = launch.heads[number];
    const View& view = launch.tasks[head.spec.task].train;
    const uint32_t threshold = ec_dropout_threshold(head.spec.dropout);
    const Place place = {launch,
                         head,
                         view,
                         large_scratch(launch, slot),
                         stretch_of(launch, view, true),
                         threshold,
                         ec_dropout_scale(head.spec.dropout),
                         tiles,
                         team.index() % of_head * kSharers * kLargeRows};
    if (launch.tallies[number].diverged || place.stretch.rows <= 0) {
      team.each_alone([&](int t) {
        if (t == 0 && team.rank(t) == 0 && place.first_row == 0) place.scratch.step->rows = 0;
      });
      return;
    }
    if (place.first_row >= place.stretch.rows) return;
    begin(team, place);
    PerThread<LargeSums, kHostThreads> sums;
    PerThread<Dropped, kHostThreads> dropped;
    const int chunks = lines_of(head.shape.dim);
    large_product(
        team, [&](int t) { return sums[t].x; }, chunks,
        Job{team, place, sums, dropped, chunks, draws_of(chunks)});
    team.each_thread([](int) {}); /* the stages' memory is free */
    team.each_thread([&](int t) { activate(team, place, t, sums[t].x, dropped[t]); });
    team.each_alone([&](int t) { push_parts(team, place, t); }); /* who needs them waits for them */
    team.each_thread([&](int t) { row_loss(team, place, t); });
    team.each_thread_of_all([&](int t) { /* none may go while another writes to it */
                                         if (team.shared(t).first_row >= place.stretch.rows) return;
                                         if (head.shape.outputs <= 2) {
                                           backward<2>(team, place, t);
                                         } else {
                                           backward<kLargeOutputs>(team, place, t);
                                         }
                                         tell(team, place, t);
    });
  }
};

}  // namespace ec
#endif
