/* The class Device of device.cuh on the host, for tests without a GPU: memory is malloc, a launch runs its
 * blocks (or clusters) one after the other, or with host threads a few at once.
 *
 * Environment variables, read at each ec_train: EC_EMULATION_THREADS=warps or lanes runs each warp, or each
 * thread, on a host thread of its own (emulation.h; clusters of more than 4 blocks by warps at least).
 * EC_EMULATION_BACKWARDS=1 runs blocks and threads backwards, EC_EMULATION_SEED=N threads in a random order,
 * which changes results if the threads of a phase touch each other's data. EC_EMULATION_MEMORY=BYTES is the
 * device's memory, of which EC_EMULATION_TAKEN=BYTES cannot be had although they are said to be free;
 * EC_EMULATION_CLUSTER=BLOCKS is the largest cluster; EC_EMULATION_SPEED=OPERATIONS what the device says that
 * it does in a second (pace.cuh).
 */
#ifndef EMBEDCACHE_CUDA_DEVICE_EMULATION_H
#define EMBEDCACHE_CUDA_DEVICE_EMULATION_H

#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <memory>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#include "error.h"
#include "layout.cuh"
#include "transfer.h"

namespace ec {

constexpr const char* kBackend = "cuda-emulation";

inline int count_devices() { return 1; }

inline int check_capability(int) { return 9; }

inline int64_t& used_bytes() {
  static thread_local int64_t used = 0;
  return used;
}

inline int64_t bytes_from(const char* variable, int64_t otherwise) {
  const char* text = getenv(variable);
  return text ? strtoll(text, nullptr, 10) : otherwise;
}

inline int64_t free_memory() { return bytes_from("EC_EMULATION_MEMORY", INT64_C(1) << 34) - used_bytes(); }

/* Filled with NaN, so that what is read before it is written shows. */
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(int64_t size, const char* what) : bytes_(size * (int64_t)sizeof(T)) {
    if (bytes_ > free_memory() - bytes_from("EC_EMULATION_TAKEN", 0))
      throw no_room(what, bytes_, free_memory());
    data_ = static_cast<T*>(aligned_alloc(128, (size_t)(bytes_ + 127) / 128 * 128 + 128));
    if (!data_) throw std::bad_alloc();
    memset(static_cast<void*>(data_), 0xFF, (size_t)bytes_);
    used_bytes() += bytes_;
  }
  ~Buffer() {
    free(data_);
    used_bytes() -= bytes_;
  }
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  T* get() const { return data_; }

 private:
  T* data_ = nullptr;
  int64_t bytes_ = 0;
};

class Device {
 public:
  Device(int number, uint64_t) : backwards_(getenv("EC_EMULATION_BACKWARDS") != nullptr) {
    if (number != 0)
      throw Error{EC_ERROR_DEVICE, "no CUDA device " + std::to_string(number) + ": there is 1"};
    const char* threads = getenv("EC_EMULATION_THREADS");
    if (threads) lanes_of_thread_ = strcmp(threads, "lanes") == 0 ? 1 : kLanes;
    is_random_ = getenv("EC_EMULATION_SEED") != nullptr;
    seed_ = (uint32_t)bytes_from("EC_EMULATION_SEED", 1);
    const char* weak = getenv("EC_EMULATION_WEAKEN");
    const char* colon = weak ? strchr(weak, ':') : nullptr;
    if (colon) weakened() = {std::string(weak, colon), (int)strtol(colon + 1, nullptr, 10)};
  }
  Device(const Device&) = delete;

  double speed() const { return (double)bytes_from("EC_EMULATION_SPEED", INT64_C(1) << 30); }

  template <class Kernel>
  int resident_blocks() const {
    return 3; /* fewer than the tests' heads, so that a block takes several */
  }

  template <class Kernel>
  void launch(const Launch& arguments, int blocks) const {
    using Shared = typename Kernel::Shared;
    run_all<Shared>(blocks, 1,
                    [&](int i, Shared* shared) { Kernel::run(Block(i, blocks), *shared, arguments); });
  }

  template <class Kernel>
  int max_cluster() const {
    const char* blocks = getenv("EC_EMULATION_CLUSTER");
    return blocks ? (int)strtol(blocks, nullptr, 10) : kMaxCluster;
  }

  template <class Kernel>
  int active_clusters(int blocks) const {
    return blocks <= max_cluster<Kernel>() ? 1 : 0;
  }

  template <class Kernel>
  void launch_clusters(const Launch& arguments, int clusters, int blocks, int = 0) const {
    using Shared = typename Kernel::Shared;
    run_all<Shared>(clusters, blocks, [&](int i, Shared* shared) {
      Kernel::run(Cluster<Shared>(i, blocks, shared), arguments);
    });
  }

  /* Lanes take turns, launch by launch. */
  void fork() const {}
  void join() const {}

  void copy(void* to, const void* from, int64_t bytes) const {
    if (bytes > 0) memcpy(to, from, (size_t)bytes);
  }

  void upload(void* to, const void* from, int64_t rows, int64_t row_bytes, int64_t from_pitch) const {
    for (int64_t i = 0; i < rows; ++i)
      memcpy(static_cast<char*>(to) + i * row_bytes, static_cast<const char*>(from) + i * from_pitch,
             (size_t)row_bytes);
  }

  void download(const std::vector<Transfer>& transfers) const {
    for (const Transfer& all : transfers) copy(all.host, all.device, all.rows * all.bytes);
  }

  void zero(void* at, int64_t bytes) const { memset(at, 0, (size_t)bytes); }

  void synchronize() const {}

 private:
  static constexpr int kMostHostThreads = 1024; /* at once, but for what must run together */

  /* run(i, shared memory) for blocks or clusters 0 .. n - 1, of so many blocks each. */
  template <class Shared, class Run>
  void run_all(int n, int blocks, const Run& run) const {
    const int lanes = blocks > 4 && lanes_of_thread_ == 1 ? kLanes : lanes_of_thread_;
    const int threads = lanes ? blocks * kThreads / lanes : 1;
    const int together = lanes ? std::max(kMostHostThreads / threads, 1) : 1;
    for (int begin = 0; begin < n; begin += together) {
      std::vector<std::unique_ptr<Shared[]>> shared;
      std::vector<std::unique_ptr<HostBarriers>> barriers;
      std::vector<std::thread> running;
      for (int k = begin; k < std::min(begin + together, n); ++k) {
        const int i = backwards_ ? n - 1 - k : k;
        shared.push_back(shared_memory<Shared>(blocks));
        if (lanes) barriers.emplace_back(new HostBarriers(blocks, lanes));
        Shared* const own = shared.back().get();
        HostThreads part = {0, lanes ? lanes : blocks * kThreads, lanes ? barriers.back().get() : nullptr,
                            backwards_, nullptr};
        if (!lanes) run_part(part, i, [&] { run(i, own); });
        for (int t = 0; lanes && t < threads; ++t, part.first += lanes)
          running.emplace_back([=, &run] { run_part(part, i, [&] { run(i, own); }); });
      }
      for (std::thread& thread : running) thread.join();
    }
  }

  template <class Run>
  void run_part(HostThreads part, int i, const Run& run) const {
    std::minstd_rand random(seed_ + (uint32_t)(i * kMaxCluster * kThreads + part.first));
    if (is_random_) part.random = &random;
    host_threads() = part;
    run();
    host_threads() = {};
  }

  /* Filled with NaN, as device memory is. */
  template <class Shared>
  static std::unique_ptr<Shared[]> shared_memory(int blocks) {
    std::unique_ptr<Shared[]> made(new Shared[(size_t)blocks]);
    memset(static_cast<void*>(made.get()), 0xFF, sizeof(Shared) * (size_t)blocks);
    return made;
  }

  bool backwards_, is_random_ = false;
  int lanes_of_thread_ = 0; /* 0: without host threads */
  uint32_t seed_ = 1;
};

}  // namespace ec
#endif
