// The part that the TensorFlow ops over bags share: attributes, inputs, variables.
#pragma once

#include <algorithm>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/huge_pages.h"
#include "common/tf_utils.h"
#include "embedding_bag/embedding_bag.h"
#include "tensorflow/core/framework/common_shape_fns.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/framework/shape_inference.h"
#ifdef MERLIN_WITH_CUDA
#include "embedding_bag/embedding_bag_cuda.h"
#endif

namespace merlin {

using absl::Status;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::shape_inference::DimensionHandle;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;

// The attributes that say what the features read. Nodes of an edited SavedModel may have any: shape functions and
// kernels look at them first.
struct BagAttributes {
  int num_tables, num_features, num_splits, num_weights;
  std::vector<int> table_of_feature, splits_of_feature, weights_of_feature;
  std::vector<std::string> combiners, names;
  std::vector<int64_t> padding_ids;

  template <typename Context>
  Status Read(Context* c) {
    TF_RETURN_IF_ERROR(c->GetAttr("num_tables", &num_tables));
    TF_RETURN_IF_ERROR(c->GetAttr("num_features", &num_features));
    TF_RETURN_IF_ERROR(c->GetAttr("num_splits", &num_splits));
    TF_RETURN_IF_ERROR(c->GetAttr("num_weights", &num_weights));
    TF_RETURN_IF_ERROR(ReadList(c, "table_of_feature", &table_of_feature));
    TF_RETURN_IF_ERROR(ReadList(c, "splits_of_feature", &splits_of_feature));
    TF_RETURN_IF_ERROR(ReadList(c, "weights_of_feature", &weights_of_feature));
    TF_RETURN_IF_ERROR(ReadList(c, "combiners", &combiners));
    TF_RETURN_IF_ERROR(ReadList(c, "padding_ids", &padding_ids));
    TF_RETURN_IF_ERROR(ReadList(c, "names", &names));
    TF_RETURN_IF_ERROR(CheckRange("table_of_feature", table_of_feature, 0, num_tables));
    TF_RETURN_IF_ERROR(CheckRange("splits_of_feature", splits_of_feature, -1, num_splits));
    TF_RETURN_IF_ERROR(CheckRange("weights_of_feature", weights_of_feature, -1, num_weights));
    std::vector<int> readers(num_weights);
    for (const int w : weights_of_feature) {
      if (w >= 0 && ++readers[w] > 1)
        return Invalid("weights_of_feature must name weights once. Received: ", w, " twice");
    }
    return absl::OkStatus();
  }

  // An attribute with one entry a feature.
  template <typename Context, typename T>
  Status ReadList(Context* c, const char* name, std::vector<T>* list) const {
    TF_RETURN_IF_ERROR(c->GetAttr(name, list));
    if (list->size() == static_cast<size_t>(num_features)) return absl::OkStatus();
    return Invalid(name, " must have ", num_features, " entries. Received: ", list->size());
  }

  // Whether entries are in [from, end).
  static Status CheckRange(const char* name, const std::vector<int>& list, int from, int end) {
    for (const int entry : list) {
      if (entry < from || entry >= end) {
        return Invalid(name, " must be in [", from, ", ", end, "). Received: ", entry);
      }
    }
    return absl::OkStatus();
  }
};

// For shape functions: the number of a feature's bags, from its dense block of ids or from its row_splits.
inline Status NumBagsOf(InferenceContext* c, const BagAttributes& bags, int feature, DimensionHandle* num_bags) {
  const int splits = bags.splits_of_feature[feature];
  ShapeHandle ids, row_splits;
  TF_RETURN_IF_ERROR(c->WithRank(c->input(bags.num_tables + feature), splits < 0 ? 2 : 1, &ids));
  if (splits < 0) {
    *num_bags = c->Dim(ids, 0);
    return absl::OkStatus();
  }
  TF_RETURN_IF_ERROR(c->WithRank(c->input(bags.num_tables + bags.num_features + splits), 1, &row_splits));
  return c->Subtract(c->Dim(row_splits, 0), 1, num_bags);
}

inline Combiner CombinerFrom(const std::string& name) {
  if (name == "sum") return Combiner::kSum;
  if (name == "mean") return Combiner::kMean;
  if (name == "sqrtn") return Combiner::kSqrtn;
  return Combiner::kMax;
}

// Reads the attributes once, and the inputs of each call into a BagBatch. Of variables it takes the lock for reading,
// or, where a kernel changes tables, for writing.
class BagKernel : public OpKernel {
 public:
  explicit BagKernel(OpKernelConstruction* ctx, bool changes_tables = false)
      : OpKernel(ctx), changes_tables_(changes_tables) {
    tensorflow::DataType ids_type, table_type;
    OP_REQUIRES_OK(ctx, ctx->GetAttr("T", &table_type));
    OP_REQUIRES_OK(ctx, ctx->GetAttr("Tids", &ids_type));
    BagAttributes bags;
    OP_REQUIRES_OK(ctx, bags.Read(ctx));
    for (const std::string& name : bags.combiners) combiners_.push_back(CombinerFrom(name));
    num_tables_ = bags.num_tables;
    table_of_feature_ = std::move(bags.table_of_feature);
    splits_of_feature_ = std::move(bags.splits_of_feature);
    weights_of_feature_ = std::move(bags.weights_of_feature);
    padding_ids_ = std::move(bags.padding_ids);
    names_ = std::move(bags.names);
    table_dtype_ = FromTensorFlow(table_type);
    ids_are_int64_ = ids_type == tensorflow::DT_INT64;
    table_type_ = table_type;
  }

 protected:
  // Keeps the variables of one call alive and locked.
  struct Call {
    BagBatch batch;
    HugePages huge_pages;
    std::vector<tensorflow::core::RefCountPtr<tensorflow::Var>> variables;  // of the resource inputs, in their order
    std::vector<std::unique_ptr<tensorflow::tf_shared_lock>> read_locks;
    std::vector<std::unique_ptr<tensorflow::mutex_lock>> write_locks;

    // Looks all variables up, then locks each once, in the order of the mutexes' addresses, as TensorFlow's own ops
    // with several variables do: ops that name the same ones in another order never wait for each other in a circle.
    Status Open(OpKernelContext* ctx, bool for_writing) {
      using Mutex = decltype(std::declval<tensorflow::Var&>().mu());
      std::vector<Mutex> mutexes;
      for (int i = 0; i < ctx->num_inputs(); ++i) {
        if (ctx->input_dtype(i) != tensorflow::DT_RESOURCE) continue;
        tensorflow::core::RefCountPtr<tensorflow::Var> variable;
        TF_RETURN_IF_ERROR(tensorflow::LookupResource(ctx, tensorflow::HandleFromInput(ctx, i), &variable));
        const Mutex mutex = variable->mu();
        if (for_writing && std::find(mutexes.begin(), mutexes.end(), mutex) != mutexes.end()) {
          return Invalid("A variable may be passed once to an op that changes it. Received: input ", i, " again");
        }
        mutexes.push_back(mutex);
        variables.push_back(std::move(variable));
      }
      std::sort(mutexes.begin(), mutexes.end(), std::less<Mutex>());
      mutexes.erase(std::unique(mutexes.begin(), mutexes.end()), mutexes.end());
      for (const Mutex mutex : mutexes) {
        if (for_writing) {
          write_locks.push_back(std::make_unique<tensorflow::mutex_lock>(*mutex));
        } else {
          read_locks.push_back(std::make_unique<tensorflow::tf_shared_lock>(*mutex));
        }
      }
      return absl::OkStatus();
    }
  };

  // Fills tables and features, but no outputs or gradients.
  void Read(OpKernelContext* ctx, Call* call) {
    BagBatch& batch = call->batch;
    batch.table_dtype = table_dtype_;
    batch.ids_are_int64 = ids_are_int64_;
    batch.names = names_;
    tensorflow::OpInputList ids, splits, weights;
    OP_REQUIRES_OK(ctx, ctx->input_list("ids", &ids));
    OP_REQUIRES_OK(ctx, ctx->input_list("row_splits", &splits));
    OP_REQUIRES_OK(ctx, ctx->input_list("weights", &weights));
    OP_REQUIRES_OK(ctx, ReadTables(ctx, call));
    for (size_t f = 0; f < names_.size(); ++f) {
      const Tensor& values = ids[f];
      BagFeature feature{};
      feature.ids = values.data();
      feature.num_ids = values.NumElements();
      feature.table = table_of_feature_[f];
      feature.combiner = combiners_[f];
      feature.padding_id = padding_ids_[f];
      if (splits_of_feature_[f] < 0) {
        OP_REQUIRES(ctx, values.dims() == 2,
                    Invalid("Ids of feature '", names_[f],
                            "' must have rank 2 (bags, ids a "
                            "bag) without row_splits. Received shape: ",
                            values.shape().DebugString()));
        feature.num_bags = values.dim_size(0);
      } else {
        const Tensor& row_splits = splits[splits_of_feature_[f]];
        OP_REQUIRES(ctx, values.dims() == 1 && row_splits.dims() == 1 && row_splits.NumElements() >= 1,
                    Invalid("Feature '", names_[f],
                            "' must have ids of rank 1 and row_splits of rank 1 with at least one "
                            "element. Received shapes: ",
                            values.shape().DebugString(), " and ", row_splits.shape().DebugString()));
        feature.row_splits = row_splits.flat<int64_t>().data();
        feature.num_bags = row_splits.NumElements() - 1;
      }
      if (weights_of_feature_[f] >= 0) {
        const Tensor& w = weights[weights_of_feature_[f]];
        OP_REQUIRES(ctx, w.shape() == values.shape(),
                    Invalid("Weights of feature '", names_[f],
                            "' must have the shape of its "
                            "ids, ",
                            values.shape().DebugString(), ". Received: ", w.shape().DebugString()));
        feature.weights = w.flat<float>().data();
      }
      batch.features.push_back(feature);
    }
  }

  bool OnDevice(OpKernelContext* ctx) const { return ctx->device()->tensorflow_accelerator_device_info() != nullptr; }

#ifdef MERLIN_WITH_CUDA
  // An error that kernels of an earlier call noted is raised by this one.
  static void RaiseDeviceError() {
    const std::string message = TakeDeviceError();
    if (!message.empty()) throw InvalidArgument(message);
  }
#endif

  std::vector<int> table_of_feature_, splits_of_feature_, weights_of_feature_;
  std::vector<int64_t> padding_ids_;
  std::vector<Combiner> combiners_;
  std::vector<std::string> names_;
  DType table_dtype_;
  tensorflow::DataType table_type_;
  bool ids_are_int64_;
  int num_tables_;
  const bool changes_tables_;

 private:
  Status ReadTables(OpKernelContext* ctx, Call* call) {
    TF_RETURN_IF_ERROR(call->Open(ctx, changes_tables_));
    for (int t = 0; t < num_tables_; ++t) {
      const Tensor* table;
      if (ctx->input_dtype(t) == tensorflow::DT_RESOURCE) {
        table = call->variables[t]->tensor();
        if (!OnDevice(ctx)) call->huge_pages.Put(table->data(), static_cast<int64_t>(table->TotalBytes()));
        if (table->dtype() != table_type_) {
          return Invalid("Table ", t, " must have dtype ", tensorflow::DataTypeString(table_type_),
                         ". Received: ", tensorflow::DataTypeString(table->dtype()));
        }
      } else {
        table = &ctx->input(t);
      }
      if (table->dims() != 2) {
        return Invalid("Table ", t, " must have rank 2 (rows, dim). Received shape: ", table->shape().DebugString());
      }
      if (table->dim_size(1) > std::numeric_limits<int32_t>::max()) {  // so that sums of them are numbers
        return Invalid("Table ", t, " must have fewer than 2^31 columns. Received: ", table->dim_size(1));
      }
      call->batch.tables.push_back({table->data(), table->dim_size(0), table->dim_size(1)});
    }
    return absl::OkStatus();
  }
};

}  // namespace merlin
