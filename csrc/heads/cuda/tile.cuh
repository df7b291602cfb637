/* The block's matrix product: out(i, j) = sum over k of a(i, k) b(j, k), one output tile after the other.
 *
 * An output tile is kTileRows x 32 Columns. Per tile, kTileDepth values of k at a time are staged in shared
 * memory, and every thread keeps a fragment of 4 x Columns sums in registers: rows 4 (t / 32) .. + 3, columns
 * t % 32 + 32 c. So a warp reads one a (a broadcast) and 32 neighbouring b, and its results are 32 neighbours
 * of a row: what the epilogue does to them is coalesced. The epilogue gets each finished sum once, in
 * registers: bias, ReLU and dropout happen there, or a whole AdamW step.
 *
 * This is the one place to change for tensor cores (TF32), for asynchronous copies or for a cluster that
 * shares tiles: the sources and the epilogues know nothing of it.
 */
#ifndef EMBEDCACHE_CUDA_TILE_CUH
#define EMBEDCACHE_CUDA_TILE_CUH

#include "block.cuh"

namespace ec {

constexpr int kTileRows = 32, kTileDepth = 32, kWideColumns = 4, kFragmentRows = 4;
constexpr int kChain = 256; /* longer sums are cut in pieces, which bounds a long chain's rounding error */
constexpr int kPadding = 4; /* floats: a transposed store hits few banks twice, 16-byte alignment stays */
static_assert(kChain % kTileDepth == 0, "pieces end where tiles do");
static_assert(kThreads / kLanes * kFragmentRows == kTileRows, "the threads' fragments cover the tile");

struct Tile {
  alignas(16) float a[kTileDepth][kTileRows + kPadding];
  alignas(16) float b[kTileDepth][kLanes * kWideColumns + kPadding];
};

/* A source is read as (outer index, k). `k_contiguous` says along which of the two its memory runs. */
struct Matrix {
  const float* data;
  int stride;
  static constexpr bool k_contiguous = true;
  EC_DEVICE_METHOD float operator()(int outer, int k) const { return data[(int64_t)outer * stride + k]; }
};

template <class Source>
struct Transposed {
  const Source& source;
  static constexpr bool k_contiguous = !Source::k_contiguous;
  EC_DEVICE_METHOD float operator()(int outer, int k) const { return source(k, outer); }
};

template <class Source>
EC_DEVICE Transposed<Source> transposed(const Source& source) {
  return {source};
}

/* Thread t's share of loading to[k][outer] for outers outer0 .. outer0 + Outers - 1; zeros beyond the matrix.
 */
template <int Outers, int Width, class Source>
EC_DEVICE void load_tile(int t, float (*to)[Width], const Source& source, int outer0, int outers, int k0,
                         int depth) {
  EC_UNROLL_2 /* loads in flight; more of them would cost registers */
      for (int e = t; e < Outers * kTileDepth; e += kThreads) {
    const int outer = Source::k_contiguous ? e / kTileDepth : e % Outers;
    const int k = Source::k_contiguous ? e % kTileDepth : e / Outers;
    const bool inside = outer0 + outer < outers && k0 + k < depth;
    to[k][outer] = inside ? source(outer0 + outer, k0 + k) : 0.0f;
  }
}

template <int Columns>
struct Fragment {
  float sum[kFragmentRows][Columns];
};

template <int Columns>
EC_DEVICE void add_piece(Fragment<Columns>& total, Fragment<Columns>& piece) {
  EC_UNROLL
  for (int r = 0; r < kFragmentRows; ++r) {
    EC_UNROLL
    for (int c = 0; c < Columns; ++c) {
      total.sum[r][c] += piece.sum[r][c];
      piece.sum[r][c] = 0.0f;
    }
  }
}

template <int Columns>
EC_DEVICE void multiply_tile(int t, const Tile& tile, int depth, Fragment<Columns>& fragment) {
  const int row = t / kLanes * kFragmentRows, column = t % kLanes;
  for (int k = 0; k < depth; ++k) {
    float b[Columns];
    EC_UNROLL
    for (int c = 0; c < Columns; ++c) b[c] = tile.b[k][column + kLanes * c];
    EC_UNROLL
    for (int r = 0; r < kFragmentRows; ++r) {
      const float a = tile.a[k][row + r];
      EC_UNROLL
      for (int c = 0; c < Columns; ++c) fragment.sum[r][c] = fmaf(a, b[c], fragment.sum[r][c]);
    }
  }
}

/* epilogue(i, j, sum) for all i < rows, j < columns; Columns = 1 suits products with few columns. */
template <int Columns = kWideColumns, class A, class B, class Epilogue>
EC_DEVICE void tile_product(const Block& block, Tile& tile, int rows, int columns, int depth, const A& a,
                            const B& b, const Epilogue& epilogue) {
  constexpr int kWidth = kLanes * Columns;
  for (int row0 = 0; row0 < rows; row0 += kTileRows) {
    for (int column0 = 0; column0 < columns; column0 += kWidth) {
      PerThread<Fragment<Columns>> total, piece;
      for (int k0 = 0; k0 < depth; k0 += kTileDepth) {
        block.each_thread([&](int t) {
          load_tile<kTileRows>(t, tile.a, a, row0, rows, k0, depth);
          load_tile<kWidth>(t, tile.b, b, column0, columns, k0, depth);
        });
        const int step = depth - k0 < kTileDepth ? depth - k0 : kTileDepth;
        block.each_thread([&](int t) {
          multiply_tile(t, tile, step, piece[t]);
          if ((k0 + kTileDepth) % kChain == 0) add_piece(total[t], piece[t]);
        });
      }
      block.each_thread([&](int t) {
        add_piece(total[t], piece[t]);
        EC_UNROLL
        for (int r = 0; r < kFragmentRows; ++r) {
          const int i = row0 + t / kLanes * kFragmentRows + r;
          EC_UNROLL
          for (int c = 0; c < Columns; ++c) {
            const int j = column0 + t % kLanes + kLanes * c;
            if (i < rows && j < columns) epilogue(i, j, total[t].sum[r][c]);
          }
        }
      });
    }
  }
}

}  // namespace ec
#endif
