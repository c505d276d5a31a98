// Threads under sanitizers: all units are done once, also of a call after one whose body threw, which the caller gets;
// callers side by side, more than there are threads for, lose none of them; and all threads of a call round alike.
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <set>
#include <stdexcept>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include "common/parallel.h"
#include "exercise.h"

namespace merlin {
namespace {

void Spin(int turns) {
  for (volatile int spin = 0; spin < turns;) spin = spin + 1;
}

void Throw() {
  StdThreads threads(4);
  for (int round = 0; round < 200; ++round) {
    bool caught = false;
    try {
      threads.For(1000, 1'000'000, [&](int64_t, int64_t end) {
        Spin(10'000);  // so that others come
        if (end > 100) throw std::runtime_error("of a body");
      });
    } catch (const std::runtime_error&) {
      caught = true;
    }
    std::atomic<int64_t> done{0};
    threads.For(1000, 1'000'000, [&](int64_t begin, int64_t end) { done += end - begin; });
    REQUIRE(caught && done == 1000);
  }
}

// How many threads take part in a call of as many units, each of which waits for all to come.
size_t ThreadsOf(int count) {
  std::set<std::thread::id> seen;
  std::mutex mutex;
  StdThreads threads(count);
  std::condition_variable come;
  threads.For(count, 1'000'000, [&](int64_t, int64_t) {
    std::unique_lock<std::mutex> lock(mutex);
    seen.insert(std::this_thread::get_id());
    come.notify_all();
    come.wait_for(lock, std::chrono::seconds(5), [&] { return seen.size() == static_cast<size_t>(count); });
  });
  return seen.size();
}

// Each finds threads that are done elsewhere, just as it begins.
void CallSideBySide() {
  constexpr int kThreads = 8;
  REQUIRE(ThreadsOf(kThreads) == kThreads);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(3);
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&, caller] {
      StdThreads threads(kThreads);
      for (int call = caller; std::chrono::steady_clock::now() < end; ++call) {
        const int units = 2 + call % 7;
        std::atomic<int64_t> done{0};
        threads.For(units, 60'000, [&](int64_t first, int64_t last) {
          Spin(300);
          done += last - first;
        });
        REQUIRE(done == units);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  REQUIRE(ThreadsOf(kThreads) == kThreads);
}

#if defined(__x86_64__)
// TensorFlow's threads take subnormal numbers for zeros and Python's do not: in a call all do as its caller does.
void KeepSubnormals() {
  constexpr unsigned int kFlushed = 0x8040;  // subnormal results and operands
  for (const unsigned int mode : {0u, kFlushed, 0u}) {
    const unsigned int before = _mm_getcsr();
    _mm_setcsr((before & ~kFlushed) | mode);
    std::atomic<int> others{0};
    StdThreads threads(4);
    for (int call = 0; call < 50; ++call) {
      threads.For(64, 1'000'000, [&](int64_t, int64_t) {
        Spin(10'000);
        if ((_mm_getcsr() & kFlushed) != mode) ++others;
      });
    }
    _mm_setcsr(before);
    REQUIRE(others == 0);
  }
}
#endif

}  // namespace
}  // namespace merlin

int main() {
  merlin::Throw();
  merlin::CallSideBySide();
#if defined(__x86_64__)
  merlin::KeepSubnormals();
#endif
  std::puts("exercised");
}
