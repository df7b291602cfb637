/* Blocks and clusters on the host (EC_HOST_EMULATION), in one of three ways:
 *
 *   phases   one host thread runs all threads of a block or cluster, phase by phase
 *   warps    a host thread for each warp, whose lanes it runs phase by phase
 *   lanes    a host thread for each thread
 *
 * With host threads a barrier is a barrier: ThreadSanitizer sees whatever one thread does to another's data
 * without it, which the phases, each of which ends for all at once, hide.
 */
#ifndef EMBEDCACHE_CUDA_EMULATION_H
#define EMBEDCACHE_CUDA_EMULATION_H

#include <pthread.h>
#include <string.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>
#include <string>

/* A function that ThreadSanitizer does not look into. */
#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>
#define EC_UNSEEN __attribute__((no_sanitize_thread))
#else
#define EC_UNSEEN
#endif

namespace ec {

#ifdef __SANITIZE_THREAD__

extern "C" void __tsan_write_range(void* at, unsigned long bytes);

/* What a host thread starts in the background, as ThreadSanitizer has it. */
struct HostBackground {
  void* fiber = __tsan_create_fiber(0);
  ~HostBackground() { __tsan_destroy_fiber(fiber); }
};

/* Copies, as what works in the background does it: that knows all that the thread has done before, says so to
 * whoever waits at `barrier`, and nothing that the thread says later speaks for it. */
EC_UNSEEN __attribute__((noinline)) inline void store_apart(void* to, const void* from, int bytes,
                                                            void* barrier) {
  static thread_local HostBackground background;
  void* const own = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(background.fiber, 0);
  __tsan_write_range(to, (unsigned long)bytes);
  __tsan_release(barrier);
  __tsan_switch_to_fiber(own, __tsan_switch_to_fiber_no_sync);
  for (int i = 0; i < bytes / 4; ++i) ((uint32_t*)to)[i] = ((const uint32_t*)from)[i];
}

#else

inline void store_apart(void* to, const void* from, int bytes, void*) { memcpy(to, from, (size_t)bytes); }

#endif

/* What the host threads of a block or cluster meet at, and what the lanes of a warp hand each other. */
class HostBarriers {
 public:
  HostBarriers(int blocks, int lanes_of_each) : blocks_(blocks) {
    pthread_barrier_init(&all_, nullptr, (unsigned)(blocks * kThreads / lanes_of_each));
    for (int b = 0; b < blocks; ++b)
      pthread_barrier_init(&block_[b], nullptr, (unsigned)(kThreads / lanes_of_each));
    for (int w = 0; w < blocks * kWarps; ++w)
      pthread_barrier_init(&warp_[w], nullptr, (unsigned)(kLanes / lanes_of_each));
  }
  ~HostBarriers() {
    pthread_barrier_destroy(&all_);
    for (int b = 0; b < blocks_; ++b) pthread_barrier_destroy(&block_[b]);
    for (int w = 0; w < blocks_ * kWarps; ++w) pthread_barrier_destroy(&warp_[w]);
  }
  HostBarriers(const HostBarriers&) = delete;

  void wait_all() { pthread_barrier_wait(&all_); }
  void wait_block(int t) { pthread_barrier_wait(&block_[t / kThreads]); }
  void wait_warp(int t) { pthread_barrier_wait(&warp_[t / kLanes]); }
  unsigned char* of_warp(int t) { return handed_[t / kLanes]; }

  static constexpr int kHanded = 64; /* bytes of a lane */

 private:
  int blocks_;
  pthread_barrier_t all_, block_[kMaxCluster], warp_[kMaxCluster * kWarps];
  alignas(16) unsigned char handed_[kMaxCluster * kWarps][kLanes * kHanded];
};

/* The threads of a block or cluster that a host thread runs. */
struct HostThreads {
  int first = 0, count = 0;
  HostBarriers* barriers = nullptr; /* NULL: it runs all of them */
  bool backwards = false;
  std::minstd_rand* random = nullptr; /* or NULL: in their order, or backwards */
};

inline HostThreads& host_threads() {
  static thread_local HostThreads own;
  return own;
}

template <class T, int kCount = kThreads>
class PerThread {
 public:
  PerThread() : first_(host_threads().first), of_thread_(new T[(size_t)host_threads().count]()) {}
  T& operator[](int t) { return of_thread_[t - first_]; }

 private:
  int first_;
  std::unique_ptr<T[]> of_thread_;
};

/* Where in the source a barrier is waited at. EC_EMULATION_WEAKEN=FILE:LINE is the one that is left out, to
 * see whether that is noticed; at a barrier of the cluster only the block waits then. */
struct Site {
  const char* file;
  int line;
  static Site here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
  bool is_weakened() const;
};

struct Weakened {
  std::string file;
  int line = 0;
};

inline Weakened& weakened() {
  static Weakened one;
  return one;
}

inline bool Site::is_weakened() const {
  const Weakened& one = weakened();
  if (line != one.line) return false;
  const char* name = strrchr(file, '/');
  return one.file == (name ? name + 1 : file);
}

/* What is alike in blocks and clusters. */
class Crew {
 public:
  Crew() : own_(host_threads()) {}

  template <class F>
  void each_thread(F f, Site site = Site::here()) const {
    each_alone(f);
    if (own_.barriers && !site.is_weakened()) own_.barriers->wait_block(own_.first);
  }

  template <class F>
  void each_lane(F f, Site site = Site::here()) const {
    each_alone(f);
    if (own_.count == 1 && !site.is_weakened()) own_.barriers->wait_warp(own_.first);
  }

  template <class F>
  void each_alone(F f) const {
    const int last = own_.first + own_.count - 1;
    if (own_.random && own_.count > 1) {
      int order[kMaxCluster * kThreads];
      std::iota(order, order + own_.count, own_.first);
      std::shuffle(order, order + own_.count, *own_.random);
      for (int k = 0; k < own_.count; ++k) f(order[k]);
    } else {
      for (int t = own_.first; t <= last; ++t) f(own_.backwards ? own_.first + last - t : t);
    }
  }

  /* What a warp does together: put(t) gives a number or struct of each lane; take(first, begin, end, all)
   * gets those of the warp that begins with thread `first`, and does the part of lanes begin .. end - 1. */
  template <class Put, class Take>
  void each_warp(Put put, Take take) const {
    using T = decltype(put(0));
    static_assert(sizeof(T) <= HostBarriers::kHanded, "there is room for it");
    if (own_.count == 1) {
      const int lane = own_.first % kLanes;
      T* all = (T*)own_.barriers->of_warp(own_.first);
      all[lane] = put(own_.first);
      own_.barriers->wait_warp(own_.first);
      take(own_.first - lane, lane, lane + 1, (const T*)all);
      own_.barriers->wait_warp(own_.first);
      return;
    }
    for (int first = own_.first; first < own_.first + own_.count; first += kLanes) {
      T all[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) all[lane] = put(first + lane);
      take(first, 0, kLanes, (const T*)all);
    }
  }

 protected:
  HostThreads own_;
};

class Block : public Crew {
 public:
  Block(int index, int count) : index_(index), count_(count) {}
  int index() const { return index_; }
  int count() const { return count_; }

 private:
  int index_, count_;
};

/* Blocks that run together and write into each other's shared memory. A thread's number t counts through all
 * of them on the host, and is its number in its block on the device: hence rank(t) and in_block(t). */
template <class Shared>
class Cluster : public Crew {
 public:
  Cluster(int index, int blocks, Shared* shared) : index_(index), blocks_(blocks), shared_(shared) {}
  int index() const { return index_; }
  int blocks() const { return blocks_; }
  int rank(int t) const { return t / kThreads; }
  int in_block(int t) const { return t % kThreads; }
  Shared& shared(int t) const { return shared_[rank(t)]; }
  Shared& any() const { return shared_[rank(own_.first)]; } /* for what is the same in every block */
  /* What lies in the block of that rank where thread t's block has `at`. */
  template <class T>
  T* remote(int t, int rank, T* at) const {
    return (T*)((char*)at + ((char*)&shared_[rank] - (char*)&shared(t)));
  }

  template <class F>
  void each_thread_of_all(F f, Site site = Site::here()) const {
    each_alone(f);
    if (own_.barriers && site.is_weakened()) own_.barriers->wait_block(own_.first);
    if (own_.barriers && !site.is_weakened()) own_.barriers->wait_all();
  }

 private:
  int index_, blocks_;
  Shared* shared_;
};

}  // namespace ec
#endif
