// Reads bags on the CPU: ids are checked and turned into rows, padding is dropped, the combiner's divisor is computed.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "common/check.h"
#include "embedding_bag/embedding_bag.h"

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
  struct Bag {
    int64_t bag;
    int64_t begin;  // in Block::rows
    int64_t count;
    float scale;  // what the sum is multiplied by: 1, 1 / sum w, 1 / sqrt(sum w^2), or 0 where that divides by zero
  };
  struct Block {
    std::vector<Bag> bags;
    std::vector<int64_t> rows;       // of the table, in the order of the ids
    std::vector<int64_t> positions;  // where in the feature's ids each row came from
    std::vector<float> weights;      // ones where the feature has none
  };

  BagReader(const BagBatch& batch, int feature) : batch_(batch), index_(feature) {}

  // Reads bags from `begin` until `end` or until the block is full, into `block`. Returns the next bag to read.
  int64_t Read(int64_t begin, int64_t end, Block* block, FirstError& error) const;

 private:
  template <typename Id>
  int64_t ReadAs(int64_t begin, int64_t end, Block* block, FirstError& error) const;

  const BagBatch& batch_;
  const int index_;
};

// row_splits must start at 0, never decrease and end at the number of ids.
void CheckRowSplits(const BagBatch& batch);

// Calls `body` for ranges of bags that cover all features once, in parallel; throws the first error afterwards.
void ForEachBag(const BagBatch& batch, Threads& threads,
                const std::function<void(int f, int64_t begin, int64_t end, FirstError& error)>& body);

// largest[d] = max over the rows, 0 without rows; place[d] (may be null) = index of the first row that has it, or -1.
void MaxOfRows(const BagBatch& batch, const BagTable& table, const int64_t* rows, int64_t count, float* largest,
               int32_t* place);

}  // namespace merlin
