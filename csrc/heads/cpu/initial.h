/* The parameters of a head: where they lie, their initial values, and whether they are finite in the end. */
#ifndef EMBEDCACHE_CPU_INITIAL_H
#define EMBEDCACHE_CPU_INITIAL_H

#include "../../simd/arena.h"
#include "adamw.h"

namespace EC_ISA {

static Parameter take_parameter(Arena& arena, int64_t n) {
  Parameter p;
  p.w = arena.take<float>(n);
  p.m = arena.take<float>(n);
  p.v = arena.take<float>(n);
  return p;
}

/* The initial values of elements [first, first + n) of a tensor: those given, else four from each Philox
 * call. given: the whole tensor, or NULL. */
template <class Place>
static void init_elements(const float* given, uint64_t seed, uint32_t tensor, int64_t first, int64_t n,
                          float bound, const Place& place) {
  for (int64_t e = first; given && e < first + n; ++e) *place(e - first) = given[e];
  if (given) return;
  ec_words words = {};
  for (int64_t e = first; e < first + n; ++e) {
    if (e == first || e % 4 == 0)
      words = ec_philox(seed, (uint32_t)(e / 4), (uint32_t)((uint64_t)(e / 4) >> 32), tensor, EC_DOMAIN_INIT);
    *place(e - first) = ec_init_from_word(words.word[e % 4], bound);
  }
}

/* Whether these weights, on their way out, are all finite: none has an exponent of ones. */
static bool all_finite(const float* w, int64_t n) {
  constexpr uint32_t kExponent = 0x7F800000u;
  uint32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits;
    memcpy(&bits, w + i, sizeof bits);
    largest = (bits & kExponent) > largest ? bits & kExponent : largest;
  }
  return largest < kExponent;
}

}  // namespace EC_ISA

#endif
