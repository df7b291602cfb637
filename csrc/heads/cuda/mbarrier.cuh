/* Barriers in shared memory that count data as well as threads (mbarrier), and stores into another block of
 * the cluster that such a barrier counts (st.async).
 *
 * A barrier goes from phase to phase. A phase ends once `count` arrivals have come and all bytes that were
 * announced (expect) have landed; wait(parity) waits for the end of the phase of that parity, which is 0 for
 * the first and changes with each. Bytes may land before they are announced, for their phase lacks an arrival
 * until then. Who waits sees what has landed.
 *
 * No fence is needed anywhere: any release or acquire of the cluster's scope costs one of the whole device
 * (MEMBAR.ALL.GPU) or all of L1 (CCTL.IVALL), but a store that a barrier counts is seen by whoever waits
 * there, and an arrival after a barrier of the block follows the block's reads.
 *
 * On the host a barrier is the same 64 bits of counts. A store or copy lands when somebody waits for it, and
 * from its issue until then its place holds NaN; a wait for a phase that nothing will end stops the program,
 * and so does an arrival or a byte too many.
 */
#ifndef EMBEDCACHE_CUDA_MBARRIER_CUH
#define EMBEDCACHE_CUDA_MBARRIER_CUH

#include "mma.cuh"

#ifdef EC_HOST_EMULATION
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <vector>
#endif

namespace ec {

struct alignas(8) Mbarrier {
  uint64_t state;
};

#ifdef EC_HOST_EMULATION

[[noreturn]] inline void wrong_barrier(const char* what) {
  fprintf(stderr, "emulated mbarrier: %s\n", what);
  abort();
}

/* The 64 bits: whose phase, arrivals still missing and of each phase, bytes announced but not landed. */
struct Counts {
  uint32_t parity, missing, each;
  int32_t bytes;

  static Counts of(uint64_t state) {
    return {(uint32_t)(state >> 63), (uint32_t)(state >> 42 & 0xFFFFF), (uint32_t)(state >> 22 & 0xFFFFF),
            (int32_t)(state & 0x3FFFFF) - 0x200000};
  }
  uint64_t packed() const {
    if (bytes < -0xFFFFF || bytes > 0xFFFFF) wrong_barrier("more bytes than it can count");
    return (uint64_t)parity << 63 | (uint64_t)missing << 42 | (uint64_t)each << 22 |
           (uint64_t)(bytes + 0x200000);
  }
};

/* Changes the counts at once; a phase that lacks nothing ends. */
template <class F>
void change(Mbarrier& barrier, int order, F f) {
  uint64_t before = __atomic_load_n(&barrier.state, __ATOMIC_RELAXED), after;
  do {
    Counts counts = Counts::of(before);
    f(counts);
    if (counts.missing == 0 && counts.bytes == 0) {
      counts.parity ^= 1;
      counts.missing = counts.each;
    }
    after = counts.packed();
  } while (!__atomic_compare_exchange_n(&barrier.state, &before, after, false, order, __ATOMIC_RELAXED));
}

EC_DEVICE void init(Mbarrier& barrier, int count) {
  barrier.state = Counts{0, (uint32_t)count, (uint32_t)count, 0}.packed();
}

EC_DEVICE void fence_init() {}

inline void arrive(Counts& counts) {
  if (counts.missing == 0) wrong_barrier("an arrival too many");
  --counts.missing;
}

EC_DEVICE void arrive(Mbarrier* barrier) {
  change(*barrier, __ATOMIC_RELEASE, [](Counts& counts) { arrive(counts); });
}

EC_DEVICE void arrive_here(Mbarrier& barrier) { arrive(&barrier); }

EC_DEVICE void arrive_expect(Mbarrier& barrier, int bytes) {
  change(barrier, __ATOMIC_RELEASE, [bytes](Counts& counts) {
    counts.bytes += bytes;
    arrive(counts);
  });
}

constexpr int kMostTurns = 60000; /* of a host thread that waits: a minute and more */

/* A store or copy under way. */
struct HostPush {
  void* to;
  const void* from; /* NULL: `value` */
  float value;
  int bytes;
  Mbarrier* barrier;

  void land() const {
    store_apart(to, from ? from : &value, bytes, &barrier->state);
    change(*barrier, __ATOMIC_RELAXED, [this](Counts& counts) { counts.bytes -= bytes; });
  }
};

inline std::vector<HostPush>& host_pushes() {
  static thread_local std::vector<HostPush> all;
  return all;
}

/* With host threads it lands at once, though no barrier but this one vouches for it. */
EC_DEVICE void push(float* to, float value, Mbarrier* barrier) {
  if (host_threads().barriers) return HostPush{to, nullptr, value, 4, barrier}.land();
  memset(to, 0xFF, 4);
  host_pushes().push_back({to, nullptr, value, 4, barrier});
}

EC_DEVICE void push(float* to, const Quad& values, Mbarrier* barrier) {
  if ((uintptr_t)to % 16) wrong_barrier("a store that is not aligned");
  for (int i = 0; i < 4; ++i) push(to + i, values.x[i], barrier);
}

template <class Team>
EC_DEVICE void copy_to_some(const Team& team, int t, uint32_t ranks, void* to, const void* from, int bytes,
                            Mbarrier* barrier) {
  if (((uintptr_t)to | (uintptr_t)from | (uintptr_t)bytes) % 16) wrong_barrier("a copy that is not aligned");
  for (int rank = 0; rank < team.blocks(); ++rank) {
    if (!(ranks >> rank & 1)) continue;
    const HostPush copy = {team.remote(t, rank, (char*)to), from, 0.0f, bytes, team.remote(t, rank, barrier)};
    if (host_threads().barriers) {
      copy.land();
    } else {
      memset(copy.to, 0xFF, (size_t)bytes);
      host_pushes().push_back(copy);
    }
  }
}

EC_DEVICE void fence_copies() {}

EC_DEVICE void wait(Mbarrier& barrier, int parity EC_SITE) {
  const auto is_over = [&] {
    return Counts::of(__atomic_load_n(&barrier.state, __ATOMIC_ACQUIRE)).parity != (uint32_t)parity;
  };
  if (host_threads().barriers) {
    if (site.is_weakened()) return;
    for (int turn = 0; !is_over(); ++turn) {
      if (turn > kMostTurns) wrong_barrier("a wait that nothing ends");
      usleep(turn < 100 ? 0 : 1000);
    }
    return;
  }
  std::vector<HostPush>& all = host_pushes();
  size_t kept = 0;
  for (const HostPush& one : all) one.barrier == &barrier ? one.land() : (void)(all[kept++] = one);
  all.resize(kept);
  if (!is_over()) wrong_barrier("a wait that nothing ends");
}

#else

EC_DEVICE uint32_t shared_address(const void* at) { return (uint32_t)__cvta_generic_to_shared(at); }

EC_DEVICE void init(Mbarrier& barrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(&barrier)), "r"(count)
               : "memory");
}

/* After init() and before a barrier of the cluster: others may arrive from then on. */
EC_DEVICE void fence_init() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

/* At a barrier of any block: see Cluster::remote(). */
EC_DEVICE void arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* At the block's own barrier. */
EC_DEVICE void arrive_here(Mbarrier& barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(&barrier)) : "memory");
}

/* Arrives at the block's own barrier and announces so many bytes. */
EC_DEVICE void arrive_expect(Mbarrier& barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(&barrier)),
               "r"(bytes)
               : "memory");
}

/* Stores four numbers in any block, aligned to 16 bytes; `barrier` of that block counts those once they are
 * there. */
EC_DEVICE void push(uint32_t to, const Quad& values, uint32_t barrier) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
      "f"(values.x[0]), "f"(values.x[1]), "f"(values.x[2]), "f"(values.x[3]), "r"(barrier)
      : "memory");
}

/* Copies from device memory to the same place in those blocks of the cluster whose bits are set
 * (cp.async.bulk): both aligned to 16 bytes, as many at a time. In each of them the barrier at the same place
 * counts the bytes. One thread asks. */
template <class Team>
EC_DEVICE void copy_to_some(const Team&, int, uint32_t ranks, void* to, const void* from, int bytes,
                            Mbarrier* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1], %2, "
      "[%3], "
      "%4;" ::"r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier)), "h"((uint16_t)ranks)
      : "memory");
}

/* What the thread has written so far comes before such copies into the same place, if a barrier of the block
 * and an arrival are between. */
EC_DEVICE void fence_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

EC_DEVICE void wait(Mbarrier& barrier, int parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(shared_address(&barrier)),
      "r"(parity)
      : "memory");
}

#endif

/* The same into the thread's own block. */
template <class Team>
EC_DEVICE void copy_here(const Team& team, int t, void* to, const void* from, int bytes, Mbarrier* barrier) {
#ifdef EC_HOST_EMULATION
  copy_to_some(team, t, 1u << team.rank(t), to, from, bytes, barrier);
#else
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
#endif
}

/* The same into every block of the cluster. */
template <class Team>
EC_DEVICE void copy_to_all(const Team& team, int t, void* to, const void* from, int bytes,
                           Mbarrier* barrier) {
  copy_to_some(team, t, (1u << team.blocks()) - 1, to, from, bytes, barrier);
}

}  // namespace ec
#endif
