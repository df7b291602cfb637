/* One piece of memory for all that a head needs, and initial weights. */
#ifndef EMBEDCACHE_CPU_ARENA_H
#define EMBEDCACHE_CPU_ARENA_H

#include "adamw.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace EC_ISA {

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* Hands out pieces, each on a cache line; with memory NULL it only counts. */
struct Arena {
  char* memory;
  int64_t used = 0;

  template <class T>
  T* take(int64_t n) {
    T* piece = memory ? reinterpret_cast<T*>(memory + used) : nullptr;
    const int64_t end = used + n * (int64_t)sizeof(T);
    used = (end + 63) / 64 * 64;
#ifdef __SANITIZE_ADDRESS__ /* a gap that nobody may touch: the sanitizer knows whole allocations only */
    used += 64;
    if (memory) ASAN_POISON_MEMORY_REGION(memory + end, used - end);
#endif
    return piece;
  }
  Parameter take_parameter(int64_t n) {
    Parameter p;
    p.w = take<float>(n);
    p.m = take<float>(n);
    p.v = take<float>(n);
    return p;
  }
};

/* The initial values of elements [first, first + n) of a tensor, four from each Philox call. */
template <class Place>
static void init_elements(uint64_t seed, uint32_t tensor, int64_t first, int64_t n, float bound,
                          const Place& place) {
  ec_words words = {};
  for (int64_t e = first; e < first + n; ++e) {
    if (e == first || e % 4 == 0)
      words = ec_philox(seed, (uint32_t)(e / 4), (uint32_t)((uint64_t)(e / 4) >> 32), tensor, EC_DOMAIN_INIT);
    *place(e - first) = ec_init_from_word(words.word[e % 4], bound);
  }
}

}  // namespace EC_ISA

#endif
