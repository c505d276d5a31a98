// How CPU kernels ask for threads.
#pragma once

#include <cstdint>
#include <functional>

namespace merlin {

// Splits [0, total) into ranges that together cover it once, and calls `body(begin, end)` for each, in parallel.
// `cost` is the work of one unit in nanoseconds. Returns when all ranges are done. Bodies must not throw.
class Threads {
 public:
  virtual ~Threads() = default;
  virtual int count() const = 0;
  virtual void For(int64_t total, int64_t cost, const std::function<void(int64_t, int64_t)>& body) = 0;
};

// The caller and threads of ours, which sleep between calls: up to `count` together, 0 means one for each hardware
// thread. Callers at the same time share as many of our threads as the machine has processors: who finds none works
// alone.
class StdThreads : public Threads {
 public:
  explicit StdThreads(int count = 0);
  int count() const override { return count_; }
  void For(int64_t total, int64_t cost, const std::function<void(int64_t, int64_t)>& body) override;

 private:
  int count_;
};

}  // namespace merlin
