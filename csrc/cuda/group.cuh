/* A group of heads that is on the device together: the host side of their training, epoch by epoch. */
#ifndef EMBEDCACHE_CUDA_GROUP_CUH
#define EMBEDCACHE_CUDA_GROUP_CUH

#include <cmath>
#include <limits>
#include <set>

#include "data.cuh"
#include "shuffle.cuh"
#include "train.cuh"
#include "validate.cuh"

namespace ec {

constexpr int64_t kRowsPerLaunch =
    32768; /* a launch takes a fraction of a second: cancel and progress come between */
constexpr int64_t kValRows = 128; /* scratch rows at least, so that small batches validate no slower */

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

/* Device memory for some heads. */
struct Needs {
  int64_t state = 0; /* floats */
  std::set<std::pair<uint64_t, uint32_t>> orders;
  int64_t positions = 0; /* of all orders */
  int64_t outputs = 0;   /* of all heads */
  ScratchShape scratch = {0, 0, 0};
  int blocks = 0;

  static int64_t state_of(Shape s) { return (4 * parameter_count(s) + 63) / 64 * 64; }

  void add(const Call& call, int head, int resident_blocks) {
    const ec_task& task = call.task(head);
    const Shape s = call.shape(head);
    state += state_of(s);
    if (orders.insert({call.heads[head].seed, (uint32_t)task.train.n}).second) positions += task.train.n;
    const int64_t batch = std::min<int64_t>(call.options.batch_size, task.train.n);
    scratch.rows = std::max({scratch.rows, batch, std::min(task.val.n, kValRows)});
    scratch.hidden = std::max<int64_t>(scratch.hidden, s.hidden);
    scratch.outputs = std::max<int64_t>(scratch.outputs, s.outputs);
    outputs += s.outputs;
    blocks = std::min(blocks + 1, resident_blocks);
  }

  int64_t bytes() const {
    return 4 * state + 8 * positions + (3 * 8 + 4) * outputs + blocks * scratch_bytes(scratch);
  }
};

class Group {
 public:
  /* Takes heads from `first` on, as many as fit. */
  Group(const Device& device, const Data& data, const Call& call, int first)
      : device_(device), call_(call), first_(first) {
    const int resident = device.resident_blocks<TrainSteps>();
    const int64_t free = free_memory(), budget = free - free / 16;
    while (first + size_ < call.n_heads) {
      Needs more = needs_;
      more.add(call, first + size_, resident);
      if (more.bytes() > budget) {
        if (size_ == 0) throw no_room("head " + std::to_string(first), more.bytes(), free);
        break;
      }
      needs_ = more;
      ++size_;
    }
    allocate(data);
  }

  int size() const { return size_; }

  void train() {
    std::vector<int32_t> active(size_);
    for (int i = 0; i < size_; ++i) active[i] = i;
    for (const int i : active) result(i).status = EC_HEAD_OK;
    launch<Initialise>(active, 0);
    for (int epoch = 0; epoch < call_.options.epochs && !active.empty(); ++epoch) {
      shuffle(active, epoch);
      if (!train_epoch(active, epoch)) {
        for (const int i : active) result(i).status = EC_HEAD_CANCELLED;
        break;
      }
      validate(active);
      std::vector<int32_t> going;
      for (const int i : active)
        if (finish_epoch(i, epoch)) going.push_back(i);
      active = going;
    }
    for (int i = 0; i < size_; ++i) collect(i);
    device_.synchronize();
  }

 private:
  ec_result& result(int i) const { return call_.results[first_ + i]; }
  const ec_task& task(int i) const { return call_.task(first_ + i); }

  void allocate(const Data& data) {
    state_ = Buffer<float>(needs_.state, "the heads' weights and moments");
    positions_ = Buffer<uint32_t>(2 * needs_.positions, "the epochs' orders");
    scratch_ =
        Buffer<char>(needs_.blocks * scratch_bytes(needs_.scratch), "one batch of activations per block");
    std::map<std::pair<uint64_t, uint32_t>, int32_t> number;
    uint32_t* at = positions_.get();
    for (const auto& [seed, n] : needs_.orders) {
      number[{seed, n}] = (int32_t)orders_.size();
      orders_.push_back({seed, n, at, at + n});
      at += 2 * (int64_t)n;
    }
    counts_ = Buffer<int64_t>(3 * needs_.outputs, "counts of the classes");
    class_weights_ = Buffer<float>(needs_.outputs, "class weights");
    float* state = state_.get();
    int64_t* counts = counts_.get();
    float* class_weights = class_weights_.get();
    for (int i = 0; i < size_; ++i) {
      const Shape shape = call_.shape(first_ + i);
      const ec_head& spec = call_.heads[first_ + i];
      order_of_.push_back(number[{spec.seed, (uint32_t)task(i).train.n}]);
      if (spec.class_weight) device_.copy(class_weights, spec.class_weight, 4 * (int64_t)shape.outputs);
      heads_.push_back({spec, shape, state, orders_[order_of_[i]].positions,
                        spec.class_weight ? class_weights : nullptr, counts});
      state += Needs::state_of(shape);
      counts += 3 * (int64_t)shape.outputs;
      class_weights += shape.outputs;
    }
    tallies_.resize(size_);
    host_counts_.resize((size_t)(3 * needs_.outputs));
    heads_on_device_ = copy_of(heads_, "the heads' settings");
    orders_on_device_ = copy_of(orders_, "the orders' settings");
    tallies_on_device_ = copy_of(tallies_, "the heads' losses");
    active_on_device_ = Buffer<int32_t>(size_, "the list of heads");
    launch_ = {data.on_device(),
               heads_on_device_.get(),
               tallies_on_device_.get(),
               orders_on_device_.get(),
               active_on_device_.get(),
               0,
               call_.options.batch_size,
               call_.options.epochs,
               0,
               0,
               0,
               scratch_.get(),
               needs_.scratch};
    device_.synchronize();
  }

  template <class T>
  Buffer<T> copy_of(const std::vector<T>& values, const char* what) const {
    Buffer<T> buffer((int64_t)values.size(), what);
    device_.copy(buffer.get(), values.data(), (int64_t)(values.size() * sizeof(T)));
    return buffer;
  }

  /* Runs a kernel over some heads (or orders) and waits for it. */
  template <class Kernel>
  void launch(const std::vector<int32_t>& active, int epoch) {
    if (active.empty()) return;
    launch_.n_active = (int32_t)active.size();
    launch_.epoch = (uint32_t)epoch;
    device_.copy(active_on_device_.get(), active.data(), (int64_t)(active.size() * sizeof(int32_t)));
    device_.launch<Kernel>(launch_, std::min((int)active.size(), needs_.blocks));
    device_.synchronize();
  }

  void read_tallies() {
    device_.copy(tallies_.data(), tallies_on_device_.get(), (int64_t)(tallies_.size() * sizeof(Tally)));
    device_.synchronize();
  }

  void shuffle(const std::vector<int32_t>& active, int epoch) {
    std::set<int32_t> orders;
    for (const int i : active) orders.insert(order_of_[i]);
    launch<Shuffle>({orders.begin(), orders.end()}, epoch);
  }

  /* All steps of an epoch, in launches that are short enough to be interrupted; false if the caller
   * cancelled. */
  bool train_epoch(const std::vector<int32_t>& active, int epoch) {
    const int64_t batch = call_.options.batch_size, stretch = std::max(kRowsPerLaunch / batch, INT64_C(1));
    int64_t steps = 0;
    for (const int i : active) steps = std::max(steps, (task(i).train.n + batch - 1) / batch);
    for (int64_t begin = 0; begin < steps; begin += stretch) {
      if (call_.cancelled()) return false;
      launch_.step_begin = (uint32_t)begin;
      launch_.step_end = (uint32_t)std::min(begin + stretch, steps);
      launch<TrainSteps>(active, epoch);
      read_tallies();
      report_progress();
    }
    return true;
  }

  void report_progress() {
    int64_t rows = 0;
    for (const Tally& tally : tallies_) rows += tally.rows;
    if (call_.options.progress) *call_.options.progress = *call_.options.progress + rows - rows_reported_;
    rows_reported_ = rows;
  }

  void validate(const std::vector<int32_t>& active) {
    std::vector<int32_t> list;
    for (const int i : active)
      if (!tallies_[i].diverged && task(i).val.n > 0) list.push_back(i);
    launch<Validate>(list, 0);
    device_.copy(host_counts_.data(), counts_.get(), (int64_t)(host_counts_.size() * sizeof(int64_t)));
    read_tallies();
  }

  /* Notes a head's epoch and keeps its weights if they are the best so far; false if the head is to stop. */
  bool finish_epoch(int i, int epoch) {
    const Tally& tally = tallies_[i];
    ec_result& r = result(i);
    const double val_loss = task(i).val.n > 0 ? tally.val_loss / tally.val_weight : 0.0;
    if (tally.diverged || !std::isfinite(val_loss)) r.status = EC_HEAD_DIVERGED;
    if (tally.diverged) return false;
    r.epochs_run = epoch + 1;
    r.train_loss[epoch] = tally.train_loss / (double)task(i).train.n;
    if (task(i).val.n > 0) {
      r.val_loss[epoch] = val_loss;
      if (task(i).loss != EC_LOSS_MSE) {
        r.val_accuracy[epoch] = (double)tally.val_correct / (double)task(i).val.n;
        r.val_f1[epoch] =
            macro_f1(&host_counts_[(size_t)(heads_[i].counts - counts_.get())], task(i).outputs);
      }
    }
    const double best = r.best_epoch < 0 ? std::numeric_limits<double>::infinity() : r.val_loss[r.best_epoch];
    if (task(i).val.n == 0 || val_loss < best) {
      r.best_epoch = epoch;
      const int64_t n = parameter_count(heads_[i].shape);
      device_.copy(heads_[i].state + 3 * n, heads_[i].state, 4 * n);
    }
    const int patience = call_.options.early_stop;
    return r.status == EC_HEAD_OK && (patience == 0 || epoch - r.best_epoch < patience);
  }

  /* The best weights, which are zeros until there is a first epoch, into the caller's memory. */
  void collect(int i) const {
    const Shape s = heads_[i].shape;
    const ec_result& r = result(i);
    const Parameters best = split_parameters(heads_[i].state + 3 * parameter_count(s), s);
    device_.copy(r.w1, best.w1, 4 * (int64_t)s.hidden * s.dim);
    device_.copy(r.b1, best.b1, 4 * (int64_t)s.hidden);
    device_.copy(r.w2, best.w2, 4 * (int64_t)s.outputs * features(s));
    device_.copy(r.b2, best.b2, 4 * (int64_t)s.outputs);
  }

  const Device& device_;
  const Call& call_;
  const int first_;
  int size_ = 0;
  Needs needs_;
  std::vector<Order> orders_;
  std::vector<int32_t> order_of_; /* of each head */
  std::vector<Head> heads_;
  std::vector<Tally> tallies_;
  std::vector<int64_t> host_counts_; /* as counts_ */
  int64_t rows_reported_ = 0;
  Launch launch_ = {};
  Buffer<float> state_;
  Buffer<uint32_t> positions_;
  Buffer<int64_t> counts_;
  Buffer<float> class_weights_;
  Buffer<char> scratch_;
  Buffer<Head> heads_on_device_;
  Buffer<Order> orders_on_device_;
  Buffer<Tally> tallies_on_device_;
  Buffer<int32_t> active_on_device_;
};

}  // namespace ec
#endif
