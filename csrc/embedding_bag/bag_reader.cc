#include "embedding_bag/bag_reader.h"

#include <cmath>

namespace merlin {
namespace {

constexpr size_t kRowsABlock = 4096;

float ScaleOf(Combiner combiner, float sum, float sum_of_squares) {
  if (combiner == Combiner::kMean) return sum == 0.0f ? 0.0f : 1.0f / sum;
  if (combiner == Combiner::kSqrtn) return sum_of_squares == 0.0f ? 0.0f : 1.0f / std::sqrt(sum_of_squares);
  return 1.0f;
}

}  // namespace

template <typename Id>
int64_t BagReader::ReadAs(int64_t begin, int64_t end, Block* block, FirstError& error) const {
  const BagFeature& feature = batch_.features[index_];
  const int64_t num_rows = batch_.tables[feature.table].num_rows;
  const int64_t ids_a_bag = feature.num_bags == 0 ? 0 : feature.num_ids / feature.num_bags;
  const Id* ids = static_cast<const Id*>(feature.ids);
  block->bags.clear();
  block->rows.clear();
  block->positions.clear();
  block->weights.clear();
  int64_t bag = begin;
  for (; bag < end && block->rows.size() < kRowsABlock; ++bag) {
    const int64_t first = feature.row_splits ? feature.row_splits[bag] : bag * ids_a_bag;
    const int64_t last = feature.row_splits ? feature.row_splits[bag + 1] : first + ids_a_bag;
    const int64_t start = static_cast<int64_t>(block->rows.size());
    float sum = 0.0f, sum_of_squares = 0.0f;
    for (int64_t p = first; p < last; ++p) {
      const int64_t id = ids[p];
      if (id == feature.padding_id && id != kNoPadding) continue;
      if (id < 0 || id >= num_rows) {
        error.Set(Concat("Ids of feature '", batch_.names[index_], "' must be in [0, ", num_rows,
                         "), the rows of its table. Received: ", id, " at position ", p, " (bag ", bag, ")"));
        return end;
      }
      const float weight = feature.weights ? feature.weights[p] : 1.0f;
      sum += weight;
      sum_of_squares += weight * weight;
      block->rows.push_back(id);
      block->positions.push_back(p);
      block->weights.push_back(weight);
    }
    const int64_t count = static_cast<int64_t>(block->rows.size()) - start;
    block->bags.push_back({bag, start, count, ScaleOf(feature.combiner, sum, sum_of_squares)});
  }
  return bag;
}

int64_t BagReader::Read(int64_t begin, int64_t end, Block* block, FirstError& error) const {
  return batch_.ids_are_int64 ? ReadAs<int64_t>(begin, end, block, error) : ReadAs<int32_t>(begin, end, block, error);
}

void CheckRowSplits(const BagBatch& batch) {
  for (size_t f = 0; f < batch.features.size(); ++f) {
    const BagFeature& feature = batch.features[f];
    const int64_t* splits = feature.row_splits;
    if (!splits) continue;
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
