// dot_interaction on CUDA, backward: launches by type and number of features.
#include "dot_interaction/dot_interaction_cuda.h"
#include "dot_interaction/interaction_gradient.cuh"
#include "dot_interaction/interaction_gradient_blocks.cuh"

namespace merlin {
namespace {

template <typename T, typename Word, bool kVector, bool kExact>
void LaunchSide(const GradientArgs& args, cudaStream_t stream) {
  if (args.x.features <= kBlockRows) {
    LaunchGradient<DenseRows<T, 8, kVector, Word>, kVector, kExact>(args, stream);
  } else {
    LaunchGradientBlocks<T, Word, kVector, kExact>(args, stream);
  }
}

template <typename T, bool kExact>
void LaunchAligned(const GradientArgs& args, bool vector, cudaStream_t stream) {
  if (!vector) return LaunchSide<T, uint4, false, kExact>(args, stream);
  if (args.x.dim <= Geometry<T, uint2>::kColumns) return LaunchSide<T, uint2, true, kExact>(args, stream);
  LaunchSide<T, uint4, true, kExact>(args, stream);
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
    if (kFloat && !call.tf32) return LaunchAligned<T, kFloat>(args, vector, stream);
    LaunchAligned<T, false>(args, vector, stream);
  });
}

}  // namespace merlin
