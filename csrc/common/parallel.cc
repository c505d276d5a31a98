#include "common/parallel.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace merlin {
namespace {

class Helper;

// How a thread rounds, and whether it takes subnormal numbers for zeros: TensorFlow's threads do, Python's do not, and
// a new thread begins with what its maker has. Helpers take their caller's for its units.
#if defined(__x86_64__)
using FloatMode = unsigned int;
FloatMode CurrentFloatMode() { return _mm_getcsr(); }
void SetFloatMode(FloatMode mode) { _mm_setcsr(mode); }
#else
struct FloatMode {};
FloatMode CurrentFloatMode() { return {}; }
void SetFloatMode(FloatMode) {}
#endif

// The units of one call, shared by its caller and by helpers. A helper that comes late finds none left: nobody waits
// for it, and it never touches the body, which lives no longer than the call.
class Work : public std::enable_shared_from_this<Work> {
 public:
  Work(int64_t total, int64_t step, const std::function<void(int64_t, int64_t)>& body)
      : total_(total), step_(step), body_(body), left_(total) {
    CPU_ZERO(&allowed_);
    if (sched_getaffinity(0, sizeof(allowed_), &allowed_) != 0) CPU_ZERO(&allowed_);
  }

  // Where helpers may run: where the caller may.
  const cpu_set_t& allowed() const { return allowed_; }

  // What the caller does, with as many helpers as there are up to `count`. Returns when all units are done, and throws
  // what one of them threw.
  void Run(int count, int limit);

  // What a helper does: calculates as the caller does, wakes some others, and takes units until none is left.
  void Help();

 private:
  void TakePart();
  void Wake();
  void AwaitOthers();

  const int64_t total_, step_;
  const std::function<void(int64_t, int64_t)>& body_;
  std::atomic<int64_t> next_{0}, left_;
  std::vector<Helper*> helpers_;
  std::atomic<size_t> to_wake_{0};
  cpu_set_t allowed_;
  const FloatMode float_mode_ = CurrentFloatMode();
  std::mutex mutex_;
  std::condition_variable done_;
  std::exception_ptr failed_;
};

// Whether `done` becomes true within a time so short that sleeping and being woken would take longer.
template <typename Done>
bool SoonDone(std::chrono::microseconds time, Done&& done) {
  const auto end = std::chrono::steady_clock::now() + time;
  while (!done()) {
    if (std::chrono::steady_clock::now() >= end) return false;
  }
  return true;
}

// A thread that waits until it is given work, asleep after a while. Lives as long as the process.
class Helper {
 public:
  Helper() {
    const int failed = pthread_create(&thread_, nullptr, &Helper::Loop, this);
    if (failed) throw std::system_error(failed, std::generic_category(), "A worker thread cannot be started");
    pthread_detach(thread_);
  }
  Helper(const Helper&) = delete;
  Helper& operator=(const Helper&) = delete;

  // Wakes it, if it sleeps, on another processor than this one, which is busy with its own share: the kernel would
  // queue it behind that for milliseconds, on virtual machines whenever the other processors have slept for a while.
  // Once it runs it may move to wherever the caller may.
  void Give(std::shared_ptr<Work> work) {
    cpu_set_t others = work->allowed();
    const int here = sched_getcpu();
    if (here >= 0 && here < CPU_SETSIZE) CPU_CLR(here, &others);
    std::lock_guard<std::mutex> lock(mutex_);
    work_ = std::move(work);
    has_work_.store(true);
    if (!asleep_) return;
    if (CPU_COUNT(&others) > 0) pthread_setaffinity_np(thread_, sizeof(others), &others);
    given_.notify_one();
  }

  // Whether it had not begun with this work, and now never will.
  bool TakeBack(const Work* work) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (work_.get() != work) return false;
    work_.reset();
    has_work_.store(false);
    return true;
  }

 private:
  static void* Loop(void* self_ptr);
  std::shared_ptr<Work> Next();

  std::mutex mutex_;
  std::condition_variable given_;
  std::shared_ptr<Work> work_;
  std::atomic<bool> has_work_{false};
  bool asleep_ = false;
  pthread_t thread_;
};

// The helpers of this process, as many as were ever busy at a time.
class Helpers {
 public:
  // Never destroyed, since its threads may outlive whatever else ends with the process.
  static Helpers& OfProcess() { return *Current(); }

  // `count` of those that sleep, and new ones where there are fewer; fewer where more than `limit` would be busy, and
  // then others come when they are done elsewhere, until Close. They may come before this returns, and read `taken`,
  // which is therefore filled before the work is open.
  void Take(int count, int limit, const std::shared_ptr<Work>& work, std::vector<Helper*>* taken) {
    std::lock_guard<std::mutex> lock(mutex_);
    const size_t wanted = static_cast<size_t>(std::max(0, std::min(count, limit - busy_)));
    while (asleep_.size() < wanted) {
      asleep_.reserve(asleep_.size() + 1);  // so that what is made is kept
      asleep_.push_back(new Helper);
    }
    taken->assign(asleep_.end() - static_cast<ptrdiff_t>(wanted), asleep_.end());
    if (static_cast<int>(wanted) < count) open_.push_back({work, count - static_cast<int>(wanted)});
    asleep_.resize(asleep_.size() - wanted);
    busy_ += static_cast<int>(wanted);
  }

  // What a helper that is done may go on with; null where it may sleep.
  std::shared_ptr<Work> Return(Helper* helper) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (open_.empty()) {
      asleep_.push_back(helper);
      --busy_;
      return nullptr;
    }
    const std::shared_ptr<Work> work = open_.front().work;
    if (--open_.front().missing == 0) open_.erase(open_.begin());
    return work;
  }

  void Close(const Work* work) {
    std::lock_guard<std::mutex> lock(mutex_);
    open_.erase(std::remove_if(open_.begin(), open_.end(), [&](const Open& one) { return one.work.get() == work; }),
                open_.end());
  }

 private:
  // Work that has fewer helpers than it could use.
  struct Open {
    std::shared_ptr<Work> work;
    int missing;
  };

  // A child of fork() has none of its parent's threads, and starts anew.
  static Helpers*& Current() {
    static Helpers* current = [] {
      pthread_atfork(nullptr, nullptr, [] { Current() = new Helpers; });
      return new Helpers;
    }();
    return current;
  }

  std::mutex mutex_;
  std::vector<Helper*> asleep_;
  std::vector<Open> open_;
  int busy_ = 0;
};

// Ops have several parts, and models several ops in a row: the next is often there at once.
std::shared_ptr<Work> Helper::Next() {
  SoonDone(std::chrono::microseconds(50), [this] { return has_work_.load(); });
  std::unique_lock<std::mutex> lock(mutex_);
  asleep_ = true;
  given_.wait(lock, [this] { return work_ != nullptr; });
  asleep_ = false;
  has_work_.store(false);
  return std::move(work_);
}

void* Helper::Loop(void* self_ptr) {
  Helper& self = *static_cast<Helper*>(self_ptr);
  for (;;) {
    std::shared_ptr<Work> work = self.Next();
    if (CPU_COUNT(&work->allowed()) > 0) sched_setaffinity(0, sizeof(cpu_set_t), &work->allowed());
    while (work) {
      work->Help();
      work = Helpers::OfProcess().Return(&self);
    }
  }
}

void Work::Run(int count, int limit) {
  Helpers& all = Helpers::OfProcess();
  all.Take(count, limit, shared_from_this(), &helpers_);
  TakePart();
  all.Close(this);
  AwaitOthers();
  const size_t woken = to_wake_.exchange(helpers_.size());
  for (size_t i = 0; i < helpers_.size(); ++i) {
    // One that somebody wakes just now, or that has begun, returns by itself.
    if (i < woken && !helpers_[i]->TakeBack(this)) continue;
    if (std::shared_ptr<Work> other = all.Return(helpers_[i])) helpers_[i]->Give(std::move(other));
  }
  if (failed_) std::rethrow_exception(failed_);
}

void Work::Help() {
  const FloatMode own = CurrentFloatMode();
  SetFloatMode(float_mode_);
  TakePart();
  SetFloatMode(own);
}

void Work::TakePart() {
  Wake();
  for (int64_t begin; (begin = next_.fetch_add(step_)) < total_;) {
    const int64_t end = std::min(total_, begin + step_);
    try {
      body_(begin, end);
    } catch (...) {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!failed_) failed_ = std::current_exception();
    }
    if (left_.fetch_sub(end - begin) != end - begin) continue;
    std::lock_guard<std::mutex> lock(mutex_);
    done_.notify_one();
  }
}

// Each wakes a few, who wake others: waking takes as much as 50 microseconds on a virtual machine, where the processor
// sleeps too.
void Work::Wake() {
  constexpr int kWakesEach = 4;
  for (int i = 0; i < kWakesEach && next_.load() < total_; ++i) {
    const size_t one = to_wake_.fetch_add(1);
    if (one >= helpers_.size()) return;
    helpers_[one]->Give(shared_from_this());
  }
}

// Others are in their last unit.
void Work::AwaitOthers() {
  if (SoonDone(std::chrono::microseconds(20), [this] { return left_.load() == 0; })) return;
  std::unique_lock<std::mutex> lock(mutex_);
  done_.wait(lock, [this] { return left_.load() == 0; });
}

int Processors() {
  static const int count = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));  // it reads a file
  return count;
}

}  // namespace

StdThreads::StdThreads(int count) : count_(count > 0 ? count : Processors()) {}

void StdThreads::For(int64_t total, int64_t cost, const std::function<void(int64_t, int64_t)>& body) {
  if (total <= 0) return;
  constexpr int64_t kWorthAThread = 50'000;  // nanoseconds: what waking one takes
  constexpr int64_t kStepsAWorker = 32;      // so that none is left with much when the others are done
  const int64_t useful = std::max<int64_t>(1, total * std::max<int64_t>(1, cost) / kWorthAThread);
  const int workers = static_cast<int>(std::min<int64_t>({count_, useful, total}));
  if (workers == 1) return body(0, total);

  const int64_t step = std::max<int64_t>(1, total / (int64_t{workers} * kStepsAWorker));
  const auto work = std::make_shared<Work>(total, step, body);
  work->Run(workers - 1, std::max(count_, Processors()) - 1);
}

}  // namespace merlin
