/* What the two kernels of large batches in bfloat16 (wgmma_layer.cuh, wgmma_gradient.cuh) have in common: an
 * image of 256 hidden units times up to 128 rows or inputs of x, 64 of the depth at a time, four stages.
 *
 * An image is 256 units' numbers (bfloat16) as the product reads them: 32 KB in device memory that one copy
 * brings into a stage, or into those of all blocks of a cluster that multiply by the same units. Of w1 its
 * lines run along the inputs, of dz' across the units. x comes row by row, 16 bytes at a time, each to its
 * place.
 *
 * Two chunks are under way in the background while one is multiplied. A stage is filled again once all warps
 * of all blocks that share its image have waited for the product before the last.
 *
 * Memory: 48 KB a chunk, less what the cluster shares, for 4.2 MFLOP. Bound: the tensor cores need 1,024
 * cycles for it, L2 at 24 B a cycle and multiprocessor 2,048, or 1,365 where two blocks share an image.
 */
#ifndef EMBEDCACHE_CUDA_WGMMA_TILE_CUH
#define EMBEDCACHE_CUDA_WGMMA_TILE_CUH

#include "stacked_output.cuh"
#include "wgmma.cuh"

namespace ec {

constexpr int kLargeUnits = 256, kLargeRows = 128; /* of a tile */
constexpr int kImage = kLargeUnits * kLine, kImageBytes = 2 * kImage;
constexpr int kLargeStages = 4, kLargeAhead = 2;
constexpr int kLargeOutputs = 8, kLargeUnitTiles = 4;
constexpr int kSharers = 2; /* blocks that share images */
constexpr int kGroups = kThreads / kGroupThreads;
constexpr int kPiece = 8; /* numbers that are copied at a time: 16 bytes */

EC_FN int lines_of(int64_t n) { return (int)((n + kLine - 1) / kLine); }
EC_FN int unit_tiles(int64_t hidden) { return (int)((hidden + kLargeUnits - 1) / kLargeUnits); }
EC_FN int row_tiles(int64_t rows) { return (int)((rows + kLargeRows - 1) / kLargeRows); }
EC_FN int64_t image_numbers(Shape s) { return (int64_t)unit_tiles(s.hidden) * lines_of(s.dim) * kImage; }

/* Where w1 of (unit, input) lies in a head's images. */
EC_FN int64_t place_in_image(Shape s, int unit, int input) {
  return ((int64_t)unit / kLargeUnits * lines_of(s.dim) + input / kLine) * kImage +
         place_in_line(unit % kLargeUnits, input % kLine);
}

/* Where dz of (row, unit) lies in a head's gradient. */
EC_FN int64_t place_in_gradient(int tiles, int row, int unit) {
  return ((int64_t)(row / kLine) * tiles + unit / kLargeUnits) * kImage +
         place_in_line(unit % kLargeUnits / kLine * kLine + row % kLine, unit % kLine);
}

/* w1 into its images; beyond its units and inputs they are zeros. A block takes images in turn. */
struct LargeImages {
  struct Shared {};
  static constexpr int kBlocksPerProcessor = 2;

  static EC_DEVICE_METHOD void run(const Block& block, Shared&, const Launch& launch) {
    for (int slot = block.index(); slot < launch.n_active; slot += block.count()) {
      const Head& head = launch.heads[launch.active[slot]];
      const Shape s = head.shape;
      const int inputs = lines_of(s.dim) * kLine, units = unit_tiles(s.hidden) * kLargeUnits;
      each_index(block, (int64_t)units * inputs, [&](int64_t i) {
        const int unit = (int)(i / inputs), input = (int)(i % inputs);
        const bool inside = unit < s.hidden && input < s.dim;
        head.images[place_in_image(s, unit, input)] =
            to_bf16(inside ? head.state[(int64_t)unit * s.dim + input] : 0.0f);
      });
    }
  }
};

/* What LargeLayer tells LargeGradient of a head's step. */
struct LargeStep {
  ec_adamw adamw;
  int32_t rows;  /* 0: the head has no such step, or has diverged before */
  double weight; /* the batch's loss is the sum of `loss` over this */
};

/* A head's scratch while it is trained; sums are of 128 rows each. */
struct LargeScratch {
  LargeStep* step;
  double* loss;   /* [row tiles] */
  uint32_t* row;  /* [row tiles x 128] of x */
  float* b2;      /* [row tiles, kLargeOutputs] gradient */
  float *b1, *w2; /* [row tiles, units], [row tiles, outputs, units] */
  uint16_t* dz;   /* images [lines of the rows, unit tiles] */
};

/* Its sizes, largest over the bank; its bytes are a multiple of 1,024. */
EC_FN int64_t large_bytes(LargeShape s) {
  const int64_t units = s.unit_tiles * kLargeUnits;
  const int64_t of_tile = 8 + 4 * kLargeRows + 4 * kLargeOutputs + 4 * units * (1 + s.outputs) +
                          kLargeRows / kLine * s.unit_tiles * kImageBytes;
  return s.row_tiles == 0 ? 0 : (1024 + s.row_tiles * of_tile + 1023) / 1024 * 1024;
}

EC_FN LargeScratch large_scratch(const Launch& launch, int slot) {
  const LargeShape s = launch.large_shape;
  const int64_t units = s.unit_tiles * kLargeUnits;
  LargeScratch out;
  char* at = launch.large + large_bytes(s) * slot;
  out.step = (LargeStep*)at;
  out.dz = (uint16_t*)(at + 1024); /* first what is aligned to most */
  out.loss = (double*)(out.dz + s.row_tiles * (kLargeRows / kLine) * s.unit_tiles * kImage);
  out.row = (uint32_t*)(out.loss + s.row_tiles);
  out.b2 = (float*)(out.row + s.row_tiles * kLargeRows);
  out.b1 = out.b2 + s.row_tiles * kLargeOutputs;
  out.w2 = out.b1 + s.row_tiles * units;
  return out;
}

struct alignas(1024) LargeStage {
  uint16_t image[kImage];
  uint16_t x[kLargeRows * kLine];
};

struct LargeTile {
  LargeStage stage[kLargeStages];
  Mbarrier landed[kLargeStages], vacated[kLargeStages];
};

struct LargeSums {
  float x[128];
};

template <class Shared>
using LargeTeam = Cluster<Shared>;

/* By one thread of each block, before a barrier of the cluster. */
EC_DEVICE void begin_tile(LargeTile& tile, int sharers) {
  for (int s = 0; s < kLargeStages; ++s) {
    init(tile.landed[s], 1);
    init(tile.vacated[s], sharers);
  }
}

/* Which blocks of a cluster share images: `count` of them, `apart` from one rank to the next. */
struct Sharing {
  int first, apart, count, own;
  EC_DEVICE_METHOD uint32_t ranks() const {
    uint32_t bits = 0;
    for (int i = 0; i < count; ++i) bits |= 1u << (first + i * apart);
    return bits;
  }
};

/* sums = what job multiplies of all chunks. job: sharing(t); image(t, chunk), where it lies in device memory;
 * gather(t, stage, chunk), the thread's copies of x; multiply(stage, add); during(chunk), work beside the
 * product. */
template <class Team, class Sums, class Job>
EC_DEVICE void large_product(const Team& team, Sums sums, int chunks, const Job& job) {
  const auto ask = [&](int chunk) {
    team.each_alone([&](int t) {
      if (chunk < chunks) {
        LargeTile& tile = team.shared(t).tile;
        const int s = chunk % kLargeStages;
        if (team.in_block(t) == 0) {
          const Sharing sharing = job.sharing(t);
          const int share = kImage / sharing.count, from = share * sharing.own;
          if (chunk >= kLargeStages) wait(tile.vacated[s], (chunk / kLargeStages - 1) & 1);
          arrive_expect(tile.landed[s], kImageBytes);
          copy_to_some(team, t, sharing.ranks(), tile.stage[s].image + from, job.image(t, chunk) + from,
                       2 * share, &tile.landed[s]);
        }
        job.gather(t, tile.stage[s], chunk);
      }
      copy_commit(t);
    });
  };
  for (int chunk = 0; chunk < kLargeAhead; ++chunk) ask(chunk);
  int chunk = 0;
  do { /* there is one: else the compiler would set the sums where products may be under way */
    const int s = chunk % kLargeStages;
    team.each_thread([&](int t) { /* its barrier: all have waited for the product before the last */
                                  copy_wait<kLargeAhead - 1>(t);
                                  fence_copies(); /* the tensor cores read what these copies wrote */
    });
    team.each_alone([&](int t) { wait(team.shared(t).tile.landed[s], chunk / kLargeStages & 1); });
    fence_products<256>(team, sums);
    job.multiply(s, chunk > 0);
    commit_products(team);
    if (chunk >= kLargeAhead && chunk - kLargeAhead + kLargeStages < chunks)
      team.each_alone([&](int t) {
        const Sharing sharing = job.sharing(t);
        if (team.in_block(t) < sharing.count)
          arrive(team.remote(t, sharing.first + team.in_block(t) * sharing.apart,
                             &team.shared(t).tile.vacated[(chunk - kLargeAhead) % kLargeStages]));
      });
    ask(chunk + kLargeAhead);
    job.during(chunk);
    wait_products<256, 1>(team, sums);
  } while (++chunk < chunks);
  wait_products<256, 0>(team, sums);
}

}  // namespace ec
#endif
