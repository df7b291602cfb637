/* A bank's jobs, the longest first, on all threads (schedule.h). A job is a head, or the linear probes of one
 * task and seed, which share their batches.
 */
#include <algorithm>
#include <deque>
#include <map>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "schedule.h"

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

  const ec_task& task(const Job& job) const { return tasks[heads[job.heads[0]].task]; }

  Head* create(const Job& job, Team* team) const {
    std::vector<const ec_head*> specs;
    std::vector<ec_result*> places;
    for (int head : job.heads) {
      specs.push_back(&heads[head]);
      places.push_back(&results[head]);
    }
    return kernels.create(task(job), specs.data(), places.data(), static_cast<int64_t>(specs.size()), options,
                          team);
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

}  // namespace

int bank_train(const Kernels& kernels, const ec_task* tasks, const ec_head* heads, ec_result* results,
               int n_heads, const ec_options& options) {
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const Bank bank{kernels, tasks, heads, results, options};
  std::vector<Job> jobs = make_jobs(bank, n_heads); /* those that take longest first */
  const auto cost = [&](const Job& job) { return job.flops * static_cast<double>(bank.task(job).train.n); };
  std::stable_sort(jobs.begin(), jobs.end(), [&](const Job& a, const Job& b) { return cost(a) > cost(b); });
  int64_t useful = 0; /* more threads would have nothing to do */
  for (const Job& job : jobs) useful += job.most_threads;
  const int threads =
      static_cast<int>(std::min<int64_t>(options.threads > 0 ? options.threads : cores, useful));
  std::deque<RandomReads> random_reads;
  std::set<int> looked_at; /* tasks: a sweep's heads share theirs */
  for (int head = 0; head < n_heads; ++head)
    if (const ec_task& task = tasks[heads[head].task]; looked_at.insert(heads[head].task).second)
      for (const ec_view* view : {&task.train, &task.val}) random_reads.emplace_back(*view);
  const auto members = [&](int i) {
    return std::min(jobs[i].most_threads, static_cast<int>(std::min(jobs[i].flops / kMemberFlops, 1e6)));
  };
  Schedule<Head> schedule(
      static_cast<int>(jobs.size()), threads, [&](int i, Team* team) { return bank.create(jobs[i], team); },
      members, options.cancel);
  return schedule.run();
}

}  // namespace ec
