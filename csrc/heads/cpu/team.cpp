/* Barrier, memory, what lies on disk, and shuffle: everything that needs the operating system or the C++
 * library, compiled once.
 */
#include "team.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <utility>

#include "../numerics.h"

#ifdef __linux__
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace ec {

namespace {

constexpr int kSpins = 400; /* about 10 us: more than two healthy threads differ in one step */

inline void pause_cpu() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

struct Team {
  explicit Team(int n) : size(n) {}
  const int size;
  alignas(64) std::atomic<uint32_t> round{0};
  alignas(64) std::atomic<int> arrived{0};
  std::atomic<int> sleepers{0};
  std::mutex mutex;
  std::condition_variable all_here;
};

Team* team_create(int size) { return new (std::nothrow) Team(size); }
void team_destroy(Team* team) { delete team; }
int team_size(const Team* team) { return team->size; }

void team_barrier(Team* team) {
  if (team->size == 1) return;
  const uint32_t round = team->round.load();
  if (team->arrived.fetch_add(1) + 1 == team->size) {
    team->arrived.store(0);
    team->round.store(round + 1);
    if (team->sleepers.load() > 0) {
      std::lock_guard<std::mutex> lock(team->mutex);
      team->all_here.notify_all();
    }
    return;
  }
  for (int spin = 0; spin < kSpins; ++spin) {
    if (team->round.load() != round) return;
    pause_cpu();
  }
  std::unique_lock<std::mutex> lock(team->mutex);
  team->sleepers.fetch_add(1);
  team->all_here.wait(lock, [&] { return team->round.load() != round; });
  team->sleepers.fetch_sub(1);
}

#ifdef __linux__

namespace {

/* The pages in which so many bytes from `offset` elements on lie: start and length. */
struct Pages {
  void* start;
  size_t length;

  Pages(const ec_matrix& x, int64_t offset, int64_t elements) {
    static const uintptr_t page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const int64_t size = ec_size_of(x.dtype);
    const uintptr_t first = reinterpret_cast<uintptr_t>(x.data) + static_cast<uintptr_t>(offset * size);
    start = reinterpret_cast<void*>(first & ~(page - 1));
    length = first + static_cast<uintptr_t>(elements * size) - (first & ~(page - 1));
  }
};

void advise_all(const ec_matrix& x, int advice) {
  const Pages all(x, 0, (x.rows - 1) * x.stride + x.dim);
  madvise(all.start, all.length, advice);
}

}  // namespace

bool in_memory(const ec_view& view) {
  const int64_t sample = std::min<int64_t>((view.n + 31) / 32, 256);
  for (int64_t i = 0; i < sample; ++i) {
    const Pages row(view.x, view.rows[view.n * i / sample] * view.x.stride, 1);
    unsigned char there = 1;
    if (mincore(row.start, 1, &there) == 0 && !(there & 1)) return false;
  }
  return true;
}

void will_need(const ec_matrix& x, const int64_t* rows, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const Pages row(x, rows[i] * x.stride, x.dim);
    madvise(row.start, row.length, MADV_WILLNEED);
  }
}

RandomReads::RandomReads(const ec_view& view) : x_(view.x), on_disk_(!in_memory(view)) {
  if (on_disk_) advise_all(x_, MADV_RANDOM);
}
RandomReads::~RandomReads() {
  if (on_disk_) advise_all(x_, MADV_NORMAL);
}

#else

bool in_memory(const ec_view&) { return true; }
void will_need(const ec_matrix&, const int64_t*, int64_t) {}
RandomReads::RandomReads(const ec_view& view) : x_(view.x), on_disk_(false) {}
RandomReads::~RandomReads() {}

#endif

void shuffle(uint64_t seed, uint32_t epoch, int64_t n, uint32_t* order, uint64_t* scratch) {
  uint64_t *from = scratch, *to = scratch + n;
  for (int64_t i = 0; i < n; i += 4) {
    const ec_words words = ec_philox(seed, static_cast<uint32_t>(i / 4), 0, epoch, EC_DOMAIN_SHUFFLE);
    for (int64_t j = i; j < n && j < i + 4; ++j)
      from[j] = static_cast<uint64_t>(words.word[j - i]) << 32 | static_cast<uint64_t>(j);
  }
  /* Radix sort of the keys, 11 bits at a time; it is stable, so equal keys stay in the positions' order. */
  for (int shift = 32; shift < 64; shift += 11) {
    uint32_t place[2048] = {};
    for (int64_t i = 0; i < n; ++i) ++place[from[i] >> shift & 2047];
    uint32_t sum = 0;
    for (uint32_t& p : place) sum += std::exchange(p, sum);
    for (int64_t i = 0; i < n; ++i) to[place[from[i] >> shift & 2047]++] = from[i];
    std::swap(from, to);
  }
  for (int64_t i = 0; i < n; ++i) order[i] = static_cast<uint32_t>(from[i]);
}

int head_slices(int64_t hidden, int64_t classes, int64_t batch) {
  constexpr int64_t kMostFloats = int64_t{1} << 22; /* of partial logits, 16 MiB */
  const int64_t blocks = (hidden + 31) / 32;
  const int64_t affordable = std::max<int64_t>(1, kMostFloats / (classes * batch));
  return static_cast<int>(std::min<int64_t>({blocks, kMostSlices, affordable}));
}

void add_progress(const ec_options& options, int64_t rows) {
  if (options.progress) __atomic_fetch_add(const_cast<int64_t*>(options.progress), rows, __ATOMIC_RELAXED);
}

}  // namespace ec
