/* The caller's memory for the weights, made ready while the device trains. The system gives fresh pages at
 * the first write, one fault after the other: for the 1.6 GB of 1,024 heads 0.6 s on one host, after the last
 * step, when the device has nothing to do. Threads ask for them meanwhile; no byte is changed. */
#ifndef EMBEDCACHE_CUDA_HOST_PAGES_CUH
#define EMBEDCACHE_CUDA_HOST_PAGES_CUH

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <thread>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace ec {

struct Memory {
  char* at;
  int64_t bytes;
};

class HostPages {
 public:
  explicit HostPages(std::vector<Memory> pieces) : pieces_(std::move(pieces)) {
    const int most = (int)std::min<size_t>(kThreads, pieces_.size() / kPiecesOfThread);
    try {
      for (int i = 0; i < most; ++i) threads_.emplace_back([this] { work(); });
    } catch (const std::exception&) {
      /* As many threads as there may be: what nobody asks for is given at the first write. */
    }
  }
  HostPages(const HostPages&) = delete;
  HostPages& operator=(const HostPages&) = delete;
  ~HostPages() {
    next_ = pieces_.size(); /* whoever leaves early does not wait for the rest */
    wait();
  }

  void wait() {
    for (std::thread& thread : threads_) thread.join();
    threads_.clear();
  }

 private:
  static constexpr size_t kThreads = 4, kPiecesOfThread = 16, kPage = 4096;

  void work() {
    for (size_t i; (i = next_++) < pieces_.size();) touch(pieces_[i]);
  }

  static void touch(const Memory& piece) {
    if (piece.bytes == 0) return;
#if defined(__linux__) && defined(MADV_POPULATE_WRITE)
    const uintptr_t first = (uintptr_t)piece.at / kPage * kPage, end = (uintptr_t)piece.at + piece.bytes;
    if (madvise((void*)first, end - first, MADV_POPULATE_WRITE) == 0) return; /* Linux 5.14 and later */
#endif
    for (int64_t i = 0; i < piece.bytes; i += kPage)
      (void)__atomic_fetch_or(piece.at + i, 0, __ATOMIC_RELAXED);
  }

  const std::vector<Memory> pieces_;
  std::atomic<size_t> next_{0};
  std::vector<std::thread> threads_;
};

}  // namespace ec
#endif
