/* The device as the host code sees it: memory, copies and launches on the caller's stream, or between fork()
 * and join() on one of two lanes; every CUDA call checked,
 * every allocation owned by a Buffer. device_emulation.h is the same class on the host. */
#ifndef EMBEDCACHE_CUDA_DEVICE_CUH
#define EMBEDCACHE_CUDA_DEVICE_CUH

#include <cuda_runtime.h>

#include <algorithm>

#include "error.h"
#include "layout.cuh"
#include "staging.cuh"

namespace ec {

constexpr const char* kBackend = "cuda";
constexpr int kLeastCapability = 8; /* what setup.py compiles for: sm_80, sm_90a and PTX */

inline std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

/* What is wrong and what to do about it. */
inline std::string describe(cudaError_t status) {
  if (status == cudaErrorInsufficientDriver) {
    int driver = 0, runtime = 0;
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    if (driver == 0) return "no NVIDIA driver: install one, or train on the CPU";
    return "the NVIDIA driver is too old: it offers CUDA " + version_text(driver) + ", this library needs " +
           version_text(runtime) + ": update the driver, or train on the CPU";
  }
  if (status == cudaErrorNoDevice) return "no CUDA device: train on the CPU";
  return std::string(cudaGetErrorString(status)) + " (" + cudaGetErrorName(status) + ")";
}

inline void check(cudaError_t status, const std::string& what) {
  if (status == cudaSuccess) return;
  (void)cudaGetLastError(); /* so that the next call does not see it again */
  throw Error{status == cudaErrorMemoryAllocation ? EC_ERROR_MEMORY : EC_ERROR_DEVICE,
              what + ": " + describe(status)};
}

inline int count_devices() {
  int count = 0;
  check(cudaGetDeviceCount(&count), "CUDA");
  return count;
}

/* Its major number. Throws if the engine was not compiled for so old a device. */
inline int check_capability(int device) {
  int major = 0, minor = 0;
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
        "asking for the capability");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
        "asking for the capability");
  if (major < kLeastCapability)
    throw Error{EC_ERROR_DEVICE, "CUDA device " + std::to_string(device) +
                                     " is too old: its compute capability is " + std::to_string(major) + "." +
                                     std::to_string(minor) + ", the engine needs 8.0: train on the CPU"};
  return major;
}

inline int64_t free_memory() {
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "asking for free memory");
  return (int64_t)free;
}

/* Memory on the device. It must not outlive its Device. */
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(int64_t size, const char* what) {
    const cudaError_t status = cudaMalloc(&data_, (size_t)std::max(size, INT64_C(1)) * sizeof(T));
    if (status == cudaErrorMemoryAllocation) {
      (void)cudaGetLastError();
      throw no_room(what, size * (int64_t)sizeof(T), free_memory());
    }
    check(status, what);
  }
  ~Buffer() { (void)cudaFree(data_); } /* waits for what still uses it */
  Buffer(Buffer&& other) noexcept : data_(other.data_) { other.data_ = nullptr; }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    return *this;
  }
  T* get() const { return data_; }

 private:
  T* data_ = nullptr;
};

template <class Kernel>
__global__ void __launch_bounds__(kThreads, Kernel::kBlocksPerProcessor)
    kernel(const __grid_constant__ Launch launch) {
  extern __shared__ __align__(1024) unsigned char memory[];
  Kernel::run(Block(), *reinterpret_cast<typename Kernel::Shared*>(memory), launch);
}

template <class Kernel>
__global__ void __launch_bounds__(kThreads, 1) cluster_kernel(const __grid_constant__ Launch launch) {
#if EC_HAS_CLUSTERS
  extern __shared__ __align__(1024) unsigned char memory[]; /* as wgmma.cuh's lines want it */
  using Shared = typename Kernel::Shared;
  Kernel::run(Cluster<Shared>(reinterpret_cast<Shared*>(memory)), launch);
#endif
}

class Device {
 public:
  Device(int number, uint64_t stream) : stream_((cudaStream_t)(uintptr_t)stream), number_(number) {
    const int count = count_devices();
    if (number < 0 || number >= count)
      throw Error{EC_ERROR_DEVICE,
                  "no CUDA device " + std::to_string(number) + ": there are " + std::to_string(count)};
    major_ = check_capability(number);
    check(cudaDeviceGetAttribute(&processors_, cudaDevAttrMultiProcessorCount, number),
          "counting processors");
    check(cudaGetDevice(&before_), "asking for the current device");
    check(cudaSetDevice(number), "CUDA device " + std::to_string(number));
  }
  ~Device() {
    if (forked_) (void)cudaEventDestroy(forked_);
    if (joined_) (void)cudaEventDestroy(joined_);
    if (side_) (void)cudaStreamDestroy(side_);
    (void)cudaSetDevice(before_);
  }
  Device(const Device&) = delete;

  /* Operations a second that float32 kernels should reach: a quarter of what its lanes could do. */
  double speed() const {
    constexpr double kLanesOfProcessor = 128, kReached = 0.25;
    int kilohertz = 0;
    check(cudaDeviceGetAttribute(&kilohertz, cudaDevAttrClockRate, number_), "asking for the clock");
    return kReached * 2 * kLanesOfProcessor * processors_ * 1e3 * std::max(kilohertz, 1000000);
  }

  /* Blocks of a kernel that can run at the same time. */
  template <class Kernel>
  int resident_blocks() const {
    int per_processor = 0;
    allow_memory(kernel<Kernel>, sizeof(typename Kernel::Shared));
    check(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&per_processor, kernel<Kernel>, kThreads,
                                                        sizeof(typename Kernel::Shared)),
          "occupancy");
    return std::max(1, per_processor * processors_);
  }

  template <class Kernel>
  void launch(const Launch& arguments, int blocks) const {
    if (blocks == 0) return;
    constexpr size_t memory = sizeof(typename Kernel::Shared);
    allow_memory(kernel<Kernel>, memory);
    kernel<Kernel><<<(unsigned)blocks, kThreads, memory, stream_>>>(arguments);
    check(cudaGetLastError(), "launching a kernel");
  }

  /* The most blocks (a power of two) that the device can run as one cluster; 0 where it has no clusters, or
   * where this library's code for it has none. */
  template <class Kernel>
  int max_cluster() const {
    for (int blocks = kMaxCluster; blocks > 0; blocks /= 2)
      if (active_clusters<Kernel>(blocks) > 0) return blocks;
    return 0;
  }

  /* Clusters of so many blocks that run at the same time; 0 as above. */
  template <class Kernel>
  int active_clusters(int blocks) const {
    cudaFuncAttributes code = {};
    check(cudaFuncGetAttributes(&code, cluster_kernel<Kernel>), "asking for the kernel's code");
    if (major_ != 9 || code.ptxVersion < 90) return 0; /* PTX for 8.0 has an empty kernel here */
    cudaLaunchAttribute attribute;
    const cudaLaunchConfig_t config = cluster_config<Kernel>(1, blocks, &attribute);
    int clusters = 0;
    if (cudaOccupancyMaxActiveClusters(&clusters, cluster_kernel<Kernel>, &config) == cudaSuccess)
      return clusters;
    (void)cudaGetLastError();
    return 0;
  }

  template <class Kernel>
  void launch_clusters(const Launch& arguments, int clusters, int blocks, int lane = 0) const {
    if (clusters == 0) return;
    cudaLaunchAttribute attribute;
    cudaLaunchConfig_t config = cluster_config<Kernel>(clusters, blocks, &attribute);
    if (lane > 0) config.stream = side_;
    check(cudaLaunchKernelEx(&config, cluster_kernel<Kernel>, arguments), "launching clusters");
  }

  /* Lane 0 is the caller's stream. What was launched before fork() is done before lane 1 begins, and lane 1
   * before what is launched after join(). */
  void fork() const {
    if (!side_) {
      check(cudaStreamCreateWithFlags(&side_, cudaStreamNonBlocking), "a second stream");
      check(cudaEventCreateWithFlags(&forked_, cudaEventDisableTiming), "an event");
      check(cudaEventCreateWithFlags(&joined_, cudaEventDisableTiming), "an event");
    }
    check(cudaEventRecord(forked_, stream_), "an event");
    check(cudaStreamWaitEvent(side_, forked_, 0), "waiting for an event");
  }
  void join() const {
    check(cudaEventRecord(joined_, side_), "an event");
    check(cudaStreamWaitEvent(stream_, joined_, 0), "waiting for an event");
  }

  /* Any of the two may be on the host or on the device. What is copied to the host is there on return. */
  void copy(void* to, const void* from, int64_t bytes) const {
    if (bytes == 0) return;
    check(cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDefault, stream_), "copying");
  }

  /* Rows of the caller's, dense on the device; they may change on return. */
  void upload(void* to, const void* from, int64_t rows, int64_t row_bytes, int64_t from_pitch) const {
    char* const host = static_cast<char*>(const_cast<void*>(from));
    if (rows * row_bytes >= Staging::kWorthIt && is_pageable(from) &&
        Staging::copy(number_, stream_, {{host, static_cast<char*>(to), rows, row_bytes, from_pitch}}, true))
      return;
    if (from_pitch == row_bytes) return copy(to, from, rows * row_bytes);
    check(cudaMemcpy2DAsync(to, (size_t)row_bytes, from, (size_t)from_pitch, (size_t)row_bytes, (size_t)rows,
                            cudaMemcpyDefault, stream_),
          "copying X to the device");
  }

  /* Into the caller's memory, where all of it is on return. */
  void download(const std::vector<Transfer>& transfers) const {
    int64_t bytes = 0;
    for (const Transfer& all : transfers) bytes += all.rows * all.bytes;
    if (bytes >= Staging::kWorthIt && is_pageable(transfers[0].host) &&
        Staging::copy(number_, stream_, transfers, false))
      return;
    for (const Transfer& all : transfers) copy(all.host, all.device, all.rows * all.bytes);
    synchronize();
  }

  void zero(void* at, int64_t bytes) const {
    check(cudaMemsetAsync(at, 0, (size_t)bytes, stream_), "clearing");
  }

  void synchronize() const { check(cudaStreamSynchronize(stream_), "running on the device"); }

 private:
  /* Whether it is the host's, and the driver knows nothing of it. */
  static bool is_pageable(const void* at) {
    cudaPointerAttributes about = {};
    if (cudaPointerGetAttributes(&about, at) == cudaSuccess) return about.type == cudaMemoryTypeUnregistered;
    (void)cudaGetLastError();
    return false;
  }

  /* More than 48 KiB of shared memory is given to those only who ask for it. */
  template <class Function>
  static void allow_memory(Function* function, size_t bytes) {
    if (bytes > 48 * 1024)
      check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes),
            "shared memory");
  }

  template <class Kernel>
  cudaLaunchConfig_t cluster_config(int clusters, int blocks, cudaLaunchAttribute* attribute) const {
    constexpr size_t memory = sizeof(typename Kernel::Shared);
    allow_memory(cluster_kernel<Kernel>, memory);
    check(cudaFuncSetAttribute(cluster_kernel<Kernel>, cudaFuncAttributeNonPortableClusterSizeAllowed, 1),
          "clusters of more than 8 blocks");
    attribute->id = cudaLaunchAttributeClusterDimension;
    attribute->val.clusterDim.x = (unsigned)blocks;
    attribute->val.clusterDim.y = attribute->val.clusterDim.z = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)(clusters * blocks));
    config.blockDim = dim3(kThreads);
    config.dynamicSmemBytes = memory;
    config.stream = stream_;
    config.attrs = attribute;
    config.numAttrs = 1;
    return config;
  }

  cudaStream_t stream_;
  mutable cudaStream_t side_ = nullptr;
  mutable cudaEvent_t forked_ = nullptr, joined_ = nullptr;
  int number_, before_ = 0, processors_ = 0, major_ = 0;
};

}  // namespace ec
#endif
