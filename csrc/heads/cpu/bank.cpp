/* Which thread trains what, when: a job per thread while there are jobs for all threads, then teams. A job is
 * a head, or the linear probes of one task and seed, which share their batches.
 *
 * The schedule decides nothing about a head's numbers (head.h, probes.h), only when they are ready.
 */
#include <algorithm>
#include <atomic>
#include <deque>
#include <future>
#include <map>
#include <set>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "../../simd/subnormals.h"
#include "team.h"

namespace ec {

namespace {

constexpr double kMemberFlops = 1e6;    /* a team's member should have this much of each step, some 10 us */
constexpr double kJobWeights = 1 << 20; /* of a group of probes: 12 MiB, with the moments */

struct Job {
  std::vector<int> heads; /* several probes, or one head */
  double weights, flops;  /* of a step */
  int most_threads;
};

struct Bank {
  const Kernels& kernels;
  const ec_task* tasks;
  const ec_head* heads;
  ec_result* results;
  const ec_options& options;
  std::vector<Job> jobs;     /* the largest first */
  int alone = 0;             /* the first so many have a thread each, the rest a team each */
  std::vector<Team*> teams;  /* of the rest, in order */
  std::vector<Head*> shared; /* what each team trains */
  std::atomic<int> next{0};
  std::atomic<bool> out_of_memory{false};

  bool stopped() const { return out_of_memory || (options.cancel && *options.cancel); }
  const ec_task& task(const Job& job) const { return tasks[heads[job.heads[0]].task]; }

  Head* create(const Job& job, Team* team) {
    std::vector<const ec_head*> specs;
    std::vector<ec_result*> places;
    for (int head : job.heads) {
      specs.push_back(&heads[head]);
      places.push_back(&results[head]);
    }
    Head* made = kernels.create(task(job), specs.data(), places.data(), static_cast<int64_t>(specs.size()),
                                options, team);
    if (!made) out_of_memory = true;
    return made;
  }
};

double weights_of(const Bank& bank, int head) {
  const ec_task& task = bank.tasks[bank.heads[head].task];
  const double dim = static_cast<double>(task.train.x.dim), hidden = bank.heads[head].hidden;
  return hidden > 0 ? hidden * (dim + 1.5 * task.outputs) : dim * task.outputs;
}

std::vector<Job> make_jobs(const Bank& bank, int n_heads) {
  std::vector<Job> jobs;
  std::map<std::pair<int, uint64_t>, size_t> open; /* the group that probes of a task and seed may join */
  for (int head = 0; head < n_heads; ++head) {
    const ec_head& spec = bank.heads[head];
    const double weights = weights_of(bank, head);
    const auto group = spec.hidden ? open.end() : open.find({spec.task, spec.seed});
    if (group != open.end() && jobs[group->second].weights + weights <= kJobWeights) {
      jobs[group->second].heads.push_back(head);
      jobs[group->second].weights += weights;
    } else {
      if (!spec.hidden) open[{spec.task, spec.seed}] = jobs.size();
      jobs.push_back({{head}, weights, 0, 0});
    }
  }
  for (Job& job : jobs) {
    const ec_head& spec = bank.heads[job.heads[0]];
    const int outputs = bank.task(job).outputs;
    const int64_t eights = (outputs * static_cast<int64_t>(job.heads.size()) + 7) / 8;
    job.flops = 4.0 * bank.options.batch_size * job.weights;
    job.most_threads = spec.hidden ? head_slices(spec.hidden, outputs, bank.options.batch_size)
                                   : static_cast<int>(std::min<int64_t>(eights, kMostSlices));
  }
  return jobs;
}

void train_alone(Bank& bank) {
  Team* team = team_create(1);
  for (int i = bank.next++; i < bank.alone && team && !bank.stopped(); i = bank.next++) {
    Head* head = bank.create(bank.jobs[i], team);
    if (!head) break;
    head->train(head, 0);
    memory_give_back(head->memory);
  }
  if (!team) bank.out_of_memory = true;
  team_destroy(team);
}

void train_in_team(Bank& bank, int number, int member) {
  Team* team = bank.teams[number];
  if (member == 0 && !bank.out_of_memory)
    bank.shared[number] = bank.create(bank.jobs[bank.alone + number], team);
  team_barrier(team);
  Head* head = bank.shared[number];
  if (head) head->train(head, member);
  team_barrier(team);
  if (head && member == 0) memory_give_back(head->memory);
}

/* The jobs that are left when each thread has had its share are trained by teams, all at the same time. */
void plan(Bank& bank, int threads) {
  const auto cost = [&](const Job& job) { return job.flops * static_cast<double>(bank.task(job).train.n); };
  std::stable_sort(bank.jobs.begin(), bank.jobs.end(),
                   [&](const Job& a, const Job& b) { return cost(a) > cost(b); });
  const int jobs = static_cast<int>(bank.jobs.size()), left = jobs % threads;
  bank.alone = jobs - left;
  for (int i = bank.alone; i < jobs; ++i) {
    const int worth = static_cast<int>(std::min(bank.jobs[i].flops / kMemberFlops, 1e6));
    bank.teams.push_back(
        team_create(std::max(1, std::min({threads / left, bank.jobs[i].most_threads, worth}))));
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
  Bank bank{kernels, tasks, heads, results, options, {}, 0, {}, {}};
  bank.jobs = make_jobs(bank, n_heads);
  int64_t useful = 0; /* more threads would have nothing to do */
  for (const Job& job : bank.jobs) useful += job.most_threads;
  const int threads =
      static_cast<int>(std::min<int64_t>(options.threads > 0 ? options.threads : cores, useful));
  plan(bank, threads);
  std::deque<RandomReads> random_reads;
  std::set<int> looked_at; /* tasks: a sweep's heads share theirs */
  for (int head = 0; head < n_heads; ++head)
    if (const ec_task& task = tasks[heads[head].task]; looked_at.insert(heads[head].task).second)
      for (const ec_view* view : {&task.train, &task.val}) random_reads.emplace_back(*view);
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
