/* Products that sum along lanes: out[i][j] = a's row i . b's line j, for float32 or pairs of bfloat16.
 *
 * A tile is kDotRows x kDotColumns sums, each of kLanes parts that are added by a tree at the end: 4 + 4
 * loads for 16 multiply-adds (AVX-512). So one copy of a matrix [out][in], its blocks along `in`, serves the
 * product with it (here), the product with its transpose (../encoder/product.h) and its gradient (matrix.h),
 * and nothing is ever transposed. Some lines of b stay in L1 over all rows of a, which come from L2; b, the
 * weights, streams from L3 once. Sums are cut every kDotChunk words.
 */
#ifndef EMBEDCACHE_BLOCK_DOTS_H
#define EMBEDCACHE_BLOCK_DOTS_H

#include "../encoder/functions.h"

namespace EC_ISA {

constexpr int kDotRows = EC_LANES == 16 ? 4 : 2, kDotColumns = EC_LANES == 4 ? 2 : 4; /* kLanes together */
constexpr int64_t kDotChunk = 512; /* words: 2 KB of a line */
constexpr int64_t kDotLines = 8;   /* of b that stay in L1 */

static inline vf dot_add(vf sum, vf x, vf y) { return sum + x * y; }
static inline vf dot_add(vf sum, vu x, vu y) { return pair_dot(sum, x, y); }

/* Line j's words [i width, (i + 1) width) lie at data + j * stride + i * step. */
template <class Word>
struct Lines {
  const Word* data;
  int64_t stride, width, step;
};

/* Lanes with bit Size of y, the others of x, each added to its neighbour at distance Size. */
template <int Size>
static inline vf fold_two(vf x, vf y) {
  vi own, other;
  for (int i = 0; i < kLanes; ++i) {
    const int from = i & Size ? kLanes : 0;
    own[i] = i + from;
    other[i] = (i ^ Size) + from;
  }
  return (vf)mix((vu)x, own, (vu)y) + (vf)mix((vu)x, other, (vu)y);
}

/* at[0]'s lane i: the sum of at[i]'s lanes. */
template <int Size>
static inline __attribute__((always_inline)) void fold(vf* at) {
#pragma GCC unroll 16
  for (int i = 0; i < Size; ++i) at[i] = fold_two<Size>(at[i], at[i + Size]);
  if constexpr (Size > 1) fold<Size / 2>(at);
}

template <class Word>
static __attribute__((noinline)) vf dot_tile(const Word* const* a, const Word* const* b, int64_t width,
                                             int64_t step, int64_t blocks) {
  vf sum[kDotRows * kDotColumns] = {};
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t at = block * width, from = block * step;
    for (int64_t k = 0; k < width; k += kLanes) {
      decltype(load_words(b[0])) y[kDotColumns];
#pragma GCC unroll 4
      for (int j = 0; j < kDotColumns; ++j) y[j] = load_words(b[j] + from + k);
#pragma GCC unroll 4
      for (int i = 0; i < kDotRows; ++i) {
        const auto x = load_words(a[i] + at + k);
#pragma GCC unroll 4
        for (int j = 0; j < kDotColumns; ++j)
          sum[i * kDotColumns + j] = dot_add(sum[i * kDotColumns + j], x, y[j]);
      }
    }
  }
  fold<kLanes / 2>(sum);
  return sum[0];
}

static inline void put_dots(vf dots, float* out, int64_t stride, int64_t rows, int64_t columns, bool add) {
  float at[kLanes];
  store_unaligned(at, dots);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      float* to = out + i * stride + j;
      *to = at[i * kDotColumns + j] + (add ? *to : 0.0f);
    }
}

/* n words, to L2. */
template <class Word>
static inline void ask(const Word* p, int64_t n) {
  for (int64_t i = 0; i < n; i += 64 / (int64_t)sizeof(Word)) __builtin_prefetch(p + i, 0, 2);
}

/* What is multiplied next, words [k, k + chunk) of lines in pieces: its part `number` of `of`. Such pieces
 * are too far apart for the machine to foresee. */
template <class Word>
static void ask_chunk(Lines<Word> b, int64_t first, int64_t end, int64_t k, int64_t chunk, int64_t number,
                      int64_t of) {
  const int64_t blocks = chunk / b.width;
  for (int64_t block = blocks * number / of; block < blocks * (number + 1) / of; ++block)
    ask(b.data + first * b.stride + (k / b.width + block) * b.step, (end - first) * b.stride);
}

/* Rows [0, m) of a with lines [0, n) of b, `words` each; where a tile runs over, the last row or line again.
 */
template <class Word>
static void dots(Rows<Word> a, int64_t m, Lines<Word> b, int64_t n, int64_t words, float* out,
                 int64_t stride) {
  const bool whole = b.step == b.width; /* lines in one piece, that may be cut anywhere */
  const int64_t chunk = whole ? kDotChunk : larger(kDotChunk / b.width, 1) * b.width;
  for (int64_t line = 0; line < n; line += kDotLines) {
    const int64_t end = line + kDotLines < n ? line + kDotLines : n;
    for (int64_t k = 0; k < words; k += chunk) {
      const int64_t left = words - k < chunk ? words - k : chunk;
      const Word* start = b.data + (whole ? k : k / b.width * b.step);
      const bool over = k + chunk >= words; /* the next chunk is of other lines */
      const int64_t next = over ? 0 : k + chunk, ahead = over ? end : line,
                    ahead_end = ahead + kDotLines < n ? ahead + kDotLines : n;
      for (int64_t row = 0; row < m; row += kDotRows) {
        if (!whole)
          ask_chunk(b, ahead, ahead_end, next, words - next < chunk ? words - next : chunk, row / kDotRows,
                    (m + kDotRows - 1) / kDotRows);
        for (int64_t j = line; j < end; j += kDotColumns) {
          const Word *x[kDotRows], *y[kDotColumns];
          for (int64_t i = 0; i < kDotRows; ++i)
            x[i] = a.data + (row + i < m ? row + i : m - 1) * a.stride + k;
          for (int64_t i = 0; i < kDotColumns; ++i) y[i] = start + (j + i < n ? j + i : n - 1) * b.stride;
          const vf sums =
              whole ? dot_tile(x, y, left, left, 1) : dot_tile(x, y, b.width, b.step, left / b.width);
          const int64_t columns = end - j < kDotColumns ? end - j : kDotColumns;
          put_dots(sums, out + row * stride + j, stride, m - row < kDotRows ? m - row : kDotRows, columns,
                   k > 0);
        }
      }
    }
  }
}

}  // namespace EC_ISA

#endif
