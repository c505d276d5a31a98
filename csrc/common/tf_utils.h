// What every *_tf.cc needs: translating types, errors and threads between TensorFlow and the kernels.
#pragma once

#include <initializer_list>

#include "common/check.h"
#include "common/dtypes.h"
#include "common/parallel.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "xla/stream_executor/stream.h"

namespace merlin {

inline DType FromTensorFlow(tensorflow::DataType type) {
  switch (type) {
    case tensorflow::DT_FLOAT:
      return DType::kFloat32;
    case tensorflow::DT_HALF:
      return DType::kFloat16;
    case tensorflow::DT_BFLOAT16:
      return DType::kBFloat16;
    default:
      throw InvalidArgument("dtype must be float32, float16 or bfloat16. Received: " +
                            tensorflow::DataTypeString(type));
  }
}

// The status of an argument that breaks a rule.
template <typename... Parts>
absl::Status Invalid(const Parts&... parts) {
  return absl::InvalidArgumentError(Concat(parts...));
}

// The shape of these sizes, unless they are too large for one: ids of shape (2^62, 0) take no memory.
inline absl::Status ShapeOf(std::initializer_list<int64_t> sizes, tensorflow::TensorShape* shape) {
  return tensorflow::TensorShape::BuildTensorShape(sizes, shape);
}

// Runs `body` and returns what the kernels throw about arguments as a status.
template <typename Body>
absl::Status Checked(Body&& body) {
  try {
    body();
  } catch (const InvalidArgument& error) {
    return Invalid(error.what());
  }
  return absl::OkStatus();
}

// Runs `body` and turns what the kernels throw into the op's status.
template <typename Body>
void RunKernel(tensorflow::OpKernelContext* ctx, Body&& body) {
  try {
    body();
  } catch (const InvalidArgument& error) {
    ctx->CtxFailure(Invalid(error.what()));
  } catch (const std::exception& error) {
    ctx->CtxFailure(absl::InternalError(error.what()));
  }
}

// As many threads as TensorFlow's pool has, for intra_op_parallelism_threads says how many an op may use. Ours and not
// the pool's: those are woken behind the caller on its processor, and begin when it is done (docs/performance.md).
class TensorFlowThreads : public StdThreads {
 public:
  explicit TensorFlowThreads(tensorflow::OpKernelContext* ctx)
      : StdThreads(ctx->device()->tensorflow_cpu_worker_threads()->num_threads) {}
};

// The cudaStream_t that the op's device runs on.
inline void* CudaStreamOf(tensorflow::OpKernelContext* ctx) {
  return ctx->op_device_context()->stream()->platform_specific_handle().stream;
}

}  // namespace merlin
