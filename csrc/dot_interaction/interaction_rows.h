// One sample's products, compiled once for each instruction set; `InteractionRows()` picks the best of this machine.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "common/dtypes.h"

namespace merlin {

struct InteractionRowKernels {
  const char* instruction_set;

  // Squares have room for features + 16 rows of `stride`, which is a multiple of 16 and at least features.
  // square[i * stride + j] = rows[i] . rows[j] for j <= i if `lower`, else for j >= i. What lies outside of the
  // triangle is overwritten.
  void (*products)(const float* const* rows, int64_t features, int64_t dim, bool lower, float* square, int64_t stride);
  // line[0..pairs) = the triangle of the square, row by row; with the diagonal if `self`.
  void (*pack)(const float* square, int64_t stride, int64_t features, bool lower, bool self, float* line);
  // The symmetric square of which `line` is the triangle; its diagonal is doubled, or zero without `self`.
  void (*unpack)(const float* line, int64_t features, bool lower, bool self, float* square, int64_t stride);
  // out[i][0..dim) = sum over j of square[i * stride + j] * rows[j][0..dim)
  void (*combine)(const float* const* rows, int64_t features, int64_t dim, const float* square, int64_t stride,
                  float* const* out);
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
