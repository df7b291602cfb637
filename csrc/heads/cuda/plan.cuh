/* What ec_train was given, which kernels train each of its heads, and what memory they need. */
#ifndef EMBEDCACHE_CUDA_PLAN_CUH
#define EMBEDCACHE_CUDA_PLAN_CUH

#include "cluster_math.cuh"
#include "data.cuh"
#include "probe_groups.cuh"
#include "wgmma_tile.cuh"

namespace ec {

constexpr int64_t kValRows = 128; /* scratch rows at least, so that small batches validate no slower */
constexpr int64_t kStackedValRows = 1024;
constexpr int kLargeLanes = 2;                     /* waves of large batches that are trained side by side */
constexpr int64_t kLargeCache = INT64_C(36) << 20; /* bytes of an H100's 50 MB */

/* What ec_train was given. */
struct Call {
  const ec_task* tasks;
  const ec_head* heads;
  ec_result* results;
  int n_heads;
  const ec_options& options;

  Shape shape(int head) const {
    const ec_task& task = tasks[heads[head].task];
    return {(int32_t)task.train.x.dim, heads[head].hidden, task.outputs};
  }
  const ec_task& task(int head) const { return tasks[heads[head].task]; }
  bool cancelled() const { return options.cancel && *options.cancel; }
};

/* Who trains a head: TrainSteps, whatever the others do not take; TrainProbes, linear probes of up to 64 rows
 * a batch, 8 outputs and 1,536 inputs; TrainClusters, small batches; the kernels of stacked.cuh in TF32 or
 * float32, which also validate for all that fit them; or, in bfloat16, LargeLayer and LargeGradient. */
enum class Path { kPlain, kProbes, kCluster, kStacked, kLarge };

inline bool stackable(Shape s) {
  return s.hidden > 0 && s.hidden % 4 == 0 && s.dim % 4 == 0;
} /* 16-byte copies */

/* Whether the head fits a cluster of blocks, where the device has one that is large enough. */
inline bool fits_cluster(const Call& call, int head) {
  const Shape s = call.shape(head);
  const int64_t rows = std::min<int64_t>(call.options.batch_size, call.task(head).train.n);
  return rows <= kBatch && s.outputs <= kClusterOutputs && 2 * chunk_count(s.dim) <= kSlots &&
         cluster_blocks(s.hidden) <= kMaxCluster;
}

/* Whether TrainProbes takes the linear probe, on a device with clusters of blocks: those of one. */
inline bool fits_probes(const Call& call, int head) {
  const Shape s = call.shape(head);
  const int64_t rows = std::min<int64_t>(call.options.batch_size, call.task(head).train.n);
  return rows > 0 && fits_probe_block(s.dim, rows, s.outputs);
}

/* Whether LargeLayer and LargeGradient take the head: any batch, on a device with clusters of blocks. */
inline bool fits_large(const Call& call, int max_cluster, int head) {
  const Shape s = call.shape(head);
  return call.options.compute == EC_COMPUTE_BFLOAT16 && s.dim % 2 == 0 && s.outputs <= kLargeOutputs &&
         unit_tiles(s.hidden) <= kLargeUnitTiles && kSharers * unit_tiles(s.hidden) <= max_cluster;
}

inline std::string name_of(int32_t compute) { return compute == EC_COMPUTE_BFLOAT16 ? "bfloat16" : "TF32"; }

/* Who trains a head, if its x can be prepared. */
inline Path wanted_path(const Call& call, int max_cluster, int head) {
  if (call.heads[head].hidden == 0)
    return max_cluster > 0 && fits_probes(call, head) ? Path::kProbes : Path::kPlain;
  if (fits_cluster(call, head) && cluster_blocks(call.shape(head).hidden) <= max_cluster)
    return Path::kCluster;
  if (fits_large(call, max_cluster, head)) return Path::kLarge;
  return stackable(call.shape(head)) ? Path::kStacked : Path::kPlain;
}

/* Whether stacked.cuh computes in float32; else in TF32. It has no bfloat16. */
inline bool stacks_split(const Call& call) { return call.options.compute != EC_COMPUTE_TF32; }
inline Form stacked_form(const Call& call) { return stacks_split(call) ? Form::kPlain : Form::kReady; }

/* How that path reads x. */
inline Form form_of(const Call& call, Path path) {
  if (path == Path::kProbes) return Form::kProbes;
  return call.options.compute != EC_COMPUTE_BFLOAT16 || path == Path::kStacked ? stacked_form(call)
         : path == Path::kLarge                                                ? Form::kLines
                                                                               : Form::kWide;
}

inline bool is_prepared(const View& view, Form form) {
  return form == Form::kWide     ? (bool)view.wide
         : form == Form::kLines  ? (bool)view.lines
         : form == Form::kProbes ? (bool)view.plain
                                 : (bool)view.ready;
}

inline Path path_of(const Call& call, const Data& data, int max_cluster, int head) {
  const Path path = wanted_path(call, max_cluster, head);
  if (path == Path::kPlain) return path;
  const View& train = data.task(call.heads[head].task).train;
  return is_prepared(train, form_of(call, path)) ? path : Path::kPlain;
}

/* Of a call in TF32 or bfloat16: which heads are trained more slowly than others for their shapes, and why;
 * "" if none. Linear probes are float32 by design. */
inline std::string tell_slow_heads(const Call& call, int max_cluster) {
  const bool in_tf32 = call.options.compute == EC_COMPUTE_TF32;
  int in_float32 = 0, stacked = 0;
  for (int head = 0; head < call.n_heads; ++head) {
    if (call.heads[head].hidden == 0 || call.task(head).train.n == 0) continue;
    const Path path = wanted_path(call, max_cluster, head);
    in_float32 += path == Path::kPlain || (path == Path::kStacked && !in_tf32);
    stacked += path == Path::kStacked && in_tf32 && fits_cluster(call, head);
  }
  const std::string all = " of the " + std::to_string(call.n_heads) + " heads were trained ";
  const std::string clusters = max_cluster == 0            ? ": this device has no clusters of blocks"
                               : max_cluster < kMaxCluster ? ": this device's clusters have at most " +
                                                                 std::to_string(max_cluster) + " blocks"
                                                           : "";
  const std::string in_clusters = "at most " + std::to_string(kBatch) + " rows a batch, " +
                                  std::to_string(kClusterOutputs) + " outputs, " +
                                  std::to_string(kSlots / 2 * kChunk) + " inputs and " +
                                  std::to_string(kMaxCluster * kUnits) + " hidden units";
  std::string told;
  if (in_float32 > 0)
    told = std::to_string(in_float32) + all + "in float32, which is slower: " +
           (in_tf32
                ? "TF32 takes numbers of inputs and hidden units that are multiples of 4, or, in clusters of "
                  "blocks, " +
                      in_clusters
                : "bfloat16 takes, in clusters of blocks, " + in_clusters +
                      ", or an even number of inputs, at most " + std::to_string(kLargeOutputs) +
                      " outputs and " + std::to_string(kLargeUnitTiles * kLargeUnits) + " hidden units") +
           clusters;
  if (stacked > 0)
    told += (told.empty() ? "" : "; ") + std::to_string(stacked) + all +
            "by the kernels for large batches, which is slower" + clusters;
  return told;
}

/* Device memory for some heads. */
class Needs {
 public:
  int64_t state = 0;     /* floats */
  int64_t positions = 0; /* of all orders */
  int64_t outputs = 0;   /* of all heads */
  int64_t images = 0;    /* numbers of all heads' images of w1 */
  LargeShape large = {0, 0, 0};
  ScratchShape scratch = {0, 0, 0};
  int blocks = 0;
  int32_t dim = 0; /* largest */

  static int64_t stride_of(Shape s, Path path) {
    const int64_t own = path == Path::kCluster ? cluster_floats(s.hidden, s.dim) : 0;
    return (std::max(parameter_count(s), own) + 15) / 16 * 16;
  }

  /* is_new_order: no head so far has its seed and number of rows. */
  void add(const Call& call, int head, Path path, bool is_new_order, int resident_blocks) {
    const ec_task& task = call.task(head);
    const Shape s = call.shape(head);
    state += 4 * stride_of(s, path);
    if (is_new_order) positions += task.train.n;
    outputs += s.outputs;
    dim = std::max(dim, s.dim);
    const int64_t batch = std::min<int64_t>(call.options.batch_size, task.train.n);
    const int64_t most = stackable(s) ? kStackedValRows : kValRows;
    scratch.rows = std::max({scratch.rows, (batch + 3) / 4 * 4, std::min((task.val.n + 3) / 4 * 4, most)});
    scratch.hidden = std::max<int64_t>(scratch.hidden, s.hidden);
    scratch.outputs = std::max<int64_t>(scratch.outputs, s.outputs);
    blocks = std::min(blocks + 1, resident_blocks);
    if (path != Path::kLarge) return;
    images += image_numbers(s);
    large.row_tiles = std::max<int64_t>(large.row_tiles, row_tiles(batch));
    large.unit_tiles = std::max<int64_t>(large.unit_tiles, unit_tiles(s.hidden));
    large.outputs = std::max<int64_t>(large.outputs, s.outputs);
  }

  int large_lanes() const { return std::clamp(blocks, 1, kLargeLanes); }

  /* Heads of large batches at a time in each lane: so many that L2 holds what one of their kernels leaves to
   * the other, and that no lane is idle. */
  int large_wave(int heads) const {
    const int lanes = large_lanes();
    const int64_t cached = kLargeCache / lanes / std::max(large_bytes(large), INT64_C(1));
    return (int)std::clamp(std::min<int64_t>(cached, (heads + lanes - 1) / lanes), INT64_C(1),
                           (int64_t)std::max(1, blocks / lanes));
  }

  int64_t bytes() const {
    return 4 * state + 2 * images + 8 * positions + (3 * 8 + 4) * outputs +
           blocks * (scratch_bytes(scratch) + large_bytes(large) + (int64_t)sizeof(StackedStep));
  }
};

/* What a group has on the device. */
struct GroupMemory {
  Buffer<float> state;
  Buffer<uint32_t> positions;
  Buffer<int64_t> counts;
  Buffer<float> class_weights;
  Buffer<uint16_t> images;
  Buffer<char> large;
  Buffer<char> scratch;
  Buffer<Head> heads;
  Buffer<Order> orders;
  Buffer<Tally> tallies;
  Buffer<int32_t> active;
  Buffer<StackedStep> steps;
};

/* Whether the epoch is the head's best so far. */
inline bool is_better(const ec_options& options, const ec_result& r, int epoch) {
  const auto score = [&](int e) { return ec_chosen_score(options.choose, r.val_accuracy[e], r.val_f1[e]); };
  const int best = r.best_epoch;
  return best < 0 ? ec_is_better(score(epoch), r.val_loss[epoch], -INFINITY, INFINITY)
                  : ec_is_better(score(epoch), r.val_loss[epoch], score(best), r.val_loss[best]);
}

}  // namespace ec
#endif
