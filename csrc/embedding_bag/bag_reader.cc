#include "embedding_bag/bag_reader.h"

#include <algorithm>
#include <cmath>

namespace merlin {
namespace {

constexpr int64_t kRowsABlock = 4096;

float ScaleOf(Combiner combiner, float sum, float sum_of_squares) {
  if (combiner == Combiner::kMean) return sum == 0.0f ? 0.0f : 1.0f / sum;
  if (combiner == Combiner::kSqrtn) return sum_of_squares == 0.0f ? 0.0f : 1.0f / std::sqrt(sum_of_squares);
  return 1.0f;
}

}  // namespace

BagReader::BagReader(const BagBatch& batch, int feature)
    : batch_(batch),
      index_(feature),
      feature_(batch.features[feature]),
      ids_a_bag_(feature_.num_bags == 0 ? 0 : feature_.num_ids / feature_.num_bags) {}

// The first bag, behind `begin`, in front of which the block is full.
int64_t BagReader::EndOfBlock(int64_t begin, int64_t end) const {
  const int64_t full = FirstOf(begin) + kRowsABlock;
  if (FirstOf(end) <= full) return end;
  if (!feature_.row_splits) return std::min(end, begin + (kRowsABlock + ids_a_bag_ - 1) / ids_a_bag_);
  return std::lower_bound(feature_.row_splits + begin + 1, feature_.row_splits + end, full) - feature_.row_splits;
}

void BagReader::SetError(int64_t position, int64_t id, FirstError& error) const {
  int64_t bag = 0;
  while (FirstOf(bag + 1) <= position) ++bag;
  error.Set(Concat("Ids of feature '", batch_.names[index_], "' must be in [0, ",
                   batch_.tables[feature_.table].num_rows, "), the rows of its table. Received: ", id, " at position ",
                   position, " (bag ", bag, ")"));
}

template <typename Id>
int64_t BagReader::ReadAs(int64_t begin, int64_t end, Block* block, FirstError& error) const {
  const uint64_t num_rows = batch_.tables[feature_.table].num_rows;
  const int64_t start = FirstOf(begin);
  const int64_t stop = EndOfBlock(begin, end);
  const int64_t count = FirstOf(stop) - start, padding = feature_.padding_id;
  const Id* ids = static_cast<const Id*>(feature_.ids) + start;
  const float* weights = feature_.weights ? feature_.weights + start : nullptr;

  // Each id is read once: what is checked is what is used, whoever may write to the ids meanwhile.
  block->rows.resize(count);
  int64_t* rows = block->rows.data();
  uint64_t below_zero =
      0;  // in its sign: any of id and num_rows - 1 - id, for every set of vector instructions has that
  for (int64_t i = 0; i < count; ++i) {
    const int64_t id = rows[i] = ids[i];
    below_zero |= static_cast<uint64_t>(id) | (num_rows - 1 - static_cast<uint64_t>(id));
  }
  const bool outside = static_cast<int64_t>(below_zero) < 0;
  bool padded = false;
  if (padding != kNoPadding || outside) {
    for (int64_t i = 0; i < count; ++i) {
      const int64_t id = block->rows[i];
      const bool is_padding = padding != kNoPadding && id == padding;
      padded |= is_padding;
      if (is_padding || static_cast<uint64_t>(id) < num_rows) continue;
      SetError(start + i, id, error);
      return end;
    }
  }

  block->bags.resize(stop - begin);
  block->weights = weights;
  block->first_position = start;
  block->positions_kept.clear();
  if (padded) {
    DropPadding(begin, stop, block);
  } else {
    for (int64_t bag = begin, first = 0; bag < stop; ++bag) {
      const int64_t last = FirstOf(bag + 1) - start;
      block->bags[bag - begin] = {bag, first, last - first, 1.0f};
      first = last;
    }
  }
  SetScales(block);
  return stop;
}

// Of a block with the ids of the bags [begin, end): moves rows, positions and weights together, and sets its bags.
void BagReader::DropPadding(int64_t begin, int64_t end, Block* block) const {
  const float* weights = block->weights;
  block->weights_kept.clear();
  int64_t kept = 0;
  for (int64_t bag = begin, p = 0; bag < end; ++bag) {
    const int64_t first = kept, last = FirstOf(bag + 1) - block->first_position;
    for (; p < last; ++p) {
      if (block->rows[p] == feature_.padding_id) continue;
      block->rows[kept++] = block->rows[p];
      block->positions_kept.push_back(block->first_position + p);
      if (weights) block->weights_kept.push_back(weights[p]);
    }
    block->bags[bag - begin] = {bag, first, kept - first, 1.0f};
  }
  block->rows.resize(kept);
  if (weights) block->weights = block->weights_kept.data();
}

void BagReader::SetScales(Block* block) const {
  if (feature_.combiner != Combiner::kMean && feature_.combiner != Combiner::kSqrtn) return;
  for (Bag& bag : block->bags) {
    float sum = static_cast<float>(bag.count), sum_of_squares = sum;
    if (block->weights) {
      sum = sum_of_squares = 0.0f;
      for (int64_t i = bag.begin; i < bag.begin + bag.count; ++i) {
        sum += block->weights[i];
        sum_of_squares += block->weights[i] * block->weights[i];
      }
    }
    bag.scale = ScaleOf(feature_.combiner, sum, sum_of_squares);
  }
}

int64_t BagReader::Read(int64_t begin, int64_t end, Block* block, FirstError& error) const {
  return batch_.ids_are_int64 ? ReadAs<int64_t>(begin, end, block, error) : ReadAs<int32_t>(begin, end, block, error);
}

bool RowSplitsHold(const BagFeature& feature, int64_t begin, int64_t end) {
  const int64_t* splits = feature.row_splits;
  if (!splits) return true;
  if (begin == 0 && splits[0] != 0) return false;
  if (end == feature.num_bags && splits[end] != feature.num_ids) return false;
  uint64_t below_zero = splits[begin];  // in its sign, as with ids
  for (int64_t bag = begin; bag < end; ++bag) {
    const uint64_t first = splits[bag], last = splits[bag + 1];
    below_zero |= last | (last - first);
  }
  return static_cast<int64_t>(below_zero) >= 0 && splits[end] <= feature.num_ids;
}

void CheckRowSplits(const BagBatch& batch) {
  for (size_t f = 0; f < batch.features.size(); ++f) {
    const BagFeature& feature = batch.features[f];
    const int64_t* splits = feature.row_splits;
    if (RowSplitsHold(feature, 0, feature.num_bags)) continue;
    const std::string& name = batch.names[f];
    Check(splits[0] == 0, "row_splits of feature '", name, "' must start at 0. Received: ", splits[0]);
    for (int64_t bag = 0; bag < feature.num_bags; ++bag) {
      Check(splits[bag] <= splits[bag + 1], "row_splits of feature '", name,
            "' must not decrease. Received: ", splits[bag], " followed by ", splits[bag + 1], " at index ", bag);
    }
    Check(splits[feature.num_bags] == feature.num_ids, "row_splits of feature '", name,
          "' must end at the number of ids, ", feature.num_ids, ". Received: ", splits[feature.num_bags]);
  }
}

}  // namespace merlin
