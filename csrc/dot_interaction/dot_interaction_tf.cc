// dot_interaction as TensorFlow ops: MerlinDotInteraction and its gradient.
#include "common/tf_utils.h"
#include "dot_interaction/dot_interaction.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/shape_inference.h"
#ifdef MERLIN_WITH_CUDA
#include "dot_interaction/dot_interaction_cuda.h"
#endif

namespace merlin {
namespace {

using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

#define MERLIN_INTERACTION_ATTRS              \
  .Attr("T: {float, half, bfloat16}")         \
      .Attr("N: int >= 1")                    \
      .Attr("order: {'lower', 'upper'}")      \
      .Attr("self_interaction: bool = false") \
      .Attr("concat_first: bool = false")     \
      .Attr("pad_to: int >= 1 = 1")           \
      .Attr("tf32: bool = false")

absl::Status OutputShape(InferenceContext* c) {
  Interaction call{};
  int n;
  TF_RETURN_IF_ERROR(c->GetAttr("N", &n));
  TF_RETURN_IF_ERROR(c->GetAttr("self_interaction", &call.self_interaction));
  TF_RETURN_IF_ERROR(c->GetAttr("concat_first", &call.concat_first));
  TF_RETURN_IF_ERROR(c->GetAttr("pad_to", &call.pad_to));
  TF_RETURN_IF_ERROR(Checked([&] { CheckPadTo(call.pad_to); }));
  DimensionHandle batch = c->UnknownDim(), dim = c->UnknownDim();
  bool known = true;
  for (int i = 0; i < n; ++i) {
    ShapeHandle part;
    TF_RETURN_IF_ERROR(c->WithRankAtLeast(c->input(i), 2, &part));
    TF_RETURN_IF_ERROR(c->WithRankAtMost(part, 3, &part));
    if (!c->RankKnown(part)) {
      known = false;
      continue;
    }
    TF_RETURN_IF_ERROR(c->Merge(batch, c->Dim(part, 0), &batch));
    TF_RETURN_IF_ERROR(c->Merge(dim, c->Dim(part, -1), &dim));
    const bool one = c->Rank(part) == 2;
    known = known && (one || c->ValueKnown(c->Dim(part, 1)));
    if (known) call.parts.push_back({nullptr, nullptr, one ? 1 : c->Value(c->Dim(part, 1))});
  }
  known = known && (!call.concat_first || c->ValueKnown(dim));
  if (known && call.concat_first) call.dim = c->Value(dim);
  c->set_output(0, c->Matrix(batch, known ? c->MakeDim(call.width()) : c->UnknownDim()));
  return absl::OkStatus();
}

REGISTER_OP("MerlinDotInteraction")
    .Input("features: N * T")
    .Output("output: T") MERLIN_INTERACTION_ATTRS.SetShapeFn(OutputShape);

REGISTER_OP("MerlinDotInteractionGrad")
    .Input("features: N * T")
    .Input("grad: T")
    .Output("grads: N * T") MERLIN_INTERACTION_ATTRS.SetShapeFn([](InferenceContext* c) {
      for (int i = 0; i < c->num_outputs(); ++i) c->set_output(i, c->input(i));
      return absl::OkStatus();
    });

class InteractionKernel : public tensorflow::OpKernel {
 public:
  explicit InteractionKernel(OpKernelConstruction* ctx) : OpKernel(ctx) {
    std::string order;
    tensorflow::DataType type;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("T", &type));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("order", &order));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("self_interaction", &call_.self_interaction));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("concat_first", &call_.concat_first));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("pad_to", &call_.pad_to));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("tf32", &call_.tf32));
    call_.dtype = FromTensorFlow(type);
    call_.order = PairOrderFrom(order);
    on_device_ = ctx->device_type() == tensorflow::DeviceType(tensorflow::DEVICE_GPU);
  }

 protected:
  // The call on the op's features; throws InvalidArgument.
  Interaction Read(OpKernelContext* ctx, tensorflow::OpInputList* features) const {
    Interaction call = call_;
    if (!ctx->input_list("features", features).ok()) throw InvalidArgument("features must be given");
    for (int p = 0; p < features->size(); ++p) {
      const Tensor& part = (*features)[p];
      Check(part.dims() == 2 || part.dims() == 3,
            "features must have rank 2 or 3. Received shape: ", part.shape().DebugString(), " at index ", p);
      const int64_t dim = part.dim_size(part.dims() - 1);
      if (p == 0) {
        call.batch = part.dim_size(0);
        call.dim = dim;
      }
      Check(part.dim_size(0) == call.batch && dim == call.dim,
            "features must have one batch size and one last dimension. Received shapes: ",
            (*features)[0].shape().DebugString(), " at index 0 and ", part.shape().DebugString(), " at index ", p);
      call.parts.push_back({part.data(), nullptr, part.dims() == 3 ? part.dim_size(1) : 1});
    }
    CheckInteraction(call);
    return call;
  }

  bool on_device_;

 private:
  Interaction call_{};
};

class DotInteractionOp : public InteractionKernel {
 public:
  using InteractionKernel::InteractionKernel;

  void Compute(OpKernelContext* ctx) override {
    RunKernel(ctx, [&] {
      tensorflow::OpInputList features;
      Interaction call = Read(ctx, &features);
      Tensor* output;
      OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({call.batch, call.width()}), &output));
      call.output = output->data();
      if (!on_device_) {
        TensorFlowThreads threads(ctx);
        DotInteraction(call, threads);
        return;
      }
#ifdef MERLIN_WITH_CUDA
      DotInteractionCuda(call, CudaStreamOf(ctx));
#endif
    });
  }
};

class DotInteractionGradOp : public InteractionKernel {
 public:
  using InteractionKernel::InteractionKernel;

  void Compute(OpKernelContext* ctx) override {
    RunKernel(ctx, [&] {
      tensorflow::OpInputList features;
      Interaction call = Read(ctx, &features);
      const Tensor* grad;
      OP_REQUIRES_OK(ctx, ctx->input("grad", &grad));
      Check(grad->shape() == TensorShape({call.batch, call.width()}), "grad must have shape [", call.batch, ",",
            call.width(), "]. Received: ", grad->shape().DebugString());
      call.grad = grad->data();
      for (int p = 0; p < features.size(); ++p) {
        Tensor* output;
        OP_REQUIRES_OK(ctx, ctx->allocate_output(p, features[p].shape(), &output));
        call.parts[p].grad = output->data();
      }
      if (!on_device_) {
        TensorFlowThreads threads(ctx);
        DotInteractionGradient(call, threads);
        return;
      }
#ifdef MERLIN_WITH_CUDA
      DotInteractionGradientCuda(call, CudaStreamOf(ctx));
#endif
    });
  }
};

REGISTER_KERNEL_BUILDER(Name("MerlinDotInteraction").Device(tensorflow::DEVICE_CPU), DotInteractionOp);
REGISTER_KERNEL_BUILDER(Name("MerlinDotInteractionGrad").Device(tensorflow::DEVICE_CPU), DotInteractionGradOp);
#ifdef MERLIN_WITH_CUDA
REGISTER_KERNEL_BUILDER(Name("MerlinDotInteraction").Device(tensorflow::DEVICE_GPU), DotInteractionOp);
REGISTER_KERNEL_BUILDER(Name("MerlinDotInteractionGrad").Device(tensorflow::DEVICE_GPU), DotInteractionGradOp);
#endif

}  // namespace
}  // namespace merlin
