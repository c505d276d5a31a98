// Gradient of the tables on the CPU, as unique rows: sorted entries (bag_entries.h), summed row by row.
#include <algorithm>

#include "embedding_bag/bag_entries.h"
#include "embedding_bag/embedding_bag.h"
#include "embedding_bag/rows.h"

namespace merlin {

EmbeddingBagGradient::EmbeddingBagGradient(const BagBatch& batch, Threads& threads)
    : batch_(batch), entries_(std::make_unique<BagEntries>(batch, threads)) {
  const int64_t partitions = entries_->num_partitions();
  std::vector<std::vector<int64_t>> begins(partitions);
  threads.For(partitions, 20 * (entries_->size() / partitions + 1), [&](int64_t begin, int64_t end) {
    std::vector<BagEntries::Entry> buffer;
    for (int64_t p = begin; p < end; ++p) entries_->Sort(p, &buffer, &begins[p]);
  });
  for (const auto& part : begins) runs_.insert(runs_.end(), part.begin(), part.end());
  for (int64_t base : entries_->row_bases()) {
    const auto at = std::lower_bound(runs_.begin(), runs_.end(), base,
                                     [&](int64_t run, int64_t row) { return (*entries_)[run].row < row; });
    table_rows_.push_back(at - runs_.begin());
  }
  runs_.push_back(entries_->size());
}

EmbeddingBagGradient::~EmbeddingBagGradient() = default;

void EmbeddingBagGradient::Write(const std::vector<void*>& ids, const std::vector<void*>& rows,
                                 Threads& threads) const {
  const int table_type = static_cast<int>(batch_.table_dtype);
  const int64_t num_runs = static_cast<int64_t>(runs_.size()) - 1;
  const int64_t cost = num_runs == 0 ? 1 : 50 * (runs_.back() / num_runs + 1);
  threads.For(num_runs, cost, [&](int64_t begin, int64_t end) {
    std::vector<float> sum;
    BagEntries::Scratch scratch;
    int t = static_cast<int>(std::upper_bound(table_rows_.begin(), table_rows_.end(), begin) - table_rows_.begin()) - 1;
    for (int64_t run = begin; run < end; ++run) {
      while (run >= table_rows_[t + 1]) ++t;
      const int64_t dim = batch_.tables[t].dim, place = run - table_rows_[t];
      const int64_t id = (*entries_)[runs_[run]].row - entries_->row_base(t);
      if (batch_.ids_are_int64) {
        static_cast<int64_t*>(ids[t])[place] = id;
      } else {
        static_cast<int32_t*>(ids[t])[place] = static_cast<int32_t>(id);
      }
      sum.resize(dim);
      entries_->SumRun(runs_[run], runs_[run + 1], t, &scratch, sum.data());
      Rows().store[table_type](sum.data(), 1.0f, dim,
                               static_cast<char*>(rows[t]) + place * dim * SizeOf(batch_.table_dtype));
    }
  });
}

}  // namespace merlin
