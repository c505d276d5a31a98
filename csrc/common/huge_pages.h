// Large tables on huge pages: a processor keeps the places of few small ones, and looks up nearly every row's anew.
#pragma once

#include <chrono>
#include <cstdint>

namespace merlin {

// What one call of an op does for its tables.
class HugePages {
 public:
  // Moves memory that is written already to huge pages, once for each `begin` and `bytes`: where it is larger than what
  // a processor keeps the pages of, the system has huge pages, and it has not been told never to use them. Contents
  // stay, and others may read and write them meanwhile. All tables of a call together take three seconds at most,
  // enough for about 1 GB on a virtual machine: later calls go on.
  void Put(const void* begin, int64_t bytes);

 private:
  std::chrono::steady_clock::duration spent_{};
};

}  // namespace merlin
