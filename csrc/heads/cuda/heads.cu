/* The C interface (heads.h) on CUDA; with EC_HOST_EMULATION the same engine on the host, for tests.
 *
 * The caller's data is copied to the device once; then groups of heads that fit there together are trained
 * one after the other (group.cuh). Kernels: shuffle.cuh, train.cuh, validate.cuh, and Initialize in
 * forward.cuh.
 */
#include <exception>
#include <new>
#include <set>

#include "../check.h"
#include "group.cuh"

#define EC_EXPORT extern "C" __attribute__((visibility("default")))

namespace ec {
namespace {

thread_local std::string last_error;

int32_t fail(int32_t code, const std::string& message) {
  last_error = message;
  return code;
}

void note(const std::string& message) {
  if (!message.empty()) last_error += (last_error.empty() ? "" : "; ") + message;
}

constexpr int64_t kLargest = INT64_C(1) << 30; /* of a size that kernels count in int */

void check_sizes(const Call& call, int32_t n_tasks) {
  const std::string too_large = " is too large for the CUDA engine: train on the CPU";
  for (int32_t t = 0; t < n_tasks; ++t) {
    const ec_task& task = call.tasks[t];
    if (task.train.x.dim > kLargest || task.outputs > kLargest)
      throw Error{EC_ERROR_ARGUMENT, "task " + std::to_string(t) + too_large};
  }
  for (int i = 0; i < call.n_heads; ++i)
    if (call.heads[i].hidden > kLargest)
      throw Error{EC_ERROR_ARGUMENT, "head " + std::to_string(i) + too_large};
  if (call.options.batch_size > kLargest) throw Error{EC_ERROR_ARGUMENT, "the batch" + too_large};
}

/* x in TF32, bfloat16 or standardized float32, for the tasks of heads that can use it; for training first. */
void prepare(const Call& call, Data& data, int max_cluster) {
  std::set<std::pair<int, Form>> training;
  std::set<int> validating;
  for (int i = 0; i < call.n_heads; ++i) {
    const Path path = wanted_path(call, max_cluster, i);
    if (path != Path::kPlain) training.emplace(call.heads[i].task, form_of(call, path));
    if (stackable(call.shape(i))) validating.insert(call.heads[i].task);
  }
  std::set<bool> lacking; /* whether it is a form that is rounded */
  for (const auto& [i, form] : training)
    if (!data.prepare(i, call.tasks[i], form)) lacking.insert(is_rounded(form));
  for (const int i : validating)
    if (!data.prepare_validation(i, call.tasks[i], stacked_form(call)))
      lacking.insert(is_rounded(stacked_form(call)));
  if (!lacking.empty())
    note("the device has no room for X " +
         (lacking.count(true)
              ? "in " + name_of(call.options.compute) +
                    ": some heads were trained or validated in float32, by slower kernels"
              : "as the faster kernels read it: some heads were trained or validated by slower ones"));
}

/* Notes go to ec_last_error(): what the caller may want to know although all went well. */
void train(const Call& call, int32_t n_tasks) {
  check_sizes(call, n_tasks);
  for (int i = 0; i < call.n_heads; ++i) clear_scores(call.results[i], call.options.epochs);
  const Device device(call.options.device, call.options.stream);
  Data data(device, call.tasks, n_tasks);
  prepare(call, data, max_cluster(device));
  if (call.options.compute != EC_COMPUTE_FLOAT32) note(tell_slow_heads(call, max_cluster(device)));
  int groups = 0, largest = 0;
  for (int first = 0; first < call.n_heads && !call.cancelled(); ++groups) {
    Group group(device, data, call, first);
    group.train();
    first += group.size();
    largest = std::max(largest, group.size());
  }
  if (groups > 1)
    note("the device has room for " + std::to_string(largest) + " of the " + std::to_string(call.n_heads) +
         " heads at a time: they were trained in " + std::to_string(groups) + " groups");
}

}  // namespace
}  // namespace ec

EC_EXPORT int32_t ec_abi_version(void) { return EC_ABI_VERSION; }

EC_EXPORT const char* ec_backend(void) { return ec::kBackend; }

/* 0 also where the driver is missing or too old, or the first device is; ec_last_error() says which. */
EC_EXPORT int32_t ec_device_count(void) {
  try {
    const int count = ec::count_devices();
    if (count > 0) (void)ec::check_capability(0);
    return count;
  } catch (const ec::Error& error) {
    (void)ec::fail(error.code, error.message);
    return 0;
  }
}

/* Clusters of so many blocks that device 0 runs at the same time, by the kernel that trains in TF32; -1: see
 * ec_last_error(). Of this library alone, for benchmarks/heads/gpu_probe.py. */
EC_EXPORT int32_t ec_active_clusters(int32_t blocks) {
  try {
    const ec::Device device(0, 0);
    return ec::active_clusters(device, blocks);
  } catch (const ec::Error& error) {
    (void)ec::fail(error.code, error.message);
    return -1;
  }
}

EC_EXPORT const char* ec_last_error(void) { return ec::last_error.c_str(); }

EC_EXPORT int32_t ec_train(const ec_task* tasks, int32_t n_tasks, const ec_head* heads, ec_result* results,
                           int32_t n_heads, const ec_options* options) {
  ec::last_error.clear();
  const std::string wrong = ec::check(tasks, n_tasks, heads, results, n_heads, options);
  if (!wrong.empty()) return ec::fail(EC_ERROR_ARGUMENT, wrong);
  try {
    ec::train({tasks, heads, results, n_heads, *options}, n_tasks);
    return EC_OK;
  } catch (const ec::Error& error) {
    return ec::fail(error.code, error.message);
  } catch (const std::bad_alloc&) {
    return ec::fail(EC_ERROR_MEMORY, "the host has no memory left");
  } catch (const std::exception& error) {
    return ec::fail(EC_ERROR_DEVICE, error.what());
  }
}
