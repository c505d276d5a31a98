// What both directions of inbatch_softmax on the CPU work with: packed columns, and blocks of rows that are scored with
// them chunk by chunk. Columns are candidates in the forward pass and queries in the backward pass.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "common/scratch.h"
#include "inbatch_softmax/inbatch_softmax.h"
#include "inbatch_softmax/softmax_tiles.h"

namespace merlin {

constexpr int64_t kBlockFloats = 12288;  // of a block of rows
constexpr int64_t kChunkFloats = 16384;  // of a chunk of columns
constexpr int64_t kMaxBlock = 96, kMaxChunk = 256;
constexpr int64_t kFlopsANanosecond = 40;

inline int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// Rows of a block, at most: it stays in the second-level cache.
inline int64_t LargestBlock(int64_t dim) {
  const int64_t multiple = SoftmaxTiles().rows;
  return std::clamp(kBlockFloats / dim / multiple * multiple, multiple, kMaxBlock);
}

inline const void* RowOf(const void* rows, const InbatchSoftmax& call, int64_t row) {
  return static_cast<const char*>(rows) + row * call.dim * SizeOf(call.dtype);
}
inline void* RowOf(void* rows, const InbatchSoftmax& call, int64_t row) {
  return static_cast<char*>(rows) + row * call.dim * SizeOf(call.dtype);
}

// Rows [count, dim] of any DType as the tile kernels want columns.
class Columns {
 public:
  Columns(const void* data, DType dtype, int64_t count, int64_t dim, Threads& threads)
      : count_(count),
        dim_(dim),
        panel_(SoftmaxTiles().panel),
        padded_dim_(RoundUp(dim, panel_)),
        chunk_(std::clamp(kChunkFloats / dim / panel_ * panel_, panel_, kMaxChunk)),
        by_dimension_(RoundUp(count, panel_) * dim),
        by_column_(count * padded_dim_) {
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
  Scratch<float> by_dimension_, by_column_;
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

// The scores of a block of rows with one chunk of columns after the other. Scores of a chunk are overwritten by those
// of the next unless the block keeps them.
class Block {
 public:
  Block(const InbatchSoftmax& call, const Columns& columns, const ColumnsOfId& same, int64_t max_rows,
        float* kept = nullptr)
      : call_(call),
        columns_(columns),
        same_(same),
        rows_(max_rows * call.dim),
        sums_(max_rows * columns.padded_dim()),
        next_same_(max_rows),
        step_(max_rows * kernels_.width),
        between_chunks_(kept ? max_rows * columns.chunk() : 0),
        own_tile_(kept ? 0 : max_rows * columns.chunk()),
        tile_(kept ? kept : own_tile_.data()) {}

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
    const int64_t first = columns_.first(chunk), size = columns_.size(chunk);
    kernels_.scores(rows_.data(), padded_, call_.dim, columns_.by_dimension(chunk), size, *call_.scale,
                    offset_of_rows ? offset : offset + first, offset_of_rows, scores(chunk, 0), step_);
    constexpr float kNothing = -std::numeric_limits<float>::infinity();
    for (int64_t r = 0; r < count_; ++r) {
      float* const row = scores(chunk, r);
      for (int64_t c = size; c % kernels_.panel; ++c) row[Place(c)] = kNothing;
      const int64_t*& column = next_same_[r];
      for (; same_.Has(column, ids_[r]) && *column < first + size; ++column) {
        row[Place(*column - first)] = kNothing;
      }
    }
  }

  // Adds the chunk's columns to the rows' sums, weighted with what has been made of the scores.
  void Accumulate(int64_t chunk) {
    kernels_.accumulate(scores(chunk, 0), step_, padded_, columns_.by_column(chunk), columns_.size(chunk),
                        columns_.padded_dim(), sums_.data());
  }

  // A row's scores with the chunk, as a tile has them.
  float* scores(int64_t chunk, int64_t r) { return tile_ + chunk * between_chunks_ + r * kernels_.width; }
  int64_t step() const { return step_; }
  float* sums(int64_t r) { return sums_.data() + r * columns_.padded_dim(); }
  const float* rows() const { return rows_.data(); }
  int64_t count() const { return count_; }

 private:
  int64_t Place(int64_t column) const { return column / kernels_.width * step_ + column % kernels_.width; }

  const InbatchSoftmax& call_;
  const Columns& columns_;
  const ColumnsOfId& same_;
  const SoftmaxTileKernels& kernels_ = SoftmaxTiles();
  std::vector<float> rows_, sums_;
  std::vector<const int64_t*> next_same_;
  int64_t step_;
  int64_t between_chunks_;
  std::vector<float> own_tile_;
  float* tile_;
  const int64_t* ids_ = nullptr;
  int64_t count_ = 0, padded_ = 0;
};

}  // namespace merlin
