/* Many blocks in one call: the longest first, on all threads (schedule.h). */
#include <algorithm>
#include <functional>
#include <numeric>
#include <thread>
#include <vector>

#include "../heads/cpu/schedule.h"
#include "jobs.h"

namespace ec {

namespace {

constexpr double kMemberFlops = 4e6; /* a team's member should have this much of each step: 15 barriers */

constexpr int64_t kFewestRows = 64; /* of a validation chunk */

bool is_folded(const ec_block_shape& shape) { return shape.query != EC_QUERY_MEAN; }

/* Operations of a row forward, halved: of its last layer for one row, and of every other for its tokens. */
double cost_of_row(const BlockOrder& order, double tokens) {
  const double dim = static_cast<double>(order.states->dim), inner = static_cast<double>(order.shape->inner),
               weights = dim * (4 * dim + 2 * inner);
  const int folded = is_folded(*order.shape);
  return weights * folded + (weights + 2 * tokens * dim) * tokens * (order.shape->layers - folded);
}

double mean_tokens(const BlockOrder& order, const ec_view& view) {
  double sum = 0;
  for (int64_t i = 0; i < view.n; ++i) sum += static_cast<double>(order.states->lengths[view.rows[i]]);
  return view.n > 0 ? sum / static_cast<double>(view.n) : 0;
}

/* The most tokens that `rows` rows of a view can have. */
int64_t most_tokens(const BlockOrder& order, const ec_view& view, int64_t rows) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < view.n; ++i) lengths.push_back(order.states->lengths[view.rows[i]]);
  const auto middle = lengths.begin() + std::min<int64_t>(rows, view.n);
  std::partial_sort(lengths.begin(), middle, lengths.end(), std::greater<>());
  return std::accumulate(lengths.begin(), middle, int64_t{0});
}

/* Of the most rows that are computed at a time: a batch, or so many for validation. */
void set_sizes(BlockOrder& order) {
  const ec_view &train = order.task->train, &val = order.task->val;
  const int64_t batch = std::min<int64_t>(order.block->batch_size, train.n);
  const bool whole = order.shape->layers > is_folded(*order.shape); /* tokens take more room than rows */
  order.rows = std::max(batch, whole ? 1 : std::min(val.n, kFewestRows));
  order.tokens =
      whole ? std::max(most_tokens(order, train, order.rows), most_tokens(order, val, order.rows)) : 0;
}

double step_flops(const BlockOrder& order) {
  const ec_view& train = order.task->train;
  return 6.0 * cost_of_row(order, mean_tokens(order, train)) *
         static_cast<double>(std::min<int64_t>(order.block->batch_size, train.n > 0 ? train.n : 1));
}

double cost_of(const BlockOrder& order) {
  const ec_view &train = order.task->train, &val = order.task->val;
  return cost_of_row(order, mean_tokens(order, train)) * static_cast<double>(train.n) * order.block->epochs +
         cost_of_row(order, mean_tokens(order, val)) * static_cast<double>(val.n);
}

}  // namespace

int train_blocks(const BlockKernels& kernels, const BlockOrder* given, int n, int threads) {
  if (threads <= 0) threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  std::vector<BlockOrder> orders(given, given + n);
  for (BlockOrder& order : orders) set_sizes(order);
  std::stable_sort(orders.begin(), orders.end(),
                   [](const BlockOrder& a, const BlockOrder& b) { return cost_of(a) > cost_of(b); });
  Schedule<BlockJob> schedule(
      n, threads, [&](int i, Team* team) { return kernels.create(orders[i], team); },
      [&](int i) { return static_cast<int>(std::min(step_flops(orders[i]) / kMemberFlops, 1e6)); },
      orders[0].options->cancel);
  return schedule.run();
}

}  // namespace ec
