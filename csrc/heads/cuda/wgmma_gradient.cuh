/* LargeGradient: the second half of a step for large batches in bfloat16: w1 by AdamW from the gradient dz'
 * x, and with it w2, b1 and b2 by the sums that LargeLayer left. A block has 256 units and 128 inputs of a
 * head; two blocks with the same units share dz'.
 *
 * Fused: AdamW into the product's epilogue (a gradient lives in registers only), which also rounds the new w1
 * into the image that LargeLayer reads next. While the tensor cores multiply, the block's m and v are asked
 * into L2.
 *
 * Memory, for 768-512-2, a head and step: w, m and v read and written, w1's image written (10.2 MB from and
 * to device memory), dz and x (6.3 MB from L2). Bound: device memory, 3.4 us at 3 TB/s, where the products
 * take 1 us.
 */
#ifndef EMBEDCACHE_CUDA_WGMMA_GRADIENT_CUH
#define EMBEDCACHE_CUDA_WGMMA_GRADIENT_CUH

#include "stacked_tile.cuh"
#include "wgmma_tile.cuh"

namespace ec {

constexpr int kLargeInputs = 128; /* of a tile */

struct LargeGradientShared {
  LargeTile tile;
  ec_adamw adamw;
  double loss; /* of the batch */
};
static_assert(sizeof(LargeGradientShared) <= 232448, "it fits a multiprocessor of compute capability 9.0");

struct LargeGradient {
  using Shared = LargeGradientShared;
  using Team = Cluster<Shared>; /* of kSharers blocks, with inputs beside each other */

  struct Place {
    const Launch& launch;
    const Head& head;
    const uint16_t* x;
    LargeScratch scratch;
    LargeStep step;
    int unit_tile, unit_tiles, first_input; /* of the cluster */
  };

  static EC_DEVICE_METHOD int input0(const Team& team, const Place& place, int t) {
    return place.first_input + team.rank(t) * kLargeInputs;
  }

  static EC_FN_METHOD int clusters_of_units(const Launch& launch) {
    constexpr int kInputs = kSharers * kLargeInputs;
    return (launch.dim + kInputs - 1) / kInputs;
  }
  static EC_FN_METHOD int clusters_of_head(const Launch& launch) {
    return (int)launch.large_shape.unit_tiles * clusters_of_units(launch);
  }

  /* Of x: the two rows that a thread's copies of a chunk are of, known when their chunk's turn comes. */
  struct Rows {
    uint32_t at[2];
  };

  struct Job {
    const Team& team;
    const Place& place;
    PerThread<LargeSums, kHostThreads>& sums;
    PerThread<Rows, kHostThreads>& rows;

    EC_DEVICE_METHOD Sharing sharing(int t) const { return {0, 1, kSharers, team.rank(t)}; }
    EC_DEVICE_METHOD const uint16_t* image(int, int chunk) const {
      return place.scratch.dz + ((int64_t)chunk * place.unit_tiles + place.unit_tile) * kImage;
    }
    EC_DEVICE_METHOD void look_up(int t, int chunk) const {
      EC_UNROLL
      for (int part = 0; part < 2; ++part) {
        const int row = chunk * kLine + team.in_block(t) / kPiece + part * (kThreads / kPiece);
        rows[t].at[part] = row < place.step.rows ? place.scratch.row[row] : 0;
      }
    }
    /* Line i of the stage's x: row i % 64 of the chunk, inputs 64 (i / 64) .. + 63 of the tile. */
    EC_DEVICE_METHOD void gather(int t, LargeStage& stage, int chunk) const {
      static_assert(2 * kThreads / kPiece == kLine, "a thread's copies are of two rows");
      const int inputs = lines_of(place.head.shape.dim) * kLine;
      EC_UNROLL
      for (int part = 0; part < kLargeRows * kPiece / kThreads; ++part) {
        const int e = team.in_block(t) + part * kThreads, line = e / kPiece, i = e % kPiece * kPiece;
        const int row = chunk * kLine + line % kLine,
                  input = input0(team, place, t) + line / kLine * kLine + i;
        const bool inside = row < place.step.rows && input < inputs;
        const uint64_t at = inside ? (uint64_t)rows[t].at[part % 2] * inputs + input : 0;
        copy_async(t, (float*)(stage.x + place_in_line(line, i)), (const float*)(place.x + at), inside);
      }
      look_up(t, chunk + 1);
    }
    /* Two times 64 units of the warps' four blocks of 64. */
    EC_DEVICE_METHOD void multiply(int s, bool add) const {
      EC_UNROLL
      for (int k = 0; k < kLine; k += 16) {
        EC_UNROLL
        for (int m = 0; m < 2; ++m)
          multiply_group<128, Line::kAcross, Line::kAcross>(
              team, [&](int t) { return sums[t].x + 64 * m; },
              [&](int t) {
                const int group = team.in_block(t) / kGroupThreads;
                return operand(team.shared(t).tile.stage[s].image + ((2 * group + m) * kLine + k) * kLine);
              },
              [&](int t) { return operand(team.shared(t).tile.stage[s].x + k * kLine, kLine); },
              add || k > 0);
      }
    }
    /* m at first, then v: what one wave of blocks asks for fits L2. */
    EC_DEVICE_METHOD void during(int chunk) const {
      if (chunk >= 2) return;
      team.each_alone([&](int t) {
        const Shape s = place.head.shape;
        const int unit = place.unit_tile * kLargeUnits + team.in_block(t), input = input0(team, place, t);
        if (unit >= s.hidden) return;
        const float* at = place.head.state + (chunk + 1) * place.head.stride + (int64_t)unit * s.dim + input;
        for (int i = 0; i < kLargeInputs && input + i < s.dim; i += 32) ask_into_cache(at + i);
      });
    }
  };

  /* AdamW for four pairs of a row, 8 inputs apart, and their image in bfloat16. */
  static EC_DEVICE_METHOD void update(const Place& place, int unit, int input, const float* gradient,
                                      const ec_adamw& adamw) {
    const Shape s = place.head.shape;
    update_pairs<8>(
        place.head.state + (int64_t)unit * s.dim + input, place.head.stride, s.dim - input, adamw,
        [&](int i) { return gradient + 4 * i; },
        [&](int i, const FragmentB& w) {
          *(uint32_t*)(place.head.images + place_in_image(s, unit, input + 8 * i)) = pair(w.x[0], w.x[1]);
        });
  }

  static EC_DEVICE_METHOD void update_weights(const Team& team, const Place& place, int t,
                                              const float* sums) {
    const ec_adamw adamw = team.shared(t).adamw; /* a copy: stores to w must not change it */
    const int thread = team.in_block(t), lane = thread % kLanes, group = thread / kGroupThreads;
    EC_UNROLL
    for (int m = 0; m < 2; ++m) {
      EC_UNROLL
      for (int h = 0; h < 2; ++h) {
        const int unit = place.unit_tile * kLargeUnits + (2 * group + m) * 64 +
                         thread % kGroupThreads / kLanes * 16 + lane / 4 + 8 * h;
        if (unit >= place.head.shape.hidden) continue;
        EC_UNROLL
        for (int j = 0; j < 16; j += 4)
          update(place, unit, input0(team, place, t) + 8 * j + lane % 4 * 2, sums + 64 * m + 4 * j + 2 * h,
                 adamw);
      }
    }
  }

  /* b1 and w2 of the tile's units, from the sums over 128 rows each. */
  static EC_DEVICE_METHOD void update_small(const Team& team, const Place& place, int t) {
    const Shape s = place.head.shape;
    const LargeShape& all = place.launch.large_shape;
    const int unit = place.unit_tile * kLargeUnits + team.in_block(t), tiles = row_tiles(place.step.rows);
    const int64_t units = all.unit_tiles * kLargeUnits;
    const Parameters p = split_parameters(place.head.state, s);
    const auto adamw = [&](float gradient, float* at) {
      ec_adamw_update(gradient, at, at + place.head.stride, at + 2 * place.head.stride, team.shared(t).adamw);
    };
    if (unit < s.hidden) {
      float sum = 0.0f;
      for (int tile = 0; tile < tiles; ++tile) sum += place.scratch.b1[tile * units + unit];
      adamw(sum, p.b1 + unit);
      for (int c = 0; c < s.outputs; ++c) {
        sum = 0.0f;
        for (int tile = 0; tile < tiles; ++tile)
          sum += place.scratch.w2[(tile * all.outputs + c) * units + unit];
        adamw(sum, p.w2 + (int64_t)c * s.hidden + unit);
      }
    }
    if (place.unit_tile == 0 && team.in_block(t) < s.outputs) {
      float sum = 0.0f;
      for (int tile = 0; tile < tiles; ++tile)
        sum += place.scratch.b2[tile * kLargeOutputs + team.in_block(t)];
      adamw(sum, p.b2 + team.in_block(t));
    }
  }

  static EC_DEVICE_METHOD void run(const Team& team, const Launch& launch) {
    const int of_units = clusters_of_units(launch), of_head = clusters_of_head(launch);
    const int slot = team.index() / of_head, number = launch.active[slot];
    const Head& head = launch.heads[number];
    const LargeScratch scratch = large_scratch(launch, slot);
    const Place place = {launch,
                         head,
                         launch.tasks[head.spec.task].train.lines,
                         scratch,
                         *scratch.step,
                         team.index() % of_head / of_units,
                         unit_tiles(head.shape.hidden),
                         team.index() % of_units * kSharers * kLargeInputs};
    if (place.step.rows == 0 || place.unit_tile >= place.unit_tiles || place.first_input >= head.shape.dim)
      return;
    const bool is_first = place.unit_tile == 0 && place.first_input == 0;
    team.each_thread_of_all([&](int t) {
      if (team.in_block(t) > 0) return;
      Shared& shared = team.shared(t);
      double loss = 0;
      for (int tile = 0; tile < row_tiles(place.step.rows); ++tile) loss += scratch.loss[tile];
      shared.loss = loss / place.step.weight;
      shared.adamw = place.step.adamw;
      begin_tile(shared.tile, kSharers);
      fence_init();
    });
    const bool finite = isfinite(team.any().loss);
    team.each_alone([&](int t) {
      if (!is_first || team.rank(t) > 0 || team.in_block(t) > 0) return;
      Tally& tally = launch.tallies[number];
      tally.diverged = !finite;
      if (!finite) return;
      tally.train_loss =
          (launch.step_begin == 0 ? 0.0 : tally.train_loss) + team.shared(t).loss * place.step.rows;
      tally.rows += place.step.rows;
    });
    if (!finite) return;
    PerThread<LargeSums, kHostThreads> sums;
    PerThread<Rows, kHostThreads> rows;
    const Job job = {team, place, sums, rows};
    team.each_alone([&](int t) { job.look_up(t, 0); });
    large_product(team, [&](int t) { return sums[t].x; }, lines_of(place.step.rows), job);
    team.each_thread_of_all([&](int t) { /* none may go while another writes to it */
                                         update_weights(team, place, t, sums[t].x);
                                         if (input0(team, place, t) == 0) update_small(team, place, t);
    });
  }
};

}  // namespace ec
#endif
