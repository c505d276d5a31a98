// inbatch_softmax as TensorFlow ops: MerlinInbatchSoftmax and its gradient.
//
// log_q and query_weights are lists of one tensor or none. `mean` is there for the gradient, [0, dim] unless
// `with_mean`; so are, on a CPU and where there is room for them, candidate_sums and with log_q candidate_weights,
// elsewhere [0, dim] and [0].
#include "common/tf_utils.h"
#include "inbatch_softmax/inbatch_softmax.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"
#ifdef MERLIN_WITH_CUDA
#include "inbatch_softmax/inbatch_softmax_cuda.h"
#endif

namespace merlin {
namespace {

using tensorflow::OpInputList;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::OpOutputList;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

#define MERLIN_INBATCH_SOFTMAX                               \
  .Input("queries: T")                                       \
      .Input("positives: T")                                 \
      .Input("candidates: T")                                \
      .Input("scale: float")                                 \
      .Input("positive_ids: int64")                          \
      .Input("candidate_ids: int64")                         \
      .Input("positive_log_q: num_positive_log_q * float")   \
      .Input("candidate_log_q: num_candidate_log_q * float") \
      .Input("query_weights: num_query_weights * float")     \
      .Attr("T: {float, half, bfloat16}")                    \
      .Attr("num_positive_log_q: int >= 0")                  \
      .Attr("num_candidate_log_q: int >= 0")                 \
      .Attr("num_query_weights: int >= 0")                   \
      .Attr("tf32: bool = false")

// Where the inputs are that `MERLIN_INBATCH_SOFTMAX` begins with.
constexpr int kQueries = 0, kPositives = 1, kCandidates = 2, kScale = 3, kPositiveIds = 4, kCandidateIds = 5, kLogQ = 6;

// Checks the ranks and sizes that are known.
absl::Status Sizes(InferenceContext* c, DimensionHandle* batch, DimensionHandle* candidates, DimensionHandle* dim) {
  ShapeHandle queries, positives, keys, scalar;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(kQueries), 2, &queries));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(kPositives), 2, &positives));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(kCandidates), 2, &keys));
  TF_RETURN_IF_ERROR(c->WithRank(c->input(kScale), 0, &scalar));
  TF_RETURN_IF_ERROR(c->Merge(queries, positives, &queries));
  TF_RETURN_IF_ERROR(c->Merge(c->Dim(queries, 1), c->Dim(keys, 1), dim));
  *batch = c->Dim(queries, 0);
  *candidates = c->Dim(keys, 0);
  const auto rows = [c](int input, DimensionHandle* count) {
    ShapeHandle row;
    TF_RETURN_IF_ERROR(c->WithRank(c->input(input), 1, &row));
    return c->Merge(*count, c->Dim(row, 0), count);
  };
  TF_RETURN_IF_ERROR(rows(kPositiveIds, batch));
  TF_RETURN_IF_ERROR(rows(kCandidateIds, candidates));
  int num_positive, num_candidate, num_weights;
  TF_RETURN_IF_ERROR(c->GetAttr("num_positive_log_q", &num_positive));
  TF_RETURN_IF_ERROR(c->GetAttr("num_candidate_log_q", &num_candidate));
  TF_RETURN_IF_ERROR(c->GetAttr("num_query_weights", &num_weights));
  for (int i = 0; i < num_positive; ++i) TF_RETURN_IF_ERROR(rows(kLogQ + i, batch));
  for (int i = 0; i < num_candidate; ++i) TF_RETURN_IF_ERROR(rows(kLogQ + num_positive + i, candidates));
  for (int i = 0; i < num_weights; ++i) TF_RETURN_IF_ERROR(rows(kLogQ + num_positive + num_candidate + i, batch));
  return absl::OkStatus();
}

REGISTER_OP("MerlinInbatchSoftmax")
MERLIN_INBATCH_SOFTMAX.Attr("with_rank: bool = true")
    .Attr("with_mean: bool = true")
    .Output("loss: float")
    .Output("log_sum: float")
    .Output("positive_score: float")
    .Output("rank: int64")
    .Output("mean: float")
    .Output("candidate_sums: float")
    .Output("candidate_weights: float")
    .SetShapeFn([](InferenceContext* c) {
      DimensionHandle batch, candidates, dim;
      TF_RETURN_IF_ERROR(Sizes(c, &batch, &candidates, &dim));
      bool with_rank, with_mean;
      TF_RETURN_IF_ERROR(c->GetAttr("with_rank", &with_rank));
      TF_RETURN_IF_ERROR(c->GetAttr("with_mean", &with_mean));
      for (int i = 0; i < 3; ++i) c->set_output(i, c->Vector(batch));
      c->set_output(3, with_rank ? c->Vector(batch) : c->Vector(0));
      c->set_output(4, with_mean ? c->Matrix(batch, dim) : c->Matrix(c->MakeDim(0), dim));
      // Whether there are sums depends on the device.
      c->set_output(5, c->Matrix(with_mean ? c->UnknownDim() : c->MakeDim(0), dim));
      c->set_output(6, with_mean ? c->Vector(c->UnknownDim()) : c->Vector(0));
      return absl::OkStatus();
    });

REGISTER_OP("MerlinInbatchSoftmaxGrad")
MERLIN_INBATCH_SOFTMAX.Input("log_sum: float")
    .Input("positive_score: float")
    .Input("mean: float")
    .Input("log_sum_grad: float")
    .Input("positive_score_grad: float")
    .Input("candidate_sums: float")
    .Input("candidate_weights: float")
    .Output("queries_grad: T")
    .Output("positives_grad: T")
    .Output("candidates_grad: T")
    .Output("scale_grad: float")
    .Output("positive_log_q_grad: num_positive_log_q * float")
    .Output("candidate_log_q_grad: num_candidate_log_q * float")
    .SetShapeFn([](InferenceContext* c) {
      DimensionHandle batch, candidates, dim;
      TF_RETURN_IF_ERROR(Sizes(c, &batch, &candidates, &dim));
      int num_positive;
      TF_RETURN_IF_ERROR(c->GetAttr("num_positive_log_q", &num_positive));
      c->set_output(0, c->Matrix(batch, dim));
      c->set_output(1, c->Matrix(batch, dim));
      c->set_output(2, c->Matrix(candidates, dim));
      c->set_output(3, c->Scalar());
      for (int i = 4; i < c->num_outputs(); ++i) c->set_output(i, c->Vector(i < 4 + num_positive ? batch : candidates));
      return absl::OkStatus();
    });

class SoftmaxKernel : public tensorflow::OpKernel {
 public:
  explicit SoftmaxKernel(OpKernelConstruction* ctx) : OpKernel(ctx) {
    tensorflow::DataType type;
    bool tf32;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("T", &type));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("tf32", &tf32));
    call_.dtype = FromTensorFlow(type);
    call_.exact = !tf32;
    on_device_ = ctx->device_type() == tensorflow::DeviceType(tensorflow::DEVICE_GPU);
  }

 protected:
  // The call on the op's inputs; throws InvalidArgument.
  InbatchSoftmax Read(OpKernelContext* ctx) const {
    InbatchSoftmax call = call_;
    const Tensor& queries = ctx->input(kQueries);
    const Tensor& positives = ctx->input(kPositives);
    const Tensor& candidates = ctx->input(kCandidates);
    Check(queries.dims() == 2, "queries must have rank 2. Received shape: ", queries.shape().DebugString());
    Check(positives.shape() == queries.shape(), "positives must have the shape of queries, ",
          queries.shape().DebugString(), ". Received: ", positives.shape().DebugString());
    Check(candidates.dims() == 2 && candidates.dim_size(1) == queries.dim_size(1), "candidates must have shape [any,",
          queries.dim_size(1), "], the last dimension of queries. Received: ", candidates.shape().DebugString());
    Check(ctx->input(kScale).dims() == 0,
          "scale must be a scalar. Received shape: ", ctx->input(kScale).shape().DebugString());
    call.batch = queries.dim_size(0);
    call.candidates = candidates.dim_size(0);
    call.dim = queries.dim_size(1);
    CheckInbatchSoftmax(call);
    call.queries = queries.data();
    call.positives = positives.data();
    call.keys = candidates.data();
    call.scale = static_cast<const float*>(ctx->input(kScale).data());
    call.positive_ids = static_cast<const int64_t*>(Row(ctx->input(kPositiveIds), "positive_ids", call.batch));
    call.candidate_ids = static_cast<const int64_t*>(Row(ctx->input(kCandidateIds), "candidate_ids", call.candidates));
    call.positive_log_q = OneOrNone(ctx, "positive_log_q", call.batch);
    call.candidate_log_q = OneOrNone(ctx, "candidate_log_q", call.candidates);
    call.query_weights = OneOrNone(ctx, "query_weights", call.batch);
    return call;
  }

  static const void* Row(const Tensor& tensor, const char* name, int64_t count) {
    Check(tensor.shape() == TensorShape({count}), name, " must have shape [", count,
          "]. Received: ", tensor.shape().DebugString());
    return tensor.data();
  }

#ifdef MERLIN_WITH_CUDA
  static void* Workspace(OpKernelContext* ctx, int64_t bytes, Tensor* workspace) {
    const absl::Status status = ctx->allocate_temp(tensorflow::DT_UINT8, TensorShape({bytes}), workspace);
    if (!status.ok()) throw std::runtime_error(std::string(status.message()));
    return workspace->data();
  }
#endif

  bool on_device_;

 private:
  static const float* OneOrNone(OpKernelContext* ctx, const char* name, int64_t count) {
    OpInputList list;
    if (!ctx->input_list(name, &list).ok()) throw InvalidArgument(std::string(name) + " must be a list");
    Check(list.size() <= 1, name, " must hold one tensor or none. Received: ", list.size());
    return list.size() == 0 ? nullptr : static_cast<const float*>(Row(list[0], name, count));
  }

  InbatchSoftmax call_{};
};

class InbatchSoftmaxOp : public SoftmaxKernel {
 public:
  explicit InbatchSoftmaxOp(OpKernelConstruction* ctx) : SoftmaxKernel(ctx) {
    OP_REQUIRES_OK(ctx, ctx->GetAttr("with_rank", &with_rank_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("with_mean", &with_mean_));
  }

  void Compute(OpKernelContext* ctx) override {
    RunKernel(ctx, [&] {
      InbatchSoftmax call = Read(ctx);
      const TensorShape rows({call.batch}), none({0});
      const bool with_sums = with_mean_ && !on_device_ && InbatchSoftmaxSumsCandidates(call.batch, call.candidates);
      const bool with_weights = with_sums && call.candidate_log_q;
      Tensor *loss, *log_sum, *positive_score, *rank, *mean, *sums, *weights;
      OP_REQUIRES_OK(ctx, ctx->allocate_output(0, rows, &loss));
      OP_REQUIRES_OK(ctx, ctx->allocate_output(1, rows, &log_sum));
      OP_REQUIRES_OK(ctx, ctx->allocate_output(2, rows, &positive_score));
      OP_REQUIRES_OK(ctx, ctx->allocate_output(3, with_rank_ ? rows : none, &rank));
      OP_REQUIRES_OK(ctx, ctx->allocate_output(4, TensorShape({with_mean_ ? call.batch : 0, call.dim}), &mean));
      OP_REQUIRES_OK(ctx, ctx->allocate_output(5, TensorShape({with_sums ? call.candidates : 0, call.dim}), &sums));
      OP_REQUIRES_OK(ctx, ctx->allocate_output(6, TensorShape({with_weights ? call.candidates : 0}), &weights));
      call.loss = loss->flat<float>().data();
      call.log_sum = log_sum->flat<float>().data();
      call.positive_score = positive_score->flat<float>().data();
      call.rank = with_rank_ ? static_cast<int64_t*>(rank->data()) : nullptr;
      call.mean = with_mean_ ? mean->flat<float>().data() : nullptr;
      call.candidate_sums = with_sums ? sums->flat<float>().data() : nullptr;
      call.candidate_weights = with_weights ? weights->flat<float>().data() : nullptr;
      if (!on_device_) {
        TensorFlowThreads threads(ctx);
        InbatchSoftmaxForward(call, threads);
        return;
      }
#ifdef MERLIN_WITH_CUDA
      Tensor workspace;
      void* const space = Workspace(ctx, InbatchSoftmaxForwardBytes(call), &workspace);
      InbatchSoftmaxForwardCuda(call, space, CudaStreamOf(ctx));
#endif
    });
  }

 private:
  bool with_rank_, with_mean_;
};

class InbatchSoftmaxGradOp : public SoftmaxKernel {
 public:
  using SoftmaxKernel::SoftmaxKernel;

  void Compute(OpKernelContext* ctx) override {
    RunKernel(ctx, [&] {
      const InbatchSoftmax call = Read(ctx);
      InbatchSoftmaxGradients grads{};
      grads.log_sum = Saved(ctx, "log_sum", TensorShape({call.batch}));
      grads.positive_score = Saved(ctx, "positive_score", TensorShape({call.batch}));
      grads.mean = Saved(ctx, "mean", TensorShape({call.batch, call.dim}));
      grads.log_sum_grad = Saved(ctx, "log_sum_grad", TensorShape({call.batch}));
      grads.positive_score_grad = Saved(ctx, "positive_score_grad", TensorShape({call.batch}));
      grads.candidate_sums = SavedOrEmpty(ctx, "candidate_sums", TensorShape({call.candidates, call.dim}));
      grads.candidate_weights = SavedOrEmpty(ctx, "candidate_weights", TensorShape({call.candidates}));
      Tensor *queries, *positives, *candidates, *scale, *log_q;
      OP_REQUIRES_OK(ctx, ctx->allocate_output(0, ctx->input(kQueries).shape(), &queries));
      OP_REQUIRES_OK(ctx, ctx->allocate_output(1, ctx->input(kPositives).shape(), &positives));
      OP_REQUIRES_OK(ctx, ctx->allocate_output(2, ctx->input(kCandidates).shape(), &candidates));
      OP_REQUIRES_OK(ctx, ctx->allocate_output(3, TensorShape({}), &scale));
      OpOutputList positive_log_q, candidate_log_q;
      OP_REQUIRES_OK(ctx, ctx->output_list("positive_log_q_grad", &positive_log_q));
      OP_REQUIRES_OK(ctx, ctx->output_list("candidate_log_q_grad", &candidate_log_q));
      if (positive_log_q.size() > 0) {
        OP_REQUIRES_OK(ctx, positive_log_q.allocate(0, TensorShape({call.batch}), &log_q));
        grads.positive_log_q = log_q->flat<float>().data();
      }
      if (candidate_log_q.size() > 0) {
        OP_REQUIRES_OK(ctx, candidate_log_q.allocate(0, TensorShape({call.candidates}), &log_q));
        grads.candidate_log_q = log_q->flat<float>().data();
      }
      grads.queries = queries->data();
      grads.positives = positives->data();
      grads.keys = candidates->data();
      grads.scale = static_cast<float*>(scale->data());
      if (!on_device_) {
        TensorFlowThreads threads(ctx);
        InbatchSoftmaxBackward(call, grads, threads);
        return;
      }
#ifdef MERLIN_WITH_CUDA
      Tensor workspace;
      void* const space = Workspace(ctx, InbatchSoftmaxBackwardBytes(call), &workspace);
      InbatchSoftmaxBackwardCuda(call, grads, space, CudaStreamOf(ctx));
#endif
    });
  }

 private:
  static const float* Saved(OpKernelContext* ctx, const char* name, const TensorShape& shape) {
    const Tensor* tensor;
    const absl::Status status = ctx->input(name, &tensor);
    Check(status.ok(), name, " must be given");
    Check(tensor->shape() == shape, name, " must have shape ", shape.DebugString(),
          ". Received: ", tensor->shape().DebugString());
    return tensor->flat<float>().data();
  }

  // Null for a tensor without elements.
  static const float* SavedOrEmpty(OpKernelContext* ctx, const char* name, const TensorShape& shape) {
    const Tensor* tensor;
    return ctx->input(name, &tensor).ok() && tensor->NumElements() == 0 ? nullptr : Saved(ctx, name, shape);
  }
};

REGISTER_KERNEL_BUILDER(Name("MerlinInbatchSoftmax").Device(tensorflow::DEVICE_CPU), InbatchSoftmaxOp);
REGISTER_KERNEL_BUILDER(Name("MerlinInbatchSoftmaxGrad").Device(tensorflow::DEVICE_CPU), InbatchSoftmaxGradOp);
#ifdef MERLIN_WITH_CUDA
REGISTER_KERNEL_BUILDER(Name("MerlinInbatchSoftmax").Device(tensorflow::DEVICE_GPU), InbatchSoftmaxOp);
REGISTER_KERNEL_BUILDER(Name("MerlinInbatchSoftmaxGrad").Device(tensorflow::DEVICE_GPU), InbatchSoftmaxGradOp);
#endif

}  // namespace
}  // namespace merlin
