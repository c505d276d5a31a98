// Threads under sanitizers: all units are done once, also of a call after one whose body threw, which the caller gets.
#include <atomic>
#include <cstdio>
#include <stdexcept>

#include "common/parallel.h"

int main() {
  merlin::StdThreads threads(4);
  for (int round = 0; round < 200; ++round) {
    bool caught = false;
    try {
      threads.For(1000, 1'000'000, [&](int64_t begin, int64_t end) {
        for (volatile int spin = 0; spin < 10'000;) spin = spin + 1;  // so that others come
        if (end > 100) throw std::runtime_error("of a body");
      });
    } catch (const std::runtime_error&) {
      caught = true;
    }
    std::atomic<int64_t> done{0};
    threads.For(1000, 1'000'000, [&](int64_t begin, int64_t end) { done += end - begin; });
    if (!caught || done != 1000) {
      std::fprintf(stderr, "round %d: caught %d, done %d\n", round, caught, static_cast<int>(done));
      return 1;
    }
  }
}
