// Runs: the sorted (row, bag) pairs of a batch, cut where the row changes. What bag_runs.cu and its callers share.
#pragma once

#include <cstdint>
#include <vector>

#include "common/cuda_utils.cuh"
#include "embedding_bag/embedding_bag.h"

namespace merlin {

constexpr int kLongRun = 256;  // pairs; longer runs are cut
constexpr int kChunk = 256;    // pairs of a long run that one warp sums

struct BagTableDevice {
  int64_t row_base;  // its first row among all tables' rows
  int32_t dim;
  int32_t num_features;  // that read it
  int32_t only_feature;  // when num_features is 1
};

struct GradFeature {
  const void* grad;
  size_t winner_offset;  // of a max feature's [num_bags, dim] in RunView::winners
  uint32_t bag_base;     // its first bag among all features' bags
  int32_t stride;        // elements from one bag's gradient to the next
  int32_t table;
  int32_t num_features;  // of the whole batch
  bool is_max;
};

struct LongRun {
  uint32_t run, first_chunk, num_chunks, table;
};
struct RunChunk {
  uint32_t begin, end, table;
};
struct LongRunCounts {
  uint32_t runs, chunks;
};

// Device pointers. A run r has pairs run_begin[r] .. run_begin[r + 1]; table t has runs table_runs[t] .. [t + 1].
struct RunView {
  const BagTableDevice* tables;
  const GradFeature* features;
  const void* keys;  // of each pair: uint32, or uint64 if wide_keys
  const uint32_t* values;
  const uint32_t* run_begin;
  const uint32_t* table_runs;
  const float* bag_scale;     // or null for ones
  const uint32_t* bag_of_id;  // with coef_of_id: values are positions; else both null and values are bags
  const float* coef_of_id;
  const int32_t* winners;
  LongRunCounts* long_counts;
  LongRun* long_runs;
  RunChunk* chunks;
  float* partials;  // [chunks, max_dim]
  void** targets;   // room for two pointers a table
  int num_tables;
  int max_dim;
  bool wide_keys;
};

// Writes each table's unique ids and summed gradient rows.
void WriteRuns(const BagBatch& batch, const RunView& view, const std::vector<void*>& ids,
               const std::vector<void*>& rows, cudaStream_t stream);

}  // namespace merlin
