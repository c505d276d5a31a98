// dot_interaction on CUDA, backward, of up to 32 features: dX = (dP + dP^T) X, over any source of the rows of X.
//
// A warp computes one sample after the other. The packed dP of the next sample comes by asynchronous copies while this
// one's is unpacked into the symmetric matrix, which the lanes hold as the left operand. X is the right operand; its
// columns are taken in an order by which each lane's 16-byte loads are what the instruction wants, and by which each
// lane ends up with 16 contiguous bytes of dX: no operand and no result goes through shared memory. Columns are done in
// blocks of 128 bytes; the loads of the next block, or of the next sample, are under way meanwhile. Rows of up to 64
// bytes are one block of 64, of which lanes load and end up with 8 bytes: half of a larger one would be zeros.
#pragma once

#include <cuda_pipeline.h>

#include <algorithm>

#include "dot_interaction/interaction_device.cuh"

namespace merlin {
namespace {

struct GradientArgs {
  InteractionArgs x;
  const char* grad;
  GradientPlace dx[kMaxInteractionFeatures];
};

// How a lane's loads and stores, of a Word each, map to the instruction's patterns; see interaction_device.cuh.
template <typename T, typename Word>
struct Geometry {
  static constexpr int kElements = sizeof(Word) / sizeof(T);  // of a row that a lane loads
  static constexpr int kColumns = 8 * kElements;              // of a block
  static constexpr int kSteps = sizeof(T) == 4 ? 4 : 2;       // products over 32 features: 8 or 16 of them each
  static constexpr int kTilesOfColumns = kElements;           // 8 columns each
  // The feature, in [0, 32), of the row that a lane loads as number r of 8.
  static __device__ __forceinline__ int FeatureOf(int r, int quad) {
    return sizeof(T) == 4 ? 4 * r + quad : 8 * (r / 2) + 2 * quad + r % 2;
  }
};

// The right operand of one step for a tile of columns, from the rows that the lane has loaded.
template <typename T, bool kExact, typename Word>
__device__ __forceinline__ Operand<T, 2, kExact> RightOperand(const Word (&x)[8], int step, int tile) {
  Operand<T, 2, kExact> right;
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    if constexpr (sizeof(T) == 4) {
      right.Set(k, WordOf(x[2 * step + k], tile));
    } else {
      const uint32_t even = WordOf(x[4 * step + 2 * k], tile / 2), odd = WordOf(x[4 * step + 2 * k + 1], tile / 2);
      right.Set(k, __byte_perm(even, odd, tile % 2 ? 0x7632 : 0x5410));
    }
  }
  return right;
}

// The symmetric matrix' left operands from the packed pairs.
template <typename T, bool kExact, int kSteps>
__device__ __forceinline__ void LoadSymmetric(Operand<T, 4, kExact> (&left)[2][kSteps], const T* packed,
                                              const Pairs& pairs, int group, int quad) {
  const auto entry = [&](int i, int j) -> float {
    const int high = max(i, j), low = min(i, j);
    if (high >= pairs.features || (high == low && !pairs.self)) return 0.0f;
    const float value = AsFloat(packed[pairs(high, low)]);
    return high == low ? 2.0f * value : value;
  };
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        const int i = 16 * m + group + (k % 2) * 8;
        if constexpr (sizeof(T) == 4) {
          const int j = 8 * step + quad + (k / 2) * 4;
          left[m][step].Set(k, __float_as_uint(entry(i, j)));
        } else {
          const int j = 16 * step + 2 * quad + (k / 2) * 8;
          const T pair[2] = {RoundTo<T>(entry(i, j)), RoundTo<T>(entry(i, j + 1))};
          left[m][step].Set(k, *reinterpret_cast<const uint32_t*>(pair));
        }
      }
    }
  }
}

// One sample's dP, `bytes` from `from` on, into shared memory at the same place within 16 bytes, by `threads` of which
// the caller is number `thread`.
__device__ __forceinline__ void CopyPacked(char* staging, const char* from, int bytes, int thread, int threads) {
  const int shift = static_cast<int>(reinterpret_cast<uintptr_t>(from) & 15);
  const int chunks = (shift + bytes + 15) / 16;
  for (int c = thread; c < chunks; c += threads) {
    // The first chunk may begin before the row, within its 16 bytes; the last one must not end behind it.
    const int missing = max(0, c * 16 + 16 - (shift + bytes));
    __pipeline_memcpy_async(staging + c * 16, from - shift + c * 16, 16, missing);
  }
}

template <typename T, bool kVector, int kElements>
__device__ __forceinline__ void StoreRow(char* row, int column, int dim, const float (&value)[kElements]) {
  T* const to = reinterpret_cast<T*>(row) + column;
  if constexpr (kVector) {
    if (column >= dim) return;
    Pack<T, kElements> pack;
#pragma unroll
    for (int k = 0; k < kElements; ++k) pack.item[k] = RoundTo<T>(value[k]);
    Store(pack, to);
  } else {
#pragma unroll
    for (int k = 0; k < kElements; ++k) {
      if (column + k < dim) to[k] = RoundTo<T>(value[k]);
    }
  }
}

// Writes the gradients of the features from `first` on that a warp has in a block of columns which begins at `begin`.
// `concatenated`: of the first feature's own columns of the output, or null. Number n of total[m][n] is an element of
// what a lane loads; k says which row and which of two chunks side by side.
template <typename T, bool kVector, int kElements>
__device__ __forceinline__ void StoreGradients(const float (&total)[2][kElements][4], const GradientPlace* places,
                                               int features, int first, int begin, int64_t sample, int dim,
                                               const T* concatenated, int group, int quad) {
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int feature = first + 16 * m + 8 * half + group;
      if (feature >= features) continue;
      char* const row = places[feature].base + sample * places[feature].stride;
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const int column = begin + (2 * quad + k) * kElements;
        float value[kElements];
#pragma unroll
        for (int n = 0; n < kElements; ++n) value[n] = total[m][n][2 * half + k];
        if (feature == 0 && concatenated != nullptr) {
#pragma unroll
          for (int n = 0; n < kElements; ++n) {
            if (column + n < dim) value[n] += AsFloat(concatenated[column + n]);
          }
        }
        StoreRow<T, kVector>(row, column, dim, value);
      }
    }
  }
}

// Blocks a multiprocessor: as many as the registers of a chunk's Word let there be without spilling much.
template <typename Rows, bool kVector, bool kExact>
__global__ void __launch_bounds__(128, (kExact ? 2 : 3) + (sizeof(typename Rows::Word) == 8 ? 2 : 0))
    interaction_gradient_kernel(const __grid_constant__ GradientArgs args, int staged_bytes) {
  using T = typename Rows::Element;
  using G = Geometry<T, typename Rows::Word>;
  extern __shared__ __align__(16) char shared[];
  const int warps = blockDim.x / kWarp, warp = threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp, group = lane / 4, quad = lane % 4;
  char* const staging = shared + warp * 2 * staged_bytes;
  const int64_t step = int64_t{gridDim.x} * warps;
  const int64_t first = int64_t{blockIdx.x} * warps + warp;
  const int features = args.x.features, dim = args.x.dim, row_bytes = args.x.width * static_cast<int>(sizeof(T));
  const int column_blocks = (dim + G::kColumns - 1) / G::kColumns;
  const Pairs pairs(args.x);
  const int first_pair = args.x.concat_first ? dim : 0;
  if (first >= args.x.batch) return;

  const auto packed_of = [&](int64_t sample) { return args.grad + sample * row_bytes; };
  const auto place_of = [&](int64_t sample, int stage) {
    return staging + stage * staged_bytes + (reinterpret_cast<uintptr_t>(packed_of(sample)) & 15);
  };
  const auto fetch = [&](int64_t sample, int stage) {
    if (sample < args.x.batch) CopyPacked(staging + stage * staged_bytes, packed_of(sample), row_bytes, lane, kWarp);
    __pipeline_commit();
  };

  typename Rows::Word x[8];
  Rows rows;
  const auto feature_of = [&](int r) { return G::FeatureOf(r, quad); };
  if constexpr (!Rows::kStartIsCheap) rows.Start(args.x, first, step, feature_of);
  const auto load = [&](int64_t sample, int block) {
    const int column = block * G::kColumns + group * G::kElements;
    if constexpr (Rows::kStartIsCheap) rows.Start(args.x, sample, step, feature_of);
    const char* from[8];
#pragma unroll
    for (int r = 0; r < 8; ++r) from[r] = rows.Row(r);
#pragma unroll
    for (int r = 0; r < 8; ++r) x[r] = rows.Chunk(args.x, from[r], r, column);
  };

  fetch(first, 0);
  fetch(first + step, 1);
  load(first, 0);
  int stage = 0;
  for (int64_t sample = first; sample < args.x.batch; sample += step, stage ^= 1) {
    __pipeline_wait_prior(1);
    __syncwarp();
    const T* const row_of_grad = reinterpret_cast<const T*>(place_of(sample, stage));
    Operand<T, 4, kExact> left[2][G::kSteps];
    LoadSymmetric<T, kExact>(left, row_of_grad + first_pair, pairs, group, quad);
    for (int block = 0; block < column_blocks; ++block) {
      float total[2][G::kTilesOfColumns][4] = {};
#pragma unroll
      for (int n = 0; n < G::kTilesOfColumns; ++n) {
#pragma unroll
        for (int k = 0; k < G::kSteps; ++k) {
          const Operand<T, 2, kExact> right = RightOperand<T, kExact>(x, k, n);
          Multiply<T, kExact>(total[0][n], left[0][k], right);
          if (features > 16) Multiply<T, kExact>(total[1][n], left[1][k], right);
        }
      }
      if (block + 1 < column_blocks) {
        load(sample, block + 1);
      } else if (sample + step < args.x.batch) {
        if constexpr (!Rows::kStartIsCheap) rows.Next(args.x, sample, step);
        load(sample + step, 0);
      }
      StoreGradients<T, kVector>(total, args.dx, features, 0, block * G::kColumns, sample, dim,
                                 first_pair > 0 ? row_of_grad : nullptr, group, quad);
    }
    __syncwarp();
    fetch(sample + 2 * step, stage);
  }
  __pipeline_wait_prior(0);
}

template <typename Rows, bool kVector, bool kExact>
void LaunchGradient(const GradientArgs& args, cudaStream_t stream) {
  using T = typename Rows::Element;
  const auto kernel = interaction_gradient_kernel<Rows, kVector, kExact>;
  const int staged = StagedBytes(args.x.width * static_cast<int>(sizeof(T)));
  const int shared = kWarps * 2 * staged;
  const auto blocks = std::min((args.x.batch + kWarps - 1) / kWarps, BlocksAtOnce(kernel, kWarps * kWarp, shared));
  kernel<<<static_cast<unsigned>(blocks), kWarps * kWarp, shared, stream>>>(args, staged);
  CheckLaunch("interaction_gradient_kernel");
}

}  // namespace
}  // namespace merlin
