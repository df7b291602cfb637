/* ReLU and dropout: a = max(z, 0) * keep / (1 - p), from Philox words, kLanes units at a time.
 *
 * One Philox call serves four units 16 apart (numerics.h), so 64 units of a row cost 16 calls; the keep bits
 * of a pair of 32-unit blocks are made together and kept until the second block asks for them. Registers
 * only; bound by the integer multiplier, about 2% of a step at hidden 512.
 */
#ifndef EMBEDCACHE_CPU_DROPOUT_H
#define EMBEDCACHE_CPU_DROPOUT_H

#include "../../simd/simd.h"

namespace EC_ISA {

struct Words {
  vu word[4];
};

static inline __attribute__((always_inline)) Words philox(uint64_t seed, vu c0, uint32_t row, uint32_t step,
                                                          uint32_t domain) {
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  vu c1 = vu{} + row, c2 = vu{} + step, c3 = vu{} + domain;
#pragma GCC unroll 10
  for (int round = 0; round < EC_PHILOX_ROUNDS; ++round) {
    vu high0, low0, high1, low1;
    multiply_wide(c0, EC_PHILOX_M0, &high0, &low0);
    multiply_wide(c2, EC_PHILOX_M1, &high1, &low1);
    c0 = high1 ^ c1 ^ k0;
    c2 = high0 ^ c3 ^ k1;
    c1 = low1;
    c3 = low0;
    k0 += EC_PHILOX_W0;
    k1 += EC_PHILOX_W1;
  }
  return {{c0, c1, c2, c3}};
}

/* keep[0][row] and keep[1][row]: bit u is unit pair * 64 + u, and + 32 + u. */
static inline void dropout_bits(uint64_t seed, uint32_t threshold, uint32_t step, int64_t pair, int64_t rows,
                                uint32_t* keep, int64_t capacity) {
  vu lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = (uint32_t)i;
  for (int64_t row = 0; row < rows; ++row) {
    uint32_t bits[2] = {0, 0};
    for (int part = 0; part < 16; part += kLanes) {
      const vu counter = lane + (uint32_t)(pair * 16 + part);
      const Words words = philox(seed, counter, (uint32_t)row, step, EC_DOMAIN_DROPOUT);
      for (int k = 0; k < 4; ++k)
        bits[k / 2] |= lanes_at_least(words.word[k], threshold) << (k % 2 * 16 + part);
    }
    keep[row] = bits[0];
    keep[capacity + row] = bits[1];
  }
}

/* a[rows][32] from z[rows][32]; keep NULL: no dropout. */
static inline void activate(const float* z, float* a, int64_t rows, const uint32_t* keep, float scale) {
  const vf scales = splat(scale);
  for (int64_t row = 0; row < rows; ++row)
    for (int u = 0; u < kBlock; u += kLanes)
      store(a + row * kBlock + u,
            relu_scaled(load(z + row * kBlock + u), keep ? keep[row] >> u : ~0u, scales));
}

}  // namespace EC_ISA

#endif
