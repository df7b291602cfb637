/* Which thread trains what, when: a block per thread while there are blocks for all threads, then teams.
 *
 * The schedule decides nothing about a block's numbers (train.h), only when they are ready.
 */
#include <algorithm>
#include <atomic>
#include <future>
#include <system_error>
#include <thread>
#include <vector>

#include "../simd/subnormals.h"
#include "jobs.h"

namespace ec {

namespace {

constexpr double kMemberFlops = 4e6; /* a team's member should have this much of each step: 15 barriers */

struct Bank {
  const BlockKernels& kernels;
  std::vector<BlockOrder> orders; /* the largest first */
  int alone = 0;                  /* the first so many have a thread each, the rest a team each */
  std::vector<Team*> teams;       /* of the rest, in order */
  std::vector<BlockJob*> shared;  /* what each team trains */
  std::atomic<int> next{0};
  std::atomic<bool> out_of_memory{false};

  explicit Bank(const BlockKernels& offered) : kernels(offered) {}
  bool stopped() const { return out_of_memory || (orders[0].options->cancel && *orders[0].options->cancel); }
  BlockJob* create(int order, Team* team) {
    BlockJob* made = kernels.create(orders[order], team);
    if (!made) out_of_memory = true;
    return made;
  }
};

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

void train_alone(Bank& bank) {
  Team* team = team_create(1);
  for (int i = bank.next++; i < bank.alone && team && !bank.stopped(); i = bank.next++) {
    BlockJob* job = bank.create(i, team);
    if (!job) break;
    job->train(job, 0);
    memory_give_back(job->memory);
  }
  if (!team) bank.out_of_memory = true;
  team_destroy(team);
}

void train_in_team(Bank& bank, int number, int member) {
  Team* team = bank.teams[number];
  if (member == 0 && !bank.stopped()) bank.shared[number] = bank.create(bank.alone + number, team);
  team_barrier(team);
  BlockJob* job = bank.shared[number];
  if (job) job->train(job, member);
  team_barrier(team);
  if (job && member == 0) memory_give_back(job->memory);
}

/* The blocks that are left when each thread has had its share are trained by teams, all at the same time. */
void plan(Bank& bank, int threads) {
  std::stable_sort(bank.orders.begin(), bank.orders.end(),
                   [](const BlockOrder& a, const BlockOrder& b) { return cost_of(a) > cost_of(b); });
  const int n = static_cast<int>(bank.orders.size()), left = n % threads;
  bank.alone = n - left;
  for (int i = bank.alone; i < n; ++i) {
    const int worth = static_cast<int>(std::min(step_flops(bank.orders[i]) / kMemberFlops, 1e6));
    bank.teams.push_back(team_create(std::max(1, std::min(threads / left, worth))));
    if (!bank.teams.back()) bank.out_of_memory = true;
  }
  bank.shared.resize(bank.teams.size());
}

void work(Bank& bank, int thread) {
  [[maybe_unused]] FlushSubnormals flush;
  train_alone(bank);
  int first = 0; /* threads are dealt to the teams in order */
  for (int number = 0; number < static_cast<int>(bank.teams.size()); ++number) {
    const int size = team_size(bank.teams[number]);
    if (thread >= first && thread < first + size) train_in_team(bank, number, thread - first);
    first += size;
  }
}

}  // namespace

int train_blocks(const BlockKernels& kernels, const BlockOrder* orders, int n, int threads) {
  if (threads <= 0) threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  Bank bank(kernels);
  bank.orders.assign(orders, orders + n);
  plan(bank, threads);
  int code = EC_OK;
  if (!bank.out_of_memory) {
    std::promise<bool> all_started; /* a team must not wait for a member that never came */
    const std::shared_future<bool> go = all_started.get_future().share();
    std::vector<std::thread> others;
    try {
      for (int t = 1; t < threads; ++t)
        others.emplace_back([&bank, go, t] {
          if (go.get()) work(bank, t);
        });
    } catch (const std::system_error&) {
      code = EC_ERROR_MEMORY; /* no more threads to be had */
    }
    all_started.set_value(code == EC_OK);
    if (code == EC_OK) work(bank, 0);
    for (std::thread& other : others) other.join();
  }
  for (Team* team : bank.teams) team_destroy(team);
  return bank.out_of_memory ? EC_ERROR_MEMORY : code;
}

}  // namespace ec
