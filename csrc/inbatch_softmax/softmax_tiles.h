// A tile of scores, rows by columns, and what is done with it: compiled once for each instruction set; `SoftmaxTiles()`
// picks the best of this machine.
//
// Rows are queries and columns candidates in the forward pass, and the other way round in the backward pass. Columns
// are packed twice, in chunks of up to `chunk` columns:
//   by dimension  [columns / panel][dim][panel]: for the scores, whose vectors lie along columns
//   by column     [chunk][dim / panel][columns of the chunk][panel]: for weighted sums, whose vectors lie along dim.
// Both are padded with zeros to whole panels.
//
// A tile is [columns / width][rows][width], so that a vector of columns and a few rows, and a row's or a column's
// weights, lie together; `step` is the distance from one vector of columns to the next. A row's scores begin at row *
// width.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "common/dtypes.h"

namespace merlin {

// A row's softmax so far.
struct SoftmaxRowState {
  float max;        // of the positive's score and of all scores
  double sum;       // of exp(score - max) over the scores
  int64_t greater;  // scores that are greater than the positive's
};

struct SoftmaxTileKernels {
  const char* instruction_set;
  int64_t width;  // of a vector
  int64_t panel;  // columns
  int64_t rows;   // a tile's rows are a multiple of it

  void (*load[3])(const void* from, int64_t count, float* to);
  void (*store[3])(const float* from, int64_t count, void* to);

  // Packs `count` columns of a chunk (both places are those of its first column). scratch: padded dim.
  void (*pack[3])(const void* columns, int64_t count, int64_t dim, float* by_dimension, float* by_column,
                  float* scratch);

  // out[r] = scale * (a[r] . b[r]) + offset[r], the sum taken as `scores` takes it: equal vectors tie to the bit.
  void (*pair_scores)(const float* a, const float* b, int64_t count, int64_t dim, float scale, const float* offset,
                      float* out);

  // Score of r and c = scale * (rows[r] . column c) + offset of r or, unless `offset_of_rows`, of c; columns are
  // written, and offsets read, up to a multiple of the vector width.
  void (*scores)(const float* rows, int64_t num_rows, int64_t dim, const float* by_dimension, int64_t columns,
                 float scale, const float* offset, bool offset_of_rows, float* tile, int64_t step);

  // Scores of one row into weights exp(score - max), the row's state brought up to date, and `sums`, what the row had
  // summed up with the old maximum, too, unless null. Columns beyond the last one are -infinity up to a whole vector.
  void (*softmax)(float* scores, int64_t step, int64_t columns, float positive_score, SoftmaxRowState* state,
                  float* sums, int64_t padded_dim);

  // Scores of one row into grad[c] * exp(score - log_sum[c]); returns their sum.
  float (*weights)(float* scores, int64_t step, int64_t columns, const float* log_sum, const float* grad);

  // sums[r] += sum over c of the weight of r and c * column c, each `padded_dim` long.
  void (*accumulate)(const float* tile, int64_t step, int64_t num_rows, const float* by_column, int64_t columns,
                     int64_t padded_dim, float* sums);

  // Rows, each times its factor, as `accumulate_across` wants them: [dim / panel][count][panel], padded with zeros.
  void (*pack_scaled)(const float* rows, const float* factors, int64_t count, int64_t dim, float* by_row);

  // Adds to column c's sums, one row r after the other, the weight of r and c times row r. Sums are by column, as
  // `pack` has them, of `columns` rounded up to a multiple of the vector width.
  void (*accumulate_across)(const float* tile, int64_t step, int64_t num_rows, const float* by_row, int64_t columns,
                            int64_t padded_dim, float* sums);

  // Scores of one row times a factor, up to a multiple of the vector width.
  void (*scale)(float* scores, int64_t step, int64_t columns, float factor);

  // totals[c] += sum over r of the weight of r and c * factors[r]; columns as of `accumulate_across`. Rows are summed
  // in groups of `rows`, so that it is the same whether they come in one call or, whole groups, in several.
  void (*sum_across)(const float* tile, int64_t step, int64_t num_rows, const float* factors, int64_t columns,
                     double* totals);
};

const SoftmaxTileKernels& SoftmaxTiles();

// One for each instruction set; null where the compiler's target has no such set.
const SoftmaxTileKernels* BaselineSoftmaxTiles();
const SoftmaxTileKernels* Avx2SoftmaxTiles();
const SoftmaxTileKernels* Avx512SoftmaxTiles();

}  // namespace merlin
