// Queries are taken in strips of a few blocks, whose weights are kept, [rows of the strip, candidates], until
// candidates have been summed up with them: a thread takes a group of candidates and adds the strip's queries to its
// sums, one after the other. Sums do not depend on the strips, nor on who takes what. Two strips take turns: while one
// is summed up, the next is scored.
#include "inbatch_softmax/softmax_strips.h"

#include <cmath>
#include <memory>

#include "common/stages.h"

namespace merlin {
namespace {

constexpr int64_t kStripFloats = 1 << 21;         // of a strip's weights: 8 MB
constexpr int64_t kStripFloatsAThread = 1 << 18;  // or 1 MB a thread, where that is more
constexpr int64_t kLeastRows = 96;                // of a strip: each reads and writes the sums of all candidates
constexpr int64_t kLargestTile = 12;              // rows of any instruction set's tile, of which a block has whole ones

// A block of queries with its weights.
class KeptBlock {
 public:
  KeptBlock(const InbatchSoftmax& call, const SoftmaxQueries& queries, int64_t rows, float* weights)
      : call_(call),
        queries_(queries),
        rows_(rows),
        block_(call, queries.columns(), queries.same(), rows, weights),
        weights_(queries.columns().chunks(), rows),
        by_row_(rows * queries.columns().padded_dim()) {}

  void Score(int64_t first, int64_t count) {
    queries_.Run(block_, first, count, &weights_);
    kernels_.pack_scaled(block_.rows(), weights_.factors.data(), count, call_.dim, by_row_.data());
  }

  // Adds the queries, weighted, to the sums of `columns` candidates of a chunk from its `begin` on, and the weights to
  // `totals` unless null.
  void AddTo(int64_t chunk, int64_t begin, int64_t columns, float* sums, double* totals) {
    const int64_t step = block_.step();
    float* const weights = block_.scores(chunk, 0) + begin / kernels_.width * step;
    const float* const maxima = weights_.maxima.data() + chunk * rows_;
    for (int64_t r = 0; r < block_.count(); ++r) {
      const float max = weights_.max[r];
      if (maxima[r] != max) kernels_.scale(weights + r * kernels_.width, step, columns, std::exp(maxima[r] - max));
    }
    kernels_.accumulate_across(weights, step, block_.count(), by_row_.data(), columns, queries_.columns().padded_dim(),
                               sums);
    if (totals) {
      kernels_.sum_across(weights, step, block_.count(), weights_.factors.data(), columns, totals);
    }
  }

 private:
  const InbatchSoftmax& call_;
  const SoftmaxQueries& queries_;
  const SoftmaxTileKernels& kernels_ = SoftmaxTiles();
  int64_t rows_;
  Block block_;
  KeptWeights weights_;
  std::vector<float> by_row_;
};

class Strips {
 public:
  Strips(const InbatchSoftmax& call, const SoftmaxQueries& queries, Threads& threads)
      : call_(call), columns_(queries.columns()), threads_(threads) {
    const int64_t count = threads.count(), width = columns_.chunks() * columns_.chunk();
    const int64_t multiple = SoftmaxTiles().rows, largest = LargestBlock(call.dim);
    const int64_t most = std::min(RoundUp(call.batch, multiple), 2 * count * largest);
    const int64_t of_strip = std::clamp(std::max(kStripFloats, count * kStripFloatsAThread) / width, multiple, most);
    rows_ = std::clamp(RoundUp(of_strip / (2 * count), multiple), multiple, largest);
    of_strip_ = std::max<int64_t>(1, of_strip / rows_);
    num_blocks_ = (call.batch + rows_ - 1) / rows_;
    num_strips_ = (num_blocks_ + of_strip_ - 1) / of_strip_;
    const int64_t kept = std::min(num_blocks_, 2 * of_strip_);
    weights_ = std::make_unique<Scratch<float>>(kept * rows_ * width);
    for (int64_t b = 0; b < kept; ++b) {
      float* const weights = weights_->get() + b * rows_ * width;
      blocks_.push_back(std::make_unique<KeptBlock>(call, queries, rows_, weights));
    }
    const int64_t panel = SoftmaxTiles().panel;
    group_ = std::clamp(RoundUp(call.candidates / (8 * count), panel), panel, columns_.chunk());
    groups_a_chunk_ = (columns_.chunk() + group_ - 1) / group_;
    const int64_t num_sums = columns_.padded_count() * columns_.padded_dim();
    sums_ = std::make_unique<Scratch<float>>(num_sums);
    std::fill_n(sums_->get(), num_sums, 0.0f);
    totals_.resize(call.candidate_weights ? columns_.padded_count() : 0);
  }

  void Run() {
    Stages stages;
    std::vector<int64_t> scored(num_strips_), summed(num_strips_);
    for (int64_t strip = 0; strip <= num_strips_; ++strip) {
      if (strip < num_strips_) {
        std::vector<int64_t> after;
        if (strip >= 2) after.push_back(summed[strip - 2]);  // whose blocks the strip takes
        scored[strip] =
            stages.Add(EndOf(strip) - strip * of_strip_, after, [this, strip](int64_t unit) { Score(strip, unit); });
      }
      if (strip > 0) {
        const int64_t before = strip - 1;
        std::vector<int64_t> after{scored[before]};
        if (before > 0) after.push_back(summed[before - 1]);
        summed[before] =
            stages.Add(columns_.chunks() * groups_a_chunk_, after, [this, before](int64_t unit) { Sum(before, unit); });
      }
    }
    stages.Run(6 * call_.batch * columns_.padded_count() * call_.dim / kFlopsANanosecond, threads_);
  }

 private:
  KeptBlock& block(int64_t b) { return *blocks_[b % blocks_.size()]; }
  // The block behind the strip's last one.
  int64_t EndOf(int64_t strip) const { return std::min((strip + 1) * of_strip_, num_blocks_); }

  void Score(int64_t strip, int64_t unit) {
    const int64_t b = strip * of_strip_ + unit, first = b * rows_;
    block(b).Score(first, std::min(rows_, call_.batch - first));
  }

  // Adds the strip to the sums of one group of candidates, which lie in one chunk.
  void Sum(int64_t strip, int64_t unit) {
    const int64_t chunk = unit / groups_a_chunk_, begin = unit % groups_a_chunk_ * group_;
    const int64_t count = std::min(group_, columns_.size(chunk) - begin), first = columns_.first(chunk) + begin;
    if (count <= 0) return;
    float* const sums = sums_->get() + first * columns_.padded_dim();
    double* const totals = call_.candidate_weights ? totals_.data() + first : nullptr;
    for (int64_t b = strip * of_strip_; b < EndOf(strip); ++b) block(b).AddTo(chunk, begin, count, sums, totals);
    if (strip == num_strips_ - 1) Write(first, count, sums);
  }

  void Write(int64_t first, int64_t count, const float* sums) const {
    const int64_t panel = SoftmaxTiles().panel, columns = RoundUp(count, SoftmaxTiles().width);
    for (int64_t c = 0; c < count; ++c) {
      float* const to = call_.candidate_sums + (first + c) * call_.dim;
      for (int64_t d = 0; d < call_.dim; d += panel) {
        std::copy_n(sums + d * columns + c * panel, std::min(panel, call_.dim - d), to + d);
      }
      if (call_.candidate_weights) call_.candidate_weights[first + c] = static_cast<float>(totals_[first + c]);
    }
  }

  const InbatchSoftmax& call_;
  const Columns& columns_;
  Threads& threads_;
  int64_t rows_, num_blocks_, of_strip_, num_strips_;  // rows of a block; blocks, of a strip too; strips
  int64_t group_, groups_a_chunk_;
  std::unique_ptr<Scratch<float>> weights_, sums_;
  std::vector<std::unique_ptr<KeptBlock>> blocks_;
  std::vector<double> totals_;
};

}  // namespace

bool InbatchSoftmaxSumsCandidates(int64_t batch, int64_t candidates) {
  return RoundUp(std::min(batch, kLeastRows), kLargestTile) * candidates <= kStripFloats;
}

void SoftmaxInStrips(const InbatchSoftmax& call, const SoftmaxQueries& queries, Threads& threads) {
  Strips(call, queries, threads).Run();
}

}  // namespace merlin
