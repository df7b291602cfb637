/* Shuffle: the positions 0 .. n - 1 in the order of (key, position), one block per distinct (seed, n) of the
 * epoch.
 *
 * A radix sort from the lowest of eight 4-bit digits up; it is stable and starts from ascending positions, so
 * equal keys stay in position order. Keys are computed again from the seed wherever they are needed (80
 * instructions) rather than stored and moved. Memory: reads and writes 8 n bytes in each of eight passes, and
 * each thread walks its own stretch of positions, eight at a time, so the accesses are not coalesced: bound
 * by the latency of L2. It runs once per epoch and costs a fraction of a percent of it.
 */
#ifndef EMBEDCACHE_CUDA_SHUFFLE_CUH
#define EMBEDCACHE_CUDA_SHUFFLE_CUH

#include "layout.cuh"

namespace ec {

struct Shuffle {
  static constexpr int kBlocksPerProcessor = 2;
  static constexpr int kDigitBits = 4, kDigits = 1 << kDigitBits;
  static constexpr int kAtOnce =
      8; /* positions whose loads, and whose keys' rounds, a thread has under way together */

  struct Shared {
    uint32_t
        offset[kDigits * kThreads]; /* digit-major: how many, then where, thread t's elements of a digit go */
    uint32_t sum[kThreads];
  };

  /* Calls f(position, digit) for thread t's stretch, in order. */
  template <class F>
  static EC_DEVICE_METHOD void each_of_thread(int t, const Order& order, uint32_t epoch, int shift,
                                              const uint32_t* from, F f) {
    const int64_t n = order.n, stretch = (n + kThreads - 1) / kThreads;
    const int64_t begin = t * stretch, end = begin + stretch < n ? begin + stretch : n;
    for (int64_t i = begin; i < end; i += kAtOnce) {
      uint32_t position[kAtOnce], digit[kAtOnce];
      EC_UNROLL
      for (int k = 0; k < kAtOnce; ++k) position[k] = i + k < end ? from[i + k] : 0;
      EC_UNROLL
      for (int k = 0; k < kAtOnce; ++k)
        digit[k] = ec_shuffle_key(order.seed, epoch, position[k]) >> shift & (kDigits - 1);
      EC_UNROLL
      for (int k = 0; k < kAtOnce; ++k)
        if (i + k < end) f(position[k], digit[k]);
    }
  }

  /* offset[] from counts to exclusive sums. */
  static EC_DEVICE_METHOD void scan(const Block& block, Shared& shared) {
    block.each_thread([&](int t) {
      uint32_t sum = 0;
      for (int d = 0; d < kDigits; ++d) sum += shared.offset[t * kDigits + d];
      shared.sum[t] = sum;
    });
    one_thread(block, [&] {
      uint32_t before = 0;
      for (int t = 0; t < kThreads; ++t) {
        const uint32_t sum = shared.sum[t];
        shared.sum[t] = before;
        before += sum;
      }
    });
    block.each_thread([&](int t) {
      uint32_t before = shared.sum[t];
      for (int d = 0; d < kDigits; ++d) {
        const uint32_t count = shared.offset[t * kDigits + d];
        shared.offset[t * kDigits + d] = before;
        before += count;
      }
    });
  }

  static EC_DEVICE_METHOD void pass(const Block& block, Shared& shared, const Order& order, uint32_t epoch,
                                    int shift, const uint32_t* from, uint32_t* to) {
    block.each_thread([&](int t) {
      for (int d = 0; d < kDigits; ++d) shared.offset[d * kThreads + t] = 0;
      each_of_thread(t, order, epoch, shift, from,
                     [&](uint32_t, uint32_t digit) { shared.offset[digit * kThreads + t] += 1; });
    });
    scan(block, shared);
    block.each_thread([&](int t) {
      each_of_thread(t, order, epoch, shift, from, [&](uint32_t position, uint32_t digit) {
        to[shared.offset[digit * kThreads + t]++] = position;
      });
    });
  }

  static EC_DEVICE_METHOD void run(const Block& block, Shared& shared, const Launch& launch) {
    for (int slot = block.index(); slot < launch.n_active; slot += block.count()) {
      const Order& order = launch.orders[launch.active[slot]];
      each_index(block, order.n, [&](int64_t i) { order.positions[i] = (uint32_t)i; });
      for (int shift = 0; shift < 32;
           shift += 2 * kDigitBits) { /* an even number of passes ends where it began */
        pass(block, shared, order, launch.epoch, shift, order.positions, order.spare);
        pass(block, shared, order, launch.epoch, shift + kDigitBits, order.spare, order.positions);
      }
    }
  }
};

}  // namespace ec
#endif
