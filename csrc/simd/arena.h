/* One piece of memory for all that a head, or an encoder, needs. */
#ifndef EMBEDCACHE_CPU_ARENA_H
#define EMBEDCACHE_CPU_ARENA_H

#include "memory.h"
#include "simd.h"

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
};

}  // namespace EC_ISA

#endif
