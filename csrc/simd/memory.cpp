#include "memory.h"

#include <cstdlib>
#include <cstring>

#ifdef __linux__
#include <sys/mman.h>
#endif
#ifdef _WIN32
#include <malloc.h>
#endif

namespace ec {

void* memory_take(int64_t bytes) {
  constexpr int64_t kLine = 64, kHuge = int64_t{1} << 21;
  const int64_t align = bytes >= kHuge ? kHuge : kLine;
  const int64_t size = (bytes + align - 1) / align * align;
#ifdef _WIN32
  void* memory = _aligned_malloc(static_cast<size_t>(size), static_cast<size_t>(align));
  if (!memory) return nullptr;
#else
  void* memory = nullptr;
  if (posix_memalign(&memory, static_cast<size_t>(align), static_cast<size_t>(size)) != 0) return nullptr;
#endif
#ifdef __linux__
  if (align == kHuge) madvise(memory, static_cast<size_t>(size), MADV_HUGEPAGE);
#endif
  std::memset(memory, 0, static_cast<size_t>(size));
  return memory;
}

void memory_give_back(void* memory) {
#ifdef _WIN32
  _aligned_free(memory);
#else
  std::free(memory);
#endif
}

}  // namespace ec
