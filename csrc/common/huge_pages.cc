#include "common/huge_pages.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <mutex>
#include <string>

namespace merlin {
namespace {

constexpr int64_t kWorthIt = int64_t{8} << 20;  // second TLBs have 1,536 to 3,072 entries of 4 KB
constexpr uintptr_t kHugePage = uintptr_t{1} << 21, kPiece = 8 * kHugePage;
constexpr std::chrono::seconds kTimeOfACall(3);

// Linux 6.1's, which the headers that this is built with may not name yet.
constexpr int kCollapse = 25;

bool Allowed() {
  const char* wanted = std::getenv("MERLIN_MODELS_HUGE_PAGES");
  if (wanted && std::string(wanted) == "0") return false;
  std::string setting;
  std::ifstream file("/sys/kernel/mm/transparent_hugepage/enabled");
  std::getline(file, setting);
  return !setting.empty() && setting.find("[never]") == std::string::npos;
}

// What is known of the memory at one place.
struct Progress {
  int64_t bytes = 0;
  uintptr_t next = 0, end = 0;  // the huge pages to come
};

// The next few huge pages within this memory, as [*first, *end); false where there are none left.
bool NextPiece(const void* begin, int64_t bytes, uintptr_t* first, uintptr_t* end) {
  static std::mutex mutex;
  static auto& known = *new std::map<const void*, Progress>;
  std::lock_guard<std::mutex> lock(mutex);
  Progress& progress = known[begin];
  if (progress.bytes != bytes) {
    const uintptr_t start = reinterpret_cast<uintptr_t>(begin);
    progress = {bytes, (start + kHugePage - 1) & ~(kHugePage - 1), (start + bytes) & ~(kHugePage - 1)};
  }
  *first = progress.next;
  *end = progress.next = std::min(progress.end, progress.next + kPiece);
  return *first < *end;
}

}  // namespace

void HugePages::Put(const void* begin, int64_t bytes) {
  if (bytes < kWorthIt) return;
  static const bool allowed = Allowed();
  uintptr_t first, end;
  while (allowed && spent_ < kTimeOfACall && NextPiece(begin, bytes, &first, &end)) {
    const auto start = std::chrono::steady_clock::now();
    // Advice: where the system cannot follow it, all is as before, or the system does it later, bit by bit.
    madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
    madvise(reinterpret_cast<void*>(first), end - first, kCollapse);
    spent_ += std::chrono::steady_clock::now() - start;
  }
}

}  // namespace merlin
