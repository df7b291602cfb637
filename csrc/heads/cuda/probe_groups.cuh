/* Which probes share a block of TrainProbes: the host side of probes.cuh. */
#ifndef EMBEDCACHE_CUDA_PROBE_GROUPS_CUH
#define EMBEDCACHE_CUDA_PROBE_GROUPS_CUH

#include <algorithm>
#include <map>
#include <tuple>
#include <vector>

#include "pace.cuh"
#include "probes.cuh"

namespace ec {

constexpr int kLoneOutputs = 2; /* of a probe that has a block of the small kind to itself, at most */
constexpr int kStepOfMany = 2;  /* a step of the large kind takes so many of the small kind's */

/* Columns of a thread, as the kernels are compiled; more than kProbeColumns: too many. */
EC_FN int probe_columns(int32_t dim) {
  const int columns = (dim + kThreads - 1) / kThreads;
  return columns <= 2 ? 2 : columns == 5 ? 6 : columns;
}

template <int kColumns>
bool fits_probe_block(int64_t rows, int64_t outputs) {
  const int32_t slots = outputs <= kLoneOutputs
                            ? ProbeShared<kColumns, kLoneOutputs, 1>::slots(rows)
                            : ProbeShared<kColumns, kProbeOutputs, kProbesTogether>::slots(rows);
  return slots >= padded_rows(rows);
}

/* Whether x of a batch of so many rows fits a block whose probes have so many outputs together. */
inline bool fits_probe_block(int32_t dim, int64_t rows, int64_t outputs) {
  if (rows > kProbeRows || outputs > kProbeOutputs) return false;
  const int columns = probe_columns(dim);
  return columns == 2   ? fits_probe_block<2>(rows, outputs)
         : columns == 3 ? fits_probe_block<3>(rows, outputs)
         : columns == 4 ? fits_probe_block<4>(rows, outputs)
                        : columns == kProbeColumns && fits_probe_block<kProbeColumns>(rows, outputs);
}

/* The list as TrainProbes reads it, so many numbers for each block. */
inline List probe_blocks(const std::vector<List>& blocks, int per_block) {
  List all;
  for (const List& block : blocks) {
    all.insert(all.end(), block.begin(), block.end());
    all.resize(all.size() + (size_t)(per_block - (int)block.size()), -1);
  }
  return all;
}

/* Probes that fit together by their outputs, of those that see the same rows in the same order. */
inline std::vector<List> probes_together(const List& list, const std::vector<Head>& heads) {
  std::map<std::pair<int32_t, const uint32_t*>, std::pair<size_t, int>> open; /* block, its outputs */
  std::vector<List> blocks;
  for (const int i : list) {
    const int outputs = heads[(size_t)i].shape.outputs;
    const auto [at, is_new] = open.try_emplace({heads[(size_t)i].spec.task, heads[(size_t)i].order});
    auto& [block, used] = at->second;
    if (is_new || used + outputs > kProbeOutputs || (int)blocks[block].size() == kProbesTogether) {
      block = blocks.size();
      used = 0;
      blocks.emplace_back();
    }
    blocks[block].push_back(i);
    used += outputs;
  }
  return blocks;
}

/* The blocks of some probes of equal probe_columns: those alone of the small kind, the others of the large.
 * Together, where the device is through with them sooner: it runs `at_once` blocks at a time. rows(i): of a
 * batch of probe i. */
struct ProbeBlocks {
  std::vector<List> small, large;

  template <class Rows>
  ProbeBlocks(const List& list, const std::vector<Head>& heads, Rows rows, int at_once) {
    const auto rounds = [&](size_t blocks) { return ((int64_t)blocks + at_once - 1) / at_once; };
    List together, alone;
    for (const int i : list)
      (fits_probe_block(heads[(size_t)i].shape.dim, rows(i), kProbeOutputs) ? together : alone).push_back(i);
    const std::vector<List> shared = probes_together(together, heads);
    size_t few = 0;
    for (const int i : together) few += heads[(size_t)i].shape.outputs <= kLoneOutputs;
    const bool share =
        kStepOfMany * rounds(shared.size()) < rounds(few) + kStepOfMany * rounds(together.size() - few);
    if (share) large = shared;
    if (!share) alone.insert(alone.end(), together.begin(), together.end());
    for (const int i : alone) (heads[(size_t)i].shape.outputs <= kLoneOutputs ? small : large).push_back({i});
  }
};

/* Launches the probes of a list; those of one launch are alike in how many columns a thread has. rows(i): as
 * above. launch_of(numbers): a launch with that list. */
template <int kColumns, class Device, class Rows, class LaunchOf>
void train_probes(const Device& device, const List& list, const std::vector<Head>& heads, Rows rows,
                  LaunchOf launch_of) {
  using Small = TrainProbes<kColumns, kLoneOutputs, 1>;
  using Large = TrainProbes<kColumns, kProbeOutputs, kProbesTogether>;
  const List alike =
      filter(list, [&](int i) { return probe_columns(heads[(size_t)i].shape.dim) == kColumns; });
  if (alike.empty()) return;
  const ProbeBlocks blocks(alike, heads, rows, device.template active_clusters<Small>(1));
  const int small = (int)blocks.small.size(), large = (int)blocks.large.size();
  if (small > 0) device.template launch_clusters<Small>(launch_of(probe_blocks(blocks.small, 1)), small, 1);
  if (large > 0)
    device.template launch_clusters<Large>(launch_of(probe_blocks(blocks.large, kProbesTogether)), large, 1);
}

/* Heads are numbered from `first` of the call's. */
template <class Device, class Call, class LaunchOf>
void train_probes(const Device& device, const List& list, const std::vector<Head>& heads, const Call& call,
                  int first, LaunchOf launch_of) {
  const auto rows = [&](int i) {
    return std::min<int64_t>(call.options.batch_size, call.task(first + i).train.n);
  };
  train_probes<2>(device, list, heads, rows, launch_of);
  train_probes<3>(device, list, heads, rows, launch_of);
  train_probes<4>(device, list, heads, rows, launch_of);
  train_probes<kProbeColumns>(device, list, heads, rows, launch_of);
}

}  // namespace ec
#endif
