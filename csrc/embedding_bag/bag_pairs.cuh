// The ids of a batch as pairs (key, value), sorted by key on the device: what the backward passes on CUDA share.
//
// key: the row among the rows of all tables, where each table has one row more than it has: padding and bad ids sort
// there, to the end of their table. So table t owns the pairs [pair_begin, pair_end), which the host knows.
// value: the bag among all features' bags, or, where ids have coefficients of their own, the id's position.
#pragma once

#include <cstdint>
#include <vector>

#include "embedding_bag/bag_device.cuh"

namespace merlin {

struct PairTable {
  uint64_t row_base;  // key of its row 0
  uint64_t no_key;    // of its padding
  uint32_t pair_begin, pair_end;
  uint32_t block_end;      // one behind its last block of the walk
  uint32_t partial_begin;  // in units of 4 floats: its first partial sum
  int32_t dim;
  int32_t only_feature;  // that reads it, or -1 for several
  uint16_t lanes;        // threads that share a row
  uint16_t pack;         // elements that a thread moves at once
  bool has_max;          // any of its features
};

struct GradFeature {
  const void* grad;
  size_t winner_offset;  // of a max feature's [num_bags, dim] in PairView::winners
  uint32_t bag_base;     // its first bag among all features' bags
  int32_t stride;        // elements from one bag's gradient to the next
  int32_t table;
  bool is_max;
};

struct LongRun {
  uint32_t table, tile;  // the tile in which the run begins, counted from the table's first
};

// Device pointers, for kernels.
struct PairView {
  const PairTable* tables;
  const GradFeature* features;
  const void* keys;  // uint32, or uint64 if wide_keys
  const uint32_t* values;
  const float* bag_scale;     // or null for ones
  const uint32_t* bag_of_id;  // with coef_of_id: values are positions; else both null and values are bags
  const float* coef_of_id;
  const int32_t* winners;
  uint32_t* num_long_runs;  // of few tiles, from the list's begin; of many, from its end
  uint32_t max_long_runs;
  uint32_t tile;  // pairs that a unit of lanes owns
  LongRun* long_runs;
  float* partials;  // two a tile: of the run that began earlier, and of the run that goes on
  float* norms;     // a pair: sum of squares of the gradient of the run that ends there; null if not asked for
  int num_tables, num_features;
  bool wide_keys;
};

constexpr uint32_t kLargestTile = 64, kSmallestTile = 16;  // pairs that a unit of lanes owns
constexpr uint32_t kTilesToFillDevice = 4096;

// Lists and sorts the pairs of a batch into a workspace of the caller's.
class SortedPairs {
 public:
  // `row_alignment(t, pack)`: whether `pack` columns may be moved at once in what the walk writes for table t.
  // `with_norms`: whether PairView::norms is needed. `extra_bytes`: for the caller, at `extra()`.
  template <typename Aligned>
  SortedPairs(const BagBatch& batch, Aligned&& row_alignment, bool with_norms, size_t extra_bytes) : batch_(batch) {
    Plan(row_alignment, with_norms, extra_bytes);
  }

  size_t workspace_bytes() const { return total_; }
  uint32_t num_pairs() const { return num_ids_; }
  unsigned walk_blocks() const { return walk_blocks_; }
  const std::vector<PairTable>& tables() const { return tables_; }

  // Everything up to the sort, on the stream; the workspace is 256-byte aligned.
  PairView Sort(void* workspace, cudaStream_t stream);
  char* extra(void* workspace) const { return static_cast<char*>(workspace) + extra_; }

  // run_numbers[i] = number of runs of one key that begin in pairs [0, i], through `temporary` memory.
  static size_t NumberRunsBytes(uint32_t num_pairs);
  static void NumberRuns(const PairView& view, uint32_t num_pairs, uint32_t* run_numbers, void* temporary, size_t bytes,
                         cudaStream_t stream);

 private:
  template <typename Aligned>
  void Plan(Aligned&& row_alignment, bool with_norms, size_t extra_bytes);
  void PlanBatch();
  int FitGradients(int table, int pack) const;
  void PlanWorkspace(bool with_norms, size_t extra_bytes);
  template <typename Key>
  int SortAs(char* w, cudaStream_t stream) const;

  const BagBatch& batch_;
  std::vector<PairTable> tables_;
  std::vector<GradFeature> grads_;
  std::vector<DeviceFeature> features_;
  std::vector<uint32_t> id_base_;
  uint32_t num_ids_ = 0, num_bags_ = 0, num_tiles_ = 0, tile_ = 0;
  int64_t list_blocks_ = 0, partial_floats_ = 0;
  unsigned walk_blocks_ = 0;
  int key_bits_ = 0;
  bool per_id_ = false, scaled_ = false, wide_keys_ = false;
  size_t winner_count_ = 0, cub_bytes_ = 0, total_ = 0;
  size_t uploads_ = 0, keys_[2] = {}, values_[2] = {}, bag_scale_ = 0, bag_of_id_ = 0, coef_of_id_ = 0, winners_ = 0,
         long_runs_ = 0, partials_ = 0, norms_ = 0, cub_ = 0, extra_ = 0;
  bool with_norms_ = false;
  // Offsets in the uploaded block.
  size_t at_features_ = 0, at_grads_ = 0, at_tables_ = 0, at_id_base_ = 0, at_count_ = 0, upload_bytes_ = 0;
};

constexpr int kWalkThreads = 128;

template <typename Aligned>
void SortedPairs::Plan(Aligned&& row_alignment, bool with_norms, size_t extra_bytes) {
  PlanBatch();
  tile_ = kLargestTile;
  while (tile_ > kSmallestTile && num_ids_ / tile_ < kTilesToFillDevice) tile_ /= 2;
  uint64_t blocks = 0;
  const int widest = 16 / std::max(SizeOf(batch_.table_dtype), SizeOf(batch_.output_dtype));
  for (size_t t = 0; t < tables_.size(); ++t) {
    PairTable& table = tables_[t];
    const bool wide = FitGradients(static_cast<int>(t), widest) == widest && row_alignment(static_cast<int>(t), widest);
    table.pack = static_cast<uint16_t>(wide ? widest : 1);
    table.lanes = static_cast<uint16_t>(LanesFor((table.dim + table.pack - 1) / table.pack));
    const uint64_t tiles = (static_cast<uint64_t>(table.pair_end - table.pair_begin) + tile_ - 1) / tile_;
    const uint64_t units = kWalkThreads / table.lanes;
    blocks += (tiles + units - 1) / units;
    table.block_end = static_cast<uint32_t>(blocks);
    table.partial_begin = static_cast<uint32_t>(partial_floats_ / 4);
    partial_floats_ += static_cast<int64_t>(tiles) * 2 * ((table.dim + 3) / 4 * 4);
    num_tiles_ += static_cast<uint32_t>(tiles);
  }
  walk_blocks_ = static_cast<unsigned>(blocks);
  PlanWorkspace(with_norms, extra_bytes);
}

}  // namespace merlin
