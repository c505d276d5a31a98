// MerlinLookupInteraction: embedding_bag and dot_interaction in one op, and its gradient. On a CPU the two kernels run
// one after the other, over a temporary tensor.
//
// `anchor` is an empty tensor whose gradient is that of the pooled vectors, [batch, features of the bags * dim]: what a
// training step that changes the tables by rows asks for (see merlin_models.ops.lookups).
#include "dot_interaction/lookup_interaction.h"
#include "embedding_bag/bag_kernel_tf.h"

namespace merlin {
namespace {

#define MERLIN_LOOKUP_INTERACTION                               \
  .Input("tables: num_tables * resource")                       \
      .Input("ids: num_features * Tids")                        \
      .Input("row_splits: num_splits * int64")                  \
      .Input("weights: num_weights * float")                    \
      .Input("anchor: Tout")                                    \
      .Input("first: num_first * Tout")                         \
      .Attr("T: {float, half, bfloat16}")                       \
      .Attr("Tids: {int32, int64}")                             \
      .Attr("Tout: {float, half, bfloat16}")                    \
      .Attr("num_tables: int >= 1")                             \
      .Attr("num_features: int >= 1")                           \
      .Attr("num_splits: int >= 0")                             \
      .Attr("num_weights: int >= 0")                            \
      .Attr("num_first: int >= 0")                              \
      .Attr("table_of_feature: list(int)")                      \
      .Attr("splits_of_feature: list(int)")                     \
      .Attr("weights_of_feature: list(int)")                    \
      .Attr("combiners: list({'sum', 'mean', 'sqrtn', 'max'})") \
      .Attr("padding_ids: list(int)")                           \
      .Attr("names: list(string)")                              \
      .Attr("dim: int >= 1")                                    \
      .Attr("order: {'lower', 'upper'}")                        \
      .Attr("self_interaction: bool = false")                   \
      .Attr("concat_first: bool = false")                       \
      .Attr("pad_to: int >= 1 = 1")                             \
      .Attr("tf32: bool = false")                               \
      .Attr("tables_trainable: bool = true")

// Reads and checks the attributes that the shapes of outputs follow from. `parts` is the features alone.
template <typename Context>
Status ReadAttributes(Context* c, BagAttributes* bags, Interaction* call) {
  int first;
  TF_RETURN_IF_ERROR(bags->Read(c));
  TF_RETURN_IF_ERROR(c->GetAttr("num_first", &first));
  TF_RETURN_IF_ERROR(c->GetAttr("dim", &call->dim));
  TF_RETURN_IF_ERROR(c->GetAttr("self_interaction", &call->self_interaction));
  TF_RETURN_IF_ERROR(c->GetAttr("concat_first", &call->concat_first));
  TF_RETURN_IF_ERROR(c->GetAttr("pad_to", &call->pad_to));
  call->parts = {{nullptr, nullptr, int64_t{bags->num_features} + first}};
  return Checked([&] { CheckInteraction(*call); });
}

REGISTER_OP("MerlinLookupInteraction")
MERLIN_LOOKUP_INTERACTION.Output("output: Tout").SetIsStateful().SetShapeFn([](InferenceContext* c) {
  BagAttributes bags;
  Interaction call{};
  TF_RETURN_IF_ERROR(ReadAttributes(c, &bags, &call));
  DimensionHandle batch;
  TF_RETURN_IF_ERROR(NumBagsOf(c, bags, 0, &batch));  // which all features have
  c->set_output(0, c->Matrix(batch, c->MakeDim(call.width())));
  return absl::OkStatus();
});

REGISTER_OP("MerlinLookupInteractionGrad")
MERLIN_LOOKUP_INTERACTION.Input("grad: Tout")
    .Output("first_grads: num_first * Tout")
    .Output("pooled_grad: Tout")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      BagAttributes bags;
      Interaction call{};
      TF_RETURN_IF_ERROR(ReadAttributes(c, &bags, &call));
      const int64_t first = call.features() - bags.num_features;
      DimensionHandle batch;
      TF_RETURN_IF_ERROR(NumBagsOf(c, bags, 0, &batch));  // which all features have
      for (int i = 0; i < first; ++i) c->set_output(i, c->Matrix(batch, c->MakeDim(call.dim)));
      c->set_output(first, c->Matrix(batch, c->MakeDim(bags.num_features * call.dim)));
      return absl::OkStatus();
    });

class LookupInteractionKernel : public BagKernel {
 public:
  explicit LookupInteractionKernel(OpKernelConstruction* ctx) : BagKernel(ctx) {
    std::string order;
    tensorflow::DataType output_type;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("Tout", &output_type));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("order", &order));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("tf32", &interaction_.tf32));
    BagAttributes bags;
    OP_REQUIRES_OK(ctx, ReadAttributes(ctx, &bags, &interaction_));
    interaction_.parts.clear();
    interaction_.dtype = FromTensorFlow(output_type);
    output_type_ = output_type;
    interaction_.order = PairOrderFrom(order);
  }

 protected:
  // The interaction of the op's inputs: the dense part, if any, and one without data for the bags.
  Interaction ReadInteraction(OpKernelContext* ctx, Call* call) {
    Interaction interaction = interaction_;
    Read(ctx, call);
    if (!ctx->status().ok()) throw InvalidArgument(std::string(ctx->status().message()));
    BagBatch& bags = call->batch;
    bags.output_dtype = interaction.dtype;
    CheckBatch(bags);  // fewer than 2^32 bags, so that all shapes can be said
    interaction.batch = bags.features[0].num_bags;
    for (size_t f = 0; f < bags.features.size(); ++f) {
      Check(bags.features[f].num_bags == interaction.batch,
            "All features must have one number of bags. Received: ", interaction.batch, " and ",
            bags.features[f].num_bags);
      Check(bags.tables[bags.features[f].table].dim == interaction.dim, "Tables must have dim ", interaction.dim,
            ". Received: ", bags.tables[bags.features[f].table].dim);
    }
    tensorflow::OpInputList first;
    if (!ctx->input_list("first", &first).ok()) throw InvalidArgument("first must be given");
    for (const Tensor& tensor : first) {
      Check(tensor.shape() == TensorShape({interaction.batch, interaction.dim}), "first must have shape [",
            interaction.batch, ",", interaction.dim, "]. Received: ", tensor.shape().DebugString());
      interaction.parts.push_back({tensor.data(), nullptr, 1});
    }
    interaction.parts.push_back({nullptr, nullptr, static_cast<int64_t>(bags.features.size())});
    return interaction;
  }

  // Memory for the pooled vectors, [batch, features, dim].
  Status AllocateVectors(OpKernelContext* ctx, const BagBatch& bags, const Interaction& interaction,
                         Tensor* vectors) const {
    const auto features = static_cast<int64_t>(bags.features.size());
    return ctx->allocate_temp(output_type_, TensorShape({interaction.batch, features * interaction.dim}), vectors);
  }

  // On a CPU: looks the vectors up.
  Status Pool(OpKernelContext* ctx, BagBatch* bags, Interaction* interaction, Tensor* vectors) const {
    TF_RETURN_IF_ERROR(AllocateVectors(ctx, *bags, *interaction, vectors));
    PlaceVectors(*interaction, vectors->data(), bags);
    TensorFlowThreads threads(ctx);
    EmbeddingBagForward(*bags, threads);
    interaction->parts.back().data = vectors->data();
    return absl::OkStatus();
  }

  tensorflow::DataType output_type_;

 private:
  Interaction interaction_{};
};

class LookupInteractionOp : public LookupInteractionKernel {
 public:
  using LookupInteractionKernel::LookupInteractionKernel;

  void Compute(OpKernelContext* ctx) override {
    RunKernel(ctx, [&] {
      Call call;
      Interaction interaction = ReadInteraction(ctx, &call);
      Tensor* output;
      OP_REQUIRES_OK(ctx, ctx->allocate_output(0, TensorShape({interaction.batch, interaction.width()}), &output));
      interaction.output = output->data();
      if (!OnDevice(ctx)) {
        Tensor pooled;
        OP_REQUIRES_OK(ctx, Pool(ctx, &call.batch, &interaction, &pooled));
        TensorFlowThreads threads(ctx);
        DotInteraction(interaction, threads);
        return;
      }
#ifdef MERLIN_WITH_CUDA
      RaiseDeviceError();
      LookupInteractionCuda(interaction, call.batch, CudaStreamOf(ctx));
#endif
    });
  }
};

class LookupInteractionGradOp : public LookupInteractionKernel {
 public:
  using LookupInteractionKernel::LookupInteractionKernel;

  void Compute(OpKernelContext* ctx) override {
    RunKernel(ctx, [&] {
      Call call;
      Interaction interaction = ReadInteraction(ctx, &call);
      const Tensor* grad;
      OP_REQUIRES_OK(ctx, ctx->input("grad", &grad));
      Check(grad->shape() == TensorShape({interaction.batch, interaction.width()}), "grad must have shape [",
            interaction.batch, ",", interaction.width(), "]. Received: ", grad->shape().DebugString());
      interaction.grad = grad->data();
      for (size_t p = 0; p < interaction.parts.size(); ++p) {
        Tensor* output;
        const TensorShape shape({interaction.batch, interaction.parts[p].features * interaction.dim});
        OP_REQUIRES_OK(ctx, ctx->allocate_output(static_cast<int>(p), shape, &output));
        interaction.parts[p].grad = output->data();
      }
      if (!OnDevice(ctx)) {
        Tensor pooled;
        OP_REQUIRES_OK(ctx, Pool(ctx, &call.batch, &interaction, &pooled));
        TensorFlowThreads threads(ctx);
        DotInteractionGradient(interaction, threads);
        return;
      }
#ifdef MERLIN_WITH_CUDA
      Tensor vectors;
      const bool needs_vectors = NeedsVectors(call.batch);
      if (needs_vectors) OP_REQUIRES_OK(ctx, AllocateVectors(ctx, call.batch, interaction, &vectors));
      LookupInteractionGradientCuda(interaction, call.batch, needs_vectors ? vectors.data() : nullptr,
                                    CudaStreamOf(ctx));
#endif
    });
  }
};

REGISTER_KERNEL_BUILDER(Name("MerlinLookupInteraction").Device(tensorflow::DEVICE_CPU), LookupInteractionOp);
REGISTER_KERNEL_BUILDER(Name("MerlinLookupInteractionGrad").Device(tensorflow::DEVICE_CPU), LookupInteractionGradOp);
#ifdef MERLIN_WITH_CUDA
REGISTER_KERNEL_BUILDER(Name("MerlinLookupInteraction").Device(tensorflow::DEVICE_GPU).HostMemory("tables"),
                        LookupInteractionOp);
REGISTER_KERNEL_BUILDER(Name("MerlinLookupInteractionGrad").Device(tensorflow::DEVICE_GPU).HostMemory("tables"),
                        LookupInteractionGradOp);
#endif

}  // namespace
}  // namespace merlin
