// Gradient of the tables on the CPU, as unique rows.
//
// Every (row, bag, coefficient) of the batch becomes an entry. Entries are dealt into partitions by ranges of rows,
// each partition is sorted by one worker (least significant digit first, so stable), and runs of one row are found.
// Writing sums a run's gradients in the order of the input. The result does not depend on the number of threads.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "embedding_bag/bag_reader.h"
#include "embedding_bag/embedding_bag.h"
#include "embedding_bag/rows.h"

namespace merlin {
namespace {

constexpr int kPartitionBits = 8;
constexpr int kDigitBits = 8;

int BitsFor(int64_t count) {
  int bits = 0;
  while (bits < 63 && (int64_t{1} << bits) < count) ++bits;
  return bits;
}

// Stable sort of entries[begin, end) by the low `bits` of row, through `scratch` of the same size.
template <typename Entry>
void SortByRow(Entry* entries, Entry* scratch, int64_t count, int bits) {
  if (count < 2) return;
  if (count <= 64) {
    std::stable_sort(entries, entries + count, [](const Entry& a, const Entry& b) { return a.row < b.row; });
    return;
  }
  Entry *from = entries, *to = scratch;
  for (int shift = 0; shift < bits; shift += kDigitBits) {
    int64_t place[1 << kDigitBits] = {};
    const auto digit = [shift](const Entry& entry) { return (entry.row >> shift) & ((1 << kDigitBits) - 1); };
    for (int64_t i = 0; i < count; ++i) ++place[digit(from[i])];
    int64_t total = 0;
    for (int64_t& p : place) total += std::exchange(p, total);
    for (int64_t i = 0; i < count; ++i) to[place[digit(from[i])]++] = from[i];
    std::swap(from, to);
  }
  if (from != entries) std::copy(from, from + count, entries);
}

}  // namespace

EmbeddingBagGradient::EmbeddingBagGradient(const BagBatch& batch, Threads& threads) : batch_(batch) {
  CheckBatch(batch);
  CheckRowSplits(batch);
  row_base_ = {0};
  for (const BagTable& table : batch.tables) row_base_.push_back(row_base_.back() + table.num_rows);
  bag_base_ = {0};
  std::vector<int64_t> id_base{0};
  for (const BagFeature& feature : batch.features) {
    bag_base_.push_back(bag_base_.back() + feature.num_bags);
    id_base.push_back(id_base.back() + feature.num_ids);
  }
  Check(bag_base_.back() < (int64_t{1} << 32),
        "All features together must have fewer than 2^32 bags. Received: ", bag_base_.back());

  // Entries at the places of their ids; padding leaves row -1.
  std::vector<Entry> unsorted(id_base.back(), Entry{-1, 0, 0.0f});
  winners_.resize(batch.features.size());
  for (size_t f = 0; f < batch.features.size(); ++f) {
    const BagFeature& feature = batch.features[f];
    if (feature.combiner == Combiner::kMax) {
      winners_[f].resize(feature.num_bags * batch.tables[feature.table].dim);
    }
  }
  ForEachBag(batch, threads, [&](int f, int64_t begin, int64_t end, FirstError& error) {
    const BagFeature& feature = batch.features[f];
    const BagTable& table = batch.tables[feature.table];
    BagReader reader(batch, f);
    BagReader::Block block;
    std::vector<float> largest(table.dim);
    for (int64_t next = begin; next < end;) {
      next = reader.Read(next, end, &block, error);
      if (error) return;
      for (const BagReader::Bag& bag : block.bags) {
        if (feature.combiner == Combiner::kMax) {
          MaxOfRows(batch, table, block.rows.data() + bag.begin, bag.count, largest.data(),
                    winners_[f].data() + bag.bag * table.dim);
        }
        for (int64_t i = 0; i < bag.count; ++i) {
          Entry& entry = unsorted[id_base[f] + block.positions[bag.begin + i]];
          entry.row = row_base_[feature.table] + block.rows[bag.begin + i];
          entry.bag = static_cast<uint32_t>(bag_base_[f] + bag.bag);
          entry.coef = bag.scale * block.weights[bag.begin + i];
          if (feature.combiner == Combiner::kMax) {
            const int32_t place = static_cast<int32_t>(i);
            std::memcpy(&entry.coef, &place, 4);
          }
        }
      }
    }
  });

  // Deal into partitions: worker w handles one contiguous share of the input, so the order stays that of the input.
  const int row_bits = BitsFor(row_base_.back());
  const int low_bits = std::max(0, row_bits - kPartitionBits);
  const int64_t partitions = (row_base_.back() >> low_bits) + 1;
  const int64_t shares = std::max(1, threads.count());
  const int64_t total = static_cast<int64_t>(unsorted.size());
  std::vector<int64_t> place(shares * partitions);
  const auto share_begin = [&](int64_t share) { return total * share / shares; };
  threads.For(shares, total / shares + 1, [&](int64_t begin, int64_t end) {
    for (int64_t share = begin; share < end; ++share) {
      for (int64_t i = share_begin(share); i < share_begin(share + 1); ++i) {
        if (unsorted[i].row >= 0) ++place[share * partitions + (unsorted[i].row >> low_bits)];
      }
    }
  });
  std::vector<int64_t> partition_begin{0};
  int64_t filled = 0;
  for (int64_t p = 0; p < partitions; ++p) {
    for (int64_t share = 0; share < shares; ++share) filled += std::exchange(place[share * partitions + p], filled);
    partition_begin.push_back(filled);
  }
  entries_.resize(filled);
  threads.For(shares, 4 * (total / shares + 1), [&](int64_t begin, int64_t end) {
    for (int64_t share = begin; share < end; ++share) {
      for (int64_t i = share_begin(share); i < share_begin(share + 1); ++i) {
        if (unsorted[i].row < 0) continue;
        entries_[place[share * partitions + (unsorted[i].row >> low_bits)]++] = unsorted[i];
      }
    }
  });

  // Sort each partition, note where runs begin.
  std::vector<std::vector<int64_t>> begins(partitions);
  threads.For(partitions, 20 * (filled / partitions + 1), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t first = partition_begin[p], last = partition_begin[p + 1];
      SortByRow(entries_.data() + first, unsorted.data() + first, last - first, low_bits);
      for (int64_t i = first; i < last; ++i) {
        if (i == first || entries_[i].row != entries_[i - 1].row) begins[p].push_back(i);
      }
    }
  });
  for (const auto& part : begins) runs_.insert(runs_.end(), part.begin(), part.end());
  for (int64_t base : row_base_) {
    const auto at = std::lower_bound(runs_.begin(), runs_.end(), base,
                                     [&](int64_t run, int64_t row) { return entries_[run].row < row; });
    table_rows_.push_back(at - runs_.begin());
  }
  runs_.push_back(filled);
}

void EmbeddingBagGradient::Write(const std::vector<void*>& ids, const std::vector<void*>& rows,
                                 Threads& threads) const {
  const int grad_type = static_cast<int>(batch_.output_dtype), table_type = static_cast<int>(batch_.table_dtype);
  const RowKernels& kernels = Rows();
  const int64_t num_runs = static_cast<int64_t>(runs_.size()) - 1;
  const int64_t cost = num_runs == 0 ? 1 : 50 * (runs_.back() / num_runs + 1);
  threads.For(num_runs, cost, [&](int64_t begin, int64_t end) {
    std::vector<float> sum, grad;
    std::vector<int64_t> bags;
    std::vector<float> coefs;
    int t = static_cast<int>(std::upper_bound(table_rows_.begin(), table_rows_.end(), begin) - table_rows_.begin()) - 1;
    for (int64_t run = begin; run < end; ++run) {
      while (run >= table_rows_[t + 1]) ++t;
      const int64_t dim = batch_.tables[t].dim, place = run - table_rows_[t];
      const int64_t id = entries_[runs_[run]].row - row_base_[t];
      if (batch_.ids_are_int64) {
        static_cast<int64_t*>(ids[t])[place] = id;
      } else {
        static_cast<int32_t*>(ids[t])[place] = static_cast<int32_t>(id);
      }
      sum.assign(dim, 0.0f);
      // Entries of one feature stand together: the input's order is by feature.
      for (int64_t first = runs_[run]; first < runs_[run + 1];) {
        const auto above = std::upper_bound(bag_base_.begin(), bag_base_.end(), int64_t{entries_[first].bag});
        const int f = static_cast<int>(above - bag_base_.begin()) - 1;
        const BagFeature& feature = batch_.features[f];
        bags.clear();
        coefs.clear();
        int64_t i = first;
        for (; i < runs_[run + 1] && entries_[i].bag < bag_base_[f + 1]; ++i) {
          bags.push_back(entries_[i].bag - bag_base_[f]);
          coefs.push_back(entries_[i].coef);
        }
        if (feature.combiner != Combiner::kMax) {
          kernels.accumulate[grad_type](feature.grad, feature.output_stride, dim, bags.data(), coefs.data(), i - first,
                                        i - first, sum.data());
        } else {
          grad.resize(dim);
          for (int64_t k = 0; k < i - first; ++k) {
            int32_t own;
            std::memcpy(&own, &coefs[k], 4);
            const int64_t offset = bags[k] * feature.output_stride * SizeOf(batch_.output_dtype);
            kernels.load[grad_type](static_cast<const char*>(feature.grad) + offset, dim, grad.data());
            const int32_t* winner = winners_[f].data() + bags[k] * dim;
            for (int64_t d = 0; d < dim; ++d) sum[d] += winner[d] == own ? grad[d] : 0.0f;
          }
        }
        first = i;
      }
      kernels.store[table_type](sum.data(), 1.0f, dim,
                                static_cast<char*>(rows[t]) + place * dim * SizeOf(batch_.table_dtype));
    }
  });
}

}  // namespace merlin
