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
 * memory, 6.3 MB from L2), writes dz (1 MB). Bound: L2 and the tensor cores alike. What comes after the
 * product is in wgmma_layer_loss.cuh.
 */
#ifndef EMBEDCACHE_CUDA_WGMMA_LAYER_CUH
#define EMBEDCACHE_CUDA_WGMMA_LAYER_CUH

#include "wgmma_layer_loss.cuh"

namespace ec {

struct LargeLayer : LargeLayerLoss {
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
