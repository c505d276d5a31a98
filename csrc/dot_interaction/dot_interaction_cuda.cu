// dot_interaction on CUDA, forward: launches by type and number of features; the kernel for more than 64 features, in
// which a warp computes a block of 32 x 32 pairs.
#include "dot_interaction/dot_interaction_cuda.h"
#include "dot_interaction/interaction_forward.cuh"

namespace merlin {
namespace {

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
      left[r] = i < args.features ? args.place[i].base + sample * args.place[i].stride : nullptr;
      right[r] = j < args.features ? args.place[j].base + sample * args.place[j].stride : nullptr;
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
      const T* const first_row = reinterpret_cast<const T*>(args.place[0].base + sample * args.place[0].stride);
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

template <typename T, bool kVector, bool kExact>
void LaunchTiles(const InteractionArgs& args, void* output_ptr, cudaStream_t stream) {
  T* output = static_cast<T*>(output_ptr);
  switch ((args.features + 15) / 16) {
    case 1:
      return LaunchForward<DenseRows<T, 2, kVector>, 1, kChunksUnderWay<T, 1>, kExact>(args, output, stream);
    case 2:
      return LaunchForward<DenseRows<T, 4, kVector>, 2, kChunksUnderWay<T, 2>, kExact>(args, output, stream);
    case 3:
      return LaunchForward<DenseRows<T, 6, kVector>, 3, kChunksUnderWay<T, 3>, kExact>(args, output, stream);
    case 4:
      return LaunchForward<DenseRows<T, 8, kVector>, 4, kChunksUnderWay<T, 4>, kExact>(args, output, stream);
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
      args.place[feature].base = static_cast<const char*>(part.data) + i * row_bytes;
      args.place[feature].stride = static_cast<uint32_t>(part.features * row_bytes);
    }
  }
  return args;
}

void PlaceGradients(const Interaction& call, GradientPlace (&places)[kMaxInteractionFeatures]) {
  int feature = 0;
  const int64_t row_bytes = call.dim * SizeOf(call.dtype);
  for (const InteractionPart& part : call.parts) {
    for (int64_t i = 0; i < part.features; ++i, ++feature) {
      places[feature].base = static_cast<char*>(part.grad) + i * row_bytes;
      places[feature].stride = static_cast<uint32_t>(part.features * row_bytes);
    }
  }
}

bool RowsAreAligned(const Interaction& call, bool with_gradients) {
  const auto aligned = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; };
  bool all = call.dim * SizeOf(call.dtype) % 16 == 0;
  for (const InteractionPart& part : call.parts) {
    all = all && (part.data == nullptr || aligned(part.data)) && (!with_gradients || aligned(part.grad));
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
