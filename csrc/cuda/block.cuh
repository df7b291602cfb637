/* A thread block as a sequence of phases, so that nvcc and g++ compile the very same kernels.
 *
 * A kernel is a struct with a type `Shared` (its shared memory) and a static function run(). run() is made of
 * phases: block.each_thread(f) calls f(t) for every thread t of the block and ends with a barrier. On the
 * device each thread calls f once, with its own number; on the host (EC_HOST_EMULATION) one loop calls f for
 * all of them.
 *
 * Three rules keep the two the same. The first is checked by tests: results may not change when the host runs
 * the threads backwards.
 *   1. Within a phase no thread reads what another one writes.
 *   2. Between phases there is only control flow that is the same for all threads, and no write to memory.
 *   3. What is read between phases is not written in the phase that follows: a fast thread would overtake.
 * What a thread keeps in registers from phase to phase is a PerThread<T>.
 */
#ifndef EMBEDCACHE_CUDA_BLOCK_CUH
#define EMBEDCACHE_CUDA_BLOCK_CUH

#include <stdint.h>

#include "../numerics.h"

#ifdef EC_HOST_EMULATION
#define EC_DEVICE static inline
#define EC_DEVICE_METHOD inline
#define EC_UNROLL
#define EC_UNROLL_2
#else
#include <cuda_fp16.h>
#define EC_DEVICE static __device__ __forceinline__
#define EC_DEVICE_METHOD __device__ __forceinline__
#define EC_UNROLL _Pragma("unroll")
#define EC_UNROLL_2 _Pragma("unroll 2")
#endif

namespace ec {

constexpr int kThreads = 256;

#ifdef EC_HOST_EMULATION

template <class T>
struct PerThread {
  T of_thread[kThreads] = {};
  T& operator[](int t) { return of_thread[t]; }
};

class Block {
 public:
  Block(int index, int count, bool backwards) : index_(index), count_(count), backwards_(backwards) {}
  int index() const { return index_; }
  int count() const { return count_; }

  template <class F>
  void each_thread(F f) const {
    for (int t = 0; t < kThreads; ++t) f(backwards_ ? kThreads - 1 - t : t);
  }

 private:
  int index_, count_;
  bool backwards_;
};

#else

template <class T>
struct PerThread {
  T own = {};
  EC_DEVICE_METHOD T& operator[](int) { return own; }
};

class Block {
 public:
  EC_DEVICE_METHOD int index() const { return (int)blockIdx.x; }
  EC_DEVICE_METHOD int count() const { return (int)gridDim.x; }

  template <class F>
  EC_DEVICE_METHOD void each_thread(F f) const {
    f((int)threadIdx.x);
    __syncthreads();
  }
};

#endif

/* Calls f(i) for i in [0, n), spread over the block's threads so that neighbours take neighbouring i. */
template <class F>
EC_DEVICE void each_index(const Block& block, int64_t n, F f) {
  block.each_thread([&](int t) {
    for (int64_t i = t; i < n; i += kThreads) f(i);
  });
}

/* For what one thread does alone. */
template <class F>
EC_DEVICE void one_thread(const Block& block, F f) {
  block.each_thread([&](int t) {
    if (t == 0) f();
  });
}

EC_DEVICE float half_to_float(uint16_t half) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(half));
#else
  return ec_half_to_float(half);
#endif
}

}  // namespace ec
#endif
