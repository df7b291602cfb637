/* Dropout of rows, anywhere in a block: the streams of ../heads/numerics.h, 64 units of a row at a time.
 *
 * Nothing is kept between forward and back: the words are drawn again, some 2 cycles a unit.
 */
#ifndef EMBEDCACHE_BLOCK_DROPOUT_H
#define EMBEDCACHE_BLOCK_DROPOUT_H

#include "../encoder/product.h"
#include "../heads/cpu/dropout.h"

namespace EC_ISA {

struct Dropout {
  uint64_t seed;
  uint32_t threshold, domain;
  float scale;
};

static Dropout make_dropout(uint64_t seed, double share, uint32_t domain) {
  return {seed, ec_dropout_threshold(share), domain, ec_dropout_scale(share)};
}

/* Bit u of a row: whether it keeps unit 64 * part + u. */
static uint64_t kept_bits(const Dropout& d, uint32_t step, uint32_t row, int64_t part) {
  vu lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = (uint32_t)i;
  uint64_t bits = 0;
  for (int first = 0; first < 16; first += kLanes) {
    const Words words = philox(d.seed, lane + (uint32_t)(part * 16 + first), row, step, d.domain);
    for (int k = 0; k < 4; ++k)
      bits |= (uint64_t)lanes_at_least(words.word[k], d.threshold) << (k * 16 + first);
  }
  return bits;
}

/* x where the lane's bit is set, else 0. */
static inline vf where_kept(vf x, uint64_t bits) {
  vi lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = 1 << i;
  return (vf)((vi)x & (((vi{} + (int32_t)bits) & lane) == lane));
}

/* Units [first, last) of a row, multiples of 32: x = kept ? x * scale : 0. */
static void drop_row(const Dropout& d, uint32_t step, int64_t row, int64_t first, int64_t last, float* x) {
  if (!d.threshold) return;
  for (int64_t start = first; start < last; start = start / 64 * 64 + 64) {
    const uint64_t bits = kept_bits(d, step, (uint32_t)row, start / 64);
    for (int64_t u = start; u < last && u < start / 64 * 64 + 64; u += kLanes) {
      float* at = x + u;
      store_unaligned(at, where_kept(load_unaligned(at) * d.scale, bits >> u % 64));
    }
  }
}

}  // namespace EC_ISA

#endif
