#include "embedding_bag/bag_entries.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "embedding_bag/rows.h"

namespace merlin {
namespace {

constexpr int kPartitionBits = 8;
constexpr int kDigitBits = 8;
constexpr int64_t kSharesAThread = 16;  // so many that one with long bags is not what the others wait for

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

BagEntries::BagEntries(const BagBatch& given, Threads& threads) : batch_(given) {
  const BagBatch& batch = batch_;
  CheckBatch(batch);
  KeepRowSplits();
  CheckRowSplits(batch);
  row_base_ = {0};
  for (const BagTable& table : batch.tables) row_base_.push_back(row_base_.back() + table.num_rows);
  bag_base_ = {0};
  for (const BagFeature& feature : batch.features) bag_base_.push_back(bag_base_.back() + feature.num_bags);
  Check(bag_base_.back() < (int64_t{1} << 32),
        "All features together must have fewer than 2^32 bags. Received: ", bag_base_.back());

  only_feature_.assign(batch.tables.size(), -1);
  std::vector<int> readers(batch.tables.size());
  for (size_t f = 0; f < batch.features.size(); ++f) {
    const int t = batch.features[f].table;
    only_feature_[t] = readers[t]++ == 0 ? static_cast<int>(f) : -1;
  }

  winners_.resize(batch.features.size());
  int64_t ids = 0;
  for (size_t f = 0; f < batch.features.size(); ++f) {
    const BagFeature& feature = batch.features[f];
    ids += feature.num_ids;
    if (feature.combiner == Combiner::kMax) {
      winners_[f].resize(feature.num_bags * batch.tables[feature.table].dim);
    }
  }

  // The bags are split into shares. Each share's entries are counted by partition, and dealt behind those of the shares
  // before it: the order within a partition is that of the input.
  const int row_bits = BitsFor(row_base_.back());
  low_bits_ = std::max(0, row_bits - kPartitionBits);
  const int64_t partitions = (row_base_.back() >> low_bits_) + 1, bags = bag_base_.back();
  const int64_t shares = std::max<int64_t>(1, std::min<int64_t>(bags, kSharesAThread * threads.count()));
  std::vector<int64_t> left(shares * partitions), counted(shares);  // to be dealt, by share and partition
  FirstError error;
  const auto for_shares = [&](int64_t nanoseconds_an_id, const auto& body) {
    threads.For(shares, nanoseconds_an_id * (ids / shares + 1), [&](int64_t begin, int64_t end) {
      for (int64_t share = begin; share < end; ++share) {
        body(bags * share / shares, bags * (share + 1) / shares, share);
      }
    });
    error.ThrowIfSet();
  };
  for_shares(2, [&](int64_t begin, int64_t end, int64_t share) {
    counted[share] = Count(begin, end, left.data() + share * partitions, error);
  });
  partition_begin_ = {0};
  int64_t filled = 0;
  std::unique_ptr<int64_t[]> place_end(new int64_t[shares * partitions]);
  for (int64_t p = 0; p < partitions; ++p) {
    for (int64_t share = 0; share < shares; ++share) {
      place_end[share * partitions + p] = filled += left[share * partitions + p];
    }
    partition_begin_.push_back(filled);
  }
  entries_.reset(new Entry[filled]);
  for_shares(4, [&](int64_t begin, int64_t end, int64_t share) {
    const int64_t first = share * partitions;
    const int64_t dealt = Deal(begin, end, left.data() + first, place_end.get() + first, error);
    if (dealt != counted[share] && !error) SetChanged(error);
  });
}

void BagEntries::KeepRowSplits() {
  int64_t size = 0;
  for (const BagFeature& feature : batch_.features) size += feature.row_splits ? feature.num_bags + 1 : 0;
  row_splits_.reset(new int64_t[size]);
  int64_t* next = row_splits_.get();
  for (BagFeature& feature : batch_.features) {
    if (feature.row_splits) next = std::copy_n(std::exchange(feature.row_splits, next), feature.num_bags + 1, next);
  }
}

void BagEntries::SetChanged(FirstError& error) {
  error.Set("Ids must stay as they are until the call returns. Received: ids that changed while they were read");
}

int64_t BagEntries::Count(int64_t begin, int64_t end, int64_t* counts, FirstError& error) const {
  BagReader::Block block;
  int64_t total = 0;
  ForBags(bag_base_, begin, end, [&](int f, int64_t first, int64_t last) {
    const BagReader reader(batch_, f);
    const int64_t base = row_base_[batch_.features[f].table];
    for (int64_t next = first; next < last && !error;) {
      next = reader.Read(next, last, &block, error);
      if (error) return;
      for (const int64_t row : block.rows) ++counts[(base + row) >> low_bits_];
      total += static_cast<int64_t>(block.rows.size());
    }
  });
  return total;
}

int64_t BagEntries::Deal(int64_t begin, int64_t end, int64_t* left, const int64_t* place_ends, FirstError& error) {
  int64_t total = 0;
  BagReader::Block block;
  std::vector<float> largest;
  ForBags(bag_base_, begin, end, [&](int f, int64_t first, int64_t last) {
    const BagFeature& feature = batch_.features[f];
    const BagTable& table = batch_.tables[feature.table];
    const int64_t base = row_base_[feature.table];
    const BagReader reader(batch_, f);
    const bool is_max = feature.combiner == Combiner::kMax;
    const auto first_bag = static_cast<uint32_t>(bag_base_[f]);
    // Copies, for an entry that is written could be any of them for all that the compiler knows.
    Entry* const entries = entries_.get();
    int64_t* const left_in = left;
    const int64_t* const end_of = place_ends;
    const int low_bits = low_bits_;
    largest.resize(table.dim);
    for (int64_t next = first; next < last && !error;) {
      next = reader.Read(next, last, &block, error);
      if (error) return;
      const float* const weights = block.weights;
      for (const BagReader::Bag& bag : block.bags) {
        const int64_t* const rows = block.rows.data() + bag.begin;
        const uint32_t own_bag = first_bag + static_cast<uint32_t>(bag.bag);
        const int64_t count = bag.count, begin_of_bag = bag.begin;
        const float scale = bag.scale;
        if (is_max) MaxOfRows(batch_, table, rows, count, largest.data(), winners_[f].data() + bag.bag * table.dim);
        for (int64_t i = 0; i < count; ++i) {
          const int64_t row = base + rows[i], partition = row >> low_bits, missing = left_in[partition];
          if (missing == 0) return SetChanged(error);
          left_in[partition] = missing - 1;
          Entry entry{row, own_bag, weights ? scale * weights[begin_of_bag + i] : scale};
          if (is_max) {
            const int32_t own = static_cast<int32_t>(i);
            std::memcpy(&entry.coef, &own, 4);
          }
          entries[end_of[partition] - missing] = entry;
        }
      }
      total += static_cast<int64_t>(block.rows.size());
    }
  });
  return total;
}

void BagEntries::Sort(int64_t partition, std::vector<Entry>* buffer, std::vector<int64_t>* runs) {
  const int64_t first = partition_begin_[partition], last = partition_begin_[partition + 1];
  buffer->resize(last - first);
  SortByRow(entries_.get() + first, buffer->data(), last - first, low_bits_);
  for (int64_t i = first; i < last; ++i) {
    if (i == first || entries_[i].row != entries_[i - 1].row) runs->push_back(i);
  }
}

int BagEntries::TableOf(int64_t row) const {
  return static_cast<int>(std::upper_bound(row_base_.begin(), row_base_.end(), row) - row_base_.begin()) - 1;
}

int BagEntries::FeatureOf(uint32_t bag, int table) const {
  if (only_feature_[table] >= 0) return only_feature_[table];
  return static_cast<int>(std::upper_bound(bag_base_.begin(), bag_base_.end(), int64_t{bag}) - bag_base_.begin()) - 1;
}

void BagEntries::SumRun(int64_t begin, int64_t end, int table, Scratch* scratch, float* sum) const {
  const int grad_type = static_cast<int>(batch_.output_dtype), grad_bytes = SizeOf(batch_.output_dtype);
  const RowKernels& kernels = Rows();
  const int64_t dim = batch_.tables[table].dim;
  bool empty = true;  // `sum` has not been written
  // Entries of one feature stand together: the input's order is by feature.
  for (int64_t first = begin; first < end;) {
    const int f = FeatureOf(entries_[first].bag, table);
    const BagFeature& feature = batch_.features[f];
    const int64_t own_bag = entries_[first].bag - bag_base_[f];
    if (feature.combiner != Combiner::kMax) {
      if (empty) {
        const char* row = static_cast<const char*>(feature.grad) + own_bag * feature.output_stride * grad_bytes;
        kernels.scale[grad_type](row, entries_[first].coef, dim, sum);
        empty = false;
        if (++first == end) return;
        if (entries_[first].bag >= bag_base_[f + 1]) continue;
      }
      scratch->bags.clear();
      scratch->coefs.clear();
      int64_t i = first;
      for (; i < end && entries_[i].bag < bag_base_[f + 1]; ++i) {
        scratch->bags.push_back(entries_[i].bag - bag_base_[f]);
        scratch->coefs.push_back(entries_[i].coef);
      }
      kernels.accumulate[grad_type](feature.grad, feature.output_stride, dim, scratch->bags.data(),
                                    scratch->coefs.data(), i - first, i - first, sum);
      first = i;
      continue;
    }
    if (empty) std::fill(sum, sum + dim, 0.0f);
    empty = false;
    scratch->grad.resize(dim);
    int32_t own;
    std::memcpy(&own, &entries_[first].coef, 4);
    kernels.load[grad_type](static_cast<const char*>(feature.grad) + own_bag * feature.output_stride * grad_bytes, dim,
                            scratch->grad.data());
    const int32_t* winner = winners_[f].data() + own_bag * dim;
    for (int64_t d = 0; d < dim; ++d) sum[d] += winner[d] == own ? scratch->grad[d] : 0.0f;
    ++first;
  }
}

void BagEntries::PrefetchRun(int64_t begin, int64_t end, int table) const {
  const int64_t bytes = batch_.tables[table].dim * SizeOf(batch_.output_dtype);
  for (int64_t i = begin; i < end && i < begin + 2; ++i) {
    const int f = FeatureOf(entries_[i].bag, table);
    const BagFeature& feature = batch_.features[f];
    const char* row = static_cast<const char*>(feature.grad) +
                      (entries_[i].bag - bag_base_[f]) * feature.output_stride * SizeOf(batch_.output_dtype);
    PrefetchRow(row, bytes);
  }
}

}  // namespace merlin
