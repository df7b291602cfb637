/* Keys and values of a sequence as the product kernel's second operand, for one head; weights, too, where
 * rows are many (../block/many_rows.h).
 *
 * Keys are transposed in registers, kLanes x kLanes words at a time, and then lie in L1 or L2.
 */
#ifndef EMBEDCACHE_ENCODER_PACKING_H
#define EMBEDCACHE_ENCODER_PACKING_H

#include "functions.h"

namespace EC_ISA {

/* Keys transposed to [L / 32][words of a head][32], zero from L on. */
template <class Word>
static Panels<Word> pack_keys(Word* out, const Word* keys, int64_t stride, int64_t length, int64_t words) {
  const Panels<Word> panels = {out, words * kBlock, kBlock};
  for (int64_t first = 0; first < length; first += kLanes) {
    Word* to = out + first / kBlock * panels.panel + first % kBlock;
    const int64_t n = length - first < kLanes ? length - first : kLanes;
    int64_t i = 0;
    for (; n == kLanes && i + kLanes <= words; i += kLanes) {
      vu rows[kLanes];
      for (int j = 0; j < kLanes; ++j) rows[j] = (vu)load_words(keys + (first + j) * stride + i);
      transpose(rows);
      for (int j = 0; j < kLanes; ++j) *reinterpret_cast<vu_unaligned*>(to + (i + j) * kBlock) = rows[j];
    }
    for (; i < words; ++i)
      for (int64_t j = 0; j < kLanes; ++j)
        to[i * kBlock + j] = j < n ? keys[(first + j) * stride + i] : Word{};
  }
  for (int64_t first = round_up(length, kLanes); first < round_up(length, kBlock); ++first)
    for (int64_t i = 0; i < words; ++i)
      out[first / kBlock * panels.panel + i * kBlock + first % kBlock] = Word{};
  return panels;
}

/* Floats are read where they are; what lies beside the head gives columns that nobody reads. */
static inline Panels<float> pack_values(float*, const float* values, int64_t stride, int64_t, int64_t) {
  return {values, kBlock, stride};
}
/* Pairs must lie along the sum, over rows: two rows' words (c, c + 1) become the words (row, row + 1) of c
 * and c + 1. */
static inline Panels<Pair> pack_values(Pair* out, const Pair* values, int64_t stride, int64_t length,
                                       int64_t head) {
  const int64_t panel = round_up(length, 2) / 2 * kBlock;
  for (int64_t column = 0; column < head; column += kBlock) {
    const int64_t words = (head - column < kBlock ? head - column : kBlock) / 2;
    Pair* to = out + column / kBlock * panel;
    for (int64_t row = 0; row < length; row += 2, to += kBlock) {
      const Pair *first = values + row * stride + column / 2, *second = first + stride;
      for (int64_t c = 0; c < words; ++c) {
        const Pair below = row + 1 < length ? second[c] : 0;
        to[2 * c] = (first[c] & 0xFFFF) | below << 16;
        to[2 * c + 1] = first[c] >> 16 | (below & 0xFFFF0000);
      }
      for (int64_t c = 2 * words; c < kBlock; ++c) to[c] = 0;
    }
  }
  return {out, panel, kBlock};
}

}  // namespace EC_ISA

#endif
