// inbatch_softmax before its passes: a look over the inputs, then vectors and what stands beside them as the passes
// want.
#pragma once

#include "common/cuda_utils.cuh"
#include "inbatch_softmax/cuda_pass.cuh"

namespace merlin {

constexpr int kPrepareThreads = 256;

// What the two kernels read, of inbatch_softmax.h.
struct PrepareCall {
  const void *queries, *positives, *keys;
  const int64_t *positive_ids, *candidate_ids;
  const float *positive_log_q, *candidate_log_q, *scale;
  const float *log_sum, *log_sum_grad;  // null forward
  int64_t batch, candidates;
  int dim, padded_dim;  // of the inputs; of packed vectors
  bool tiles;           // float16 tiles, else float rows
  SoftmaxScalars* scalars;
  void *packed_queries, *packed_keys;  // null: the inputs are used as they are
  SideInfo *query_info, *key_info;
};

__device__ __forceinline__ uint32_t FiniteMagnitude(float value) {
  const uint32_t bits = __float_as_uint(value) & 0x7fffffffu;
  return bits < 0x7f800000u ? bits : 0u;
}

// Of a warp's values, the largest to memory.
__device__ __forceinline__ void RaiseTo(uint32_t value, uint32_t* place) {
  value = __reduce_max_sync(0xffffffffu, value);
  if (threadIdx.x % 32 == 0 && value > 0) atomicMax(place, value);
}

template <typename T>
__device__ __forceinline__ uint32_t LargestOf(const void* values, int64_t count) {
  const T* const from = static_cast<const T*>(values);
  constexpr int kPack = 16 / sizeof(T);
  const int64_t step = int64_t{gridDim.x} * blockDim.x, first = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  uint32_t largest = 0;
  const bool aligned = reinterpret_cast<uintptr_t>(from) % 16 == 0;
  const int64_t packs = aligned ? count / kPack : 0;
  for (int64_t p = first; p < packs; p += step) {
    const Pack<T, kPack> pack = LoadConst<T, kPack>(from + p * kPack);
#pragma unroll
    for (int k = 0; k < kPack; ++k) largest = max(largest, FiniteMagnitude(FloatAt(pack, k)));
  }
  for (int64_t i = packs * kPack + first; i < count; i += step) {
    largest = max(largest, FiniteMagnitude(AsFloat(from[i])));
  }
  return largest;
}

// A thread looks at every so-many-th element of everything. `scalars` were zero. The result does not depend on the
// order.
template <typename T>
__global__ void __launch_bounds__(kPrepareThreads) softmax_scan_kernel(const __grid_constant__ PrepareCall call) {
  const int64_t step = int64_t{gridDim.x} * blockDim.x, first = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (call.tiles) {
    RaiseTo(LargestOf<T>(call.queries, call.batch * call.dim), &call.scalars->query_max);
    RaiseTo(LargestOf<T>(call.keys, call.candidates * call.dim), &call.scalars->key_max);
  }
  const int32_t high = static_cast<int32_t>(call.positive_ids[0] >> 32);
  uint32_t wide = 0;
  for (int64_t i = first; i < call.batch; i += step) wide |= static_cast<int32_t>(call.positive_ids[i] >> 32) != high;
  for (int64_t j = first; j < call.candidates; j += step) {
    wide |= static_cast<int32_t>(call.candidate_ids[j] >> 32) != high;
  }
  RaiseTo(wide, &call.scalars->wide);
  if (call.log_sum_grad) {
    uint32_t negative = 0;
    for (int64_t i = first; i < call.batch; i += step) negative |= call.log_sum_grad[i] < 0.0f;
    RaiseTo(negative, &call.scalars->negative);
    RaiseTo(LargestOf<float>(call.log_sum_grad, call.batch), &call.scalars->gradient_max);
  }
}

// Equal ids have equal keys.
__device__ __forceinline__ uint32_t KeyOf(int64_t id, bool wide) {
  uint64_t x = static_cast<uint64_t>(id);
  if (wide) {  // the finalizer of splitmix64
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    x ^= x >> 31;
  }
  return static_cast<uint32_t>(x);
}

// Elements 8 chunk to 8 chunk + 8 of a row; zeros beyond its end.
template <typename T>
__device__ __forceinline__ void LoadEight(const void* rows, int64_t row, int chunk, int dim, float (&value)[8]) {
  const T* const from = static_cast<const T*>(rows) + row * dim + chunk * 8;
  if (dim % 8 == 0 && reinterpret_cast<uintptr_t>(rows) % 16 == 0) {
    constexpr int kPack = 16 / sizeof(T);
#pragma unroll
    for (int p = 0; p < 8 / kPack; ++p) {
      Pack<T, kPack> pack{};
      if (chunk * 8 < dim) pack = LoadConst<T, kPack>(from + p * kPack);
#pragma unroll
      for (int k = 0; k < kPack; ++k) value[p * kPack + k] = chunk * 8 < dim ? FloatAt(pack, k) : 0.0f;
    }
  } else {
#pragma unroll
    for (int k = 0; k < 8; ++k) value[k] = chunk * 8 + k < dim ? AsFloat(from[k]) : 0.0f;
  }
}

__device__ __forceinline__ void StoreEight(const PrepareCall& call, void* packed, int64_t row, int chunk, int exponent,
                                           const float (&value)[8]) {
  if (call.tiles) {
    // In two steps, since a power of two alone may be out of float's range.
    const float one = scalbnf(1.0f, exponent / 2), two = scalbnf(1.0f, exponent - exponent / 2);
    Pack<__half, 8> pack;
#pragma unroll
    for (int k = 0; k < 8; ++k) pack.item[k] = __float2half_rn(value[k] * one * two);
    Store<__half, 8>(pack, static_cast<__half*>(packed) + TileChunk(row, chunk, call.padded_dim) * 8);
  } else {
    float* const to = static_cast<float*>(packed) + row * call.dim + chunk * 8;
#pragma unroll
    for (int k = 0; k < 8; ++k) {
      if (chunk * 8 + k < call.dim) to[k] = value[k];
    }
  }
}

// A group of padded_dim / 8 (at most 32) threads has a query or a candidate. Queries come first, both padded; padding
// gets zeros and an infinite offset.
template <typename T, bool kBackward>
__global__ void __launch_bounds__(kPrepareThreads) softmax_pack_kernel(const __grid_constant__ PrepareCall call) {
  const int chunks = call.padded_dim / 8, group = min(chunks, 32);
  const int64_t padded_batch = PaddedRows(call.batch);
  const int64_t place = (int64_t{blockIdx.x} * kPrepareThreads + threadIdx.x) / group;
  const int lane = threadIdx.x % group;
  const bool is_query = place < padded_batch;  // of all lanes of a warp that share a group
  const int64_t row = is_query ? place : place - padded_batch;
  if (!is_query && row >= PaddedRows(call.candidates)) return;
  const int64_t count = is_query ? call.batch : call.candidates;
  const void* const from = is_query ? call.queries : call.keys;
  void* const to = is_query ? call.packed_queries : call.packed_keys;
  const int exponent = PackExponent(is_query ? call.scalars->query_max : call.scalars->key_max);
  const bool dot = is_query && !kBackward;
  float product = 0.0f;
  for (int chunk = lane; chunk < chunks; chunk += group) {
    float value[8] = {};
    if (row < count) LoadEight<T>(from, row, chunk, call.dim, value);
    if (to && (call.tiles || row < count)) StoreEight(call, to, row, chunk, exponent, value);
    if (dot && row < count) {
      float other[8];
      LoadEight<T>(call.positives, row, chunk, call.dim, other);
#pragma unroll
      for (int k = 0; k < 8; ++k) product = fmaf(value[k], other[k], product);
    }
  }
  if (!kBackward) {
    const uint32_t lanes = group == 32 ? 0xffffffffu : ((1u << group) - 1) << (threadIdx.x % 32 / group * group);
    for (int step = group / 2; step > 0; step /= 2) product += __shfl_xor_sync(lanes, product, step);
  }
  if (lane != 0) return;
  SideInfo info{INFINITY, 0};
  if (row < count) {
    const bool wide = call.scalars->wide != 0;
    info.key = KeyOf(is_query ? call.positive_ids[row] : call.candidate_ids[row], wide);
    if (!is_query) {
      info.offset = call.candidate_log_q ? kLog2E * call.candidate_log_q[row] : 0.0f;
    } else if (!kBackward) {
      // Rounded as the passes round, so that a candidate that equals the positive ties.
      const float log_q = call.positive_log_q ? kLog2E * call.positive_log_q[row] : 0.0f;
      info.offset = fmaf(product, *call.scale * kLog2E, -log_q);
    } else {
      // Weighted by gradient / gradient_max, at most 1.
      const float most = __uint_as_float(call.scalars->gradient_max), size = fabsf(call.log_sum_grad[row]);
      info.offset = size == 0.0f ? INFINITY : kLog2E * call.log_sum[row] - log2f(size / most);
    }
  } else if (is_query && !kBackward) {
    info.offset = 0.0f;  // a row of its pass, whose results nobody reads
  }
  (is_query ? call.query_info : call.key_info)[row] = info;
}

}  // namespace merlin
