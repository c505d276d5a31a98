// Arithmetic on rows, compiled once for each instruction set; `Rows()` picks the best set of this machine.
#pragma once

#include <cstdint>
#include <type_traits>

#include "common/dtypes.h"
#include "embedding_bag/row_step.h"

namespace merlin {

struct RowKernels {
  const char* instruction_set;

  // sum[0..dim) += coefs[i] * table[rows[i]][0..dim) for i in [0, count); coefs null means ones. `rows` holds
  // `readable` >= count valid entries: those behind `count` are only prefetched.
  void (*accumulate[3])(const void* table, int64_t stride, int64_t dim, const int64_t* rows, const float* coefs,
                        int64_t count, int64_t readable, float* sum);
  // out[0..dim) = scale * sum[0..dim), rounded to nearest even.
  void (*store[3])(const float* sum, float scale, int64_t dim, void* out);
  // Dot product of a row of the first type with `other`, which is float32.
  float (*dot[3])(const void* row, const float* other, int64_t dim);
  // sum[0..dim) = row[0..dim)
  void (*load[3])(const void* row, int64_t dim, float* sum);
  // sum[0..dim) = coef * row[0..dim)
  void (*scale[3])(const void* row, float coef, int64_t dim, float* sum);
  // One step of the row `index` with its summed gradient, which is overwritten. slot: of this row.
  void (*step[3])(const UpdateRule& rule, const StepScalars& scalars, int64_t index, int64_t dim, float* sum, void* row,
                  float* const (&slot)[2]);
};

// Asks the memory for all lines that a row lies on, one more than it fills where it does not start with one. Into the
// second cache: the first one's queue of misses is the shorter, and full long before the memory is busy.
MERLIN_INLINE void PrefetchRow(const void* row, int64_t bytes) {
  const char* first = static_cast<const char*>(row);
  for (int64_t at = 0; at < bytes; at += 64) __builtin_prefetch(first + at, 0, 2);
  __builtin_prefetch(first + bytes - 1, 0, 2);
}

const RowKernels& Rows();

// One for each instruction set; null where the compiler's target has no such set.
const RowKernels* BaselineRows();
const RowKernels* Avx2Rows();
const RowKernels* Avx512Rows();

}  // namespace merlin
