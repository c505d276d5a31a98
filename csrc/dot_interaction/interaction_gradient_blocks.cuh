// dot_interaction on CUDA, backward, of more than 32 features: a thread block computes one sample after the other.
//
// The packed dP of the next sample comes into shared memory by asynchronous copies while all warps of the block read
// this one's there. A warp computes 32 features' gradients in a block of columns, as the kernel for up to 32 features
// does (interaction_gradient.cuh), but goes through all features in blocks of 32, and takes the symmetric matrix'
// operands from shared memory when it needs them.
#pragma once

#include "dot_interaction/interaction_gradient.cuh"
#include "dot_interaction/interaction_places.cuh"

namespace merlin {
namespace {

constexpr int kGradientWarps = 4;  // of a block, at most
constexpr int kGradientTables = kMaxInteractionFeatures * (kPlaceBytes + static_cast<int>(sizeof(GradientPlace)));

// What a warp multiplies: rows [32 above, +32) and columns [32 below, +32) of the symmetric matrix.
struct SymmetricBlock {
  const char* packed;  // the first pair
  Places places;
  int features, above, below;
  bool self;
};

// Adds the product of a block of the symmetric matrix with the rows that x holds. kDiagonal: above == below.
template <typename T, bool kExact, bool kDiagonal, typename Word>
__device__ __forceinline__ void MultiplySymmetric(float (&total)[2][Geometry<T, Word>::kTilesOfColumns][4],
                                                  const Word (&x)[8], const SymmetricBlock& block, int group,
                                                  int quad) {
  using G = Geometry<T, Word>;
  constexpr int kStep = kBlockRows / G::kSteps;  // features of a step
  const Places& places = block.places;
  // What depends on the lane is computed here each time: kept for every entry over all samples it fills registers.
  asm volatile("" : "+r"(group), "+r"(quad));
  const bool has_second = kBlockRows * block.above + 16 < block.features;
  // The pair of a row i and a column j has its place at the larger one's row.
  const int* const by_row = block.above > block.below ? places.row : places.column;
  const int* const by_column = block.above > block.below ? places.column : places.row;
  const auto row_of = [&](int m, int upper) { return kBlockRows * block.above + 16 * m + 8 * upper + group; };
  const char* row[2][2];
#pragma unroll
  for (int m = 0; m < 2; ++m) {
#pragma unroll
    for (int upper = 0; upper < 2; ++upper) row[m][upper] = block.packed + by_row[row_of(m, upper)];
  }
  const auto entry = [&](int m, int upper, int j) -> T {
    const int i = row_of(m, upper);
    if constexpr (kDiagonal) {
      const int high = max(i, j), low = min(i, j);
      if (high >= block.features || (high == low && !block.self)) return RoundTo<T>(0.0f);
      const T value = *reinterpret_cast<const T*>(block.packed + places.row[high] + places.column[low]);
      return high == low ? RoundTo<T>(2.0f * AsFloat(value)) : value;
    } else {
      const bool exists = i < block.features && j < block.features;
      return exists ? *reinterpret_cast<const T*>(row[m][upper] + by_column[j]) : RoundTo<T>(0.0f);
    }
  };
#pragma unroll
  for (int step = 0; step < G::kSteps; ++step) {
    const int first = kBlockRows * block.below + kStep * step;
    if (first >= block.features) break;
    Operand<T, 2, kExact> right[G::kTilesOfColumns];
#pragma unroll
    for (int n = 0; n < G::kTilesOfColumns; ++n) right[n] = RightOperand<T, kExact>(x, step, n);
#pragma unroll
    for (int m = 0; m < 2; ++m) {
      if (m == 1 && !has_second) break;
      Operand<T, 4, kExact> left;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if constexpr (sizeof(T) == 4) {
          left.Set(k, __float_as_uint(entry(m, k % 2, first + quad + (k / 2) * 4)));
        } else {
          const int j = first + 2 * quad + (k / 2) * 8;
          const T pair[2] = {entry(m, k % 2, j), entry(m, k % 2, j + 1)};
          left.Set(k, *reinterpret_cast<const uint32_t*>(pair));
        }
      }
#pragma unroll
      for (int n = 0; n < G::kTilesOfColumns; ++n) Multiply<T, kExact>(total[m][n], left, right[n]);
    }
  }
}

// Asks for a sample's rows in the cache of the device. By the block.
__device__ __forceinline__ void PrefetchRows(const RowStart* rows, int features, int row_bytes, int64_t sample) {
  constexpr unsigned kLine = 128;
  const unsigned lines = (row_bytes + kLine - 1) / kLine;  // rows that begin within one reach into the next line's
  for (unsigned line = threadIdx.x; line < features * lines; line += blockDim.x) {
    const unsigned feature = line / lines;
    asm volatile("prefetch.global.L2 [%0];" ::"l"(rows[feature].Of(sample) + (line - feature * lines) * kLine));
  }
}

template <typename T, typename Word, bool kVector, bool kExact>
__global__ void __launch_bounds__(kGradientWarps* kWarp,
                                  (kVector ? 3 : 2) + (sizeof(T) == 4 ? 1 : 0) + (sizeof(Word) == 8 ? 2 : 0))
    interaction_gradient_blocks_kernel(const __grid_constant__ GradientArgs args, int staged_bytes) {
  using G = Geometry<T, Word>;
  extern __shared__ __align__(16) char shared[];
  const int warps = blockDim.x / kWarp, warp = threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp, group = lane / 4, quad = lane % 4;
  const Places places = PlacesIn(shared, kMaxInteractionFeatures);
  GradientPlace* const gradients = reinterpret_cast<GradientPlace*>(shared + kMaxInteractionFeatures * kPlaceBytes);
  char* const staging = shared + kGradientTables;
  const int features = args.x.features, dim = args.x.dim, row_bytes = args.x.width * static_cast<int>(sizeof(T));
  const int side = (features + kBlockRows - 1) / kBlockRows;
  const int units = side * ((dim + G::kColumns - 1) / G::kColumns);
  const int first_pair = args.x.concat_first ? dim : 0;

  const auto packed_of = [&](int64_t sample) { return args.grad + sample * row_bytes; };
  const auto fetch = [&](int64_t sample, int stage) {
    if (sample < args.x.batch) {
      CopyPacked(staging + stage * staged_bytes, packed_of(sample), row_bytes, threadIdx.x, blockDim.x);
    }
    __pipeline_commit();
  };
  Word x[8];
  const auto load = [&](int64_t sample, int unit, int below) {
    const int column = unit / side * G::kColumns + group * G::kElements;
    const char* from[8];
#pragma unroll
    for (int r = 0; r < 8; ++r) {
      const RowStart start = places.start[kBlockRows * below + G::FeatureOf(r, quad)];
      from[r] = start.Of(sample);
    }
#pragma unroll
    for (int r = 0; r < 8; ++r) x[r] = LoadChunk<T, kVector, Word>(from[r], column, dim);
  };

  ListPlaces<T>(args.x, kMaxInteractionFeatures, places);
  for (int f = threadIdx.x; f < features; f += blockDim.x) gradients[f] = args.dx[f];
  fetch(blockIdx.x, 0);
  __syncthreads();
  load(blockIdx.x, warp, 0);
  int stage = 0;
  for (int64_t sample = blockIdx.x; sample < args.x.batch; sample += gridDim.x, stage ^= 1) {
    const int64_t next = sample + gridDim.x;
    __pipeline_wait_prior(0);
    __syncthreads();  // this sample's dP is there, and the one before has been multiplied
    fetch(next, stage ^ 1);
    if (next < args.x.batch) PrefetchRows(places.start, features, dim * static_cast<int>(sizeof(T)), next);
    const char* const row_of_grad =
        staging + stage * staged_bytes + (reinterpret_cast<uintptr_t>(packed_of(sample)) & 15);
    SymmetricBlock block{row_of_grad + first_pair * sizeof(T), places, features, 0, 0, args.x.self};
    for (int unit = warp; unit < units; unit += warps) {
      block.above = unit % side;
      float total[2][G::kTilesOfColumns][4] = {};
#pragma unroll 1
      for (block.below = 0; block.below < side; ++block.below) {
        if (block.above == block.below) {
          MultiplySymmetric<T, kExact, true>(total, x, block, group, quad);
        } else {
          MultiplySymmetric<T, kExact, false>(total, x, block, group, quad);
        }
        if (block.below + 1 < side) {
          load(sample, unit, block.below + 1);
        } else if (unit + warps < units) {
          load(sample, unit + warps, 0);
        } else if (next < args.x.batch) {
          load(next, warp, 0);
        }
      }
      const auto* const concatenated = reinterpret_cast<const T*>(first_pair > 0 ? row_of_grad : nullptr);
      StoreGradients<T, kVector>(total, gradients, features, kBlockRows * block.above, unit / side * G::kColumns,
                                 sample, dim, concatenated, group, quad);
    }
  }
  __pipeline_wait_prior(0);
}

template <typename T, typename Word, bool kVector, bool kExact>
void LaunchGradientBlocks(const GradientArgs& args, cudaStream_t stream) {
  const auto kernel = interaction_gradient_blocks_kernel<T, Word, kVector, kExact>;
  constexpr int kColumns = Geometry<T, Word>::kColumns;
  const int side = (args.x.features + kBlockRows - 1) / kBlockRows;
  const int threads = std::min(kGradientWarps, side * ((args.x.dim + kColumns - 1) / kColumns)) * kWarp;
  const int staged = StagedBytes(args.x.width * static_cast<int>(sizeof(T))), shared = kGradientTables + 2 * staged;
  const auto blocks = std::min(args.x.batch, BlocksAtOnce(kernel, threads, shared));
  kernel<<<static_cast<unsigned>(blocks), threads, shared, stream>>>(args, staged);
  CheckLaunch("interaction_gradient_blocks_kernel");
}

}  // namespace
}  // namespace merlin
