// The passes over all pairs that both directions of inbatch_softmax are made of, as the host starts them.
//
// Rows stay, columns stream by. Forward the rows are queries and the columns candidates; backward the other way round.
// Scores are in units of log2: score = factor * row . column - column offset, with factor = scale * log2(e).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace merlin {

enum class Pass {
  kLoss,      // sums of exponentials, and ranks
  kForward,   // the same, and sums of columns weighted by them
  kBackward,  // columns weighted by exponentials of which the logarithm of the sum is known
};

// A row or column beside its vector.
struct SideInfo {
  float offset;  // see Pass: of a column, what is taken off its scores; of a row, below
  uint32_t key;  // of its id: pairs of equal keys are looked at again (`wide`) or left out
};

// What a first look over the inputs finds, in device memory.
struct SoftmaxScalars {
  uint32_t query_max, key_max;  // bits of the largest finite magnitude
  uint32_t gradient_max;        // of the gradients of log_sum
  uint32_t wide;                // not 0 if ids differ in their upper 32 bits: then equal keys prove nothing
  uint32_t negative;            // not 0 if a gradient of log_sum is below 0
};

// What exponentials are multiplied by, as a power of two, before they are rounded to float16, so that small ones keep
// bits.
constexpr float kShift = 7.0f;
// Below all scores, and finite.
constexpr float kLowest = -1e30f;
// A row's reference follows its maximum only when that is this much (in log2) above it: 2^(7 + 8) still fits float16.
constexpr float kLazyMax = 8.0f;

constexpr int kRowTile = 128;  // rows and columns are padded to multiples of it

struct PassCall {
  const void* rows;     // float [num_rows, dim], or float16 tiles (PackedTiles below)
  const void* columns;  // likewise
  // Padded with offset = infinity, so that what is beyond the columns has weight 0. A row's offset is
  //   forward: the positive's score, which the reference starts from and scores are ranked against
  //   backward: what is taken off its scores when all are summed up.
  const SideInfo* row_info;
  const SideInfo* column_info;
  const int64_t* row_ids;
  const int64_t* column_ids;
  const float* log_sum_grad;  // backward: of the columns, for their signs
  const SoftmaxScalars* scalars;
  const float* scale;
  int64_t num_rows, num_columns;
  int dim;         // of `total`; for tiles also of rows and columns: 64, 128 or 256
  int row_stride;  // float: elements from one row to the next, and how many of them count
  int splits;      // the columns are dealt to so many blocks a row tile
  // Written, [splits, padded rows] and [splits, padded rows, dim]:
  float* reference;  // exponentials are those of scores - reference + kShift
  float* sum;
  int32_t* rank;  // forward, or null
  float* total;   // not kLoss
};

__host__ __device__ constexpr int64_t PaddedRows(int64_t count) { return (count + kRowTile - 1) / kRowTile * kRowTile; }

// float16 tiles as the tensor cores of compute capability 9.0 read them from shared memory: TileColumns(dim) vectors a
// tile; in a tile, blocks of 64 elements (128 bytes) a vector, one block behind the other; the 16-byte chunks of a
// vector's block are exchanged by the vector's number: chunk c of vector v is at c ^ (v % 8).
__host__ __device__ constexpr int TileColumns(int dim) { return dim == 256 ? 64 : 128; }
__host__ __device__ constexpr int64_t TileChunk(int64_t vector, int chunk, int dim) {
  const int rows = TileColumns(dim);
  return (vector / rows * (dim / 64) + chunk / 8) * rows * 8 + vector % rows * 8 + ((chunk % 8) ^ (vector % 8));
}

// Compute capability 9.0 (wgmma): float16 tiles.
void RunTilePass(Pass pass, const PassCall& call, cudaStream_t stream);
// Any device: float32 arithmetic on float rows and columns, dim up to 512 (64, 128, 256 or 512).
void RunFloatPass(Pass pass, const PassCall& call, cudaStream_t stream);

}  // namespace merlin
