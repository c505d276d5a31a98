// Work in stages that depend on each other, without a barrier between them.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

#include "common/parallel.h"

namespace merlin {

// Threads take units in the order of their stages, and wait only for those stages that theirs needs. These come
// earlier, so that a thread has taken each of their units: some thread can always go on, however few there are.
class Stages {
 public:
  // A stage of `units` units, none of which begins before all stages in `after`, added earlier, are done. Returns its
  // number.
  int64_t Add(int64_t units, std::vector<int64_t> after, std::function<void(int64_t)> body) {
    stages_.push_back({units, units, std::move(after), std::move(body)});
    return static_cast<int64_t>(stages_.size()) - 1;
  }

  // Runs all of them, once; `cost` is the work of all in nanoseconds. Bodies must not throw.
  void Run(int64_t cost, Threads& threads) {
    const int64_t workers = std::max(1, threads.count());
    threads.For(workers, cost / workers, [this](int64_t, int64_t) { Work(); });
  }

 private:
  struct Stage {
    int64_t to_take, to_finish;
    std::vector<int64_t> after;
    std::function<void(int64_t)> body;
  };

  void Work() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      while (current_ < stages_.size() && stages_[current_].to_take == 0) ++current_;
      if (current_ == stages_.size()) return;
      Stage& stage = stages_[current_];
      const int64_t unit = --stage.to_take;
      finished_.wait(lock, [&] {
        return std::all_of(stage.after.begin(), stage.after.end(),
                           [this](int64_t earlier) { return stages_[earlier].to_finish == 0; });
      });
      lock.unlock();
      stage.body(unit);
      lock.lock();
      if (--stage.to_finish == 0) finished_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable finished_;
  std::vector<Stage> stages_;
  size_t current_ = 0;
};

}  // namespace merlin
