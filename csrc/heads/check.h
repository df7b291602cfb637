/* What both libraries do with the arguments of ec_train before they train: check them, clear the scores. */
#ifndef EMBEDCACHE_CHECK_H
#define EMBEDCACHE_CHECK_H

#include <cmath>
#include <string>

#include "losses/losses.h"

namespace ec {

/* What rows must have to be learned from: a class in range, or targets that the loss can take. */
inline std::string check_row(const ec_view& view, int64_t row, const ec_task& task) {
  if (task.kind == EC_KIND_CLASSES) {
    return view.y[row] < 0 || view.y[row] >= task.outputs ? "a class out of range" : "";
  }
  for (int32_t c = 0; c < task.outputs; ++c) {
    const float target = view.targets[row * task.outputs + c];
    if (!std::isfinite(target)) return "a target is not finite";
    if (task.kind == EC_KIND_LABELS && target != 0.0f && target != 1.0f) return "a label is neither 0 nor 1";
  }
  return "";
}

inline std::string check_view(const ec_view& view, const ec_task& task, const char* name) {
  const std::string prefix = std::string(name) + ": ";
  if (view.n == 0) return "";
  if (view.n < 0 || view.n >= int64_t{1} << 32) return prefix + "a number of rows out of range";
  const ec_matrix& x = view.x;
  const void* wanted = task.kind == EC_KIND_CLASSES ? static_cast<const void*>(view.y) : view.targets;
  if (!x.data || !wanted || !view.rows) return prefix + "a null pointer";
  if (x.dim != task.train.x.dim || x.dim <= 0 || x.stride < 0) return prefix + "a dimension out of range";
  if (x.dtype != EC_FLOAT16 && x.dtype != EC_FLOAT32 && x.dtype != EC_SCALED_INT8)
    return prefix + "an unknown dtype";
  if (x.dtype == EC_SCALED_INT8 && !x.scale) return prefix + "int8 without scales";
  for (int64_t i = 0; i < view.n; ++i) {
    const int64_t row = view.rows[i];
    if (row < 0 || row >= x.rows) return prefix + "a row number outside x";
    if (view.sample_weight && !(view.sample_weight[row] >= 0 && std::isfinite(view.sample_weight[row])))
      return prefix + "a sample weight below 0, or not finite";
    const std::string wrong = check_row(view, row, task);
    if (!wrong.empty()) return prefix + wrong;
  }
  return "";
}

inline std::string check_weight(const float* weight, const ec_task& task) {
  if (weight && task.kind == EC_KIND_NUMBERS) return "the squared error has no class weights";
  for (int32_t c = 0; weight && c < task.outputs; ++c)
    if (!(weight[c] > 0) || !std::isfinite(weight[c])) return "a class weight that is not above 0";
  return "";
}

inline bool all_finite_or_null(const float* values, int64_t n) {
  for (int64_t i = 0; values && i < n; ++i)
    if (!std::isfinite(values[i])) return false;
  return true;
}

inline std::string check_start(const ec_head& head, const ec_task& task) {
  const int64_t dim = task.train.x.dim, hidden = head.hidden, last = hidden ? hidden : dim;
  const ec_start& s = head.start;
  if (!hidden && (s.w1 || s.b1)) return "a start of a layer that a linear probe has not";
  const bool good = all_finite_or_null(s.w1, hidden * dim) && all_finite_or_null(s.b1, hidden) &&
                    all_finite_or_null(s.w2, task.outputs * last) && all_finite_or_null(s.b2, task.outputs);
  return good ? "" : "a start that is not finite";
}

inline std::string check_task(const ec_task& task) {
  if (task.kind != EC_KIND_CLASSES && task.kind != EC_KIND_LABELS && task.kind != EC_KIND_NUMBERS)
    return "an unknown kind";
  if (task.outputs < (task.kind == EC_KIND_CLASSES ? 2 : 1)) return "fewer than two classes, or no outputs";
  if (task.train.n <= 0) return "no rows to train on";
  if (!task.mean != !task.inv_std) return "mean without inv_std";
  const std::string weight = check_weight(task.class_weight, task);
  if (!weight.empty()) return weight;
  const std::string train = check_view(task.train, task, "train");
  return train.empty() ? check_view(task.val, task, "validation") : train;
}

inline std::string check_head(const ec_head& head, const ec_result& result, const ec_task* tasks,
                              int32_t n_tasks) {
  if (head.task < 0 || head.task >= n_tasks) return "no such task";
  const ec_task& task = tasks[head.task];
  if (head.hidden < 0) return "hidden below 0";
  const bool betas = head.beta1 >= 0 && head.beta1 < 1 && head.beta2 >= 0 && head.beta2 < 1;
  if (!betas || !(head.dropout >= 0 && head.dropout < 1)) return "betas and dropout must be in [0, 1)";
  if (!(head.eps >= 1e-20) || !std::isfinite(head.lr + head.eps + head.weight_decay))
    return "lr, eps or decay";
  if (!(head.label_smoothing >= 0 && head.label_smoothing < 1 && head.warmup >= 0 && head.warmup < 1))
    return "label_smoothing and warmup must be in [0, 1)";
  if (head.label_smoothing > 0 && task.kind == EC_KIND_NUMBERS)
    return "the squared error has no label smoothing";
  if (head.loss < 0 || head.loss >= EC_LOSS_COUNT) return "an unknown loss";
  if (head.loss != EC_LOSS_NLL && task.kind == EC_KIND_NUMBERS) return "numbers have the squared error alone";
  if (!(head.loss_setting >= 0) || !std::isfinite(head.loss_setting)) return "a loss's setting below 0";
  if (head.schedule < EC_SCHEDULE_CONSTANT || head.schedule > EC_SCHEDULE_COSINE)
    return "an unknown schedule";
  if (head.hidden && (!result.w1 || !result.b1)) return "no place for w1 or b1";
  if (!result.w2 || !result.b2) return "no place for w2 or b2";
  if (!result.train_loss || !result.val_loss || !result.val_accuracy || !result.val_f1)
    return "no place for losses";
  const std::string start = check_start(head, task);
  return start.empty() ? check_weight(head.class_weight, task) : start;
}

inline std::string check(const ec_task* tasks, int32_t n_tasks, const ec_head* heads,
                         const ec_result* results, int32_t n_heads, const ec_options* options) {
  if (!tasks || !heads || !results || !options || n_tasks <= 0 || n_heads <= 0)
    return "a null pointer, or nothing";
  if (options->batch_size <= 0 || options->epochs <= 0 || options->early_stop < 0 || options->threads < 0 ||
      options->choose < EC_CHOOSE_LOSS || options->choose > EC_CHOOSE_F1)
    return "an option out of range";
  for (int32_t t = 0; t < n_tasks; ++t) {
    const std::string wrong = check_task(tasks[t]);
    if (!wrong.empty()) return "task " + std::to_string(t) + ": " + wrong;
  }
  for (int32_t i = 0; i < n_heads; ++i) {
    const std::string wrong = check_head(heads[i], results[i], tasks, n_tasks);
    if (!wrong.empty()) return "head " + std::to_string(i) + ": " + wrong;
  }
  return "";
}

/* Heads that never come to an epoch's end show this. */
inline void clear_scores(ec_result& r, int epochs) {
  for (int e = 0; e < epochs; ++e) r.train_loss[e] = r.val_loss[e] = r.val_accuracy[e] = r.val_f1[e] = NAN;
  r.best_epoch = -1;
  r.epochs_run = 0;
  r.status = EC_HEAD_CANCELLED;
}

}  // namespace ec

#endif
