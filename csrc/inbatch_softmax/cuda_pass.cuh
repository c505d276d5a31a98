// What the passes of inbatch_softmax share on the device.
#pragma once

#include <cmath>

#include "inbatch_softmax/cuda_pass.h"

namespace merlin {

constexpr float kLog2E = 1.4426950408889634f, kLn2 = 0.6931471805599453f;

__device__ __forceinline__ float ExpTwo(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// NaN stays NaN.
__device__ __forceinline__ float AtMost(float x, float bound) {
  float y;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(x), "f"(bound));
  return y;
}

// Sums and maxima of the four lanes that share a row.
template <typename T>
__device__ __forceinline__ T QuadSum(T value) {
  value += __shfl_xor_sync(0xffffffffu, value, 1);
  return value + __shfl_xor_sync(0xffffffffu, value, 2);
}
__device__ __forceinline__ float QuadMax(float value) {
  value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 1));
  return fmaxf(value, __shfl_xor_sync(0xffffffffu, value, 2));
}

// The power of two that vectors are multiplied by so that the largest magnitude is in [2^14, 2^15) as float16.
__device__ __forceinline__ int PackExponent(uint32_t max_bits) {
  if (max_bits == 0) return 0;
  return 14 - ilogbf(__uint_as_float(max_bits));
}

// Units of log2 a unit of the product of two packed vectors.
__device__ __forceinline__ float TileFactor(const PassCall& call) {
  const int exponent = PackExponent(call.scalars->query_max) + PackExponent(call.scalars->key_max);
  return scalbnf(*call.scale * kLog2E, -exponent);
}

// Whether a pair of equal keys has equal ids.
__device__ __forceinline__ bool SameId(const PassCall& call, int64_t row, int64_t column) {
  return row < call.num_rows && column < call.num_columns && call.row_ids[row] == call.column_ids[column];
}

}  // namespace merlin
