/* The epilogues of a product: work on a tile while it is in registers. `bias` has all the tile's columns. */
#ifndef EMBEDCACHE_ENCODER_EPILOGUES_H
#define EMBEDCACHE_ENCODER_EPILOGUES_H

#include "model.h"

namespace EC_ISA {

/* Activate the tile if asked, round it to words and store it: before a product of words, the inner row of the
 * feed-forward part is never in memory as float32. */
template <class Word, int Activation = kNoActivation>
struct StoreWords {
  Word* out;
  int64_t stride;
  const float* bias;
  template <int R>
  void take(const Tile<R>& tile, int64_t row, int64_t column) const {
    const vf low = load_unaligned(bias + column), high = load_unaligned(bias + column + kLanes);
    for (int i = 0; i < R; ++i)
      store_numbers(out + (row + i) * stride + column / kPer<Word>, activate<Activation>(tile.at[i][0] + low),
                    activate<Activation>(tile.at[i][1] + high));
  }
};

/* Activate the tile and store it as floats, for ShiftedRows; `most` [rows][kLanes]: the largest magnitudes of
 * each row. */
template <int Activation>
struct StoreActivated {
  float* out;
  int64_t stride;
  const float* bias;
  int32_t* most;
  template <int R>
  void take(const Tile<R>& tile, int64_t row, int64_t column) const {
    for (int i = 0; i < R; ++i) {
      vi_unaligned* at = reinterpret_cast<vi_unaligned*>(most + (row + i) * kLanes);
      vi larger = column ? *at : vi{};
      for (int half = 0; half < 2; ++half) {
        const int64_t c = column + half * kLanes;
        const vf x = tile.at[i][half] + load_unaligned(bias + c);
        const vf y = Activation == EC_GELU ? gelu_near(x) : activate<Activation>(x);
        store_unaligned(out + (row + i) * stride + c, y);
        larger = larger_bits(larger, (vi)magnitude(y));
      }
      *at = larger;
    }
  }
};

template <int R, int Activation>
static inline __attribute__((always_inline)) void prefetch(const StoreActivated<Activation>& to, int64_t row,
                                                           int64_t column) {
  prefetch_rows<R>(to.out + row * to.stride + column, to.stride);
}

/* Not above any activation's numbers. */
template <int Activation>
constexpr float kLowest = Activation == EC_RELU ? 0.0f : -0.1705f;

/* x += tile + bias, the residual. Without a bias it adds one more part of a sum. */
struct AddTo {
  float* x;
  int64_t stride;
  const float* bias;
  template <int R>
  void take(const Tile<R>& tile, int64_t row, int64_t column) const {
    const vf low = bias ? load_unaligned(bias + column) : vf{},
             high = bias ? load_unaligned(bias + column + kLanes) : vf{};
    for (int i = 0; i < R; ++i) {
      float* at = x + (row + i) * stride + column;
      store_numbers(at, load_unaligned(at) + tile.at[i][0] + low,
                    load_unaligned(at + kLanes) + tile.at[i][1] + high);
    }
  }
};
template <int R>
static inline __attribute__((always_inline)) void prefetch(const AddTo& to, int64_t row, int64_t column) {
  prefetch_rows<R>(to.x + row * to.stride + column, to.stride);
}

}  // namespace EC_ISA

#endif
