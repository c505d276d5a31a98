// Reads rows of a float32 table at given ids and adds them up: what the memory allows, with nothing written.
//
// Each thread owns a contiguous slice of the ids and one sum of `dim` floats. Rows are fetched `kAhead` ids early.
#include <cstdint>
#include <thread>
#include <vector>

namespace {

constexpr int64_t kAhead = 12;
constexpr int64_t kFloatsPerLine = 16;

void SumRows(const float* table, int64_t dim, const int64_t* ids, int64_t begin, int64_t end, float* sum) {
  for (int64_t i = begin; i < end; ++i) {
    if (i + kAhead < end) {
      const float* later = table + ids[i + kAhead] * dim;
      for (int64_t d = 0; d < dim; d += kFloatsPerLine) __builtin_prefetch(later + d, 0, 3);
    }
    const float* row = table + ids[i] * dim;
    for (int64_t d = 0; d < dim; ++d) sum[d] += row[d];
  }
}

}  // namespace

// Writes the sum of all rows to `sum`: [dim].
extern "C" void gather_floor(const float* table, int64_t dim, const int64_t* ids, int64_t num_ids, int num_threads,
                             float* sum) {
  std::vector<std::vector<float>> parts(num_threads, std::vector<float>(dim));
  std::vector<std::thread> threads;
  for (int t = 0; t < num_threads; ++t) {
    const int64_t begin = num_ids * t / num_threads, end = num_ids * (t + 1) / num_threads;
    threads.emplace_back(SumRows, table, dim, ids, begin, end, parts[t].data());
  }
  for (auto& thread : threads) thread.join();
  for (int64_t d = 0; d < dim; ++d) {
    sum[d] = 0;
    for (const auto& part : parts) sum[d] += part[d];
  }
}
