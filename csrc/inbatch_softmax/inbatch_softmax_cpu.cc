// inbatch_softmax on the CPU. A thread takes a block of rows over all columns, a chunk at a time: the block, its sums
// and the chunk stay in the second-level cache, and the tile of scores is all that exists of the [batch, candidates]
// matrix. Queries are the rows of the forward pass and candidates those of the backward pass, so that each gradient is
// summed by one thread in one order: results do not depend on the number of threads. softmax_strips.cc sums up
// candidates in the forward pass.
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "common/check.h"
#include "inbatch_softmax/inbatch_softmax.h"
#include "inbatch_softmax/softmax_blocks.h"
#include "inbatch_softmax/softmax_queries.h"
#include "inbatch_softmax/softmax_strips.h"

namespace merlin {
namespace {

// Calls body(block, first row, rows) for blocks of all rows, in parallel. Results do not depend on the block's size.
template <typename Body>
void ForBlocks(const InbatchSoftmax& call, int64_t rows, const Columns& columns, const ColumnsOfId& same,
               Threads& threads, Body&& body) {
  const int64_t multiple = SoftmaxTiles().rows;
  const int64_t size =
      std::clamp(RoundUp(rows / (4 * int64_t{threads.count()}), multiple), multiple, LargestBlock(call.dim));
  const int64_t cost = 4 * size * columns.padded_count() * call.dim / kFlopsANanosecond;
  threads.For((rows + size - 1) / size, cost, [&](int64_t begin, int64_t end) {
    Block block(call, columns, same, size);
    for (int64_t b = begin; b < end; ++b) body(block, b * size, std::min(size, rows - b * size));
  });
}

// Gradients of a query and its positive. Returns what it adds to the gradient of the scale.
double QueryGradients(const InbatchSoftmax& call, const InbatchSoftmaxGradients& grads, int64_t i, float* query,
                      float* positive) {
  const SoftmaxTileKernels& kernels = SoftmaxTiles();
  const int type = static_cast<int>(call.dtype);
  kernels.load[type](RowOf(call.queries, call, i), call.dim, query);
  kernels.load[type](RowOf(call.positives, call, i), call.dim, positive);
  const float scale = *call.scale, a = grads.log_sum_grad[i], b = grads.positive_score_grad[i];
  const float own = a * std::exp(grads.positive_score[i] - grads.log_sum[i]) + b;
  double scale_grad = 0;
  for (int64_t d = 0; d < call.dim; ++d) {
    const float combined = a * grads.mean[i * call.dim + d] + b * positive[d];
    scale_grad += static_cast<double>(query[d]) * combined;
    positive[d] = scale * own * query[d];
    query[d] = scale * combined;
  }
  kernels.store[type](query, call.dim, RowOf(grads.queries, call, i));
  kernels.store[type](positive, call.dim, RowOf(grads.positives, call, i));
  if (grads.positive_log_q) grads.positive_log_q[i] = -own;
  return scale_grad;
}

// The number that gives the rows' gradients when multiplied with their weights: exactly where weights are null, for
// ones, else up to what rounding the product to float32 can do. NaN if there is none.
float CommonFactor(const float* gradients, const float* weights, int64_t count) {
  constexpr float kNone = std::numeric_limits<float>::quiet_NaN();
  if (count == 0) return 0.0f;
  int64_t largest = 0;
  for (int64_t i = 1; weights && i < count; ++i) {
    if (std::abs(weights[i]) > std::abs(weights[largest])) largest = i;
  }
  const double rounding = weights ? 1.0 / (1 << 22) : 0.0;
  const double divisor = weights && weights[largest] != 0.0f ? weights[largest] : 1.0;
  const double factor = gradients[largest] / divisor;
  for (int64_t i = 0; i < count; ++i) {
    const double product = weights ? factor * weights[i] : factor;
    if (!(std::abs(gradients[i] - product) <= rounding * std::abs(product))) return kNone;
  }
  return std::abs(factor) <= std::numeric_limits<float>::max() ? static_cast<float>(factor) : kNone;
}

// The candidates' gradients from the forward pass' sums.
void ScaleSums(const InbatchSoftmax& call, const InbatchSoftmaxGradients& grads, float factor, Threads& threads) {
  threads.For(call.candidates, call.dim, [&](int64_t begin, int64_t end) {
    std::vector<float> row(call.dim);
    for (int64_t j = begin; j < end; ++j) {
      for (int64_t d = 0; d < call.dim; ++d) row[d] = *call.scale * factor * grads.candidate_sums[j * call.dim + d];
      SoftmaxTiles().store[static_cast<int>(call.dtype)](row.data(), call.dim, RowOf(grads.keys, call, j));
      if (grads.candidate_log_q) grads.candidate_log_q[j] = -factor * grads.candidate_weights[j];
    }
  });
}

// The candidates' gradients from their scores with all queries.
void SumOverQueries(const InbatchSoftmax& call, const InbatchSoftmaxGradients& grads, Threads& threads) {
  const Columns columns(call.queries, call.dtype, call.batch, call.dim, threads);
  const ColumnsOfId same(call.positive_ids, call.batch);
  const std::vector<float> offset = Negated(call.candidate_log_q, call.candidates, call.candidates + kMaxBlock);
  std::vector<float> log_sum(columns.padded_count()), grad(columns.padded_count());
  std::copy_n(grads.log_sum, call.batch, log_sum.begin());
  std::copy_n(grads.log_sum_grad, call.batch, grad.begin());
  const SoftmaxTileKernels& kernels = SoftmaxTiles();
  ForBlocks(call, call.candidates, columns, same, threads, [&](Block& block, int64_t first, int64_t count) {
    std::vector<double> totals(count);
    block.Start(RowOf(call.keys, call, first), call.candidate_ids + first, count);
    for (int64_t chunk = 0; chunk < columns.chunks(); ++chunk) {
      block.Score(chunk, offset.data() + first, true);
      const int64_t column = columns.first(chunk);
      for (int64_t r = 0; r < count; ++r) {
        totals[r] += kernels.weights(block.scores(chunk, r), block.step(), columns.size(chunk), log_sum.data() + column,
                                     grad.data() + column);
      }
      block.Accumulate(chunk);
    }
    for (int64_t r = 0; r < count; ++r) {
      float* sums = block.sums(r);
      for (int64_t d = 0; d < call.dim; ++d) sums[d] *= *call.scale;
      kernels.store[static_cast<int>(call.dtype)](sums, call.dim, RowOf(grads.keys, call, first + r));
      if (grads.candidate_log_q) grads.candidate_log_q[first + r] = static_cast<float>(-totals[r]);
    }
  });
}

}  // namespace

void CheckInbatchSoftmax(const InbatchSoftmax& call) {
  Check(call.dim >= 1 && call.dim <= kMaxSoftmaxDim, "dim must be in [1, ", kMaxSoftmaxDim, "]. Received: ", call.dim);
}

void InbatchSoftmaxForward(const InbatchSoftmax& call, Threads& threads) {
  CheckInbatchSoftmax(call);
  Check(call.candidate_sums == nullptr || InbatchSoftmaxSumsCandidates(call.batch, call.candidates),
        "candidate_sums must not be asked for with as many candidates. Received: ", call.candidates);
  if (call.batch == 0) {
    if (call.candidate_sums) std::fill_n(call.candidate_sums, call.candidates * call.dim, 0.0f);
    if (call.candidate_weights) std::fill_n(call.candidate_weights, call.candidates, 0.0f);
    return;
  }
  const SoftmaxQueries queries(call, threads);
  if (call.candidate_sums && call.candidates > 0) return SoftmaxInStrips(call, queries, threads);
  ForBlocks(call, call.batch, queries.columns(), queries.same(), threads,
            [&](Block& block, int64_t first, int64_t count) { queries.Run(block, first, count, nullptr); });
}

void InbatchSoftmaxBackward(const InbatchSoftmax& call, const InbatchSoftmaxGradients& grads, Threads& threads) {
  CheckInbatchSoftmax(call);
  std::vector<double> scale_grads(call.batch);
  threads.For(call.batch, call.dim, [&](int64_t begin, int64_t end) {
    std::vector<float> query(call.dim), positive(call.dim);
    for (int64_t i = begin; i < end; ++i) {
      scale_grads[i] = QueryGradients(call, grads, i, query.data(), positive.data());
    }
  });
  *grads.scale = static_cast<float>(std::accumulate(scale_grads.begin(), scale_grads.end(), 0.0));

  if (grads.candidate_sums && (grads.candidate_weights || !grads.candidate_log_q)) {
    const float factor = CommonFactor(grads.log_sum_grad, call.query_weights, call.batch);
    if (!std::isnan(factor)) return ScaleSums(call, grads, factor, threads);
  }
  SumOverQueries(call, grads, threads);
}

}  // namespace merlin
