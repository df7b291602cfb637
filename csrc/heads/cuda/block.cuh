/* A thread block, or a cluster of them, as a sequence of phases, so that nvcc and g++ compile the very same
 * kernels.
 *
 * A kernel is a struct with a type `Shared` (a block's shared memory) and a static function run(). run() is
 * made of phases: block.each_thread(f) calls f(t) for every thread t and ends with a barrier of the block. On
 * the device each thread calls f once, with its own number; on the host (EC_HOST_EMULATION) one loop calls f
 * for all of them. block.each_lane(f) is the same with a barrier of the warp only, block.each_alone(f) with
 * none at all, for what the 32 threads of a warp share and for what no threads share.
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
#define EC_FN_METHOD inline
#define EC_UNROLL
#define EC_UNROLL_2
#define EC_ROLLED
#define EC_SITE , Site site = Site::here() /* the caller's line, for a barrier: see emulation.h */
#define EC_AT_SITE , site
#else
#include <cooperative_groups.h>
#include <cuda_fp16.h>
#define EC_DEVICE static __device__ __forceinline__
#define EC_DEVICE_METHOD __device__ __forceinline__
#define EC_FN_METHOD __host__ __device__ __forceinline__
#define EC_UNROLL _Pragma("unroll")
#define EC_UNROLL_2 _Pragma("unroll 2")
#define EC_ROLLED _Pragma("unroll 1")
#define EC_SITE
#define EC_AT_SITE
#endif

/* Clusters of blocks need compute capability 9.0; no device with less runs the code that uses them. */
#if defined(EC_HOST_EMULATION) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
#define EC_HAS_CLUSTERS 1
#else
#define EC_HAS_CLUSTERS 0
#endif

namespace ec {

constexpr int kThreads = 256, kLanes = 32, kWarps = kThreads / kLanes;
constexpr int kMaxCluster = 16; /* blocks; more than 8 only where the device allows it */

#ifdef EC_HOST_EMULATION

}  // namespace ec
#include "emulation.h"
namespace ec {

#else

template <class T, int kCount = kThreads>
struct PerThread {
  T own = {};
  EC_DEVICE_METHOD T& operator[](int) { return own; }
};

class Crew {
 public:
  template <class F>
  EC_DEVICE_METHOD void each_thread(F f) const {
    f((int)threadIdx.x);
    __syncthreads();
  }

  template <class F>
  EC_DEVICE_METHOD void each_lane(F f) const {
    f((int)threadIdx.x);
    __syncwarp();
  }

  template <class F>
  EC_DEVICE_METHOD void each_alone(F f) const {
    f((int)threadIdx.x);
  }
};

class Block : public Crew {
 public:
  EC_DEVICE_METHOD int index() const { return (int)blockIdx.x; }
  EC_DEVICE_METHOD int count() const { return (int)gridDim.x; }
};

template <class Shared>
class Cluster : public Crew {
 public:
  EC_DEVICE_METHOD explicit Cluster(Shared* shared) : shared_(shared) {}
  EC_DEVICE_METHOD int index() const { return (int)blockIdx.x / blocks(); }
  EC_DEVICE_METHOD int in_block(int t) const { return t; }
  EC_DEVICE_METHOD Shared& shared(int) const { return *shared_; }
  EC_DEVICE_METHOD Shared& any() const { return *shared_; }

#if EC_HAS_CLUSTERS
  EC_DEVICE_METHOD int blocks() const { return (int)cooperative_groups::this_cluster().num_blocks(); }
  EC_DEVICE_METHOD int rank(int) const { return (int)cooperative_groups::this_cluster().block_rank(); }
  EC_DEVICE_METHOD uint32_t remote(int, int rank, const void* at) const {
    uint32_t there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;"
        : "=r"(there)
        : "r"((uint32_t)__cvta_generic_to_shared(at)), "r"(rank));
    return there;
  }

  /* Ends with a barrier of the whole cluster. */
  template <class F>
  EC_DEVICE_METHOD void each_thread_of_all(F f) const {
    f((int)threadIdx.x);
    cooperative_groups::this_cluster().sync();
  }
#else
  EC_DEVICE_METHOD int blocks() const { return 1; }
  EC_DEVICE_METHOD int rank(int) const { return 0; }
  EC_DEVICE_METHOD uint32_t remote(int, int, const void*) const { return 0; }
  template <class F>
  EC_DEVICE_METHOD void each_thread_of_all(F f) const {
    each_thread(f);
  }
#endif

 private:
  Shared* shared_;
};

#endif

/* Calls f(i) for i in [0, n), spread over the block's threads so that neighbours take neighbouring i. */
template <class F>
EC_DEVICE void each_index(const Block& block, int64_t n, F f EC_SITE) {
  block.each_thread([&](int t) {
    for (int64_t i = t; i < n; i += kThreads) f(i);
  } EC_AT_SITE);
}

/* For what one thread does alone. */
template <class F>
EC_DEVICE void one_thread(const Block& block, F f EC_SITE) {
  block.each_thread([&](int t) {
    if (t == 0) f();
  } EC_AT_SITE);
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
