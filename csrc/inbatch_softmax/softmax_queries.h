// The forward pass of inbatch_softmax on the CPU, for one block of queries.
#pragma once

#include <cstdint>
#include <vector>

#include "inbatch_softmax/inbatch_softmax.h"
#include "inbatch_softmax/softmax_blocks.h"

namespace merlin {

// What a block of queries that keeps its scores knows of them when it is done: exp(score - the maximum up to then).
struct KeptWeights {
  std::vector<float> maxima;   // [chunks, rows]: that which the weights of a chunk are relative to
  std::vector<float> max;      // [rows], the last of them
  std::vector<float> factors;  // [rows]: what makes weights relative to it the softmax, times the row's own weight

  KeptWeights(int64_t chunks, int64_t rows) : maxima(chunks * rows), max(rows), factors(rows) {}
};

// Queries against all candidates: what the call's outputs of a query are computed from.
class SoftmaxQueries {
 public:
  SoftmaxQueries(const InbatchSoftmax& call, Threads& threads);

  // Writes the outputs of queries first to first + count - 1; `kept` is null or for a block that keeps its scores.
  void Run(Block& block, int64_t first, int64_t count, KeptWeights* kept) const;

  const Columns& columns() const { return columns_; }
  const ColumnsOfId& same() const { return same_; }

 private:
  const InbatchSoftmax& call_;
  const Columns columns_;
  const ColumnsOfId same_;
  const std::vector<float> offset_, positive_offset_;
};

// The first `count` values with the other sign, or zeros if null; zeros up to `padded`.
std::vector<float> Negated(const float* values, int64_t count, int64_t padded);

}  // namespace merlin
