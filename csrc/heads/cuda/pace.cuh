/* How many steps of how many heads go into a launch. A launch cannot be interrupted, and what it did is seen
 * when it has ended: so it should take half a second. Results do not depend on it.
 *
 * The first launch goes by a model of a block's time: floating-point operations and state at a quarter of
 * what the device's float32 lanes could do, and a step's barriers. The following ones go
 * by that times what the last launch took in proportion. */
#ifndef EMBEDCACHE_CUDA_PACE_CUH
#define EMBEDCACHE_CUDA_PACE_CUH

#include <algorithm>
#include <chrono>
#include <iterator>
#include <vector>

#include "layout.cuh"

namespace ec {

using List = std::vector<int32_t>; /* numbers of heads in a group, or of orders */

template <class F>
List filter(const List& list, F keep) {
  List kept;
  std::copy_if(list.begin(), list.end(), std::back_inserter(kept), keep);
  return kept;
}

constexpr double kSecondsOfLaunch = 0.5;
constexpr double kSecondsOfBarriers = 20e-6; /* of a step or a chunk of validation rows */
constexpr double kOperationsOfState = 128;   /* that take as long as AdamW's 28 bytes of a parameter */
constexpr double kSecondsOfProbes = 2e-6;    /* a step's barriers, of TrainProbes */
constexpr double kOperationsOfProbe = 8;     /* that take as long as a number of x on its way to its block */
constexpr double kModelIsOffBy = 64;         /* at most: so one odd launch does not spoil the next for long */

class Pace {
 public:
  /* speed: operations a second of the whole device, of which `blocks` run at the same time. */
  Pace(double speed, int blocks) : block_speed_(speed / blocks), blocks_(blocks) {}

  int blocks() const { return blocks_; }

  /* A block's seconds for a head's step, or for a chunk of validation rows. Of a probe's step as if
   * TrainProbes had it, which has half as many blocks at the same time. */
  double of_head(Shape shape, int64_t rows, bool training) const {
    if (training && shape.hidden == 0)
      return 2 * (kSecondsOfProbes + (double)(rows * shape.dim) *
                                         (kOperationsOfProbe + 4.0 * (double)shape.outputs) / block_speed_);
    const double operations = training ? 6.0 * (double)rows + kOperationsOfState : 2.0 * (double)rows;
    return kSecondsOfBarriers + (double)parameter_count(shape) * operations / block_speed_;
  }

  /* A launch's seconds for a step of these heads; of_head(i): a block's. */
  template <class F>
  double of_step(const List& list, F of_head) const {
    double sum = 0, largest = 0;
    for (const int i : list) {
      sum += of_head(i);
      largest = std::max(largest, of_head(i));
    }
    return std::max(sum / blocks_, largest);
  }

  /* The list, in parts that are small enough for a step of each to be a launch. */
  template <class F>
  std::vector<List> parts(const List& list, F of_head) const {
    std::vector<List> parts(1);
    double sum = 0;
    for (const int i : list) {
      if (!parts.back().empty() && !has_room((int)parts.back().size(), sum + of_head(i))) {
        parts.emplace_back();
        sum = 0;
      }
      parts.back().push_back(i);
      sum += of_head(i);
    }
    return parts;
  }

  int64_t steps(double seconds_of_one) const {
    return std::max(INT64_C(1), (int64_t)(kSecondsOfLaunch / (off_by_ * seconds_of_one)));
  }

  void begin() { begun_ = std::chrono::steady_clock::now(); }

  void end(double predicted) {
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun_;
    off_by_ = std::clamp(took.count() / predicted, 1 / kModelIsOffBy, kModelIsOffBy);
  }

 private:
  /* For one more head than `heads`; blocks that have nothing to do gain nothing. */
  bool has_room(int heads, double sum) const {
    return heads < blocks_ || off_by_ * sum / blocks_ <= kSecondsOfLaunch;
  }

  double block_speed_;
  int blocks_;
  double off_by_ = 1;
  std::chrono::steady_clock::time_point begun_;
};

}  // namespace ec
#endif
