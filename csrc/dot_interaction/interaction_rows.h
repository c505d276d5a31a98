// One sample's products, compiled once for each instruction set; `InteractionRows()` picks the best of this machine.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "common/dtypes.h"

namespace merlin {

// The rows of the sample that comes next, of which the kernels ask for some with each block that they compute: all at
// once they would fill the queue of a core's misses, and what is computed would wait behind them.
class RowsAhead {
 public:
  RowsAhead(const char* const* rows, int64_t count, int64_t bytes) : rows_(rows), count_(count), bytes_(bytes) {}

  // The next `count` of them.
  void Ask(int64_t count) {
    for (; count > 0 && asked_ < count_; --count, ++asked_) {
      for (int64_t byte = 0; byte < bytes_; byte += 64) __builtin_prefetch(rows_[asked_] + byte);
    }
  }

 private:
  const char* const* rows_;
  int64_t count_, bytes_, asked_ = 0;
};

struct InteractionRowKernels {
  const char* instruction_set;

  // line[0..pairs) = rows[i] . rows[j] of the pairs with j < i if `lower`, else with j > i, row by row; with those of j
  // = i if `self`.
  void (*products)(const float* const* rows, int64_t features, int64_t dim, bool lower, bool self, float* line,
                   RowsAhead ahead);
  // The symmetric square of which `line` is the triangle; its diagonal is doubled, or zero without `self`. It has room
  // for features rows of `stride`, which is a multiple of 16 and at least features.
  void (*unpack)(const float* line, int64_t features, bool lower, bool self, float* square, int64_t stride);
  // out[i][0..dim) = sum over j of square[i * stride + j] * rows[j][0..dim). With `streams` they go past the caches:
  // dim is a multiple of 16 then, and so are their addresses of 64 bytes.
  void (*combine)(const float* const* rows, int64_t features, int64_t dim, const float* square, int64_t stride,
                  float* const* out, bool streams, RowsAhead ahead);
  // Conversions of `count` elements from and to a DType.
  void (*load[3])(const void* from, int64_t count, float* to);
  void (*store[3])(const float* from, int64_t count, void* to);
};

const InteractionRowKernels& InteractionRows();

// One for each instruction set; null where the compiler's target has no such set.
const InteractionRowKernels* BaselineInteractionRows();
const InteractionRowKernels* Avx2InteractionRows();
const InteractionRowKernels* Avx512InteractionRows();

}  // namespace merlin
