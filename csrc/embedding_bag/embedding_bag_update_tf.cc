// MerlinEmbeddingBagUpdate: the backward pass of embedding_bag and the optimizer's step of its tables, in one op.
#include <cstring>
#include <limits>

#include "embedding_bag/bag_kernel_tf.h"
#include "embedding_bag/embedding_bag_update.h"
#ifdef MERLIN_WITH_CUDA
#include "embedding_bag/embedding_bag_update_cuda.h"
#endif

namespace merlin {
namespace {

// Beside the attributes of bags: which gradient each feature has, and from which column on.
template <typename Context>
Status ReadPlaces(Context* c, const BagAttributes& bags, std::vector<int>* grads, std::vector<int>* columns) {
  int num_grads;
  TF_RETURN_IF_ERROR(c->GetAttr("num_grads", &num_grads));
  TF_RETURN_IF_ERROR(bags.ReadList(c, "grad_of_feature", grads));
  TF_RETURN_IF_ERROR(bags.ReadList(c, "column_of_feature", columns));
  TF_RETURN_IF_ERROR(BagAttributes::CheckRange("grad_of_feature", *grads, 0, num_grads));
  return BagAttributes::CheckRange("column_of_feature", *columns, 0, std::numeric_limits<int>::max());
}

REGISTER_OP("MerlinEmbeddingBagUpdate")
    .Input("tables: num_tables * resource")
    .Input("slots: num_slots * resource")
    .Input("ids: num_features * Tids")
    .Input("row_splits: num_splits * int64")
    .Input("weights: num_weights * float")
    .Input("grad: num_grads * Tgrad")
    .Input("learning_rate: float")
    .Input("step: int64")
    .Input("grad_scale: float")
    .Attr("T: {float, half, bfloat16}")
    .Attr("Tids: {int32, int64}")
    .Attr("Tgrad: {float, half, bfloat16}")
    .Attr("num_tables: int >= 1")
    .Attr("num_slots: int >= 0")
    .Attr("num_features: int >= 1")
    .Attr("num_splits: int >= 0")
    .Attr("num_weights: int >= 0")
    .Attr("num_grads: int >= 1")
    .Attr("table_of_feature: list(int)")
    .Attr("splits_of_feature: list(int)")
    .Attr("weights_of_feature: list(int)")
    .Attr("grad_of_feature: list(int)")
    .Attr("column_of_feature: list(int)")
    .Attr("combiners: list({'sum', 'mean', 'sqrtn', 'max'})")
    .Attr("padding_ids: list(int)")
    .Attr("names: list(string)")
    .Attr("rule: string")
    .Attr("beta_1: float = 0.9")
    .Attr("beta_2: float = 0.999")
    .Attr("epsilon: float = 1e-7")
    .Attr("momentum: float = 0.0")
    .Attr("weight_decay: float = 0.0")
    .Attr("l1: float = 0.0")
    .Attr("l2: float = 0.0")
    .Attr("clip_norm: float = 0.0")
    .Attr("nesterov: bool = false")
    .Attr("stochastic_rounding: bool = false")
    .Attr("seed: int = 0")
    .SetIsStateful()
    .SetShapeFn([](InferenceContext* c) {
      BagAttributes bags;
      std::vector<int> grads, columns;
      TF_RETURN_IF_ERROR(bags.Read(c));
      TF_RETURN_IF_ERROR(ReadPlaces(c, bags, &grads, &columns));
      ShapeHandle scalar;
      for (int i = c->num_inputs() - 3; i < c->num_inputs(); ++i) {
        TF_RETURN_IF_ERROR(c->WithRank(c->input(i), 0, &scalar));
      }
      return absl::OkStatus();
    });

class EmbeddingBagUpdateOp : public BagKernel {
 public:
  explicit EmbeddingBagUpdateOp(OpKernelConstruction* ctx) : BagKernel(ctx, /*changes_tables=*/true) {
    tensorflow::DataType grad_type;
    std::string rule;
    int64_t seed;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("Tgrad", &grad_type));
    BagAttributes bags;
    OP_REQUIRES_OK(ctx, bags.Read(ctx));
    OP_REQUIRES_OK(ctx, ReadPlaces(ctx, bags, &grad_of_feature_, &column_of_feature_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("rule", &rule));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("beta_1", &rule_.beta1));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("beta_2", &rule_.beta2));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("epsilon", &rule_.epsilon));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("momentum", &rule_.momentum));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("weight_decay", &rule_.weight_decay));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("l1", &rule_.l1));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("l2", &rule_.l2));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("clip_norm", &rule_.clip_norm));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("nesterov", &rule_.nesterov));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("stochastic_rounding", &rule_.stochastic_rounding));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("seed", &seed));
    rule_.seed = static_cast<uint64_t>(seed);
    grad_dtype_ = FromTensorFlow(grad_type);
    try {
      rule_.kind = RuleKindFrom(rule);
    } catch (const InvalidArgument& error) {
      ctx->CtxFailure(Invalid(error.what()));
    }
  }

  void Compute(OpKernelContext* ctx) override {
    RunKernel(ctx, [&] {
      Call call;
      Read(ctx, &call);
      if (!ctx->status().ok()) return;
      call.batch.output_dtype = grad_dtype_;
      OP_REQUIRES_OK(ctx, ReadGradients(ctx, &call.batch));
      std::vector<UpdateTable> tables;
      OP_REQUIRES_OK(ctx, ReadState(ctx, &call, &tables));
      const Tensor *rate, *step, *scale;
      OP_REQUIRES_OK(ctx, ctx->input("learning_rate", &rate));
      OP_REQUIRES_OK(ctx, ctx->input("step", &step));
      OP_REQUIRES_OK(ctx, ctx->input("grad_scale", &scale));
      for (const Tensor* scalar : {rate, step, scale}) {
        OP_REQUIRES(ctx, scalar->dims() == 0,
                    Invalid("learning_rate, step and grad_scale must be scalars. Received shape: ",
                            scalar->shape().DebugString()));
      }
      StepInputs inputs;
      if (!OnDevice(ctx)) {
        inputs.learning_rate = rate->scalar<float>()();
        inputs.step = step->scalar<int64_t>()();
        inputs.grad_scale = scale->scalar<float>()();
        TensorFlowThreads threads(ctx);
        EmbeddingBagUpdate(call.batch, tables, rule_, inputs, threads);
        return;
      }
#ifdef MERLIN_WITH_CUDA
      RaiseDeviceError();
      inputs.learning_rate_on_device = rate->flat<float>().data();
      inputs.step_on_device = step->flat<int64_t>().data();
      inputs.grad_scale_on_device = scale->flat<float>().data();
      EmbeddingBagUpdateCuda update(call.batch, tables, rule_);
      Tensor workspace;
      OP_REQUIRES_OK(
          ctx, ctx->allocate_temp(tensorflow::DT_UINT8, TensorShape({static_cast<int64_t>(update.workspace_bytes())}),
                                  &workspace));
      update.Run(inputs, workspace.data(), CudaStreamOf(ctx));
#endif
    });
  }

 private:
  Status ReadGradients(OpKernelContext* ctx, BagBatch* batch) const {
    tensorflow::OpInputList grads;
    TF_RETURN_IF_ERROR(ctx->input_list("grad", &grads));
    for (size_t f = 0; f < names_.size(); ++f) {
      BagFeature& feature = batch->features[f];
      const int64_t dim = batch->tables[feature.table].dim, column = column_of_feature_[f];
      const Tensor& grad = grads[grad_of_feature_[f]];
      if (grad.dims() != 2 || grad.dim_size(0) != feature.num_bags || column + dim > grad.dim_size(1)) {
        return Invalid("The gradient of feature '", names_[f], "' must have ", feature.num_bags, " rows and columns ",
                       column, " to ", column + dim, ". Received shape: ", grad.shape().DebugString());
      }
      feature.grad = static_cast<const char*>(grad.data()) + column * SizeOf(grad_dtype_);
      feature.output_stride = grad.dim_size(1);
    }
    return absl::OkStatus();
  }

  Status ReadState(OpKernelContext* ctx, Call* call, std::vector<UpdateTable>* tables) const {
    const SlotCount count = SlotsOf(rule_.kind);
    int first, end;
    TF_RETURN_IF_ERROR(InputRange("slots", &first, &end));
    if (end - first != num_tables_ * count.total()) {
      return Invalid("slots must hold ", count.total(), " variables for each of ", num_tables_,
                     " tables. Received: ", end - first);
    }
    for (int t = 0; t < num_tables_; ++t) {
      TF_RETURN_IF_ERROR(OwnBuffer(ctx, call->variables[t].get()));
      const Tensor& table = *call->variables[t]->tensor();
      if (!OnDevice(ctx)) call->huge_pages.Put(table.data(), static_cast<int64_t>(table.TotalBytes()));
      call->batch.tables[t].rows = table.data();
      UpdateTable update{table.data(), {nullptr, nullptr}};
      for (int i = 0; i < count.total(); ++i) {
        tensorflow::Var* const variable = call->variables[first + t * count.total() + i].get();
        TF_RETURN_IF_ERROR(OwnBuffer(ctx, variable));
        const Tensor& slot = *variable->tensor();
        if (!OnDevice(ctx)) call->huge_pages.Put(slot.data(), static_cast<int64_t>(slot.TotalBytes()));
        const bool per_row = i >= count.full;
        const TensorShape expected =
            per_row ? TensorShape({table.dim_size(0)}) : TensorShape({table.dim_size(0), table.dim_size(1)});
        if (slot.dtype() != tensorflow::DT_FLOAT || slot.shape() != expected) {
          return Invalid("Slot ", i, " of table ", t, " must be float32 of shape ", expected.DebugString(),
                         ". Received: ", tensorflow::DataTypeString(slot.dtype()), " ", slot.shape().DebugString());
        }
        update.slot[i] = static_cast<float*>(slot.data());
      }
      tables->push_back(update);
    }
    return absl::OkStatus();
  }

  // A variable's buffer may be shared with tensors that were read from it: those must keep their values. From now on
  // reading the variable copies.
  Status OwnBuffer(OpKernelContext* ctx, tensorflow::Var* variable) const {
    if (variable->copy_on_read_mode.load()) return absl::OkStatus();
    Tensor* tensor = variable->tensor();
    if (!tensor->RefCountIsOne()) {
      Tensor copy;
      TF_RETURN_IF_ERROR(ctx->allocate_temp(tensor->dtype(), tensor->shape(), &copy));
      if (!OnDevice(ctx)) {
        std::memcpy(copy.data(), tensor->data(), tensor->TotalBytes());
      } else {
#ifdef MERLIN_WITH_CUDA
        CopyOnDevice(copy.data(), tensor->data(), tensor->TotalBytes(), CudaStreamOf(ctx));
#endif
      }
      *tensor = copy;
    }
    variable->copy_on_read_mode.store(true);
    return absl::OkStatus();
  }

  std::vector<int> grad_of_feature_, column_of_feature_;
  UpdateRule rule_;
  DType grad_dtype_;
};

REGISTER_KERNEL_BUILDER(Name("MerlinEmbeddingBagUpdate").Device(tensorflow::DEVICE_CPU), EmbeddingBagUpdateOp);
#ifdef MERLIN_WITH_CUDA
REGISTER_KERNEL_BUILDER(
    Name("MerlinEmbeddingBagUpdate").Device(tensorflow::DEVICE_GPU).HostMemory("tables").HostMemory("slots"),
    EmbeddingBagUpdateOp);
#endif

}  // namespace
}  // namespace merlin
