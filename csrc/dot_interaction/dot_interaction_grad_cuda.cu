// dot_interaction on CUDA, backward: launches by type and number of features.
#include "dot_interaction/dot_interaction_cuda.h"
#include "dot_interaction/interaction_gradient.cuh"
#include "dot_interaction/interaction_gradient_blocks.cuh"

namespace merlin {
namespace {

template <typename T, bool kVector, bool kExact>
void LaunchSide(const GradientArgs& args, cudaStream_t stream) {
  if (args.x.features <= kBlockRows) {
    LaunchGradient<DenseRows<T, 8, kVector>, kVector, kExact>(args, stream);
  } else {
    LaunchGradientBlocks<T, kVector, kExact>(args, stream);
  }
}

}  // namespace

void DotInteractionGradientCuda(const Interaction& call, CudaStream stream_ptr) {
  CheckInteraction(call);
  if (call.batch == 0) return;
  const auto stream = static_cast<cudaStream_t>(stream_ptr);
  GradientArgs args{};
  args.x = ArgsOf(call);
  args.grad = static_cast<const char*>(call.grad);
  PlaceGradients(call, args.dx);
  const bool vector = RowsAreAligned(call, /*with_gradients=*/true);
  DispatchDType(call.dtype, [&](auto zero) {
    using T = decltype(zero);
    constexpr bool kFloat = std::is_same_v<T, float>;
    if (kFloat && !call.tf32) {
      return vector ? LaunchSide<T, true, kFloat>(args, stream) : LaunchSide<T, false, kFloat>(args, stream);
    }
    return vector ? LaunchSide<T, true, false>(args, stream) : LaunchSide<T, false, false>(args, stream);
  });
}

}  // namespace merlin
