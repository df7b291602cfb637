/* A group of heads that is on the device together: the host side of their training, epoch by epoch. */
#ifndef EMBEDCACHE_CUDA_GROUP_CUH
#define EMBEDCACHE_CUDA_GROUP_CUH

#include <numeric>
#include <set>

#include "best.cuh"
#include "cluster.cuh"
#include "host_pages.cuh"
#include "lanes.cuh"
#include "pace.cuh"
#include "plan.cuh"
#include "results.cuh"
#include "shuffle.cuh"
#include "stacked.cuh"
#include "train.cuh"

namespace ec {

class Group {
 public:
  /* Takes heads from `first` on, as many as fit: as many as the free memory should hold, or, where it turns
   * out not to (others use the device too), half of that, and so on. */
  Group(const Device& device, const Data& data, const Call& call, int first)
      : device_(device),
        data_(data),
        call_(call),
        first_(first),
        pace_(device.speed(), device.resident_blocks<TrainSteps>()) {
    for (int most = call.n_heads - first;; most = size_ / 2) {
      choose(most);
      try {
        allocate();
        return;
      } catch (const Error& error) {
        if (error.code != EC_ERROR_MEMORY || size_ == 1) throw;
      }
      release();
    }
  }

  int size() const { return size_; }

  void train() {
    HostPages pages(places());
    List all(size_);
    std::iota(all.begin(), all.end(), 0);
    List active = all;
    for (const int i : active) result(i).status = EC_HEAD_OK;
    launch<Initialise>(active);
    for (const Head& head : heads_) give_start(head);
    launch<LargeImages>(on_path(active, Path::kLarge));
    for (int epoch = 0; epoch < call_.options.epochs && !active.empty(); ++epoch) {
      launch_.epoch = (uint32_t)epoch;
      shuffle(active);
      if (!train_epoch(active) || !validate(active)) {
        for (const int i : active) result(i).status = EC_HEAD_CANCELLED;
        break;
      }
      List better;
      active = filter(active, [&](int i) { return finish_epoch(i, epoch, better); });
      keep(better);
    }
    launch<FiniteWeights>(all);
    read_tallies();
    pages.wait();
    std::vector<Transfer> transfers;
    for (const int i : all) collect(result(i), heads_[i], tallies_[i], transfers);
    device_.download(transfers);
  }

 private:
  /* The weights that the caller gives a head to start from, in place of those by its seed. */
  void give_start(const Head& head) const {
    const Shape s = head.shape;
    const Parameters to = split_parameters(head.state, s);
    const ec_start& from = head.spec.start;
    if (from.w1) device_.copy(to.w1, from.w1, 4 * (int64_t)s.hidden * s.dim);
    if (from.b1) device_.copy(to.b1, from.b1, 4 * (int64_t)s.hidden);
    if (from.w2) device_.copy(to.w2, from.w2, 4 * (int64_t)s.outputs * features(s));
    if (from.b2) device_.copy(to.b2, from.b2, 4 * (int64_t)s.outputs);
  }

  ec_result& result(int i) const { return call_.results[first_ + i]; }
  const ec_task& task(int i) const { return call_.task(first_ + i); }

  void choose(int most) {
    const int cluster = max_cluster(device_);
    const int64_t free = free_memory(), budget = free - free / 16;
    needs_ = {};
    paths_.clear();
    order_keys_.clear();
    for (size_ = 0; size_ < most; ++size_) {
      const int head = first_ + size_;
      const Path path = path_of(call_, data_, cluster, head);
      const std::pair<uint64_t, uint32_t> key = {call_.heads[head].seed, (uint32_t)call_.task(head).train.n};
      Needs more = needs_;
      more.add(call_, head, path, !order_keys_.count(key), pace_.blocks());
      if (more.bytes() > budget) {
        if (size_ == 0) throw no_room("head " + std::to_string(first_), more.bytes(), free);
        return;
      }
      needs_ = more;
      order_keys_.insert(key);
      paths_.push_back(path);
    }
  }

  /* What allocate() made before it failed, so that the next try finds all of that memory free. */
  void release() {
    memory_ = {};
    orders_.clear();
    heads_.clear();
    order_of_.clear();
  }

  void allocate() {
    memory_.state = Buffer<float>(needs_.state, "the heads' weights and moments");
    memory_.positions = Buffer<uint32_t>(2 * needs_.positions, "the epochs' orders");
    memory_.scratch =
        Buffer<char>(needs_.blocks * scratch_bytes(needs_.scratch), "one batch of activations per block");
    std::map<std::pair<uint64_t, uint32_t>, int32_t> number;
    uint32_t* at = memory_.positions.get();
    for (const auto& [seed, n] : order_keys_) {
      number[{seed, n}] = (int32_t)orders_.size();
      orders_.push_back({seed, n, at, at + n});
      at += 2 * (int64_t)n;
    }
    memory_.counts = Buffer<int64_t>(3 * needs_.outputs, "counts of the classes");
    memory_.class_weights = Buffer<float>(needs_.outputs, "class weights");
    memory_.images = Buffer<uint16_t>(needs_.images, "the heads' weights in bfloat16");
    memory_.large = Buffer<char>(needs_.blocks * large_bytes(needs_.large), "sums of large batches");
    float* state = memory_.state.get();
    uint16_t* images = memory_.images.get();
    int64_t* counts = memory_.counts.get();
    float* class_weights = memory_.class_weights.get();
    for (int i = 0; i < size_; ++i) {
      const Shape shape = call_.shape(first_ + i);
      const ec_head& spec = call_.heads[first_ + i];
      order_of_.push_back(number[{spec.seed, (uint32_t)task(i).train.n}]);
      if (spec.class_weight) device_.copy(class_weights, spec.class_weight, 4 * (int64_t)shape.outputs);
      const int64_t stride = Needs::stride_of(shape, paths_[i]);
      heads_.push_back({spec, shape, state, stride, orders_[order_of_[i]].positions,
                        spec.class_weight ? class_weights : nullptr, counts,
                        paths_[i] == Path::kLarge ? images : nullptr});
      if (paths_[i] == Path::kLarge) images += image_numbers(shape);
      state += 4 * stride;
      counts += 3 * (int64_t)shape.outputs;
      class_weights += shape.outputs;
    }
    tallies_.resize(size_);
    host_counts_.resize((size_t)(3 * needs_.outputs));
    memory_.heads = copy_of(device_, heads_, "the heads' settings");
    memory_.orders = copy_of(device_, orders_, "the orders' settings");
    memory_.tallies = copy_of(device_, tallies_, "the heads' losses");
    memory_.active = Buffer<int32_t>(kProbesTogether * size_, "the list of heads");
    memory_.steps = Buffer<StackedStep>(needs_.blocks, "the heads' steps");
    launch_ = {};
    launch_.tasks = data_.on_device();
    launch_.heads = memory_.heads.get();
    launch_.tallies = memory_.tallies.get();
    launch_.orders = memory_.orders.get();
    launch_.active = memory_.active.get();
    launch_.batch_size = call_.options.batch_size;
    launch_.epochs = call_.options.epochs;
    launch_.scratch = memory_.scratch.get();
    launch_.scratch_shape = needs_.scratch;
    launch_.steps = memory_.steps.get();
    launch_.dim = needs_.dim;
    launch_.large = memory_.large.get();
    launch_.large_shape = needs_.large;
    device_.synchronize();
  }

  /* A launch with this list; kernels that were launched before still see theirs. */
  Launch launch_of(const List& list) const {
    Launch launch = launch_;
    launch.n_active = (int32_t)list.size();
    device_.copy(memory_.active.get(), list.data(), (int64_t)(list.size() * sizeof(int32_t)));
    return launch;
  }

  /* Runs a kernel whose blocks share out the list. */
  template <class Kernel>
  void launch(const List& list) const {
    if (!list.empty()) device_.launch<Kernel>(launch_of(list), std::min((int)list.size(), needs_.blocks));
  }

  /* Calls f(launch) for parts of the list that are small enough for every head to have a scratch of its own.
   */
  template <class F>
  void each_wave(const List& list, int most, F f) const {
    const Launch all = launch_of(list);
    for (int begin = 0; begin < all.n_active; begin += most) {
      Launch wave = all;
      wave.active = all.active + begin;
      wave.n_active = std::min(all.n_active - begin, most);
      f(wave);
    }
  }

  template <class Kernel>
  void launch_stacked(const Launch& wave) const {
    device_.launch<Kernel>(wave, Kernel::blocks(wave));
  }

  void read_tallies() {
    device_.copy(tallies_.data(), memory_.tallies.get(), (int64_t)(tallies_.size() * sizeof(Tally)));
    device_.synchronize();
  }

  void shuffle(const List& active) const {
    std::set<int32_t> orders;
    for (const int i : active) orders.insert(order_of_[i]);
    launch<Shuffle>({orders.begin(), orders.end()});
  }

  List on_path(const List& active, Path path) const {
    return filter(active, [&](int i) { return paths_[i] == path; });
  }

  /* Heads of one launch are alike in how many blocks they take, and in their kernel. */
  template <class Operands>
  void train_clusters(const List& list) const {
    for (int k = 0; 1 << k / 4 <= kMaxCluster; ++k) {
      const int blocks = 1 << k / 4, held = k % 2, few = k / 2 % 2;
      const List alike = filter(list, [&](int i) {
        const int chunks = Operands::chunks(heads_[i].shape.dim), outputs = heads_[i].shape.outputs;
        return cluster_blocks(heads_[i].shape.hidden) == blocks && few == (outputs <= 2) &&
               held == (6 * chunks > kSlots && chunks <= kMostHeld);
      });
      if (alike.empty()) continue;
      const auto run = [&, launch = launch_of(alike)](auto kernel) {
        device_.launch_clusters<decltype(kernel)>(launch, launch.n_active, blocks);
      };
      if (held && few) run(TrainClusters<Operands, kMostHeld, 2>());
      if (held && !few) run(TrainClusters<Operands, kMostHeld, kClusterOutputs>());
      if (!held)
        few ? run(TrainClusters<Operands, 0, 2>()) : run(TrainClusters<Operands, 0, kClusterOutputs>());
    }
  }

  template <bool kSplit>
  void train_stacked(const List& list) const {
    each_wave(list, needs_.blocks, [&](Launch wave) {
      for (const uint32_t end = wave.step_end; wave.step_begin < end; ++wave.step_begin) {
        launch_stacked<FirstLayer<true, kSplit>>(wave);
        launch_stacked<OutputLayer>(wave);
        launch_stacked<FirstGradient<kSplit>>(wave);
      }
    });
  }

  /* Heads of one launch are alike in how many blocks their units take. */
  void train_large(const List& list) const {
    for (int tiles = 1; tiles <= kLargeUnitTiles; ++tiles) {
      const List alike = filter(list, [&](int i) { return unit_tiles(heads_[i].shape.hidden) == tiles; });
      if (!alike.empty()) train_alike(alike, tiles);
    }
  }

  void train_alike(const List& list, int tiles) const {
    const int most = needs_.large_wave((int)list.size());
    const size_t lanes = (size_t)needs_.large_lanes();
    std::vector<Launch> waves;
    each_wave(list, most, [&](Launch wave) {
      wave.large += (int64_t)(waves.size() % lanes) * most * large_bytes(needs_.large);
      waves.push_back(wave);
    });
    train_in_lanes(device_, waves, lanes, tiles);
  }

  /* Calls f(part) with some of the heads, and steps of launch_ for it to take; so few that the caller is
   * heard every second. False if the caller cancelled. `rows`: of a step. */
  template <class F>
  bool in_stretches(const List& list, int64_t steps, int64_t rows, bool training, F f) {
    const auto seconds = [&](int i) { return pace_.of_head(heads_[i].shape, rows, training); };
    for (int64_t begin = 0, end; begin < steps; begin = end) {
      end = std::min(begin + pace_.steps(pace_.of_step(list, seconds)), steps);
      for (const List& part : end - begin > 1 ? std::vector<List>{list} : pace_.parts(list, seconds)) {
        if (call_.cancelled()) return false;
        launch_.step_begin = (uint32_t)begin;
        launch_.step_end = (uint32_t)end;
        pace_.begin();
        f(part);
        read_tallies();
        pace_.end(pace_.of_step(part, seconds) * (double)(end - begin));
        report_progress();
      }
    }
    return true;
  }

  /* All steps of an epoch; false if the caller cancelled. */
  bool train_epoch(const List& active) {
    const int64_t batch = call_.options.batch_size;
    int64_t steps = 0;
    for (const int i : active) steps = std::max(steps, (task(i).train.n + batch - 1) / batch);
    return in_stretches(active, steps, batch, true, [&](const List& part) {
      launch<TrainSteps>(on_path(part, Path::kPlain));
      const List in_clusters = on_path(part, Path::kCluster);
      call_.options.compute == EC_COMPUTE_BFLOAT16 ? train_clusters<Bf16>(in_clusters)
      : call_.options.compute == EC_COMPUTE_TF32   ? train_clusters<Tf32>(in_clusters)
                                                   : train_clusters<Split>(in_clusters);
      const List probes = filter(on_path(part, Path::kProbes), [&](int i) { return !tallies_[i].diverged; });
      train_probes(device_, probes, heads_, call_, first_, [&](const List& all) { return launch_of(all); });
      const List stacked = on_path(part, Path::kStacked);
      stacks_split(call_) ? train_stacked<true>(stacked) : train_stacked<false>(stacked);
      train_large(on_path(part, Path::kLarge));
    });
  }

  void report_progress() {
    int64_t rows = 0;
    for (const Tally& tally : tallies_) rows += tally.rows;
    if (call_.options.progress) *call_.options.progress = *call_.options.progress + rows - rows_reported_;
    rows_reported_ = rows;
  }

  template <bool kSplit>
  void validate_stacked(const List& list) const {
    each_wave(list, needs_.blocks, [&](Launch wave) {
      for (const uint32_t end = wave.step_end; wave.step_begin < end; ++wave.step_begin) {
        launch_stacked<FirstLayer<false, kSplit>>(wave);
        launch_stacked<Scores>(wave);
      }
    });
  }

  /* A step is a chunk of rows, as many as the scratch holds. False if the caller cancelled. */
  bool validate(const List& active) {
    const auto has_rows = [&](int i) { return !tallies_[i].diverged && task(i).val.n > 0; };
    const auto stacks = [&](int i) {
      return data_.task(call_.heads[first_ + i].task).val.ready && stackable(heads_[i].shape);
    };
    const List list = filter(active, has_rows);
    const int64_t chunk = needs_.scratch.rows;
    int64_t chunks = 0;
    for (const int i : list) chunks = std::max(chunks, (task(i).val.n + chunk - 1) / chunk);
    if (!in_stretches(list, chunks, chunk, false, [&](const List& part) {
          launch<Validate>(filter(part, [&](int i) { return !stacks(i); }));
          const List stacked = filter(part, stacks);
          stacks_split(call_) ? validate_stacked<true>(stacked) : validate_stacked<false>(stacked);
        }))
      return false;
    device_.copy(host_counts_.data(), memory_.counts.get(), (int64_t)(host_counts_.size() * sizeof(int64_t)));
    read_tallies();
    return true;
  }

  void keep(const List& better) const {
    const int64_t parts = (int64_t)better.size() * KeepBest::kParts;
    if (parts > 0)
      device_.launch<KeepBest>(launch_of(better),
                               (int)std::min<int64_t>(parts, device_.resident_blocks<KeepBest>()));
  }

  /* Notes a head's epoch, and that its weights are the best so far if they are; false if it is to stop. */
  bool finish_epoch(int i, int epoch, List& better) {
    ec_result& r = result(i);
    const int64_t* counts = host_counts_.data() + (heads_[i].counts - memory_.counts.get());
    if (!note_epoch(r, task(i), tallies_[i], counts, epoch)) return false;
    if (task(i).val.n == 0 || is_better(call_.options, r, epoch)) {
      r.best_epoch = epoch;
      better.push_back(i);
    }
    const int patience = call_.options.early_stop;
    return r.status == EC_HEAD_OK && (patience == 0 || epoch - r.best_epoch < patience);
  }

  std::vector<Memory> places() const {
    std::vector<Memory> found;
    for (int i = 0; i < size_; ++i) found.push_back(place_of(result(i), heads_[i].shape));
    return found;
  }

  const Device& device_;
  const Data& data_;
  const Call& call_;
  const int first_;
  Pace pace_;
  int size_ = 0;
  Needs needs_;
  std::set<std::pair<uint64_t, uint32_t>> order_keys_; /* seed, rows */
  std::vector<Path> paths_;
  std::vector<Order> orders_;
  std::vector<int32_t> order_of_; /* of each head */
  std::vector<Head> heads_;
  std::vector<Tally> tallies_;
  std::vector<int64_t> host_counts_; /* as memory_.counts */
  int64_t rows_reported_ = 0;
  Launch launch_ = {};
  GroupMemory memory_;
};

}  // namespace ec
#endif
