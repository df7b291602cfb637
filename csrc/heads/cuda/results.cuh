/* What the caller gets of a head: its scores after each epoch, in the end its best weights. Host side. */
#ifndef EMBEDCACHE_CUDA_RESULTS_CUH
#define EMBEDCACHE_CUDA_RESULTS_CUH

#include <cmath>

#include "data.cuh"
#include "host_pages.cuh"

namespace ec {

/* Notes an epoch's scores; counts: of the head's validation rows, for macro F1. False if the head diverged in
 * training; where only its validation loss is not finite, `result.status` says so. */
inline bool note_epoch(ec_result& result, const ec_task& task, const Tally& tally, const int64_t* counts,
                       int epoch) {
  const bool validated = task.val.n > 0;
  const double val_loss = validated ? tally.val_loss / tally.val_weight : 0.0;
  if (tally.diverged || !std::isfinite(val_loss)) result.status = EC_HEAD_DIVERGED;
  if (tally.diverged) return false;
  result.epochs_run = epoch + 1;
  result.train_loss[epoch] = tally.train_loss / (double)task.train.n;
  if (!validated) return true;
  result.val_loss[epoch] = val_loss;
  if (task.kind != EC_KIND_NUMBERS) {
    result.val_accuracy[epoch] = (double)tally.val_correct / (double)task.val.n;
    result.val_f1[epoch] = macro_f1(counts, task.outputs);
  }
  return true;
}

/* Where the first layer's weights go, nearly all of what is collected. */
inline Memory place_of(const ec_result& result, Shape s) {
  return {(char*)result.w1, 4 * (int64_t)s.hidden * s.dim};
}

/* Where the best weights are and where they belong in the caller's memory, which stays as it is, zeros, where
 * there are none. */
inline void collect(ec_result& result, const Head& head, const Tally& tally,
                    std::vector<Transfer>& transfers) {
  if (result.best_epoch >= 0 && tally.bad_weights) {
    result.best_epoch = -1;
    result.status = EC_HEAD_DIVERGED;
  }
  if (result.best_epoch < 0) return;
  const Shape s = head.shape;
  const Parameters best = split_parameters(head.state + 3 * head.stride, s);
  const auto add = [&](float* to, float* from, int64_t numbers) {
    if (numbers > 0) transfers.push_back({(char*)to, (char*)from, 1, 4 * numbers, 4 * numbers});
  };
  add(result.w1, best.w1, (int64_t)s.hidden * s.dim);
  add(result.b1, best.b1, s.hidden);
  add(result.w2, best.w2, (int64_t)s.outputs * features(s));
  add(result.b2, best.b2, s.outputs);
}

}  // namespace ec
#endif
