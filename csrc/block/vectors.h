/* A text's vector from its rows of the last layer, forward and back: their mean, and a length of 1.
 *
 * Registers and L2; the rows once each way.
 */
#ifndef EMBEDCACHE_BLOCK_VECTORS_H
#define EMBEDCACHE_BLOCK_VECTORS_H

#include "memory.h"

namespace EC_ISA {

/* Of these texts; zeros without tokens. */
static void mean_rows(const Trainee& t, Range texts) {
  const Sheet& from = t.passes[t.whole - 1].out;
  for (int64_t b = texts.first; b < texts.last; ++b) {
    const int64_t first = t.offsets[b], n = length_of(t, b);
    const float share = n > 0 ? 1.0f / (float)n : 0.0f;
    for (int64_t c = 0; c < t.padded; c += kLanes) {
      vf sum = {};
      for (int64_t i = 0; i < n; ++i) sum += load_unaligned(from.row(first + i) + c);
      store_unaligned(t.first.out.row(b) + c, sum * share);
    }
  }
}

static void mean_rows_back(const Trainee& t, Range texts) {
  for (int64_t b = texts.first; b < texts.last; ++b) {
    const int64_t first = t.offsets[b], n = length_of(t, b);
    const float share = n > 0 ? 1.0f / (float)n : 0.0f;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t c = 0; c < t.padded; c += kLanes)
        store_unaligned(t.tokens_back.out.row(first + i) + c,
                        load_unaligned(t.first_back.out.row(b) + c) * share);
  }
}

/* v / max(|v|, 1e-12), in place. */
static void unit_rows(const Trainee& t, Range texts) {
  for (int64_t b = texts.first; b < texts.last; ++b) {
    float* v = t.first.out.row(b);
    vf squares = {};
    for (int64_t c = 0; c < t.padded; c += kLanes) squares += load_unaligned(v + c) * load_unaligned(v + c);
    const float length = sqrtf(lane_sum(squares));
    t.length[b] = length < 1e-12f ? 1e-12f : length; /* NaN stays */
    for (int64_t c = 0; c < t.padded; c += kLanes)
      store_unaligned(v + c, load_unaligned(v + c) / t.length[b]);
  }
}

/* With u = v / |v|: g_v = (g - u (u . g)) / |v|. */
static void unit_rows_back(const Trainee& t, Range texts) {
  for (int64_t b = texts.first; b < texts.last; ++b) {
    const float* u = t.first.out.row(b);
    float* g = t.first_back.out.row(b);
    vf dots = {};
    for (int64_t c = 0; c < t.padded; c += kLanes) dots += load_unaligned(u + c) * load_unaligned(g + c);
    const float dot = lane_sum(dots);
    for (int64_t c = 0; c < t.padded; c += kLanes)
      store_unaligned(g + c, (load_unaligned(g + c) - load_unaligned(u + c) * dot) / t.length[b]);
  }
}

}  // namespace EC_ISA

#endif
