// How CPU kernels ask for threads: the boundary passes TensorFlow's pool or ours.
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

// Plain std::thread workers, started for each call. 0 means one for each hardware thread.
class StdThreads : public Threads {
 public:
  explicit StdThreads(int count = 0);
  int count() const override { return count_; }
  void For(int64_t total, int64_t cost, const std::function<void(int64_t, int64_t)>& body) override;

 private:
  int count_;
};

}  // namespace merlin
