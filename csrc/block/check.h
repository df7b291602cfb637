/* What is asked of the arguments of ec_block_train before anything is trained. */
#ifndef EMBEDCACHE_BLOCK_CHECK_H
#define EMBEDCACHE_BLOCK_CHECK_H

#include "../heads/check.h"
#include "block.h"

namespace ec {

constexpr int32_t kMostLayers = 10000; /* their random streams have numbers of their own */

inline std::string check_states(const ec_states& s) {
  if (!s.values || !s.begins || !s.lengths || s.rows < 0 || s.dim <= 0)
    return "states: a null pointer, or nothing";
  if (s.dtype != EC_FLOAT16 && s.dtype != EC_FLOAT32) return "states: an unknown dtype";
  for (int64_t i = 0; i < s.rows; ++i)
    if (s.begins[i] < 0 || s.lengths[i] < 0 || s.lengths[i] > s.tokens ||
        s.begins[i] > s.tokens - s.lengths[i])
      return "states: row " + std::to_string(i) + " lies outside the tokens";
  return "";
}

inline std::string check_shape(const ec_states& states, const ec_block_shape& s, int32_t compute) {
  const int64_t each = compute == EC_COMPUTE_BFLOAT16 ? 2 : 1;
  if (s.inner < 1 || s.heads < 1 || states.dim % s.heads) return "the heads do not divide the width";
  if (states.dim / s.heads % each || s.inner % each)
    return "bfloat16 takes heads and inner layers of even size";
  if (!(s.epsilon >= 0) || !std::isfinite(s.epsilon)) return "an epsilon below 0";
  if (s.activation < EC_GELU || s.activation > EC_RELU) return "an unknown activation";
  if (s.query < EC_QUERY_FIRST || s.query > EC_QUERY_MEAN) return "an unknown query";
  if (s.layers < 1 || s.layers > kMostLayers) return "no layers, or too many";
  if (s.relative && s.positions < 1) return "a bias by distance without positions";
  for (int64_t i = 0; s.relative && i < states.rows; ++i)
    if (states.lengths[i] > s.positions)
      return "row " + std::to_string(i) + " is longer than the bias by distance";
  return "";
}

inline bool is_share(double x) { return x >= 0 && x < 1; }

inline std::string check_block(const ec_block& b, const ec_block_result& r, const ec_block_shape& shape,
                               const ec_task* tasks, int32_t n_tasks) {
  if (b.task < 0 || b.task >= n_tasks) return "no such task";
  const ec_task& task = tasks[b.task];
  if (b.hidden < 0 || b.batch_size < 1 || b.epochs < 0 || b.early_stop < 0) return "a size below 0";
  if (!is_share(b.beta1) || !is_share(b.beta2) || !is_share(b.hidden_dropout) ||
      !is_share(b.attention_dropout) || !is_share(b.head_dropout) || !is_share(b.label_smoothing) ||
      !is_share(b.warmup))
    return "betas, dropout, label_smoothing and warmup must be in [0, 1)";
  if (!(b.eps >= 1e-20) || !std::isfinite(b.lr + b.head_lr + b.eps + b.weight_decay))
    return "lr, eps or decay";
  if (!(b.clip >= 0)) return "clip below 0";
  if (b.schedule < EC_SCHEDULE_CONSTANT || b.schedule > EC_SCHEDULE_COSINE) return "an unknown schedule";
  if (b.loss < 0 || b.loss >= EC_LOSS_COUNT) return "an unknown loss";
  if (!(b.loss_setting >= 0) || !std::isfinite(b.loss_setting)) return "a loss's setting below 0";
  if (task.kind == EC_KIND_NUMBERS && (b.loss != EC_LOSS_NLL || b.label_smoothing > 0))
    return "numbers have the squared error alone, without label smoothing";
  const int64_t tensors = ec_block_tensors(&shape), head = tensors - EC_BLOCK_TENSORS;
  if (!b.start || !r.best) return "no place for tensors";
  for (int64_t i = 0; i < tensors; ++i) {
    const bool there = b.hidden > 0 || (i - head != EC_BLOCK_HEAD1 && i - head != EC_BLOCK_HEAD1_BIAS);
    if (there && (!b.start[i] || !r.best[i])) return "no place for tensor " + std::to_string(i);
  }
  if (!r.train_loss || !r.val_loss || !r.val_accuracy || !r.val_f1 || !r.norm) return "no place for losses";
  return check_weight(b.class_weight, task);
}

inline std::string check_blocks(const ec_states* states, const ec_block_shape* shape, const ec_task* tasks,
                                int32_t n_tasks, const ec_block* blocks, const ec_block_result* results,
                                int32_t n_blocks, const ec_block_options* options) {
  if (!states || !shape || !tasks || !blocks || !results || !options || n_tasks <= 0 || n_blocks <= 0)
    return "a null pointer, or nothing";
  if (options->threads < 0 || options->choose < EC_CHOOSE_LOSS || options->choose > EC_CHOOSE_F1)
    return "an option out of range";
  std::string wrong = check_states(*states);
  if (wrong.empty()) wrong = check_shape(*states, *shape, options->compute);
  for (int32_t t = 0; t < n_tasks && wrong.empty(); ++t) {
    wrong = check_task(tasks[t]);
    if (wrong.empty() && (tasks[t].train.x.data != states->values || tasks[t].train.x.rows != states->rows))
      wrong = "its rows are not those of the states";
    if (!wrong.empty()) wrong = "task " + std::to_string(t) + ": " + wrong;
  }
  for (int32_t i = 0; i < n_blocks && wrong.empty(); ++i) {
    wrong = check_block(blocks[i], results[i], *shape, tasks, n_tasks);
    if (!wrong.empty()) wrong = "block " + std::to_string(i) + ": " + wrong;
  }
  return wrong;
}

/* Blocks that never come to an epoch's end show this. */
inline void clear_scores(ec_block_result& r, int epochs) {
  for (int e = 0; e < epochs; ++e)
    r.train_loss[e] = r.val_loss[e] = r.val_accuracy[e] = r.val_f1[e] = r.norm[e] = NAN;
  r.best_epoch = -1;
  r.epochs_run = 0;
  r.status = EC_HEAD_CANCELLED;
}

}  // namespace ec

#endif
