/* Which thread trains which head, when: a head per thread while there are heads for all threads, then teams.
 *
 * The schedule decides nothing about a head's numbers (head.h), only when they are ready.
 */
#include <algorithm>
#include <atomic>
#include <future>
#include <numeric>
#include <system_error>
#include <thread>
#include <vector>

#include "team.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace ec {

namespace {

constexpr double kMemberFlops = 1e6; /* a team's member should have this much of each step, some 10 us */

/* Moments of dead units decay into subnormal numbers, which some CPUs add a hundred times slower: flush them
 * to zero. */
class FlushSubnormals {
#if defined(__x86_64__)
 public:
  FlushSubnormals() { _mm_setcsr(before_ | 0x8040u); }
  ~FlushSubnormals() { _mm_setcsr(before_); }

 private:
  unsigned before_ = _mm_getcsr();
#endif
};

struct Bank {
  const Kernels& kernels;
  const ec_task* tasks;
  const ec_head* heads;
  ec_result* results;
  const ec_options& options;
  std::vector<int> order;    /* heads, the largest first */
  int alone = 0;             /* the first so many of the order have a thread each, the rest a team each */
  std::vector<Team*> teams;  /* of the rest, in order */
  std::vector<Head*> shared; /* what each team trains */
  std::atomic<int> next{0};
  std::atomic<bool> out_of_memory{false};

  bool stopped() const { return out_of_memory || (options.cancel && *options.cancel); }

  Head* create(int head, Team* team) {
    const ec_head& spec = heads[head];
    Head* made = kernels.create(tasks[spec.task], spec, &results[head], options, team);
    if (!made) out_of_memory = true;
    return made;
  }
};

double step_flops(const Bank& bank, int head) {
  const ec_head& spec = bank.heads[head];
  const ec_task& task = bank.tasks[spec.task];
  const double dim = static_cast<double>(task.train.x.dim), hidden = spec.hidden;
  const double weights = hidden > 0 ? hidden * (dim + 1.5 * task.outputs) : dim * task.outputs;
  return 4.0 * bank.options.batch_size * weights;
}

void train_alone(Bank& bank) {
  Team* team = team_create(1);
  for (int i = bank.next++; i < bank.alone && team && !bank.stopped(); i = bank.next++) {
    Head* head = bank.create(bank.order[i], team);
    if (!head) break;
    bank.kernels.train(head, 0);
    bank.kernels.destroy(head);
  }
  if (!team) bank.out_of_memory = true;
  team_destroy(team);
}

void train_in_team(Bank& bank, int number, int member) {
  Team* team = bank.teams[number];
  if (member == 0 && !bank.out_of_memory)
    bank.shared[number] = bank.create(bank.order[bank.alone + number], team);
  team_barrier(team);
  Head* head = bank.shared[number];
  if (head) bank.kernels.train(head, member);
  team_barrier(team);
  if (head && member == 0) bank.kernels.destroy(head);
}

/* The heads that are left when each thread has had its share are trained by teams, all at the same time. */
void plan(Bank& bank, int n_heads, int threads) {
  const auto cost = [&](int head) {
    const ec_view& train = bank.tasks[bank.heads[head].task].train;
    return step_flops(bank, head) * static_cast<double>(train.n);
  };
  bank.order.resize(n_heads);
  std::iota(bank.order.begin(), bank.order.end(), 0);
  std::stable_sort(bank.order.begin(), bank.order.end(), [&](int a, int b) { return cost(a) > cost(b); });
  const int left = n_heads % threads;
  bank.alone = n_heads - left;
  for (int i = bank.alone; i < n_heads; ++i) {
    const int head = bank.order[i];
    const ec_head& spec = bank.heads[head];
    const ec_task& task = bank.tasks[spec.task];
    const int slices = head_slices(task.train.x.dim, spec.hidden, task.outputs, bank.options.batch_size);
    const int worth = static_cast<int>(std::min(step_flops(bank, head) / kMemberFlops, 1e6));
    bank.teams.push_back(team_create(std::max(1, std::min({threads / left, slices, worth}))));
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

int bank_train(const Kernels& kernels, const ec_task* tasks, const ec_head* heads, ec_result* results,
               int n_heads, const ec_options& options) {
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const int64_t useful = int64_t{kMostSlices} * n_heads; /* more threads would have nothing to do */
  const int threads =
      static_cast<int>(std::min<int64_t>(options.threads > 0 ? options.threads : cores, useful));
  Bank bank{kernels, tasks, heads, results, options, {}, 0, {}, {}};
  plan(bank, n_heads, threads);
  int code = EC_OK;
  if (!bank.out_of_memory) {
    std::promise<bool>
        all_started; /* nobody begins before all are there: a team must not wait for a missing member */
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
