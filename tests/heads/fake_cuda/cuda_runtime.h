/* As much of CUDA as staging.cuh needs, on the host. A copy happens when somebody waits for an event after
 * it, and not before: a slot that is used again too early shows. */
#ifndef FAKE_CUDA_RUNTIME_H
#define FAKE_CUDA_RUNTIME_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <deque>
#include <mutex>

using cudaError_t = int;
using cudaStream_t = void*;
struct FakeEvent {
  uint64_t after = 0;
};
using cudaEvent_t = FakeEvent*;
enum { cudaSuccess, cudaHostAllocPortable, cudaEventDisableTiming, cudaMemcpyDefault };

struct FakeStream {
  struct Copy {
    void* to;
    const void* from;
    size_t bytes;
  };
  std::mutex mutex;
  std::deque<Copy> waiting;
  uint64_t asked = 0, done = 0;
};

inline FakeStream& fake_stream() {
  static FakeStream stream;
  return stream;
}

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }

inline cudaError_t cudaHostAlloc(void** made, size_t bytes, int) {
  *made = malloc(bytes);
  return cudaSuccess;
}

inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, int) {
  *event = new FakeEvent;
  return cudaSuccess;
}

inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, int, cudaStream_t) {
  FakeStream& stream = fake_stream();
  const std::lock_guard<std::mutex> guard(stream.mutex);
  stream.waiting.push_back({to, from, bytes});
  ++stream.asked;
  return cudaSuccess;
}

inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  FakeStream& stream = fake_stream();
  const std::lock_guard<std::mutex> guard(stream.mutex);
  event->after = stream.asked;
  return cudaSuccess;
}

inline cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  FakeStream& stream = fake_stream();
  const std::lock_guard<std::mutex> guard(stream.mutex);
  for (; stream.done < event->after; ++stream.done) {
    const FakeStream::Copy copy = stream.waiting.front();
    stream.waiting.pop_front();
    memcpy(copy.to, copy.from, copy.bytes);
  }
  return cudaSuccess;
}

#endif
