#include "inbatch_softmax/softmax_queries.h"

#include <cmath>

namespace merlin {
namespace {

// The row's results, when its block has seen all columns. With the positive's weight exp(positive - max) beside the sum
// of the others nothing is lost where the loss is near 0. Returns 1 over the sum of all weights.
float Finish(const InbatchSoftmax& call, int64_t i, float positive_score, const SoftmaxRowState& state,
             const float* sums, const float* positive) {
  const double beyond = static_cast<double>(state.max) - positive_score, own = std::exp(-beyond);
  const double loss = beyond > 0 ? beyond + std::log(own + state.sum) : std::log1p(state.sum) + beyond;
  call.loss[i] = static_cast<float>(loss);
  call.log_sum[i] = static_cast<float>(positive_score + loss);
  call.positive_score[i] = positive_score;
  if (call.rank) call.rank[i] = state.greater;
  const float own_share = static_cast<float>(own / (own + state.sum));
  const float share = static_cast<float>(1.0 / (own + state.sum));
  if (call.mean) {
    for (int64_t d = 0; d < call.dim; ++d) call.mean[i * call.dim + d] = share * sums[d] + own_share * positive[d];
  }
  return share;
}

}  // namespace

std::vector<float> Negated(const float* values, int64_t count, int64_t padded) {
  std::vector<float> negated(padded);
  for (int64_t i = 0; values && i < count; ++i) negated[i] = -values[i];
  return negated;
}

SoftmaxQueries::SoftmaxQueries(const InbatchSoftmax& call, Threads& threads)
    : call_(call),
      columns_(call.keys, call.dtype, call.candidates, call.dim, threads),
      same_(call.candidate_ids, call.candidates),
      offset_(Negated(call.candidate_log_q, call.candidates, columns_.padded_count())),
      positive_offset_(Negated(call.positive_log_q, call.batch, call.batch)) {}

void SoftmaxQueries::Run(Block& block, int64_t first, int64_t count, KeptWeights* kept) const {
  const SoftmaxTileKernels& kernels = SoftmaxTiles();
  std::vector<float> positives(count * call_.dim), scores(count);
  block.Start(RowOf(call_.queries, call_, first), call_.positive_ids + first, count);
  kernels.load[static_cast<int>(call_.dtype)](RowOf(call_.positives, call_, first), count * call_.dim,
                                              positives.data());
  kernels.pair_scores(block.rows(), positives.data(), count, call_.dim, *call_.scale, positive_offset_.data() + first,
                      scores.data());
  std::vector<SoftmaxRowState> states;
  for (float score : scores) states.push_back({score, 0.0, 0});
  for (int64_t chunk = 0; chunk < columns_.chunks(); ++chunk) {
    block.Score(chunk, offset_.data(), false);
    for (int64_t r = 0; r < count; ++r) {
      kernels.softmax(block.scores(chunk, r), block.step(), columns_.size(chunk), scores[r], &states[r],
                      call_.mean ? block.sums(r) : nullptr, columns_.padded_dim());
      if (kept) kept->maxima[chunk * kept->max.size() + r] = states[r].max;
    }
    if (call_.mean) block.Accumulate(chunk);
  }
  for (int64_t r = 0; r < count; ++r) {
    const float share = Finish(call_, first + r, scores[r], states[r], block.sums(r), positives.data() + r * call_.dim);
    if (!kept) continue;
    kept->max[r] = states[r].max;
    kept->factors[r] = call_.query_weights ? share * call_.query_weights[first + r] : share;
  }
}

}  // namespace merlin
