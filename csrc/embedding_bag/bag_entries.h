// The ids of a batch as entries (row, bag, coefficient), dealt into partitions by ranges of rows: what the backward
// passes on the CPU share. A partition is sorted by one worker, so sums have one order for any number of threads.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "embedding_bag/bag_reader.h"
#include "embedding_bag/embedding_bag.h"

namespace merlin {

class BagEntries {
 public:
  struct Entry {
    int64_t row;   // of all tables one after the other
    uint32_t bag;  // of all features one after the other
    float coef;    // what the bag's gradient is multiplied by; for kMax the id's place in the bag, as bits
  };

  // Checks ids and row_splits; throws InvalidArgument.
  BagEntries(const BagBatch& batch, Threads& threads);

  int64_t num_partitions() const { return static_cast<int64_t>(partition_begin_.size()) - 1; }
  int64_t size() const { return partition_begin_.back(); }
  const Entry& operator[](int64_t i) const { return entries_[i]; }
  int64_t row_base(int table) const { return row_base_[table]; }
  const std::vector<int64_t>& row_bases() const { return row_base_; }

  // Sorts the entries of a partition, by row and then in the order of the input, and appends to `runs` where each row's
  // entries begin. Partitions may be sorted side by side, each with a `buffer` that is kept between calls.
  void Sort(int64_t partition, std::vector<Entry>* buffer, std::vector<int64_t>* runs);
  int64_t partition_end(int64_t partition) const { return partition_begin_[partition + 1]; }
  int TableOf(int64_t row) const;

  // sum[0..dim) = gradient of the row whose entries are [begin, end). `scratch` is kept between calls.
  struct Scratch {
    std::vector<int64_t> bags;
    std::vector<float> coefs, grad;
  };
  void SumRun(int64_t begin, int64_t end, int table, Scratch* scratch, float* sum) const;
  // Asks the memory for the gradients of [begin, end), a few of them.
  void PrefetchRun(int64_t begin, int64_t end, int table) const;

 private:
  int FeatureOf(uint32_t bag, int table) const;
  // Of the bags [begin, end) of all features: the number of their entries in each partition; and puts them there, each
  // at its partition's next place, of which `left` end at `place_ends`. Both read the ids, which somebody may change in
  // between: none is put anywhere else. They return how many entries there were.
  int64_t Count(int64_t begin, int64_t end, int64_t* counts, FirstError& error) const;
  int64_t Deal(int64_t begin, int64_t end, int64_t* left, const int64_t* place_ends, FirstError& error);
  static void SetChanged(FirstError& error);
  // Has the batch read a copy of its row_splits, which nobody changes once they are checked.
  void KeepRowSplits();

  BagBatch batch_;
  std::unique_ptr<int64_t[]> row_splits_;
  std::vector<int64_t> row_base_;     // first row of each table in Entry::row
  std::vector<int64_t> bag_base_;     // first bag of each feature in Entry::bag
  std::vector<int> only_feature_;     // of each table: the feature that reads it, or -1 for several
  std::unique_ptr<Entry[]> entries_;  // not set before they are dealt: memory is touched first by who writes it
  std::vector<int64_t> partition_begin_;
  std::vector<std::vector<int32_t>> winners_;  // for kMax features: [num_bags, dim] place of the largest value
  int low_bits_;                               // of a row, that differ within a partition
};

}  // namespace merlin
