// Reads bags on the CPU: ids are checked and turned into rows, padding is dropped, the combiner's divisor is computed.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "common/check.h"
#include "embedding_bag/embedding_bag.h"
#include "embedding_bag/pools.h"

namespace merlin {

// Keeps the first error that any worker finds; workers must not throw.
class FirstError {
 public:
  explicit operator bool() const { return set_.load(std::memory_order_relaxed); }
  void Set(const std::string& message) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (message_.empty()) message_ = message;
    set_.store(true, std::memory_order_relaxed);
  }
  void ThrowIfSet() const {
    if (*this) throw InvalidArgument(message_);
  }

 private:
  std::atomic<bool> set_{false};
  std::mutex mutex_;
  std::string message_;
};

class BagReader {
 public:
  using Bag = PooledBag;  // of Block::rows
  // Read again, a block keeps its memory.
  struct Block {
    std::vector<Bag> bags;
    std::vector<int64_t> rows;  // of the table, in the order of the ids
    const float* weights;       // of the rows; null where the feature has none

    float WeightOf(int64_t i) const { return weights ? weights[i] : 1.0f; }
    // Where in the feature's ids a row came from.
    int64_t PositionOf(int64_t i) const { return positions_kept.empty() ? first_position + i : positions_kept[i]; }

    int64_t first_position;
    std::vector<int64_t> positions_kept;  // where there is padding among the ids, and the weights of the others
    std::vector<float> weights_kept;
  };

  BagReader(const BagBatch& batch, int feature);

  // Reads bags from `begin` until `end` or until the block is full, into `block`. Returns the next bag to read. Trusts
  // row_splits: check them before.
  int64_t Read(int64_t begin, int64_t end, Block* block, FirstError& error) const;

 private:
  template <typename Id>
  int64_t ReadAs(int64_t begin, int64_t end, Block* block, FirstError& error) const;
  int64_t FirstOf(int64_t bag) const { return feature_.row_splits ? feature_.row_splits[bag] : bag * ids_a_bag_; }
  int64_t EndOfBlock(int64_t begin, int64_t end) const;
  void DropPadding(int64_t begin, int64_t end, Block* block) const;
  void SetScales(Block* block) const;
  void SetError(int64_t position, int64_t id, FirstError& error) const;

  const BagBatch& batch_;
  const int index_;
  const BagFeature& feature_;
  const int64_t ids_a_bag_;  // without row_splits
};

// row_splits must start at 0, never decrease and end at the number of ids.
void CheckRowSplits(const BagBatch& batch);

// Whether this holds for the bags [begin, end), or for all if it holds for all ranges of them: what a worker checks of
// its own. CheckRowSplits then says what is wrong.
bool RowSplitsHold(const BagFeature& feature, int64_t begin, int64_t end);

// Calls body(f, begin, end) for the bags [begin, end) of feature f, feature after feature, that are [begin, end) of all
// bags, those of the features one after the other; first_bag: of each feature among them, and the end.
template <typename Body>
void ForBags(const std::vector<int64_t>& first_bag, int64_t begin, int64_t end, Body&& body) {
  int f = static_cast<int>(std::upper_bound(first_bag.begin(), first_bag.end(), begin) - first_bag.begin()) - 1;
  for (; begin < end; ++f) {
    const int64_t stop = std::min(end, first_bag[f + 1]);
    if (begin < stop) body(f, begin - first_bag[f], stop - first_bag[f]);
    begin = stop;
  }
}

// Calls `body` for ranges of bags that cover all features once, in parallel; throws the first error afterwards.
void ForEachBag(const BagBatch& batch, Threads& threads,
                const std::function<void(int f, int64_t begin, int64_t end, FirstError& error)>& body);

// largest[d] = max over the rows, 0 without rows; place[d] (may be null) = index of the first row that has it, or -1.
void MaxOfRows(const BagBatch& batch, const BagTable& table, const int64_t* rows, int64_t count, float* largest,
               int32_t* place);

}  // namespace merlin
