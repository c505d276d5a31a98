// embedding_bag: looks up rows of several tables and pools them into one vector a bag, for all features in one call.
//
// A feature reads one table; several features may read the same one. Its bags come as CSR (ids and row_splits) or, with
// row_splits null, as a dense [num_bags, ids_per_bag] block. Ids equal to `padding_id` are skipped. With weights w and
// rows x of a bag (over its ids that are not padding):
//   sum: S = sum w x     mean: S / sum w     sqrtn: S / sqrt(sum w^2)     max: elementwise, without weights
// A bag without ids, or whose divisor is zero, gives zeros. Accumulation is float32 for all table types.
//
// No function here knows a framework: pointers, sizes, and a stream or a thread pool.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/dtypes.h"
#include "common/parallel.h"

namespace merlin {

enum class Combiner : int32_t { kSum = 0, kMean = 1, kSqrtn = 2, kMax = 3 };

constexpr int64_t kNoPadding = INT64_MIN;

struct BagTable {
  const void* rows;  // [num_rows, dim], row-major
  int64_t num_rows;
  int64_t dim;
};

struct BagFeature {
  const void* ids;            // [num_ids], int32 or int64
  const int64_t* row_splits;  // [num_bags + 1], or null: every bag has num_ids / num_bags ids
  const float* weights;       // [num_ids], or null for ones
  int64_t num_ids;
  int64_t num_bags;
  int64_t padding_id;     // kNoPadding for none
  int64_t output_stride;  // elements from one bag's row to the next, in `output` and in `grad`
  void* output;           // [num_bags, dim] with that stride; not read
  const void* grad;       // the same layout; read by the gradient only
  float* weights_grad;    // [num_ids], or null
  int32_t table;
  Combiner combiner;
};

// One call: all tables and features of a model. Plain data; the caller owns every pointer.
struct BagBatch {
  std::vector<BagTable> tables;
  std::vector<BagFeature> features;
  std::vector<std::string> names;  // of the features, for messages
  DType table_dtype;
  DType output_dtype;  // of `output` and `grad`
  bool ids_are_int64;
};

// Checks everything that needs no look at device memory: sizes, tables, combiners. Throws InvalidArgument.
void CheckBatch(const BagBatch& batch);

// ---- CPU. Ids and row_splits are checked; InvalidArgument names feature, rule and value. ----
void EmbeddingBagForward(const BagBatch& batch, Threads& threads);

class BagEntries;

// Gradient of the tables as unique rows: build it, allocate `num_rows(t)` rows for each table, then write.
class EmbeddingBagGradient {
 public:
  EmbeddingBagGradient(const BagBatch& batch, Threads& threads);
  ~EmbeddingBagGradient();
  int64_t num_rows(int table) const { return table_rows_[table + 1] - table_rows_[table]; }
  // ids: [num_rows(table)] ascending, of the batch's id type; rows: [num_rows(table), dim] of the table's dtype.
  void Write(const std::vector<void*>& ids, const std::vector<void*>& rows, Threads& threads) const;

 private:
  const BagBatch& batch_;
  std::unique_ptr<BagEntries> entries_;
  std::vector<int64_t> runs_;        // begin of each row's entries, and the end
  std::vector<int64_t> table_rows_;  // first run of each table, and the end
};

// Gradient of the weights, for every feature with `weights_grad`. Padding gets zero.
void EmbeddingBagWeightsGradient(const BagBatch& batch, Threads& threads);

// "avx512", "avx2" or "baseline": what the CPU kernels use on this machine.
const char* CpuInstructionSet();

}  // namespace merlin
