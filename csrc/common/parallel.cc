#include "common/parallel.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <system_error>
#include <thread>
#include <vector>

namespace merlin {
namespace {

// A thread that starts on another processor than the caller's, which is busy with its own share of the work: the kernel
// may queue a new thread behind the caller for milliseconds, on virtual machines whenever the other processors have
// slept for a while. Once it runs it may move to wherever the caller may.
class OtherThread {
 public:
  explicit OtherThread(const std::function<void()>& work) : work_(work) {
    pthread_attr_t attributes;
    Check(pthread_attr_init(&attributes));
    CPU_ZERO(&allowed_);
    const int here = sched_getcpu();
    if (sched_getaffinity(0, sizeof(allowed_), &allowed_) == 0 && here >= 0) {
      cpu_set_t others = allowed_;
      CPU_CLR(here, &others);
      restricted_ = CPU_COUNT(&others) > 0;
      if (restricted_) Check(pthread_attr_setaffinity_np(&attributes, sizeof(others), &others));
    }
    const int failed = pthread_create(&thread_, &attributes, &OtherThread::Run, this);
    pthread_attr_destroy(&attributes);
    Check(failed);
  }
  OtherThread(const OtherThread&) = delete;
  OtherThread& operator=(const OtherThread&) = delete;
  ~OtherThread() { pthread_join(thread_, nullptr); }

 private:
  static void Check(int error) {
    if (error) throw std::system_error(error, std::generic_category(), "A worker thread cannot be started");
  }
  static void* Run(void* self_ptr) {
    OtherThread& self = *static_cast<OtherThread*>(self_ptr);
    if (self.restricted_) sched_setaffinity(0, sizeof(self.allowed_), &self.allowed_);
    self.work_();
    return nullptr;
  }

  const std::function<void()>& work_;
  cpu_set_t allowed_;
  bool restricted_ = false;
  pthread_t thread_;
};

}  // namespace

StdThreads::StdThreads(int count)
    : count_(count > 0 ? count : std::max(1, static_cast<int>(std::thread::hardware_concurrency()))) {}

void StdThreads::For(int64_t total, int64_t cost, const std::function<void(int64_t, int64_t)>& body) {
  if (total <= 0) return;
  constexpr int64_t kWorthAThread = 50'000;  // nanoseconds: starting a thread takes about 20 microseconds
  constexpr int64_t kStepsAWorker = 32;      // so that none is left with much when the others are done
  const int64_t useful = std::max<int64_t>(1, total * std::max<int64_t>(1, cost) / kWorthAThread);
  const int workers = static_cast<int>(std::min<int64_t>({count_, useful, total}));
  if (workers == 1) return body(0, total);

  const int64_t step = std::max<int64_t>(1, total / (int64_t{workers} * kStepsAWorker));
  std::atomic<int64_t> next{0};
  const std::function<void()> work = [&] {
    for (int64_t begin; (begin = next.fetch_add(step)) < total;) body(begin, std::min(total, begin + step));
  };
  std::vector<std::unique_ptr<OtherThread>> threads;  // joined where it ends
  for (int i = 1; i < workers; ++i) threads.push_back(std::make_unique<OtherThread>(work));
  work();
}

}  // namespace merlin
