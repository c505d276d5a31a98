#include "common/parallel.h"

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

namespace merlin {

StdThreads::StdThreads(int count)
    : count_(count > 0 ? count : std::max(1, static_cast<int>(std::thread::hardware_concurrency()))) {}

void StdThreads::For(int64_t total, int64_t cost, const std::function<void(int64_t, int64_t)>& body) {
  if (total <= 0) return;
  constexpr int64_t kWorthAThread = 50'000;  // nanoseconds: starting a thread takes about 20 microseconds
  const int64_t useful = std::max<int64_t>(1, total * std::max<int64_t>(1, cost) / kWorthAThread);
  const int workers = static_cast<int>(std::min<int64_t>({count_, useful, total}));
  if (workers == 1) return body(0, total);

  const int64_t step = std::max<int64_t>(1, total / (int64_t{workers} * 8));
  std::atomic<int64_t> next{0};
  auto work = [&] {
    for (int64_t begin; (begin = next.fetch_add(step)) < total;) body(begin, std::min(total, begin + step));
  };
  std::vector<std::thread> threads;
  for (int i = 1; i < workers; ++i) threads.emplace_back(work);
  work();
  for (auto& thread : threads) thread.join();
}

}  // namespace merlin
