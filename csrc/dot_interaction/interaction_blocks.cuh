// dot_interaction on CUDA, forward, of more than 64 features: a thread block computes one sample after the other.
//
// Each of its warps computes a block of 32 x 32 pairs of the lower triangle, held in registers. All read the rows from
// shared memory, where a panel of columns of every row comes by asynchronous copies while the panel before it, or the
// sample before it, is multiplied. The packed row is laid out in shared memory and leaves in 16-byte stores.
#pragma once

#include <cuda_pipeline.h>

#include "dot_interaction/interaction_forward.cuh"
#include "dot_interaction/interaction_places.cuh"

namespace merlin {
namespace {

constexpr int kPanelChunks = 2;  // of each row, at most, that are in shared memory at once

// Where in shared memory things lie, for features in kSide blocks of rows. A panel holds the first chunk of all rows,
// then the second one: what a warp reads at once is contiguous.
template <int kSide>
struct BlocksMemory {
  static constexpr int kThreads = kSide * (kSide + 1) / 2 * kWarp;
  static constexpr int kFeatures = kSide * kBlockRows;
  static constexpr int kChunkStride = (kFeatures + 1) * kChunkBytes;  // odd: a row's two chunks are in different banks
  static constexpr int kPanels = kFeatures * kPlaceBytes;             // behind the places
};

// Begins to copy `chunks` of each of a sample's rows from `column` on; zeros where rows end. By the block.
template <typename T, int kSide>
__device__ __forceinline__ void FetchPanel(const InteractionArgs& args, const RowStart* rows, bool vector,
                                           int64_t sample, int column, int chunks, char* panel) {
  using Memory = BlocksMemory<kSide>;
  const int shift = chunks == 1 ? 2 : 3;  // 16 bytes are a unit
  for (int unit = threadIdx.x; unit < args.features << shift; unit += Memory::kThreads) {
    const int feature = unit >> shift, part = unit & ((1 << shift) - 1);
    const int first = column + part * (16 / static_cast<int>(sizeof(T)));
    const char* const row = rows[feature].Of(sample);
    char* const to = panel + part / 4 * Memory::kChunkStride + feature * kChunkBytes + part % 4 * 16;
    if (vector) {
      const bool exists = first < args.dim;
      __pipeline_memcpy_async(to, row + (exists ? first * sizeof(T) : 0), 16, exists ? 0 : 16);
    } else {
      *reinterpret_cast<uint4*>(to) = LoadChunk<T, false>(row, first, args.dim);
    }
  }
}

// A warp's block of pairs: rows from 32 `above` on, columns from 32 `below` on.
struct PairBlock {
  int above, below;
  bool has_second;  // 16 rows

  __device__ __forceinline__ PairBlock(int number, int features) : above(0), below(number) {
    while (below > above) below -= ++above;
    has_second = kBlockRows * above + 16 < features;
  }
};

// The products of one chunk of the rows, which begins at `chunk`.
template <typename T, bool kExact>
__device__ __forceinline__ void MultiplyBlock(float (&total)[2][kBlockRows / 8][4], const PairBlock& block,
                                              const char* chunk, int lane) {
  constexpr int kRows = kBlockRows / 8;
  Operand<T, 2, kExact> columns[2][kRows];  // of each half of the chunk
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const uint4 y = reinterpret_cast<const uint4*>(chunk + (kBlockRows * block.below + 8 * r) * kChunkBytes)[lane];
#pragma unroll
    for (int k = 0; k < 4; ++k) columns[k / 2][r].Set(k % 2, WordOf(y, k));
  }
#pragma unroll
  for (int m = 0; m < 2; ++m) {
    if (m == 1 && !block.has_second) break;
    uint4 x[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      x[r] = reinterpret_cast<const uint4*>(chunk + (kBlockRows * block.above + 16 * m + 8 * r) * kChunkBytes)[lane];
    }
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      Operand<T, 4, kExact> rows;
#pragma unroll
      for (int k = 0; k < 4; ++k) rows.Set(k, WordOf(x[k % 2], 2 * half + k / 2));
#pragma unroll
      for (int n = 0; n < kRows; ++n) {
        if (m == 0 && n == 2 && block.above == block.below) break;  // above the diagonal
        Multiply<T, kExact>(total[m][n], rows, columns[half][n]);
      }
    }
  }
}

// Lays a warp's products out behind `first_pair` in shared memory.
template <typename T>
__device__ __forceinline__ void PlaceBlock(const InteractionArgs& args, const float (&total)[2][kBlockRows / 8][4],
                                           const PairBlock& block, const Places& places, char* first_pair, int lane) {
  const int group = lane / 4, quad = lane % 4;
  int2 columns[kBlockRows / 8];
#pragma unroll
  for (int n = 0; n < kBlockRows / 8; ++n) {
    columns[n] = *reinterpret_cast<const int2*>(places.column + kBlockRows * block.below + 8 * n + 2 * quad);
  }
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) {
      const int i = kBlockRows * block.above + 16 * m + 8 * upper + group;
      const int end = i < args.features ? i + (args.self ? 1 : 0) : 0;  // of the columns that have pairs
      char* const row = first_pair + places.row[i];
#pragma unroll
      for (int n = 0; n < kBlockRows / 8; ++n) {
        const int j = kBlockRows * block.below + 8 * n + 2 * quad;
        if (j < end) *reinterpret_cast<T*>(row + columns[n].x) = RoundTo<T>(total[m][n][2 * upper]);
        if (j + 1 < end) *reinterpret_cast<T*>(row + columns[n].y) = RoundTo<T>(total[m][n][2 * upper + 1]);
      }
    }
  }
}

// `vector`: rows are 16-byte aligned and multiples of 16 bytes long. `panel_chunks`: what a panel has room for.
template <typename T, int kSide, bool kExact>
__global__ void __launch_bounds__(BlocksMemory<kSide>::kThreads, kSide == 4 ? 2
                                                                 : kExact   ? 3
                                                                            : 4)
    interaction_blocks_kernel(const __grid_constant__ InteractionArgs args, T* output, int panel_chunks, bool vector) {
  using Memory = BlocksMemory<kSide>;
  constexpr int kElements = kChunkBytes / sizeof(T);
  extern __shared__ __align__(16) char shared[];
  const Places places = PlacesIn(shared, Memory::kFeatures);
  char* const panels = shared + Memory::kPanels;
  const int panel_bytes = panel_chunks * Memory::kChunkStride, panel_columns = panel_chunks * kElements;
  char* const staging = panels + 2 * panel_bytes;
  const int lane = threadIdx.x % kWarp;
  const PairBlock block(threadIdx.x / kWarp, args.features);
  const int first_pair = args.concat_first ? args.dim : 0;
  const int used = first_pair + Pairs(args).count();

  ListPlaces<T>(args, Memory::kFeatures, places);
  for (int at = threadIdx.x * 16; at < 2 * panel_bytes; at += Memory::kThreads * 16) {
    *reinterpret_cast<uint4*>(panels + at) = make_uint4(0, 0, 0, 0);  // rows that are no feature's stay so
  }
  __syncthreads();
  const auto chunks_from = [&](int column) {
    return min((args.dim - column + kElements - 1) / kElements, panel_chunks);
  };
  const auto fetch = [&](int64_t sample, int column, int stage) {
    if (sample < args.batch) {
      FetchPanel<T, kSide>(args, places.start, vector, sample, column, chunks_from(column),
                           panels + stage * panel_bytes);
    }
    __pipeline_commit();
  };

  int stage = 0;
  fetch(blockIdx.x, 0, stage);
  for (int64_t sample = blockIdx.x; sample < args.batch; sample += gridDim.x) {
    char* const to = reinterpret_cast<char*>(output + sample * args.width);
    char* const staged = staging + (reinterpret_cast<uintptr_t>(to) & 15);
    float total[2][kBlockRows / 8][4] = {};
    for (int column = 0; column < args.dim; column += panel_columns, stage ^= 1) {
      __pipeline_wait_prior(0);
      __syncthreads();  // the panel is there; the other one has been multiplied, and the row before written
      const bool last = column + panel_columns >= args.dim;
      fetch(last ? sample + gridDim.x : sample, last ? 0 : column + panel_columns, stage ^ 1);
      const char* const panel = panels + stage * panel_bytes;
      for (int d = threadIdx.x; d < min(first_pair - column, panel_columns); d += Memory::kThreads) {
        reinterpret_cast<T*>(staged)[column + d] =
            reinterpret_cast<const T*>(panel + d / kElements * Memory::kChunkStride)[d % kElements];
      }
      const int chunks = chunks_from(column);
#pragma unroll 1
      for (int c = 0; c < chunks; ++c) {
        MultiplyBlock<T, kExact>(total, block, panel + c * Memory::kChunkStride, lane);
      }
    }
    PlaceBlock<T>(args, total, block, places, staged + first_pair * sizeof(T), lane);
    for (int k = used + threadIdx.x; k < args.width; k += Memory::kThreads) {
      reinterpret_cast<T*>(staged)[k] = RoundTo<T>(0.0f);
    }
    __syncthreads();
    Flush(staged, to, args.width * static_cast<int>(sizeof(T)), sizeof(T), threadIdx.x, Memory::kThreads);
  }
  __pipeline_wait_prior(0);
}

template <typename T, int kSide, bool kExact>
void LaunchBlocks(const InteractionArgs& args, T* output, bool vector, cudaStream_t stream) {
  using Memory = BlocksMemory<kSide>;
  constexpr int kElements = kChunkBytes / sizeof(T);
  const auto kernel = interaction_blocks_kernel<T, kSide, kExact>;
  const int panel_chunks = std::min((args.dim + kElements - 1) / kElements, kPanelChunks);
  const int staged = StagedBytes(args.width * static_cast<int>(sizeof(T)));
  const int shared = Memory::kPanels + 2 * panel_chunks * Memory::kChunkStride + staged;
  const auto blocks = std::min(args.batch, BlocksAtOnce(kernel, Memory::kThreads, shared));
  kernel<<<static_cast<unsigned>(blocks), Memory::kThreads, shared, stream>>>(args, output, panel_chunks, vector);
  CheckLaunch("interaction_blocks_kernel");
}

}  // namespace
}  // namespace merlin
