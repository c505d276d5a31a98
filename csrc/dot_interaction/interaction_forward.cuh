// dot_interaction on CUDA, forward: the kernel for up to 64 features, over any source of rows.
//
// A warp computes one sample after the other: its features in 16 x 8 blocks of the lower triangle, held in registers.
// While a sample's products are written, the loads of the next one are under way. The packed row is laid out in shared
// memory and leaves in 16-byte stores.
#pragma once

#include <algorithm>

#include "dot_interaction/interaction_device.cuh"

namespace merlin {
namespace {

constexpr int kThreads = kWarps * kWarp;
constexpr int kChunkBytes = 64;  // of a row: what a quad of lanes loads at once

// kTiles: 16 rows each. kChunks: of every row that a lane has under way. Of 2-byte rows in two tiles, half as many in
// more warps (docs/performance.md).
template <typename T, int kTiles>
constexpr int kChunksUnderWay = kTiles > 2 || (kTiles == 2 && sizeof(T) == 2) ? 2 : 4;
constexpr int BlocksAProcessor(int tiles, int chunks) {
  return tiles == 1 ? 4 : tiles == 2 ? (chunks == 2 ? 5 : 4) : tiles == 3 ? 3 : 2;
}

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

// Writes `bytes` of shared memory to global memory, by `threads` of which the caller is number `thread`. `staged` has
// the same place within 16 bytes as `to`.
__device__ __forceinline__ void Flush(const char* staged, char* to, int bytes, int element, int thread, int threads) {
  const int shift = static_cast<int>(reinterpret_cast<uintptr_t>(to) & 15);
  const int chunks = (shift + bytes + 15) / 16;
  for (int c = thread; c < chunks; c += threads) {
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

// A packed row in shared memory, and behind it room for an element of each lane.
inline int StagedRowBytes(int width, int element) { return StagedBytes((width + kWarp) * element); }

// How many products a lane holds of a sample: of each 8 x 8 block of the lower triangle two rows' two.
template <int kTiles>
constexpr int kProducts = 4 * kTiles * (kTiles + 1);
template <int kTiles>
constexpr int kProductListBytes = kProducts<kTiles> * kWarp * static_cast<int>(sizeof(uint16_t));

// Calls body(number, m, n, k) for each product of a lane, total[m][n][k], with constants.
template <int kTiles, typename Body>
__device__ __forceinline__ void ForEachProduct(Body&& body) {
  int number = 0;
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int n = 0; n < 2 * (m + 1); ++n) {
#pragma unroll
      for (int k = 0; k < 4; ++k, ++number) body(number, m, n, k);
    }
  }
}

// Lists for every lane where its products go in the packed row, in bytes: the same in every sample, and dear to compute
// for each. What is no pair goes behind the row, to a place of the lane's own. By the warps of a block; its threads
// must meet before the list is read.
template <typename T, int kTiles, int kBlockWarps>
__device__ __forceinline__ void ListProducts(const InteractionArgs& args, uint16_t* list) {
  const int lane = threadIdx.x % kWarp, group = lane / 4, quad = lane % 4;
  const Pairs pairs(args);
  const int first_pair = args.concat_first ? args.dim : 0;
  ForEachProduct<kTiles>([&](int number, int m, int n, int k) {
    if (number % kBlockWarps != threadIdx.x / kWarp) return;
    const int i = 16 * m + group + (k / 2) * 8, j = 8 * n + 2 * quad + k % 2;
    const int place = pairs.has(i, j) ? first_pair + pairs(i, j) : args.width + lane;
    list[(number / 8 * kWarp + lane) * 8 + number % 8] = static_cast<uint16_t>(place * sizeof(T));
  });
}

// Lays the packed row of a sample out in shared memory, by what ListProducts listed, and writes it.
template <typename T, int kTiles>
__device__ __forceinline__ void WriteProducts(const InteractionArgs& args, const uint16_t* list,
                                              const float (&total)[kTiles][2 * kTiles][4], const T* first_row, T* to,
                                              char* staging, int lane) {
  const int first_pair = args.concat_first ? args.dim : 0;
  const int shift = static_cast<int>(reinterpret_cast<uintptr_t>(to) & 15);
  char* const staged = staging + shift;
  for (int d = lane; d < first_pair; d += kWarp) reinterpret_cast<T*>(staged)[d] = __ldg(first_row + d);
  uint4 places;
  ForEachProduct<kTiles>([&](int number, int m, int n, int k) {
    if (number % 8 == 0) places = reinterpret_cast<const uint4*>(list)[number / 8 * kWarp + lane];
    const uint32_t two = WordOf(places, number % 8 / 2), place = number % 2 ? two >> 16 : two & 0xffffu;
    *reinterpret_cast<T*>(staged + place) = RoundTo<T>(total[m][n][k]);
  });
  const int used = first_pair + Pairs(args).count();
  __syncwarp();
  for (int k = used + lane; k < args.width; k += kWarp) reinterpret_cast<T*>(staged)[k] = RoundTo<T>(0.0f);
  __syncwarp();
  Flush(staged, reinterpret_cast<char*>(to), args.width * static_cast<int>(sizeof(T)), sizeof(T), lane, kWarp);
  __syncwarp();
}

template <typename Rows, int kTiles, int kChunks, bool kExact>
__global__ void __launch_bounds__(kThreads, BlocksAProcessor(kTiles, kChunks))
    interaction_kernel(const __grid_constant__ InteractionArgs args, typename Rows::Element* output, int staged_bytes) {
  using T = typename Rows::Element;
  constexpr int kRows = 2 * kTiles;
  constexpr int kElements = kChunkBytes / sizeof(T);  // of a row in a chunk
  extern __shared__ __align__(16) char shared[];
  uint16_t* const list = reinterpret_cast<uint16_t*>(shared);
  const int lane = threadIdx.x % kWarp, group = lane / 4, quad = lane % 4;
  char* const staging = shared + kProductListBytes<kTiles> + (threadIdx.x / kWarp) * staged_bytes;
  ListProducts<T, kTiles, kWarps>(args, list);
  __syncthreads();
  const int64_t step = int64_t{gridDim.x} * kWarps;
  int64_t sample = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  if (sample >= args.batch) return;

  Rows rows;
  rows.Start(args, sample, step, [&](int r) { return 8 * r + group; });
  const int chunks = (args.dim + kElements - 1) / kElements;

  uint4 x[kChunks][kRows];
  const auto load = [&](int chunk) {
    decltype(rows.Row(0)) from[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) from[r] = rows.Row(r);
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      if (chunk + c >= chunks) break;
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        x[c][r] = rows.Chunk(args, from[r], r, (chunk + c) * kElements + quad * (kElements / 4));
      }
    }
  };
  load(0);
  for (; sample < args.batch; sample += step) {
    float total[kTiles][kRows][4] = {};
    const T* const first_row = reinterpret_cast<const T*>(args.place[0].base + sample * args.place[0].stride);
    for (int chunk = 0; chunk < chunks; chunk += kChunks) {
      MultiplyChunks<T, kTiles, kChunks, kExact>(total, x, chunks - chunk);
      const bool last = chunk + kChunks >= chunks;
      if (last) {
        rows.Next(args, sample, step);
        if (sample + step < args.batch) load(0);
      } else {
        load(chunk + kChunks);
      }
    }

    WriteProducts<T, kTiles>(args, list, total, first_row, output + sample * args.width, staging, lane);
  }
}

template <typename Rows, int kTiles, int kChunks, bool kExact>
void LaunchForward(const InteractionArgs& args, typename Rows::Element* output, cudaStream_t stream) {
  using T = typename Rows::Element;
  const auto kernel = interaction_kernel<Rows, kTiles, kChunks, kExact>;
  const int staged = StagedRowBytes(args.width, sizeof(T)), shared = kProductListBytes<kTiles> + kWarps * staged;
  const auto blocks = std::min((args.batch + kWarps - 1) / kWarps, BlocksAtOnce(kernel, kThreads, shared));
  kernel<<<static_cast<unsigned>(blocks), kThreads, shared, stream>>>(args, output, staged);
  CheckLaunch("interaction_kernel");
}

}  // namespace
}  // namespace merlin
