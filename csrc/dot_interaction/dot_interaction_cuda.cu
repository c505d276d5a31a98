// dot_interaction on CUDA, forward: launches by type and number of features.
#include "dot_interaction/dot_interaction_cuda.h"
#include "dot_interaction/interaction_blocks.cuh"
#include "dot_interaction/interaction_forward.cuh"

namespace merlin {
namespace {

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
      return args.features <= 3 * kBlockRows ? LaunchBlocks<T, 3, kExact>(args, output, kVector, stream)
                                             : LaunchBlocks<T, 4, kExact>(args, output, kVector, stream);
  }
}
static_assert(kMaxInteractionFeatures <= 4 * kBlockRows);

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
  bool all = call.dim * SizeOf(call.dtype) % 16 == 0;
  for (const InteractionPart& part : call.parts) {
    all = all && (part.data == nullptr || IsAligned(part.data)) && (!with_gradients || IsAligned(part.grad));
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
