/* Many blocks in one call: the longest first, on all threads (schedule.h). */
#include <algorithm>
#include <thread>
#include <vector>

#include "../heads/cpu/schedule.h"
#include "jobs.h"

namespace ec {

namespace {

constexpr double kMemberFlops = 4e6; /* a team's member should have this much of each step: 15 barriers */

double weights_of(const BlockOrder& order) {
  const double dim = static_cast<double>(order.states->dim), inner = static_cast<double>(order.shape->inner);
  return dim * (4 * dim + 2 * inner);
}

double step_flops(const BlockOrder& order) {
  const ec_view& train = order.task->train;
  return 6.0 * weights_of(order) *
         static_cast<double>(std::min<int64_t>(order.block->batch_size, train.n > 0 ? train.n : 1));
}

double cost_of(const BlockOrder& order) {
  return weights_of(order) * (static_cast<double>(order.task->train.n) * order.block->epochs +
                              static_cast<double>(order.task->val.n));
}

}  // namespace

int train_blocks(const BlockKernels& kernels, const BlockOrder* given, int n, int threads) {
  if (threads <= 0) threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  std::vector<BlockOrder> orders(given, given + n);
  std::stable_sort(orders.begin(), orders.end(),
                   [](const BlockOrder& a, const BlockOrder& b) { return cost_of(a) > cost_of(b); });
  Schedule<BlockJob> schedule(
      n, threads, [&](int i, Team* team) { return kernels.create(orders[i], team); },
      [&](int i) { return static_cast<int>(std::min(step_flops(orders[i]) / kMemberFlops, 1e6)); },
      orders[0].options->cancel);
  return schedule.run();
}

}  // namespace ec
