// embedding_bag on the CPU: forward, and the gradient of the weights.
//
// All bags of all features form one list of work. A worker takes a range of bags, translates their ids into checked
// rows in blocks (so that the row kernels can prefetch past the end of a bag), then pools bag by bag. Deterministic.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "embedding_bag/bag_reader.h"
#include "embedding_bag/embedding_bag.h"
#include "embedding_bag/rows.h"

namespace merlin {
namespace {

constexpr int64_t kNanosecondsARow = 30;
constexpr int64_t kCachedTable = 256 << 10;  // bytes: what a core's second cache holds beside other things

// Pools the bags [begin, end) of one feature.
void PoolBags(const BagBatch& batch, int f, int64_t begin, int64_t end, FirstError& error) {
  const BagFeature& feature = batch.features[f];
  const BagTable& table = batch.tables[feature.table];
  const RowKernels& kernels = Rows();
  const int table_type = static_cast<int>(batch.table_dtype), output_type = static_cast<int>(batch.output_dtype);
  const auto pool = Pools().pool[table_type][output_type];
  const int64_t out_bytes = feature.output_stride * SizeOf(batch.output_dtype);
  if (!RowSplitsHold(feature, begin, end)) return error.Set("row_splits of feature '" + batch.names[f] + "' are wrong");
  const bool is_cached = table.num_rows * table.dim * SizeOf(batch.table_dtype) <= kCachedTable;
  std::vector<float> largest(feature.combiner == Combiner::kMax ? table.dim : 0);
  BagReader reader(batch, f);
  BagReader::Block block;
  for (int64_t next = begin; next < end;) {
    next = reader.Read(next, end, &block, error);
    if (error) return;
    char* out = static_cast<char*>(feature.output) + block.bags[0].bag * out_bytes;
    if (feature.combiner != Combiner::kMax) {
      const int64_t early = is_cached ? 0 : static_cast<int64_t>(block.rows.size());
      pool(table.rows, table.dim, block.rows.data(), block.weights, early, block.bags.data(),
           static_cast<int64_t>(block.bags.size()), feature.output_stride, out);
      continue;
    }
    for (const BagReader::Bag& bag : block.bags) {
      MaxOfRows(batch, table, block.rows.data() + bag.begin, bag.count, largest.data(), nullptr);
      kernels.store[output_type](largest.data(), 1.0f, table.dim, out);
      out += out_bytes;
    }
  }
}

// d loss / d weight of every id: with g the bag's gradient, x_i the id's row, d_i = g . x_i,
//   sum: d_i    mean: (d_i - sum_j w_j d_j / W) / W, W = sum w    sqrtn: d_i / q - w_i (sum_j w_j d_j) / q^3, q^2 = sum
//   w^2
void WeightsGradientOfBags(const BagBatch& batch, int f, int64_t begin, int64_t end, FirstError& error) {
  const BagFeature& feature = batch.features[f];
  const BagTable& table = batch.tables[feature.table];
  const RowKernels& kernels = Rows();
  const int table_type = static_cast<int>(batch.table_dtype), grad_type = static_cast<int>(batch.output_dtype);
  std::vector<float> grad(table.dim), dots;
  BagReader reader(batch, f);
  BagReader::Block block;
  for (int64_t next = begin; next < end;) {
    next = reader.Read(next, end, &block, error);
    if (error) return;
    for (const BagReader::Bag& bag : block.bags) {
      const int64_t size = SizeOf(batch.output_dtype);
      kernels.load[grad_type](static_cast<const char*>(feature.grad) + bag.bag * feature.output_stride * size,
                              table.dim, grad.data());
      dots.resize(bag.count);
      float weighted = 0.0f;
      for (int64_t i = 0; i < bag.count; ++i) {
        const int64_t row = block.rows[bag.begin + i];
        const char* row_ptr = static_cast<const char*>(table.rows) + row * table.dim * SizeOf(batch.table_dtype);
        dots[i] = kernels.dot[table_type](row_ptr, grad.data(), table.dim);
        weighted += block.WeightOf(bag.begin + i) * dots[i];
      }
      for (int64_t i = 0; i < bag.count; ++i) {
        float value = dots[i] * bag.scale;
        if (feature.combiner == Combiner::kMean) value -= weighted * bag.scale * bag.scale;
        if (feature.combiner == Combiner::kSqrtn) {
          value -= block.WeightOf(bag.begin + i) * weighted * bag.scale * bag.scale * bag.scale;
        }
        feature.weights_grad[block.PositionOf(bag.begin + i)] = value;
      }
    }
  }
}

}  // namespace

void MaxOfRows(const BagBatch& batch, const BagTable& table, const int64_t* rows, int64_t count, float* largest,
               int32_t* place) {
  std::fill(largest, largest + table.dim, 0.0f);
  if (place) std::fill(place, place + table.dim, -1);
  std::vector<float> row(table.dim);
  for (int64_t i = 0; i < count; ++i) {
    const char* from = static_cast<const char*>(table.rows) + rows[i] * table.dim * SizeOf(batch.table_dtype);
    Rows().load[static_cast<int>(batch.table_dtype)](from, table.dim, row.data());
    for (int64_t d = 0; d < table.dim; ++d) {
      if (i > 0 && !(row[d] > largest[d])) continue;
      largest[d] = row[d];
      if (place) place[d] = static_cast<int32_t>(i);
    }
  }
}

void ForEachBag(const BagBatch& batch, Threads& threads,
                const std::function<void(int f, int64_t begin, int64_t end, FirstError& error)>& body) {
  std::vector<int64_t> first_bag{0};
  int64_t ids = 0;
  for (const BagFeature& feature : batch.features) {
    first_bag.push_back(first_bag.back() + feature.num_bags);
    ids += feature.num_ids;
  }
  const int64_t total = first_bag.back();
  FirstError error;
  const int64_t ids_a_bag = total == 0 ? 0 : ids / total;
  threads.For(total, kNanosecondsARow * (1 + ids_a_bag), [&](int64_t begin, int64_t end) {
    ForBags(first_bag, begin, end, [&](int f, int64_t first, int64_t last) { body(f, first, last, error); });
  });
  error.ThrowIfSet();
}

void CheckBatch(const BagBatch& batch) {
  Check(batch.names.size() == batch.features.size(),
        "names must hold one name a feature. Received: ", batch.names.size(), " names for ", batch.features.size(),
        " features");
  for (const BagTable& table : batch.tables) {
    Check(table.num_rows >= 0 && table.dim > 0, "A table must have a positive dim. Received: shape (", table.num_rows,
          ", ", table.dim, ")");
  }
  for (size_t f = 0; f < batch.features.size(); ++f) {
    const BagFeature& feature = batch.features[f];
    const std::string& name = batch.names[f];
    Check(feature.table >= 0 && feature.table < static_cast<int32_t>(batch.tables.size()), "Feature '", name,
          "' must name one of the ", batch.tables.size(), " tables. Received: table ", feature.table);
    Check(feature.combiner != Combiner::kMax || !feature.weights, "Feature '", name,
          "': combiner 'max' takes no weights. Use 'sum', 'mean' or 'sqrtn' with weights");
    Check(feature.num_ids <= std::numeric_limits<uint32_t>::max() &&
              feature.num_bags < std::numeric_limits<uint32_t>::max(),
          "Feature '", name, "' must have fewer than 2^32 ids and bags. Received: ", feature.num_ids, " ids in ",
          feature.num_bags, " bags");
    if (feature.row_splits) continue;
    Check(feature.num_bags == 0 ? feature.num_ids == 0 : feature.num_ids % feature.num_bags == 0, "Feature '", name,
          "' has no row_splits, so its number of ids must be a multiple of its number of bags. Received: ",
          feature.num_ids, " ids for ", feature.num_bags, " bags");
  }
}

void EmbeddingBagForward(const BagBatch& batch, Threads& threads) {
  CheckBatch(batch);
  // Workers check row_splits, each those of its bags; where there are none, nobody would.
  for (const BagFeature& feature : batch.features) {
    if (!RowSplitsHold(feature, 0, 0)) CheckRowSplits(batch);
  }
  try {
    ForEachBag(batch, threads,
               [&](int f, int64_t begin, int64_t end, FirstError& error) { PoolBags(batch, f, begin, end, error); });
  } catch (const InvalidArgument&) {
    CheckRowSplits(batch);  // what is wrong with them comes first, whichever worker met what
    throw;
  }
}

void EmbeddingBagWeightsGradient(const BagBatch& batch, Threads& threads) {
  CheckBatch(batch);
  CheckRowSplits(batch);
  for (const BagFeature& feature : batch.features) {
    if (feature.weights_grad) std::fill(feature.weights_grad, feature.weights_grad + feature.num_ids, 0.0f);
  }
  ForEachBag(batch, threads, [&](int f, int64_t begin, int64_t end, FirstError& error) {
    if (batch.features[f].weights_grad) WeightsGradientOfBags(batch, f, begin, end, error);
  });
}

const char* CpuInstructionSet() { return Rows().instruction_set; }

}  // namespace merlin
