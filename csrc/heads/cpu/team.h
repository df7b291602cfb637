/* Threads that train one head together, and the table of what each instruction set's build offers.
 *
 * Only declarations of plain functions: the files compiled for one instruction set include this.
 */
#ifndef EMBEDCACHE_CPU_TEAM_H
#define EMBEDCACHE_CPU_TEAM_H

#include <stdint.h>

#include "../../simd/memory.h"
#include "../heads.h"

namespace ec {

struct Team; /* some threads and the barrier between them */

Team* team_create(int size);
void team_destroy(Team* team);
int team_size(const Team* team);
/* Returns when every member has called it. What was written before is seen after. Spins for some
 * microseconds, then sleeps, so that on a busy machine a waiting thread gives its core to the one that it
 * waits for. */
void team_barrier(Team* team);

/* Sorts order[0..n) = 0..n-1 by (key of numerics.h, position); scratch: [2 n]. */
void shuffle(uint64_t seed, uint32_t epoch, int64_t n, uint32_t* order, uint64_t* scratch);

/* Whether a sample of the view's rows is all in memory. A memory map that is not should be read by will_need:
 * a page fault waits for the disk, and reads megabytes around itself where it is not told that reads are
 * random. */
bool in_memory(const ec_view& view);
/* Starts to read these rows from the disk, where they are not in memory. */
void will_need(const ec_matrix& x, const int64_t* rows, int64_t n);
/* While it lives, the system does not read around the rows of x that are asked for, if some of them are on
 * disk. */
class RandomReads {
 public:
  explicit RandomReads(const ec_view& view);
  ~RandomReads();
  RandomReads(const RandomReads&) = delete;

 private:
  const ec_matrix& x_;
  const bool on_disk_;
};

void add_progress(const ec_options& options, int64_t rows);

/* A head in training, or a group of linear probes of one task and seed; made by one thread, trained by a
 * team, each with its member number. */
struct Head {
  void (*train)(Head* head, int member);
  void* memory; /* of all that belongs to it, itself included */
};

struct Kernels {
  const char* name;
  /* One spec, or several of hidden 0. NULL: not enough memory. */
  Head* (*create)(const ec_task& task, const ec_head* const* specs, ec_result* const* results, int64_t n,
                  const ec_options& options, Team* team);
};

extern const Kernels kernels_plain;
#ifdef EC_X86
extern const Kernels kernels_avx2, kernels_avx512, kernels_avx512bf16;
#endif
#ifdef EC_ARM
extern const Kernels kernels_neonbf16;
#endif

/* The most threads that can share a head: its slices of hidden units, kMostSlices at most. */
constexpr int kMostSlices = 16;
int head_slices(int64_t hidden, int64_t classes, int64_t batch);

/* Trains the bank; an EC_OK or error code. */
int bank_train(const Kernels& kernels, const ec_task* tasks, const ec_head* heads, ec_result* results,
               int n_heads, const ec_options& options);

}  // namespace ec

#endif
