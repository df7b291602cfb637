/* The C interface (heads.h) on CUDA; with EC_HOST_EMULATION the same engine on the host, for tests.
 *
 * The caller's data is copied to the device once; then groups of heads that fit there together are trained
 * one after the other (group.cuh). Kernels: shuffle.cuh, train.cuh, validate.cuh, and Initialise in
 * forward.cuh.
 */
#include <math.h>

#include <exception>
#include <new>

#include "group.cuh"

#define EC_EXPORT extern "C" __attribute__((visibility("default")))

namespace ec {
namespace {

thread_local std::string last_error;

int32_t fail(int32_t code, const std::string& message) {
  last_error = message;
  return code;
}

void require(bool condition, const char* message) {
  if (!condition) throw Error{EC_ERROR_ARGUMENT, message};
}

constexpr int64_t kLargest = INT64_C(1) << 30; /* of a size that kernels count in int */

void check_view(const ec_view& view, int32_t classes, int64_t dim) {
  if (view.n == 0) return;
  require(view.n > 0 && view.n < INT64_C(1) << 32, "a view's n must be in [0, 2^32)");
  require(view.x.data && view.y && view.rows, "a view lacks x, y or rows");
  require(view.x.dtype == EC_FLOAT16 || view.x.dtype == EC_FLOAT32, "x must be float16 or float32");
  require(view.x.dim == dim && dim > 0 && dim <= kLargest && view.x.stride >= 0,
          "x has a wrong dim or stride");
  for (int64_t i = 0; i < view.n; ++i) {
    const int64_t row = view.rows[i];
    require(row >= 0 && row < view.x.rows, "a row number is outside x");
    require(view.y[row] >= 0 && view.y[row] < classes, "a class is outside [0, classes)");
  }
}

void check_head(const ec_head& head, const ec_result& result, int32_t n_tasks) {
  require(head.task >= 0 && head.task < n_tasks, "a head names no task");
  require(head.hidden >= 0 && head.hidden <= kLargest, "hidden must be in [0, 2^30]");
  require(head.dropout >= 0 && head.dropout < 1, "dropout must be in [0, 1)");
  require(head.beta1 >= 0 && head.beta1 < 1 && head.beta2 >= 0 && head.beta2 < 1, "betas must be in [0, 1)");
  require(head.eps >= 1e-20 && std::isfinite(head.lr + head.eps + head.weight_decay),
          "lr, eps or weight_decay");
  require(result.w2 && result.b2 && (head.hidden == 0 || (result.w1 && result.b1)),
          "a result lacks its weights");
  require(result.train_loss && result.val_loss && result.val_accuracy, "a result lacks its losses");
}

void check_call(const Call& call, int32_t n_tasks) {
  const ec_options& o = call.options;
  require(o.batch_size > 0 && o.batch_size <= kLargest && o.epochs > 0 && o.early_stop >= 0,
          "batch_size and epochs must be above 0, early_stop not below");
  if (o.compute != EC_COMPUTE_FLOAT32)
    throw Error{EC_ERROR_UNSUPPORTED, "the CUDA engine computes in float32 only: choose compute float32"};
  for (int32_t i = 0; i < n_tasks; ++i) {
    const ec_task& task = call.tasks[i];
    require(task.classes >= 2 && task.classes <= kLargest, "a task needs two classes or more");
    require(task.train.n > 0, "a task has no training rows");
    require(!task.mean == !task.inv_std, "a task needs both mean and inv_std, or neither");
    check_view(task.train, task.classes, task.train.x.dim);
    check_view(task.val, task.classes, task.train.x.dim);
  }
  for (int i = 0; i < call.n_heads; ++i) check_head(call.heads[i], call.results[i], n_tasks);
}

/* Heads that never come to an epoch's end show this. */
void clear_results(const Call& call) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (int i = 0; i < call.n_heads; ++i) {
    ec_result& r = call.results[i];
    for (int epoch = 0; epoch < call.options.epochs; ++epoch)
      r.train_loss[epoch] = r.val_loss[epoch] = r.val_accuracy[epoch] = nan;
    const Shape s = call.shape(i);
    std::fill_n(r.w1, (int64_t)s.hidden * s.dim, 0.0f);
    std::fill_n(r.b1, s.hidden, 0.0f);
    std::fill_n(r.w2, (int64_t)s.classes * features(s), 0.0f);
    std::fill_n(r.b2, s.classes, 0.0f);
    r.best_epoch = -1;
    r.epochs_run = 0;
    r.status = EC_HEAD_CANCELLED; /* until it has been trained */
  }
}

void train(const Call& call, int32_t n_tasks) {
  check_call(call, n_tasks);
  clear_results(call);
  const Device device(call.options.device, call.options.stream);
  const Data data(device, call.tasks, n_tasks);
  for (int first = 0; first < call.n_heads && !call.cancelled();) {
    Group group(device, data, call, first);
    group.train();
    first += group.size();
  }
}

}  // namespace
}  // namespace ec

EC_EXPORT int32_t ec_abi_version(void) { return EC_ABI_VERSION; }

EC_EXPORT const char* ec_backend(void) { return ec::kBackend; }

/* 0 also where the driver is missing or too old; ec_last_error() says which. */
EC_EXPORT int32_t ec_device_count(void) {
  try {
    return ec::count_devices();
  } catch (const ec::Error& error) {
    (void)ec::fail(error.code, error.message);
    return 0;
  }
}

EC_EXPORT const char* ec_last_error(void) { return ec::last_error.c_str(); }

EC_EXPORT int32_t ec_train(const ec_task* tasks, int32_t n_tasks, const ec_head* heads, ec_result* results,
                           int32_t n_heads, const ec_options* options) {
  if (!tasks || !heads || !results || !options || n_tasks < 1 || n_heads < 1)
    return ec::fail(EC_ERROR_ARGUMENT, "tasks, heads, results and options must be given");
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
