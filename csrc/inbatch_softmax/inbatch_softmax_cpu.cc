// inbatch_softmax on the CPU. A thread takes a block of rows over all columns, a chunk at a time: the block, its sums
// and the chunk stay in the second-level cache, and the tile of scores is all that exists of the [batch, candidates]
// matrix. Queries are the rows of the forward pass and candidates those of the backward pass, so that each gradient is
// summed by one thread in one order: results do not depend on the number of threads.
#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <vector>

#include "common/check.h"
#include "inbatch_softmax/inbatch_softmax.h"
#include "inbatch_softmax/softmax_tiles.h"

namespace merlin {
namespace {

constexpr int64_t kBlockFloats = 12288;  // of a block of rows
constexpr int64_t kChunkFloats = 16384;  // of a chunk of columns
constexpr int64_t kMaxBlock = 96, kMaxChunk = 256;
constexpr int64_t kFlopsANanosecond = 40;

int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Rows [count, dim] of any DType as the tile kernels want columns.
class Columns {
 public:
  Columns(const void* data, DType dtype, int64_t count, int64_t dim, Threads& threads)
      : count_(count),
        dim_(dim),
        panel_(SoftmaxTiles().panel),
        padded_dim_(RoundUp(dim, panel_)),
        chunk_(std::clamp(kChunkFloats / dim / panel_ * panel_, panel_, kMaxChunk)),
        by_dimension_(new float[RoundUp(count, panel_) * dim]),
        by_column_(new float[count * padded_dim_]) {
    threads.For(chunks(), chunk_ * dim_ * 2, [&](int64_t begin, int64_t end) {
      std::vector<float> scratch(padded_dim_);
      for (int64_t chunk = begin; chunk < end; ++chunk) {
        const int64_t first = chunk * chunk_;
        SoftmaxTiles().pack[static_cast<int>(dtype)](static_cast<const char*>(data) + first * dim_ * SizeOf(dtype),
                                                     size(chunk), dim_, by_dimension_.get() + first * dim_,
                                                     by_column_.get() + first * padded_dim_, scratch.data());
      }
    });
  }

  int64_t chunks() const { return (count_ + chunk_ - 1) / chunk_; }
  int64_t first(int64_t chunk) const { return chunk * chunk_; }
  int64_t size(int64_t chunk) const { return std::min(chunk_, count_ - chunk * chunk_); }
  int64_t chunk() const { return chunk_; }
  int64_t padded_dim() const { return padded_dim_; }
  int64_t padded_count() const { return RoundUp(count_, panel_); }
  const float* by_dimension(int64_t chunk) const { return by_dimension_.get() + first(chunk) * dim_; }
  const float* by_column(int64_t chunk) const { return by_column_.get() + first(chunk) * padded_dim_; }

 private:
  int64_t count_, dim_, panel_, padded_dim_, chunk_;
  std::unique_ptr<float[]> by_dimension_, by_column_;
};

// Which columns have a given id.
class ColumnsOfId {
 public:
  ColumnsOfId(const int64_t* ids, int64_t count) : ids_(ids), order_(count) {
    std::iota(order_.begin(), order_.end(), int64_t{0});
    std::sort(order_.begin(), order_.end(),
              [ids](int64_t a, int64_t b) { return ids[a] != ids[b] ? ids[a] < ids[b] : a < b; });
  }

  // Ascending; ends at the first column of another id, see `Has`.
  const int64_t* Begin(int64_t id) const {
    return std::lower_bound(order_.data(), End(), id,
                            [this](int64_t column, int64_t wanted) { return ids_[column] < wanted; });
  }
  bool Has(const int64_t* at, int64_t id) const { return at != End() && ids_[*at] == id; }

 private:
  const int64_t* End() const { return order_.data() + order_.size(); }

  const int64_t* ids_;
  std::vector<int64_t> order_;
};

// The scores of a block of rows with one chunk of columns after the other.
class Block {
 public:
  Block(const InbatchSoftmax& call, const Columns& columns, const ColumnsOfId& same, int64_t max_rows)
      : call_(call),
        columns_(columns),
        same_(same),
        rows_(max_rows * call.dim),
        tile_(max_rows * columns.chunk()),
        sums_(max_rows * columns.padded_dim()),
        next_same_(max_rows) {}

  // Takes rows [count, dim] with their ids, and forgets the sums.
  void Start(const void* rows, const int64_t* ids, int64_t count) {
    count_ = count;
    padded_ = RoundUp(count, kernels_.rows);
    ids_ = ids;
    kernels_.load[static_cast<int>(call_.dtype)](rows, count * call_.dim, rows_.data());
    std::fill(rows_.begin() + count * call_.dim, rows_.begin() + padded_ * call_.dim, 0.0f);
    std::fill(sums_.begin(), sums_.end(), 0.0f);
    for (int64_t r = 0; r < count; ++r) next_same_[r] = same_.Begin(ids[r]);
  }

  // The next chunk; columns of a row's own id have the score -infinity, and so have those up to a whole panel.
  void Score(int64_t chunk, const float* offset, bool offset_of_rows) {
    const int64_t stride = columns_.chunk(), first = columns_.first(chunk), size = columns_.size(chunk);
    kernels_.scores(rows_.data(), padded_, call_.dim, columns_.by_dimension(chunk), size, *call_.scale,
                    offset_of_rows ? offset : offset + first, offset_of_rows, tile_.data(), stride);
    for (int64_t r = 0; r < count_; ++r) {
      float* scores = tile_.data() + r * stride;
      std::fill(scores + size, scores + RoundUp(size, kernels_.panel), -std::numeric_limits<float>::infinity());
      const int64_t*& column = next_same_[r];
      for (; same_.Has(column, ids_[r]) && *column < first + size; ++column) {
        scores[*column - first] = -std::numeric_limits<float>::infinity();
      }
    }
  }

  // Adds the chunk's columns to the rows' sums, weighted with what has been made of the scores.
  void Accumulate(int64_t chunk) {
    kernels_.accumulate(tile_.data(), columns_.chunk(), padded_, columns_.by_column(chunk), columns_.size(chunk),
                        columns_.padded_dim(), sums_.data());
  }

  float* scores(int64_t r) { return tile_.data() + r * columns_.chunk(); }
  float* sums(int64_t r) { return sums_.data() + r * columns_.padded_dim(); }
  const float* rows() const { return rows_.data(); }

 private:
  const InbatchSoftmax& call_;
  const Columns& columns_;
  const ColumnsOfId& same_;
  const SoftmaxTileKernels& kernels_ = SoftmaxTiles();
  std::vector<float> rows_, tile_, sums_;
  std::vector<const int64_t*> next_same_;
  const int64_t* ids_ = nullptr;
  int64_t count_ = 0, padded_ = 0;
};

// Calls body(block, first row, rows) for blocks of all rows, in parallel. Results do not depend on the block's size.
template <typename Body>
void ForBlocks(const InbatchSoftmax& call, int64_t rows, const Columns& columns, const ColumnsOfId& same,
               Threads& threads, Body&& body) {
  const int64_t multiple = SoftmaxTiles().rows;
  const int64_t most = std::clamp(kBlockFloats / call.dim / multiple * multiple, multiple, kMaxBlock);
  const int64_t size = std::clamp(RoundUp(rows / (4 * int64_t{threads.count()}), multiple), multiple, most);
  const int64_t cost = 4 * size * columns.padded_count() * call.dim / kFlopsANanosecond;
  threads.For((rows + size - 1) / size, cost, [&](int64_t begin, int64_t end) {
    Block block(call, columns, same, size);
    for (int64_t b = begin; b < end; ++b) body(block, b * size, std::min(size, rows - b * size));
  });
}

std::vector<float> Negated(const float* values, int64_t count, int64_t padded) {
  std::vector<float> negated(padded);
  for (int64_t i = 0; values && i < count; ++i) negated[i] = -values[i];
  return negated;
}

const void* RowOf(const void* rows, const InbatchSoftmax& call, int64_t row) {
  return static_cast<const char*>(rows) + row * call.dim * SizeOf(call.dtype);
}
void* RowOf(void* rows, const InbatchSoftmax& call, int64_t row) {
  return static_cast<char*>(rows) + row * call.dim * SizeOf(call.dtype);
}

// The row's results, when its block has seen all columns. With the positive's weight exp(positive - max) beside the sum
// of the others nothing is lost where the loss is near 0.
void Finish(const InbatchSoftmax& call, int64_t i, float positive_score, const SoftmaxRowState& state,
            const float* sums, const float* positive) {
  const double beyond = static_cast<double>(state.max) - positive_score, own = std::exp(-beyond);
  const double loss = beyond > 0 ? beyond + std::log(own + state.sum) : std::log1p(state.sum) + beyond;
  call.loss[i] = static_cast<float>(loss);
  call.log_sum[i] = static_cast<float>(positive_score + loss);
  call.positive_score[i] = positive_score;
  if (call.rank) call.rank[i] = state.greater;
  if (!call.mean) return;
  const float own_share = static_cast<float>(own / (own + state.sum));
  const float share = static_cast<float>(1.0 / (own + state.sum));
  for (int64_t d = 0; d < call.dim; ++d) call.mean[i * call.dim + d] = share * sums[d] + own_share * positive[d];
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

}  // namespace

void CheckInbatchSoftmax(const InbatchSoftmax& call) {
  Check(call.dim >= 1 && call.dim <= kMaxSoftmaxDim, "dim must be in [1, ", kMaxSoftmaxDim, "]. Received: ", call.dim);
}

void InbatchSoftmaxForward(const InbatchSoftmax& call, Threads& threads) {
  CheckInbatchSoftmax(call);
  if (call.batch == 0) return;
  const Columns columns(call.keys, call.dtype, call.candidates, call.dim, threads);
  const ColumnsOfId same(call.candidate_ids, call.candidates);
  const std::vector<float> offset = Negated(call.candidate_log_q, call.candidates, columns.padded_count());
  const std::vector<float> positive_offset = Negated(call.positive_log_q, call.batch, call.batch);
  const SoftmaxTileKernels& kernels = SoftmaxTiles();
  ForBlocks(call, call.batch, columns, same, threads, [&](Block& block, int64_t first, int64_t count) {
    std::vector<float> positives(count * call.dim), scores(count);
    block.Start(RowOf(call.queries, call, first), call.positive_ids + first, count);
    kernels.load[static_cast<int>(call.dtype)](RowOf(call.positives, call, first), count * call.dim, positives.data());
    kernels.pair_scores(block.rows(), positives.data(), count, call.dim, *call.scale, positive_offset.data() + first,
                        scores.data());
    std::vector<SoftmaxRowState> states;
    for (float score : scores) states.push_back({score, 0.0, 0});
    for (int64_t chunk = 0; chunk < columns.chunks(); ++chunk) {
      block.Score(chunk, offset.data(), false);
      for (int64_t r = 0; r < count; ++r) {
        kernels.softmax(block.scores(r), columns.size(chunk), scores[r], &states[r],
                        call.mean ? block.sums(r) : nullptr, columns.padded_dim());
      }
      if (call.mean) block.Accumulate(chunk);
    }
    for (int64_t r = 0; r < count; ++r) {
      Finish(call, first + r, scores[r], states[r], block.sums(r), positives.data() + r * call.dim);
    }
  });
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
        totals[r] +=
            kernels.weights(block.scores(r), columns.size(chunk), log_sum.data() + column, grad.data() + column);
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

}  // namespace merlin
