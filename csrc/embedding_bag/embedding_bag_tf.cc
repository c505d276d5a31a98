// embedding_bag as TensorFlow ops: MerlinEmbeddingBag (tables as tensors), MerlinResourceEmbeddingBag (tables as
// resource variables, read in place without a copy), and their gradient ops. One op serves all tables and features of a
// model.
//
// ids:        one tensor a feature; rank 1 with row_splits, or rank 2 [bags, ids a bag] without.
// row_splits: only of the features whose splits_of_feature is not -1. weights: likewise, weights_of_feature.
#include "embedding_bag/bag_kernel_tf.h"

namespace merlin {
namespace {

// Shape of table t: from the tensor, or from what the resource handle says of its variable.
Status TableShape(InferenceContext* c, bool resource, int t, ShapeHandle* shape) {
  *shape = c->UnknownShapeOfRank(2);
  if (!resource) return c->WithRank(c->input(t), 2, shape);
  const auto* handle = c->input_handle_shapes_and_types(t);
  if (handle == nullptr || handle->empty()) return absl::OkStatus();
  return c->WithRank((*handle)[0].shape, 2, shape);
}

// Beside the attributes of bags: how many outputs there are, which is one where features are concatenated.
template <typename Context>
Status CheckOutputs(Context* c, const BagAttributes& bags, bool* concat) {
  int num_outputs;
  TF_RETURN_IF_ERROR(c->GetAttr("concat", concat));
  TF_RETURN_IF_ERROR(c->GetAttr("num_outputs", &num_outputs));
  const int expected = *concat ? 1 : bags.num_features;
  if (num_outputs == expected) return absl::OkStatus();
  return Invalid("num_outputs must be ", expected, ". Received: ", num_outputs);
}

Status ForwardShape(InferenceContext* c, bool resource) {
  BagAttributes attributes;
  bool concat;
  TF_RETURN_IF_ERROR(attributes.Read(c));
  TF_RETURN_IF_ERROR(CheckOutputs(c, attributes, &concat));
  DimensionHandle width = c->MakeDim(0), common = c->UnknownDim();
  for (int f = 0; f < attributes.num_features; ++f) {
    ShapeHandle table;
    DimensionHandle bags;
    TF_RETURN_IF_ERROR(TableShape(c, resource, attributes.table_of_feature[f], &table));
    TF_RETURN_IF_ERROR(NumBagsOf(c, attributes, f, &bags));
    if (concat) {
      TF_RETURN_IF_ERROR(c->Merge(common, bags, &common));
      TF_RETURN_IF_ERROR(c->Add(width, c->Dim(table, 1), &width));
    } else {
      c->set_output(f, c->Matrix(bags, c->Dim(table, 1)));
    }
  }
  if (concat) c->set_output(0, c->Matrix(common, width));
  return absl::OkStatus();
}

Status GradientShape(InferenceContext* c, bool resource) {
  BagAttributes bags;
  bool concat;
  TF_RETURN_IF_ERROR(bags.Read(c));
  TF_RETURN_IF_ERROR(CheckOutputs(c, bags, &concat));
  const int num_tables = bags.num_tables, first_weights = num_tables + bags.num_features + bags.num_splits;
  for (int t = 0; t < num_tables; ++t) {
    ShapeHandle table;
    TF_RETURN_IF_ERROR(TableShape(c, resource, t, &table));
    const DimensionHandle rows = c->UnknownDim();
    c->set_output(t, c->Vector(rows));
    c->set_output(num_tables + t, c->Matrix(rows, c->Dim(table, 1)));
  }
  for (int w = 0; w < bags.num_weights; ++w) {
    c->set_output(2 * num_tables + w, c->input(first_weights + w));
  }
  return absl::OkStatus();
}

#define MERLIN_BAG_INPUTS(TABLES)              \
  .Input(TABLES)                               \
      .Input("ids: num_features * Tids")       \
      .Input("row_splits: num_splits * int64") \
      .Input("weights: num_weights * float")

#define MERLIN_BAG_ATTRS                                        \
  .Attr("T: {float, half, bfloat16}")                           \
      .Attr("Tids: {int32, int64}")                             \
      .Attr("Tout: {float, half, bfloat16}")                    \
      .Attr("num_tables: int >= 1")                             \
      .Attr("num_features: int >= 1")                           \
      .Attr("num_splits: int >= 0")                             \
      .Attr("num_weights: int >= 0")                            \
      .Attr("table_of_feature: list(int)")                      \
      .Attr("splits_of_feature: list(int)")                     \
      .Attr("weights_of_feature: list(int)")                    \
      .Attr("combiners: list({'sum', 'mean', 'sqrtn', 'max'})") \
      .Attr("padding_ids: list(int)")                           \
      .Attr("names: list(string)")                              \
      .Attr("concat: bool")                                     \
      .Attr("tables_trainable: bool = true")                    \
      .Attr("num_outputs: int >= 1")

#define MERLIN_REGISTER_BAG_OPS(NAME, TABLES, RESOURCE)                                           \
  REGISTER_OP(NAME)                                                                               \
  MERLIN_BAG_INPUTS(TABLES).Output("output: num_outputs * Tout")                                  \
      MERLIN_BAG_ATTRS.SetShapeFn([](InferenceContext* c) { return ForwardShape(c, RESOURCE); }); \
  REGISTER_OP(NAME "Grad")                                                                        \
  MERLIN_BAG_INPUTS(TABLES)                                                                       \
      .Input("grad: num_outputs * Tout")                                                          \
      .Output("unique_ids: num_tables * Tids")                                                    \
      .Output("rows: num_tables * T")                                                             \
      .Output("weights_grad: num_weights * float")                                                \
          MERLIN_BAG_ATTRS.SetShapeFn([](InferenceContext* c) { return GradientShape(c, RESOURCE); })

MERLIN_REGISTER_BAG_OPS("MerlinEmbeddingBag", "tables: num_tables * T", false);
MERLIN_REGISTER_BAG_OPS("MerlinResourceEmbeddingBag", "tables: num_tables * resource", true);

// A bag kernel with outputs, or gradients, a feature or concatenated.
class PooledKernel : public BagKernel {
 public:
  explicit PooledKernel(OpKernelConstruction* ctx) : BagKernel(ctx) {
    tensorflow::DataType output_type;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("Tout", &output_type));
    BagAttributes bags;
    OP_REQUIRES_OK(ctx, bags.Read(ctx));
    OP_REQUIRES_OK(ctx, CheckOutputs(ctx, bags, &concat_));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("tables_trainable", &tables_trainable_));
    output_dtype_ = FromTensorFlow(output_type);
  }

 protected:
  void Read(OpKernelContext* ctx, Call* call) {
    BagKernel::Read(ctx, call);
    call->batch.output_dtype = output_dtype_;
  }

  // Columns of feature f's rows in its output; total width when outputs are concatenated.
  int64_t Width(const BagBatch& batch) const {
    int64_t width = 0;
    for (const BagFeature& feature : batch.features) width += batch.tables[feature.table].dim;
    return width;
  }

  Status CheckConcat(const BagBatch& batch) const {
    for (size_t f = 1; concat_ && f < names_.size(); ++f) {
      if (batch.features[f].num_bags != batch.features[0].num_bags) {
        return Invalid(
            "Features must have the same number of bags to be concatenated. Received: ", batch.features[0].num_bags,
            " for '", names_[0], "' and ", batch.features[f].num_bags, " for '", names_[f], "'");
      }
    }
    return absl::OkStatus();
  }

  DType output_dtype_;
  bool concat_, tables_trainable_;
};

class EmbeddingBagOp : public PooledKernel {
 public:
  using PooledKernel::PooledKernel;

  void Compute(OpKernelContext* ctx) override {
    RunKernel(ctx, [&] {
      Call call;
      Read(ctx, &call);
      if (!ctx->status().ok()) return;
      BagBatch& batch = call.batch;
      OP_REQUIRES_OK(ctx, CheckConcat(batch));
      const int64_t width = Width(batch);
      int64_t column = 0;
      Tensor* output = nullptr;
      for (size_t f = 0; f < names_.size(); ++f) {
        BagFeature& feature = batch.features[f];
        const int64_t dim = batch.tables[feature.table].dim;
        if (!concat_ || f == 0) {
          TensorShape shape;
          OP_REQUIRES_OK(ctx, ShapeOf({feature.num_bags, concat_ ? width : dim}, &shape));
          OP_REQUIRES_OK(ctx, ctx->allocate_output(static_cast<int>(f), shape, &output));
          column = 0;
        }
        feature.output = static_cast<char*>(output->data()) + column * SizeOf(output_dtype_);
        feature.output_stride = concat_ ? width : dim;
        column += dim;
      }
      if (!OnDevice(ctx)) {
        TensorFlowThreads threads(ctx);
        EmbeddingBagForward(batch, threads);
        return;
      }
#ifdef MERLIN_WITH_CUDA
      RaiseDeviceError();
      EmbeddingBagForwardCuda(batch, CudaStreamOf(ctx));
#endif
    });
  }
};

class EmbeddingBagGradOp : public PooledKernel {
 public:
  using PooledKernel::PooledKernel;

  void Compute(OpKernelContext* ctx) override {
    RunKernel(ctx, [&] {
      Call call;
      Read(ctx, &call);
      if (!ctx->status().ok()) return;
      OP_REQUIRES_OK(ctx, CheckConcat(call.batch));
      OP_REQUIRES_OK(ctx, ReadGradients(ctx, &call));
      bool any_weights = false;
      OP_REQUIRES_OK(ctx, AllocateWeightsGradients(ctx, &call.batch, &any_weights));
      if (!tables_trainable_) {
        std::vector<void*> none;
        OP_REQUIRES_OK(ctx, AllocateRows(ctx, call.batch, [](int) { return int64_t{0}; }, &none, &none));
      }
      if (!OnDevice(ctx)) {
        TensorFlowThreads threads(ctx);
        if (any_weights) EmbeddingBagWeightsGradient(call.batch, threads);
        if (!tables_trainable_) return;
        EmbeddingBagGradient gradient(call.batch, threads);
        std::vector<void*> ids, rows;
        OP_REQUIRES_OK(ctx, AllocateRows(ctx, call.batch, [&](int t) { return gradient.num_rows(t); }, &ids, &rows));
        gradient.Write(ids, rows, threads);
        return;
      }
#ifdef MERLIN_WITH_CUDA
      RaiseDeviceError();
      void* stream = CudaStreamOf(ctx);
      if (any_weights) EmbeddingBagWeightsGradientCuda(call.batch, stream);
      if (!tables_trainable_) return;
      EmbeddingBagGradientCuda gradient(call.batch);
      Tensor workspace;
      OP_REQUIRES_OK(
          ctx, ctx->allocate_temp(tensorflow::DT_UINT8, TensorShape({static_cast<int64_t>(gradient.workspace_bytes())}),
                                  &workspace));
      gradient.Sort(workspace.data(), stream);
      const std::vector<int64_t> counts = gradient.CountRows(stream);
      std::vector<void*> ids, rows;
      OP_REQUIRES_OK(ctx, AllocateRows(ctx, call.batch, [&](int t) { return counts[t]; }, &ids, &rows));
      gradient.Write(ids, rows, stream);
#endif
    });
  }

 private:
  Status ReadGradients(OpKernelContext* ctx, Call* call) const {
    tensorflow::OpInputList grads;
    TF_RETURN_IF_ERROR(ctx->input_list("grad", &grads));
    const int64_t width = Width(call->batch);
    int64_t column = 0;
    for (size_t f = 0; f < names_.size(); ++f) {
      BagFeature& feature = call->batch.features[f];
      const int64_t dim = call->batch.tables[feature.table].dim;
      const Tensor& grad = grads[concat_ ? 0 : static_cast<int>(f)];
      TensorShape expected;
      TF_RETURN_IF_ERROR(ShapeOf({feature.num_bags, concat_ ? width : dim}, &expected));
      if (grad.shape() != expected) {
        return Invalid("The gradient of feature '", names_[f], "' must have shape ", expected.DebugString(),
                       ". Received: ", grad.shape().DebugString());
      }
      feature.grad = static_cast<const char*>(grad.data()) + (concat_ ? column : 0) * SizeOf(output_dtype_);
      feature.output_stride = concat_ ? width : dim;
      column += dim;
    }
    return absl::OkStatus();
  }

  Status AllocateWeightsGradients(OpKernelContext* ctx, BagBatch* batch, bool* any) const {
    for (size_t f = 0; f < names_.size(); ++f) {
      if (weights_of_feature_[f] < 0) continue;
      Tensor* grad;
      tensorflow::OpInputList ids;
      TF_RETURN_IF_ERROR(ctx->input_list("ids", &ids));
      TF_RETURN_IF_ERROR(
          ctx->allocate_output(2 * num_tables_ + weights_of_feature_[f], ids[static_cast<int>(f)].shape(), &grad));
      batch->features[f].weights_grad = grad->flat<float>().data();
      *any = true;
    }
    return absl::OkStatus();
  }

  template <typename Count>
  Status AllocateRows(OpKernelContext* ctx, const BagBatch& batch, Count&& count, std::vector<void*>* ids,
                      std::vector<void*>* rows) const {
    for (int t = 0; t < num_tables_; ++t) {
      Tensor *id, *row;
      TF_RETURN_IF_ERROR(ctx->allocate_output(t, TensorShape({count(t)}), &id));
      TF_RETURN_IF_ERROR(ctx->allocate_output(num_tables_ + t, TensorShape({count(t), batch.tables[t].dim}), &row));
      ids->push_back(id->data());
      rows->push_back(row->data());
    }
    return absl::OkStatus();
  }
};

#define MERLIN_REGISTER_BAG_KERNELS(DEVICE, HOST)                                                  \
  REGISTER_KERNEL_BUILDER(Name("MerlinEmbeddingBag").Device(DEVICE), EmbeddingBagOp);              \
  REGISTER_KERNEL_BUILDER(Name("MerlinEmbeddingBagGrad").Device(DEVICE), EmbeddingBagGradOp);      \
  REGISTER_KERNEL_BUILDER(Name("MerlinResourceEmbeddingBag").Device(DEVICE) HOST, EmbeddingBagOp); \
  REGISTER_KERNEL_BUILDER(Name("MerlinResourceEmbeddingBagGrad").Device(DEVICE) HOST, EmbeddingBagGradOp)

MERLIN_REGISTER_BAG_KERNELS(tensorflow::DEVICE_CPU, );
#ifdef MERLIN_WITH_CUDA
MERLIN_REGISTER_BAG_KERNELS(tensorflow::DEVICE_GPU, .HostMemory("tables"));
#endif

}  // namespace
}  // namespace merlin
