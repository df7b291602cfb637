/* The class Device of device.cuh on the host, for tests without a GPU: memory is malloc, a launch runs its
 * blocks (or clusters) one after the other.
 *
 * Environment variables, read at each ec_train: EC_EMULATION_BACKWARDS=1 runs blocks and threads backwards,
 * which changes results if the threads of a phase touch each other's data; EC_EMULATION_MEMORY=BYTES is the
 * device's memory, of which EC_EMULATION_TAKEN=BYTES cannot be had although they are said to be free;
 * EC_EMULATION_CLUSTER=BLOCKS is the largest cluster.
 */
#ifndef EMBEDCACHE_CUDA_DEVICE_EMULATION_H
#define EMBEDCACHE_CUDA_DEVICE_EMULATION_H

#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <memory>
#include <new>
#include <utility>

#include "error.h"
#include "layout.cuh"

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
  }
  Device(const Device&) = delete;

  template <class Kernel>
  int resident_blocks() const {
    return 3; /* fewer than the tests' heads, so that a block takes several */
  }

  template <class Kernel>
  void launch(const Launch& arguments, int blocks) const {
    using Shared = typename Kernel::Shared;
    const auto shared = shared_memory<Shared>(1);
    for (int i = 0; i < blocks; ++i) {
      memset(static_cast<void*>(shared.get()), 0xFF, sizeof(Shared));
      Kernel::run(Block(backwards_ ? blocks - 1 - i : i, blocks, backwards_), shared[0], arguments);
    }
  }

  template <class Kernel>
  int max_cluster() const {
    const char* blocks = getenv("EC_EMULATION_CLUSTER");
    return blocks ? (int)strtol(blocks, nullptr, 10) : kMaxCluster;
  }

  template <class Kernel>
  void launch_clusters(const Launch& arguments, int clusters, int blocks) const {
    using Shared = typename Kernel::Shared;
    const auto shared = shared_memory<Shared>(blocks);
    for (int i = 0; i < clusters; ++i) {
      memset(static_cast<void*>(shared.get()), 0xFF, sizeof(Shared) * (size_t)blocks);
      Kernel::run(Cluster<Shared>(backwards_ ? clusters - 1 - i : i, blocks, shared.get(), backwards_),
                  arguments);
    }
  }

  void copy(void* to, const void* from, int64_t bytes) const {
    if (bytes > 0) memcpy(to, from, (size_t)bytes);
  }

  void copy_rows(void* to, const void* from, int64_t rows, int64_t row_bytes, int64_t from_pitch) const {
    for (int64_t i = 0; i < rows; ++i)
      memcpy(static_cast<char*>(to) + i * row_bytes, static_cast<const char*>(from) + i * from_pitch,
             (size_t)row_bytes);
  }

  void zero(void* at, int64_t bytes) const { memset(at, 0, (size_t)bytes); }

  void synchronize() const {}

 private:
  template <class Shared>
  static std::unique_ptr<Shared[]> shared_memory(int blocks) {
    return std::unique_ptr<Shared[]>(new Shared[(size_t)blocks]);
  }

  bool backwards_;
};

}  // namespace ec
#endif
