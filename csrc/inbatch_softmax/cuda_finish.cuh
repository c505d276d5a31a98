// inbatch_softmax after its passes: the parts of each row put together, and the positive's share.
#pragma once

#include "common/cuda_utils.cuh"
#include "inbatch_softmax/cuda_pass.cuh"
#include "inbatch_softmax/inbatch_softmax.h"

namespace merlin {

constexpr int kFinishThreads = 256, kFinishWarps = kFinishThreads / 32;

__device__ __forceinline__ float WarpSum(float value) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  return value;
}

// 2^-exponent of packed vectors, in two factors, since one may be out of float's range.
struct Unpack {
  float one, two;
  __device__ explicit Unpack(int exponent)
      : one(scalbnf(1.0f, -(exponent / 2))), two(scalbnf(1.0f, -(exponent - exponent / 2))) {}
  __device__ float operator()(float value) const { return value * one * two; }
};

// A warp a query.
template <typename T>
__global__ void __launch_bounds__(kFinishThreads)
    softmax_finish_forward_kernel(const __grid_constant__ PassCall pass, const __grid_constant__ InbatchSoftmax call,
                                  bool tiles) {
  const int64_t row = int64_t{blockIdx.x} * kFinishWarps + threadIdx.x / 32, stride = PaddedRows(call.batch);
  const int lane = threadIdx.x % 32;
  if (row >= call.batch) return;
  const float positive = pass.row_info[row].offset;
  float reference = positive, negatives = 0.0f;
  for (int s = 0; s < pass.splits; ++s) reference = fmaxf(reference, pass.reference[s * stride + row]);
  int64_t rank = 0;
  for (int s = 0; s < pass.splits; ++s) {
    negatives += pass.sum[s * stride + row] * exp2f(pass.reference[s * stride + row] - reference);
    if (call.rank) rank += pass.rank[s * stride + row];
  }
  const float own = exp2f(positive - reference + kShift);
  const float all = negatives + own;
  if (lane == 0) {
    // The logarithm of a sum that is barely above 1 keeps its digits.
    const float loss = reference == positive ? log1pf(negatives * exp2f(-kShift))
                                             : (reference - positive) * kLn2 + logf(all * exp2f(-kShift));
    call.loss[row] = loss;
    call.positive_score[row] = positive * kLn2;
    call.log_sum[row] = positive * kLn2 + loss;
    if (call.rank) call.rank[row] = rank;
  }
  if (!call.mean) return;
  const Unpack unpack(tiles ? PackExponent(pass.scalars->key_max) : 0);
  const T* const own_row = static_cast<const T*>(call.positives) + row * call.dim;
  for (int d = lane; d < call.dim; d += 32) {
    float sum = 0.0f;
    for (int s = 0; s < pass.splits; ++s) {
      sum += pass.total[(s * stride + row) * pass.dim + d] * exp2f(pass.reference[s * stride + row] - reference);
    }
    call.mean[row * call.dim + d] = (unpack(sum) + own * AsFloat(own_row[d])) / all;
  }
}

// A warp a candidate: what its pass summed up, scaled back.
template <typename T>
__global__ void __launch_bounds__(kFinishThreads)
    softmax_finish_keys_kernel(const __grid_constant__ PassCall pass, T* keys_grad, float* log_q_grad, int dim,
                               bool tiles) {
  const int64_t row = int64_t{blockIdx.x} * kFinishWarps + threadIdx.x / 32, stride = PaddedRows(pass.num_rows);
  if (row >= pass.num_rows) return;
  float reference = kLowest;
  for (int s = 0; s < pass.splits; ++s) reference = fmaxf(reference, pass.reference[s * stride + row]);
  // Weights are at most 1 but for the rounding of scores, which is all there is of huge ones.
  const float exponent = AtMost(reference - pass.row_info[row].offset, 0.0f) - kShift;
  const float weight = __uint_as_float(pass.scalars->gradient_max) * exp2f(exponent);
  const Unpack unpack(tiles ? PackExponent(pass.scalars->query_max) : 0);
  for (int d = threadIdx.x % 32; d < dim; d += 32) {
    float sum = 0.0f;
    for (int s = 0; s < pass.splits; ++s) {
      sum += pass.total[(s * stride + row) * pass.dim + d] * exp2f(pass.reference[s * stride + row] - reference);
    }
    keys_grad[row * dim + d] = RoundTo<T>(*pass.scale * weight * unpack(sum));
  }
  if (log_q_grad && threadIdx.x % 32 == 0) {
    float sum = 0.0f;
    for (int s = 0; s < pass.splits; ++s) {
      sum += pass.sum[s * stride + row] * exp2f(pass.reference[s * stride + row] - reference);
    }
    log_q_grad[row] = -weight * sum;
  }
}

// A warp a query; a block's part of the scale's gradient goes to scale_parts.
template <typename T>
__global__ void __launch_bounds__(kFinishThreads)
    softmax_finish_queries_kernel(const __grid_constant__ InbatchSoftmax call,
                                  const __grid_constant__ InbatchSoftmaxGradients grads, float* scale_parts) {
  const int64_t row = int64_t{blockIdx.x} * kFinishWarps + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  __shared__ float part[kFinishWarps];
  float product = 0.0f;
  if (row < call.batch) {
    const float a = grads.log_sum_grad[row], b = grads.positive_score_grad[row];
    const float own = a * expf(AtMost(grads.positive_score[row] - grads.log_sum[row], 0.0f)) + b, scale = *call.scale;
    for (int d = lane; d < call.dim; d += 32) {
      const int64_t at = row * call.dim + d;
      const float query = AsFloat(static_cast<const T*>(call.queries)[at]);
      const float pull = a * grads.mean[at] + b * AsFloat(static_cast<const T*>(call.positives)[at]);
      product += query * pull;
      static_cast<T*>(grads.queries)[at] = RoundTo<T>(scale * pull);
      static_cast<T*>(grads.positives)[at] = RoundTo<T>(scale * own * query);
    }
    if (lane == 0 && grads.positive_log_q) grads.positive_log_q[row] = -own;
  }
  product = WarpSum(product);
  if (lane == 0) part[threadIdx.x / 32] = product;
  __syncthreads();
  if (threadIdx.x == 0) {
    float sum = 0.0f;
    for (int w = 0; w < kFinishWarps; ++w) sum += part[w];
    scale_parts[blockIdx.x] = sum;
  }
}

// One block.
__global__ void __launch_bounds__(1024) softmax_finish_scale_kernel(const float* parts, int64_t count, float* scale) {
  __shared__ double sums[1024];
  double sum = 0.0;
  for (int64_t i = threadIdx.x; i < count; i += 1024) sum += parts[i];
  sums[threadIdx.x] = sum;
  __syncthreads();
  for (int half = 512; half > 0; half /= 2) {
    if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    __syncthreads();
  }
  if (threadIdx.x == 0) *scale = static_cast<float>(sums[0]);
}

}  // namespace merlin
