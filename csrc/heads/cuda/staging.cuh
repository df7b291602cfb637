/* Large copies between the caller's memory and the device, through pinned memory.
 *
 * The driver copies pageable memory through a buffer of its own, one piece after the other: 7.5 GB/s to an
 * H100 and 16 back, where pinned memory does 55 either way. So threads copy the pieces into pinned slots, or
 * out of them, while the slots before are under way: each thread has two. Bound: the host's memory, which a
 * single thread does not use up.
 *
 * The pinned memory is made at the first large copy and stays: making it costs as much as copying 100 MB. Who
 * finds it in use, or cannot have it, copies as the driver does.
 */
#ifndef EMBEDCACHE_CUDA_STAGING_CUH
#define EMBEDCACHE_CUDA_STAGING_CUH

#include <cuda_runtime.h>
#include <string.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "transfer.h"

namespace ec {

class Staging {
 public:
  /* Copies them all and waits; false if some of that did not work: then nobody knows which are there. */
  static bool copy(int device, cudaStream_t stream, const std::vector<Transfer>& transfers, bool to_device) {
    static Staging staging;
    const std::unique_lock<std::mutex> owner(staging.mutex_, std::try_to_lock);
    return owner.owns_lock() && staging.make() &&
           staging.run(device, stream, pieces_of(transfers), to_device);
  }

  static constexpr int64_t kWorthIt = INT64_C(4) << 20; /* bytes: less is not copied faster */

 private:
  static constexpr int kThreads = 4, kSlots = 2;
  static constexpr int64_t kSlotBytes = INT64_C(2) << 20;

  /* What goes through a slot at a time: a stretch of the device's memory, and its parts on the host. */
  struct Piece {
    char* device;
    int64_t bytes;
    std::vector<Transfer> parts;
  };

  /* Parts that lie side by side on the device go together. */
  static void add(std::vector<Piece>& pieces, const Transfer& part) {
    const int64_t bytes = part.rows * part.bytes;
    Piece* const last = pieces.empty() ? nullptr : &pieces.back();
    if (last && last->device + last->bytes == part.device && last->bytes + bytes <= kSlotBytes) {
      last->bytes += bytes;
      last->parts.push_back(part);
    } else {
      pieces.push_back({part.device, bytes, {part}});
    }
  }

  static std::vector<Piece> pieces_of(const std::vector<Transfer>& transfers) {
    std::vector<Piece> pieces;
    for (const Transfer& all : transfers) {
      const bool is_dense = all.pitch == all.bytes;
      const int64_t stretches = is_dense ? 1 : all.rows, length = is_dense ? all.rows * all.bytes : all.bytes;
      if (length >= kSlotBytes || is_dense) {
        for (int64_t row = 0; row < stretches; ++row)
          for (int64_t at = 0; at < length; at += kSlotBytes) {
            const int64_t bytes = std::min(kSlotBytes, length - at);
            add(pieces,
                {all.host + row * all.pitch + at, all.device + row * all.bytes + at, 1, bytes, bytes});
          }
        continue;
      }
      const int64_t most = kSlotBytes / all.bytes;
      for (int64_t row = 0; row < all.rows; row += most)
        add(pieces, {all.host + row * all.pitch, all.device + row * all.bytes, std::min(most, all.rows - row),
                     all.bytes, all.pitch});
    }
    return pieces;
  }

  bool make() {
    if (memory_) return true;
    void* made = nullptr;
    if (cudaHostAlloc(&made, (size_t)(kThreads * kSlots * kSlotBytes), cudaHostAllocPortable) !=
        cudaSuccess) {
      (void)cudaGetLastError();
      return false;
    }
    memory_ = static_cast<char*>(made);
    return true;
  }

  bool run(int device, cudaStream_t stream, const std::vector<Piece>& pieces, bool to_device) {
    const int most = (int)std::clamp<size_t>(std::thread::hardware_concurrency(), 1, kThreads);
    std::atomic<size_t> next{0};
    std::atomic<bool> ok{true};
    const auto work = [&](int thread) {
      if (cudaSetDevice(device) != cudaSuccess || !copy_pieces(thread, stream, pieces, to_device, next))
        ok = false;
    };
    std::vector<std::thread> threads;
    try {
      for (int i = 1; i < most; ++i) threads.emplace_back(work, i);
    } catch (const std::exception&) { /* as many threads as there may be */
    }
    work(0);
    for (std::thread& thread : threads) thread.join();
    return ok;
  }

  /* A thread's share of the pieces, each into the slot that has been unused for longer. */
  bool copy_pieces(int thread, cudaStream_t stream, const std::vector<Piece>& pieces, bool to_device,
                   std::atomic<size_t>& next) {
    struct Slot {
      char* memory = nullptr;
      cudaEvent_t done = nullptr;
      const Piece* under_way = nullptr;
    };
    Slot slots[kSlots];
    bool ok = true;
    for (int i = 0; i < kSlots; ++i) {
      slots[i].memory = memory_ + (thread * kSlots + i) * kSlotBytes;
      ok = ok && cudaEventCreateWithFlags(&slots[i].done, cudaEventDisableTiming) == cudaSuccess;
    }
    const auto finish = [&](Slot& slot) {
      if (!slot.under_way) return;
      ok = cudaEventSynchronize(slot.done) == cudaSuccess && ok;
      if (!to_device && ok) move_rows(*slot.under_way, slot.memory, false);
      slot.under_way = nullptr;
    };
    int turn = 0;
    for (size_t i; ok && (i = next++) < pieces.size(); turn = (turn + 1) % kSlots) {
      Slot& slot = slots[turn];
      const Piece& piece = pieces[i];
      finish(slot);
      if (to_device) move_rows(piece, slot.memory, true);
      ok = ok &&
           cudaMemcpyAsync(to_device ? piece.device : slot.memory, to_device ? slot.memory : piece.device,
                           (size_t)piece.bytes, cudaMemcpyDefault, stream) == cudaSuccess &&
           cudaEventRecord(slot.done, stream) == cudaSuccess;
      slot.under_way = &piece;
    }
    for (int i = 0; i < kSlots; ++i) finish(slots[(turn + i) % kSlots]);
    for (Slot& slot : slots)
      if (slot.done) (void)cudaEventDestroy(slot.done);
    return ok;
  }

  /* Between the caller's rows and a slot. */
  static void move_rows(const Piece& piece, char* slot, bool to_slot) {
    for (const Transfer& part : piece.parts) {
      for (int64_t row = 0; row < part.rows; ++row, slot += part.bytes) {
        char* const here = part.host + row * part.pitch;
        memcpy(to_slot ? slot : here, to_slot ? here : slot, (size_t)part.bytes);
      }
    }
  }

  std::mutex mutex_;
  char* memory_ = nullptr; /* never given back: at a process's end the driver may be gone */
};

}  // namespace ec
#endif
