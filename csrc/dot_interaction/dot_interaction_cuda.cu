// dot_interaction on CUDA, forward.
//
// A warp computes one sample after the other: up to 64 features in 16 x 8 blocks of the lower triangle, held in
// registers. While a sample's products are written, the loads of the next one are under way. The packed row is laid out
// in shared memory and leaves in 16-byte stores. More than 64 features: a warp computes a block of 32 x 32 pairs.
#include <algorithm>
#include <mutex>

#include "dot_interaction/dot_interaction_cuda.h"
#include "dot_interaction/interaction_device.cuh"

namespace merlin {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kChunkBytes = 64;  // of a row: what a quad of lanes loads at once

// kTiles: 16 rows each. Chunks of every row that a lane has under way.
constexpr int ChunksOf(int tiles) { return tiles <= 2 ? 4 : 2; }
constexpr int BlocksAProcessor(int tiles) { return tiles <= 2 ? 4 : tiles == 3 ? 3 : 2; }

// The products of the rows that x holds; x[c][r] is chunk c of row 8 r + lane / 4.
template <typename T, int kTiles, int kChunks, bool kExact>
__device__ __forceinline__ void MultiplyChunks(float (&total)[kTiles][2 * kTiles][4],
                                               const uint4 (&x)[kChunks][2 * kTiles], int chunks) {
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    if (c >= chunks) break;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Operand<T, 2, kExact> rows[2 * kTiles];
#pragma unroll
      for (int r = 0; r < 2 * kTiles; ++r) {
        rows[r].Set(0, WordOf(x[c][r], 2 * half));
        rows[r].Set(1, WordOf(x[c][r], 2 * half + 1));
      }
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
        Operand<T, 4, kExact> left;
#pragma unroll
        for (int k = 0; k < 2; ++k) {
          left.high[2 * k] = rows[2 * m].high[k];
          left.high[2 * k + 1] = rows[2 * m + 1].high[k];
          if constexpr (kExact) {
            left.low[2 * k] = rows[2 * m].low[k];
            left.low[2 * k + 1] = rows[2 * m + 1].low[k];
          }
        }
#pragma unroll
        for (int n = 0; n < 2 * (m + 1); ++n) Multiply<T, kExact>(total[m][n], left, rows[n]);
      }
    }
  }
}

// Writes `bytes` of shared memory to global memory. `staged` has the same place within 16 bytes as `to`.
__device__ __forceinline__ void Flush(const char* staged, char* to, int bytes, int element, int lane) {
  const int shift = static_cast<int>(reinterpret_cast<uintptr_t>(to) & 15);
  const int chunks = (shift + bytes + 15) / 16;
  for (int c = lane; c < chunks; c += kWarp) {
    const int begin = c * 16 - shift;  // may be negative in the first
    if (begin >= 0 && begin + 16 <= bytes) {
      *reinterpret_cast<uint4*>(to + begin) = *reinterpret_cast<const uint4*>(staged + begin);
    } else {
      for (int k = max(begin, 0); k < min(begin + 16, bytes); k += element) {
        if (element == 4) {
          *reinterpret_cast<uint32_t*>(to + k) = *reinterpret_cast<const uint32_t*>(staged + k);
        } else {
          *reinterpret_cast<uint16_t*>(to + k) = *reinterpret_cast<const uint16_t*>(staged + k);
        }
      }
    }
  }
}

template <typename T, int kTiles, bool kVector, bool kExact>
__global__ void __launch_bounds__(kThreads, BlocksAProcessor(kTiles))
    interaction_kernel(const __grid_constant__ InteractionArgs args, T* output, int staged_bytes) {
  constexpr int kChunks = ChunksOf(kTiles), kRows = 2 * kTiles;
  constexpr int kElements = kChunkBytes / sizeof(T);  // of a row in a chunk
  extern __shared__ __align__(16) char shared[];
  const int lane = threadIdx.x % kWarp, group = lane / 4, quad = lane % 4;
  char* const staging = shared + (threadIdx.x / kWarp) * staged_bytes;
  const int64_t step = int64_t{gridDim.x} * kWarps;
  int64_t sample = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (sample >= args.batch) return;

  const char* row[kRows];
  uint32_t stride[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const int feature = 8 * r + group;
    row[r] = nullptr;
    stride[r] = 0;
    if (feature < args.features) {
      stride[r] = args.places.stride[feature];
      row[r] = args.places.row[feature] + sample * stride[r];
    }
  }
  const int chunks = (args.dim + kElements - 1) / kElements;
  const Pairs pairs{args.features, args.self ? 1 : 0, args.lower};
  const int first_pair = args.concat_first ? args.dim : 0;

  uint4 x[kChunks][kRows];
  const auto load = [&](int chunk) {
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      if (chunk + c >= chunks) break;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        x[c][r] = LoadChunk<T, kVector>(row[r], (chunk + c) * kElements + quad * (kElements / 4), args.dim);
      }
    }
  };
  load(0);
  for (; sample < args.batch; sample += step) {
    float total[kTiles][kRows][4] = {};
    const T* const first_row = reinterpret_cast<const T*>(args.places.row[0] + sample * args.places.stride[0]);
    for (int chunk = 0; chunk < chunks; chunk += kChunks) {
      MultiplyChunks<T, kTiles, kChunks, kExact>(total, x, chunks - chunk);
      const bool last = chunk + kChunks >= chunks;
      if (last) {
#pragma unroll
        for (int r = 0; r < kRows; ++r) row[r] = row[r] == nullptr ? nullptr : row[r] + step * stride[r];
        if (sample + step < args.batch) load(0);
      } else {
        load(chunk + kChunks);
      }
    }

    T* const to = output + sample * args.width;
    const int shift = static_cast<int>(reinterpret_cast<uintptr_t>(to) & 15);
    T* const staged = reinterpret_cast<T*>(staging + shift);
    if (args.concat_first) {
      for (int d = lane; d < args.dim; d += kWarp) staged[d] = __ldg(first_row + d);
    }
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
#pragma unroll
      for (int n = 0; n < 2 * (m + 1); ++n) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const int i = 16 * m + group + (k / 2) * 8, j = 8 * n + 2 * quad + k % 2;
          if (pairs.has(i, j)) staged[first_pair + pairs(i, j)] = RoundTo<T>(total[m][n][k]);
        }
      }
    }
    const int used = first_pair + ((args.features * (args.features - 1)) >> 1) + pairs.self * args.features;
    for (int k = used + lane; k < args.width; k += kWarp) staged[k] = RoundTo<T>(0.0f);
    __syncwarp();
    Flush(staging + shift, reinterpret_cast<char*>(to), args.width * static_cast<int>(sizeof(T)), sizeof(T), lane);
    __syncwarp();
  }
}

constexpr int kBlockRows = 32;  // features of a block of pairs, where there are more than 64

// One block of 32 x 32 pairs of a sample a warp.
template <typename T, bool kVector, bool kExact>
__global__ void __launch_bounds__(kThreads)
    interaction_blocks_kernel(const __grid_constant__ InteractionArgs args, T* output, int side, int64_t tasks) {
  constexpr int kElements = kChunkBytes / sizeof(T), kRows = kBlockRows / 8;
  const int lane = threadIdx.x % kWarp, group = lane / 4, quad = lane % 4;
  const int blocks = side * (side + 1) / 2;
  const Pairs pairs{args.features, args.self ? 1 : 0, args.lower};
  const int first_pair = args.concat_first ? args.dim : 0;
  for (int64_t task = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp; task < tasks;
       task += int64_t{gridDim.x} * kWarps) {
    const int64_t sample = task / blocks;
    int below = static_cast<int>(task % blocks), above = 0;  // the block's place: rows `above` >= columns `below`
    while (below > above) below -= ++above;
    T* const to = output + sample * args.width;
    const char *left[kRows], *right[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int i = kBlockRows * above + 8 * r + group, j = kBlockRows * below + 8 * r + group;
      left[r] = i < args.features ? args.places.row[i] + sample * args.places.stride[i] : nullptr;
      right[r] = j < args.features ? args.places.row[j] + sample * args.places.stride[j] : nullptr;
    }
    float total[2][kRows][4] = {};
    for (int column = quad * (kElements / 4); column - quad * (kElements / 4) < args.dim; column += kElements) {
      uint4 x[kRows], y[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        x[r] = LoadChunk<T, kVector>(left[r], column, args.dim);
        y[r] = LoadChunk<T, kVector>(right[r], column, args.dim);
      }
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        Operand<T, 2, kExact> columns[kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          columns[r].Set(0, WordOf(y[r], 2 * half));
          columns[r].Set(1, WordOf(y[r], 2 * half + 1));
        }
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          Operand<T, 4, kExact> rows;
#pragma unroll
          for (int k = 0; k < 4; ++k) rows.Set(k, WordOf(x[2 * m + k % 2], 2 * half + k / 2));
#pragma unroll
          for (int n = 0; n < kRows; ++n) Multiply<T, kExact>(total[m][n], rows, columns[n]);
        }
      }
    }
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int n = 0; n < kRows; ++n) {
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const int i = kBlockRows * above + 16 * m + group + (k / 2) * 8;
          const int j = kBlockRows * below + 8 * n + 2 * quad + k % 2;
          if (pairs.has(i, j)) to[first_pair + pairs(i, j)] = RoundTo<T>(total[m][n][k]);
        }
      }
    }
    if (above == 0) {
      const T* const first_row = reinterpret_cast<const T*>(args.places.row[0] + sample * args.places.stride[0]);
      for (int d = lane; d < first_pair; d += kWarp) to[d] = __ldg(first_row + d);
      const int used = first_pair + ((args.features * (args.features - 1)) >> 1) + pairs.self * args.features;
      for (int k = used + lane; k < args.width; k += kWarp) to[k] = RoundTo<T>(0.0f);
    }
  }
}

template <typename T, bool kVector, bool kExact>
void LaunchBlocks(const InteractionArgs& args, T* output, cudaStream_t stream) {
  const int side = (args.features + kBlockRows - 1) / kBlockRows;
  const int64_t tasks = args.batch * (side * (side + 1) / 2);
  const auto blocks = std::min<int64_t>((tasks + kWarps - 1) / kWarps, int64_t{Multiprocessors()} * 16);
  interaction_blocks_kernel<T, kVector, kExact>
      <<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(args, output, side, tasks);
  CheckLaunch("interaction_blocks_kernel");
}

template <typename T, int kTiles, bool kVector, bool kExact>
void Launch(const InteractionArgs& args, T* output, cudaStream_t stream) {
  const auto kernel = interaction_kernel<T, kTiles, kVector, kExact>;
  const int staged = (args.width * static_cast<int>(sizeof(T)) + 31) / 16 * 16;
  CheckCuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kWarps * staged),
            "cudaFuncSetAttribute");
  int resident = 0;
  CheckCuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, kThreads, kWarps * staged),
            "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  const auto blocks =
      std::min<int64_t>((args.batch + kWarps - 1) / kWarps, int64_t{Multiprocessors()} * std::max(resident, 1));
  kernel<<<static_cast<unsigned>(blocks), kThreads, kWarps * staged, stream>>>(args, output, staged);
  CheckLaunch("interaction_kernel");
}

template <typename T, bool kVector, bool kExact>
void LaunchTiles(const InteractionArgs& args, void* output_ptr, cudaStream_t stream) {
  T* output = static_cast<T*>(output_ptr);
  switch ((args.features + 15) / 16) {
    case 1:
      return Launch<T, 1, kVector, kExact>(args, output, stream);
    case 2:
      return Launch<T, 2, kVector, kExact>(args, output, stream);
    case 3:
      return Launch<T, 3, kVector, kExact>(args, output, stream);
    case 4:
      return Launch<T, 4, kVector, kExact>(args, output, stream);
    default:
      return LaunchBlocks<T, kVector, kExact>(args, output, stream);
  }
}

}  // namespace

InteractionArgs ArgsOf(const Interaction& call) {
  InteractionArgs args{};
  args.batch = call.batch;
  args.features = static_cast<int>(call.features());
  args.dim = static_cast<int>(call.dim);
  args.width = static_cast<int>(call.width());
  args.lower = call.order == PairOrder::kLower;
  args.self = call.self_interaction;
  args.concat_first = call.concat_first;
  int feature = 0;
  const int64_t row_bytes = call.dim * SizeOf(call.dtype);
  for (const InteractionPart& part : call.parts) {
    for (int64_t i = 0; i < part.features; ++i, ++feature) {
      args.places.row[feature] = static_cast<const char*>(part.data) + i * row_bytes;
      args.places.stride[feature] = static_cast<uint32_t>(part.features * row_bytes);
    }
  }
  return args;
}

void PlaceGradients(const Interaction& call, char* (&rows)[kMaxInteractionFeatures]) {
  int feature = 0;
  for (const InteractionPart& part : call.parts) {
    for (int64_t i = 0; i < part.features; ++i, ++feature) {
      rows[feature] = static_cast<char*>(part.grad) + i * call.dim * SizeOf(call.dtype);
    }
  }
}

bool RowsAreAligned(const Interaction& call, bool with_gradients) {
  const auto aligned = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; };
  bool all = call.dim * SizeOf(call.dtype) % 16 == 0;
  for (const InteractionPart& part : call.parts) {
    all = all && aligned(part.data) && (!with_gradients || aligned(part.grad));
  }
  return all;
}

int Multiprocessors() {
  int device = 0, count = 0;
  CheckCuda(cudaGetDevice(&device), "cudaGetDevice");
  CheckCuda(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  return count;
}

void DotInteractionCuda(const Interaction& call, CudaStream stream_ptr) {
  CheckInteraction(call);
  if (call.batch == 0 || call.width() == 0) return;
  const auto stream = static_cast<cudaStream_t>(stream_ptr);
  const InteractionArgs args = ArgsOf(call);
  const bool vector = RowsAreAligned(call, /*with_gradients=*/false);
  DispatchDType(call.dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr bool kFloat = std::is_same_v<T, float>;
    if (kFloat && !call.tf32) {
      return vector ? LaunchTiles<T, true, kFloat>(args, call.output, stream)
                    : LaunchTiles<T, false, kFloat>(args, call.output, stream);
    }
    return vector ? LaunchTiles<T, true, false>(args, call.output, stream)
                  : LaunchTiles<T, false, false>(args, call.output, stream);
  });
}

}  // namespace merlin
