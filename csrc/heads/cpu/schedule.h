/* Which thread trains what, when: a job per thread while there are jobs for all threads, then teams.
 *
 * The schedule decides nothing about a job's numbers, only when they are ready.
 */
#ifndef EMBEDCACHE_CPU_SCHEDULE_H
#define EMBEDCACHE_CPU_SCHEDULE_H

#include <algorithm>
#include <atomic>
#include <functional>
#include <future>
#include <system_error>
#include <thread>
#include <vector>

#include "../../simd/subnormals.h"
#include "team.h"

namespace ec {

/* Job: made by one thread, trained by a team; train(job, member) and memory, as Head has them (team.h). */
template <class Job>
class Schedule {
 public:
  /* create: job i, for a team; NULL: not enough memory. members: how many threads are worth it for job i, 1
   * or more. The jobs that take longest should come first. */
  Schedule(int jobs, int threads, std::function<Job*(int, Team*)> create,
           const std::function<int(int)>& members, const volatile int32_t* cancel)
      : create_(std::move(create)), cancel_(cancel), threads_(threads) {
    /* The jobs that are left when each thread has had its share are trained by teams, all at the same time.
     */
    const int left = jobs % threads;
    alone_ = jobs - left;
    for (int i = alone_; i < jobs; ++i) {
      teams_.push_back(team_create(std::max(1, std::min(threads / left, members(i)))));
      if (!teams_.back()) out_of_memory_ = true;
    }
    shared_.resize(teams_.size());
  }
  ~Schedule() {
    for (Team* team : teams_) team_destroy(team);
  }
  Schedule(const Schedule&) = delete;

  /* Trains all jobs; EC_OK or EC_ERROR_MEMORY. */
  int run() {
    if (out_of_memory_) return EC_ERROR_MEMORY;
    int code = EC_OK;
    std::promise<bool> all_started; /* a team must not wait for a member that never came */
    const std::shared_future<bool> go = all_started.get_future().share();
    std::vector<std::thread> others;
    try {
      for (int t = 1; t < threads_; ++t)
        others.emplace_back([this, go, t] {
          if (go.get()) work(t);
        });
    } catch (const std::system_error&) {
      code = EC_ERROR_MEMORY; /* no more threads to be had */
    }
    all_started.set_value(code == EC_OK);
    if (code == EC_OK) work(0);
    for (std::thread& other : others) other.join();
    return out_of_memory_ ? EC_ERROR_MEMORY : code;
  }

 private:
  bool stopped() const { return out_of_memory_ || (cancel_ && *cancel_); }

  Job* make(int job, Team* team) {
    Job* made = create_(job, team);
    if (!made) out_of_memory_ = true;
    return made;
  }

  void work(int thread) {
    [[maybe_unused]] FlushSubnormals flush;
    train_alone();
    int first = 0; /* threads are dealt to the teams in order */
    for (int number = 0; number < static_cast<int>(teams_.size()); ++number) {
      const int size = team_size(teams_[number]);
      if (thread >= first && thread < first + size) train_in_team(number, thread - first);
      first += size;
    }
  }

  void train_alone() {
    Team* team = team_create(1);
    for (int i = next_++; i < alone_ && team && !stopped(); i = next_++) {
      Job* job = make(i, team);
      if (!job) break;
      job->train(job, 0);
      memory_give_back(job->memory);
    }
    if (!team) out_of_memory_ = true;
    team_destroy(team);
  }

  void train_in_team(int number, int member) {
    Team* team = teams_[number];
    if (member == 0 && !stopped()) shared_[number] = make(alone_ + number, team);
    team_barrier(team);
    Job* job = shared_[number];
    if (job) job->train(job, member);
    team_barrier(team);
    if (job && member == 0) memory_give_back(job->memory);
  }

  const std::function<Job*(int, Team*)> create_;
  const volatile int32_t* const cancel_;
  const int threads_;
  int alone_ = 0;            /* the first so many jobs have a thread each, the rest a team each */
  std::vector<Team*> teams_; /* of the rest, in order */
  std::vector<Job*> shared_; /* what each team trains */
  std::atomic<int> next_{0};
  std::atomic<bool> out_of_memory_{false};
};

}  // namespace ec

#endif
