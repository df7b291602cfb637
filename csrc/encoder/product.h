/* The product kernel: tile[i][column] = sum over k of a[i][k] * b[k][column], for float32 or pairs of
 * bfloat16.
 *
 * It is every product of the encoder: the linear layers (b: packed weights), scores (b: packed keys) and
 * contexts (b: values). a is row-major with any stride; b comes in panels of 32 columns, [k][32] each, so
 * that a step loads two vectors (AVX-512), broadcasts kRows words of a and does 2 kRows fused multiply-adds:
 * with a panel in L1 or L2 the FMA units are the bound. What is done with a tile (bias, GELU, rounding,
 * residual) is the epilogue's, while it is in registers. Rows of a are taken in blocks that stay in L2 over
 * all panels; b streams from L3 once a block.
 *
 * An element's sum runs over k in one chain, whatever the tile: a row's result does not depend on its
 * neighbours.
 */
#ifndef EMBEDCACHE_ENCODER_PRODUCT_H
#define EMBEDCACHE_ENCODER_PRODUCT_H

#include "../simd/tile.h"

namespace EC_ISA {

#if defined(__ARM_NEON)
constexpr int kRows = 12; /* 32 registers, as with AVX-512 */
#else
constexpr int kRows = EC_LANES == 16 ? 12 : 6;
#endif
/* Rows of a tile; 12 would not leave mmla.h the registers that it zips in. */
template <class Word>
constexpr int kRowsOf = kMatrix<vf> && kPer<Word> == 2 ? 8 : kRows;
constexpr int64_t kBlockBytes = 256 << 10;

static inline void store_unaligned(float* p, vf x) { *reinterpret_cast<vf_unaligned*>(p) = x; }
static inline void store_unaligned(Pair* p, vu x) { *reinterpret_cast<vu_unaligned*>(p) = x; }

static inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Two neighbouring vectors of numbers as words: 2 kLanes floats, or kLanes pairs. */
static inline void store_numbers(float* p, vf x, vf y) {
  store_unaligned(p, x);
  store_unaligned(p + kLanes, y);
}
static inline void store_numbers(Pair* p, vf x, vf y) { store_unaligned(p, pairs_in_order(x, y)); }

/* A matrix of n words a row, row-major; stride in words. */
template <class Word>
struct Rows {
  const Word* data;
  int64_t stride;
};

/* Packed columns: panel p's words k at data + p * panel + k * step. */
template <class Word>
struct Panels {
  const Word* data;
  int64_t panel, step;
};

/* Never inlined: among an epilogue's values the compiler would keep some of the tile on the stack. */
template <int R, class Word>
static __attribute__((noinline)) void tile_sum(const Word* a, int64_t stride, const Word* b, int64_t step,
                                               int64_t n, Tile<R>* out) {
  Tile<R> tile = {};
  tile_steps<R, Unaligned>(tile, b, step, a, stride, 1, n);
  *out = tile;
}

/* What the loops below ask of operands: a tile's sum of R rows and kStrip columns, kTile, the most rows of
 * one, and words, how many of 4 bytes a row of a has. */
template <class Word>
struct Operands {
  Rows<Word> a;
  Panels<Word> b;
  int64_t n;
  static constexpr int kTile = kRowsOf<Word>;
  int64_t words() const { return n; }
  template <int R>
  inline __attribute__((always_inline)) void sum(int64_t first, int64_t column, Tile<R>* out) const {
    const Word* panel = b.data + column / kBlock * b.panel + column % kBlock;
    tile_sum<R>(a.data + first * a.stride, a.stride, panel, b.step, n, out);
  }
};

/* Lines that an epilogue will touch, asked for while the tile's sum runs: some are in L2, or only in L3. Most
 * epilogues need none; epilogues.h has those that do. always_inline: GCC drops calls of a function that does
 * nothing else. */
template <int R, class Epilogue>
static inline __attribute__((always_inline)) void prefetch(const Epilogue&, int64_t, int64_t) {}
template <int R>
static inline __attribute__((always_inline)) void prefetch_rows(const float* first, int64_t stride) {
#pragma GCC unroll 12
  for (int i = 0; i < R; ++i) {
    __builtin_prefetch(first + i * stride, 1);
    __builtin_prefetch(first + i * stride + kStrip - 1, 1);
  }
}

template <int R, class Of, class Epilogue>
static inline __attribute__((always_inline)) int64_t tiles_of(const Of& operands, int64_t first, int64_t end,
                                                              int64_t column, const Epilogue& epilogue) {
  for (; first + R <= end; first += R) {
    Tile<R> tile;
    prefetch<R>(epilogue, first, column);
    operands.template sum<R>(first, column, &tile);
    epilogue.template take<R>(tile, first, column);
  }
  return first;
}

/* epilogue.take<R>(tile, row, column) gets every tile of R rows and kStrip columns once. */
template <class Of, class Epilogue>
static inline __attribute__((always_inline)) void each_tile(const Of& operands, int64_t m, int64_t columns,
                                                            const Epilogue& epilogue) {
  constexpr int kTile = Of::kTile;
  const int64_t fitting = kBlockBytes / (4 * operands.words()) / kTile * kTile,
                block = fitting > kTile ? fitting : kTile;
  for (int64_t start = 0; start < m; start += block) {
    const int64_t end = start + block < m ? start + block : m;
    for (int64_t column = 0; column < columns; column += kStrip) {
      int64_t row = tiles_of<kTile>(operands, start, end, column, epilogue);
      if (kTile > 8) row = tiles_of<8>(operands, row, end, column, epilogue);
      if (kTile > 4) row = tiles_of<4>(operands, row, end, column, epilogue);
      row = tiles_of<2>(operands, row, end, column, epilogue);
      tiles_of<1>(operands, row, end, column, epilogue);
    }
  }
}

/* Rows [0, m) of a times `columns` (a multiple of 32) columns of b; n words each. */
template <class Word, class Epilogue>
static void product(Rows<Word> a, int64_t m, Panels<Word> b, int64_t columns, int64_t n,
                    const Epilogue& epilogue) {
  each_tile(Operands<Word>{a, b, n}, m, columns, epilogue);
}

/* A matrix of weights in panels: element (k, column) is source[column * column_step + k * k_step], zero from
 * `columns` on. words_of_pack says how many words it takes. */
template <class Word>
static int64_t words_of_pack(int64_t columns, int64_t k) {
  return round_up(columns, kBlock) * (k / kPer<Word>);
}

static inline void pack_row(float* out, const float* first, const float*) {
  for (int c = 0; c < kBlock; ++c) out[c] = first[c];
}
static inline void pack_row(Pair* out, const float* first, const float* second) {
  for (int c = 0; c < kBlock; c += kLanes)
    store_unaligned(out + c, pairs_of_lanes(load_unaligned(first + c), load_unaligned(second + c)));
}

template <class Word>
static Panels<Word> pack(Word* out, const float* source, int64_t columns, int64_t k, int64_t column_step,
                         int64_t k_step) {
  const Panels<Word> panels = {out, k / kPer<Word> * kBlock, kBlock};
  for (int64_t column = 0; column < columns; column += kBlock)
    for (int64_t i = 0; i < k; i += kPer<Word>, out += kBlock) {
      float numbers[2][kBlock] = {};
      for (int c = 0; c < kBlock && column + c < columns; ++c)
        for (int j = 0; j < kPer<Word>; ++j)
          numbers[j][c] = source[(column + c) * column_step + (i + j) * k_step];
      pack_row(out, numbers[0], numbers[1]);
    }
  return panels;
}

/* An epilogue: store the tile unchanged. epilogues.h has the others. */
struct Store {
  float* out;
  int64_t stride;
  template <int R>
  void take(const Tile<R>& tile, int64_t row, int64_t column) const {
    for (int i = 0; i < R; ++i)
      store_numbers(out + (row + i) * stride + column, tile.at[i][0], tile.at[i][1]);
  }
};

}  // namespace EC_ISA

#endif
