/* The C interface on the CPU: checks the arguments, chooses the instruction set, reports errors. */
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <string>

#include "team.h"

namespace ec {

namespace {

thread_local std::string last_error;

int fail(int code, const std::string& message) {
  last_error = message;
  return code;
}

/* The best of what this machine has; EMBEDCACHE_ISA=avx512, avx2 or plain asks for less (for tests). */
const Kernels& choose_kernels() {
#ifdef EC_X86
  const char* asked = std::getenv("EMBEDCACHE_ISA");
  const std::string isa = asked ? asked : "avx512";
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); /* they have F16C too */
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx512 && isa != "avx2" && isa != "plain") return kernels_avx512;
  if (avx2 && isa != "plain") return kernels_avx2;
#endif
  return kernels_plain;
}

std::string check_view(const ec_view& view, int64_t dim, int32_t classes, const char* name) {
  if (view.n == 0) return "";
  if (view.n < 0 || view.n >= int64_t{1} << 32) return std::string(name) + ": a number of rows out of range";
  const ec_matrix& x = view.x;
  if (!x.data || !view.y || !view.rows) return std::string(name) + ": a null pointer";
  if (x.dim != dim || x.dim <= 0 || x.stride < 0) return std::string(name) + ": a dimension out of range";
  if (x.dtype != EC_FLOAT16 && x.dtype != EC_FLOAT32) return std::string(name) + ": an unknown dtype";
  for (int64_t i = 0; i < view.n; ++i) {
    const int64_t row = view.rows[i];
    if (row < 0 || row >= x.rows) return std::string(name) + ": a row number outside x";
    if (view.y[row] < 0 || view.y[row] >= classes) return std::string(name) + ": a class out of range";
  }
  return "";
}

std::string check_task(const ec_task& task) {
  if (task.classes < 2) return "fewer than two classes";
  if (task.train.n <= 0) return "no rows to train on";
  if (!task.mean != !task.inv_std) return "mean without inv_std";
  const std::string train = check_view(task.train, task.train.x.dim, task.classes, "train");
  return train.empty() ? check_view(task.val, task.train.x.dim, task.classes, "validation") : train;
}

std::string check_head(const ec_head& head, const ec_result& result, int32_t n_tasks) {
  if (head.task < 0 || head.task >= n_tasks) return "no such task";
  if (head.hidden < 0) return "hidden below 0";
  const bool betas = head.beta1 >= 0 && head.beta1 < 1 && head.beta2 >= 0 && head.beta2 < 1;
  if (!betas || !(head.dropout >= 0 && head.dropout < 1)) return "betas and dropout must be in [0, 1)";
  if (!(head.eps >= 1e-20) || !std::isfinite(head.lr + head.eps + head.weight_decay))
    return "lr, eps or decay";
  if (head.hidden && (!result.w1 || !result.b1)) return "no place for w1 or b1";
  if (!result.w2 || !result.b2) return "no place for w2 or b2";
  if (!result.train_loss || !result.val_loss || !result.val_accuracy) return "no place for losses";
  return "";
}

std::string check(const ec_task* tasks, int32_t n_tasks, const ec_head* heads, const ec_result* results,
                  int32_t n_heads, const ec_options* options) {
  if (!tasks || !heads || !results || !options || n_tasks <= 0 || n_heads <= 0)
    return "a null pointer, or nothing";
  if (options->batch_size <= 0 || options->epochs <= 0 || options->early_stop < 0 || options->threads < 0)
    return "an option out of range";
  for (int32_t t = 0; t < n_tasks; ++t) {
    const std::string wrong = check_task(tasks[t]);
    if (!wrong.empty()) return "task " + std::to_string(t) + ": " + wrong;
  }
  for (int32_t i = 0; i < n_heads; ++i) {
    const std::string wrong = check_head(heads[i], results[i], n_tasks);
    if (!wrong.empty()) return "head " + std::to_string(i) + ": " + wrong;
  }
  return "";
}

/* Heads that never come to an epoch's end show this. */
void clear_result(const ec_task& task, const ec_head& head, ec_result& r, int epochs) {
  const int64_t dim = task.train.x.dim, hidden = head.hidden, inputs = hidden ? hidden : dim;
  if (hidden) std::memset(r.w1, 0, sizeof(float) * hidden * dim);
  if (hidden) std::memset(r.b1, 0, sizeof(float) * hidden);
  std::memset(r.w2, 0, sizeof(float) * task.classes * inputs);
  std::memset(r.b2, 0, sizeof(float) * task.classes);
  for (int e = 0; e < epochs; ++e) r.train_loss[e] = r.val_loss[e] = r.val_accuracy[e] = NAN;
  r.best_epoch = -1;
  r.epochs_run = 0;
  r.status = EC_HEAD_CANCELLED;
}

}  // namespace

}  // namespace ec

#pragma GCC visibility push(default)
extern "C" {

int32_t ec_abi_version(void) { return EC_ABI_VERSION; }
const char* ec_backend(void) { return ec::choose_kernels().name; }
int32_t ec_device_count(void) { return 1; }
const char* ec_last_error(void) { return ec::last_error.c_str(); }

int32_t ec_train(const ec_task* tasks, int32_t n_tasks, const ec_head* heads, ec_result* results,
                 int32_t n_heads, const ec_options* options) try {
  const std::string wrong = ec::check(tasks, n_tasks, heads, results, n_heads, options);
  if (!wrong.empty()) return ec::fail(EC_ERROR_ARGUMENT, wrong);
  if (options->compute != EC_COMPUTE_FLOAT32)
    return ec::fail(EC_ERROR_UNSUPPORTED, "the CPU library computes in float32 only");
  for (int32_t i = 0; i < n_heads; ++i)
    ec::clear_result(tasks[heads[i].task], heads[i], results[i], options->epochs);
  const int code = ec::bank_train(ec::choose_kernels(), tasks, heads, results, n_heads, *options);
  return code == EC_OK ? code : ec::fail(code, "not enough memory for the heads' state, or no more threads");
} catch (const std::exception& error) {
  return ec::fail(EC_ERROR_MEMORY, error.what());
}

}  // extern "C"
#pragma GCC visibility pop
