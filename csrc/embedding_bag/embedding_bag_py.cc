// embedding_bag for Python without TensorFlow: NumPy arrays, or DLPack arrays on a CPU or a GPU. Outputs are the
// caller's.
#include "common/check.h"
#include "embedding_bag/bag_arrays.h"
#include "embedding_bag/embedding_bag_update.h"
#ifdef MERLIN_WITH_CUDA
#include "embedding_bag/embedding_bag_cuda.h"
#include "embedding_bag/embedding_bag_update_cuda.h"
#endif

namespace merlin {
namespace {

namespace py = pybind11;

// Outputs or gradients: one array a feature, or one for all with their columns side by side.
void Attach(BagArrays* call, const py::list& arrays, const char* name, bool as_output) {
  BagBatch& batch = call->batch;
  const size_t n = batch.features.size();
  const bool concat = py::len(arrays) == 1 && n > 1;
  Check(concat || py::len(arrays) == n, name, " must hold one array, or one a feature. Received: ", py::len(arrays));
  int64_t column = 0;
  for (size_t f = 0; f < n; ++f) {
    BagFeature& feature = batch.features[f];
    const int64_t dim = batch.tables[feature.table].dim;
    const Array& array = call->Keep(arrays[concat ? 0 : f], Concat(name, "[", concat ? 0 : f, "]"),
                                    as_output ? Access::kWrite : Access::kRead);
    array.RequireRank(2);
    if (f == 0) batch.output_dtype = array.FloatDType();
    Check(array.FloatDType() == batch.output_dtype, name, " must have one dtype");
    const int64_t stride = array.shape()[1];
    Check(array.shape()[0] == feature.num_bags && (concat ? column + dim <= stride : dim == stride), array.name(),
          " must have shape (", feature.num_bags, ", ", concat ? "sum of dims" : std::to_string(dim), "). Received: (",
          array.shape()[0], ", ", stride, ")");
    char* data = static_cast<char*>(array.data()) + column * SizeOf(batch.output_dtype);
    (as_output ? feature.output : const_cast<void*&>(feature.grad)) = data;
    feature.output_stride = stride;
    if (concat) column += dim;
  }
}

#ifdef MERLIN_WITH_CUDA
CudaStream StreamFrom(uintptr_t stream) { return reinterpret_cast<CudaStream>(stream); }
#endif

void Forward(const py::list& tables, const py::list& ids, const py::list& row_splits, const py::list& weights,
             const std::vector<int>& table_of_feature, const std::vector<std::string>& combiners,
             const std::vector<std::optional<int64_t>>& padding_ids, const py::list& outputs,
             [[maybe_unused]] uintptr_t stream, int num_threads) {
  auto call = ReadBags(tables, ids, row_splits, weights, table_of_feature, combiners, padding_ids);
  Attach(call.get(), outputs, "outputs", true);
  py::gil_scoped_release release;
  if (!call->on_cuda) {
    StdThreads threads(num_threads);
    EmbeddingBagForward(call->batch, threads);
    return;
  }
#ifdef MERLIN_WITH_CUDA
  EmbeddingBagForwardCuda(call->batch, StreamFrom(stream));
#else
  NoCudaKernels();
#endif
}

size_t GradWorkspace(const py::list& tables, const py::list& ids, const py::list& row_splits, const py::list& weights,
                     const std::vector<int>& table_of_feature, const std::vector<std::string>& combiners,
                     const std::vector<std::optional<int64_t>>& padding_ids) {
  auto call = ReadBags(tables, ids, row_splits, weights, table_of_feature, combiners, padding_ids);
  if (!call->on_cuda) return 0;
#ifdef MERLIN_WITH_CUDA
  return EmbeddingBagGradientCuda(call->batch).workspace_bytes();
#else
  NoCudaKernels();
#endif
}

std::vector<int64_t> Grad(const py::list& tables, const py::list& ids, const py::list& row_splits,
                          const py::list& weights, const std::vector<int>& table_of_feature,
                          const std::vector<std::string>& combiners,
                          const std::vector<std::optional<int64_t>>& padding_ids, const py::list& grads,
                          const py::list& unique_ids, const py::list& rows, const py::list& weights_grads,
                          [[maybe_unused]] const py::object& workspace, [[maybe_unused]] uintptr_t stream,
                          int num_threads) {
  auto call = ReadBags(tables, ids, row_splits, weights, table_of_feature, combiners, padding_ids);
  Attach(call.get(), grads, "grads", false);
  BagBatch& batch = call->batch;
  const size_t num_tables = batch.tables.size();
  Check(py::len(unique_ids) == num_tables && py::len(rows) == num_tables,
        "unique_ids and rows must hold one array a table. Received: ", py::len(unique_ids), " and ", py::len(rows));
  std::vector<void*> id_ptrs, row_ptrs;
  std::vector<int64_t> capacity;
  for (size_t t = 0; t < num_tables; ++t) {
    const Array& id = call->Keep(unique_ids[t], Concat("unique_ids[", t, "]"), Access::kWrite);
    const Array& row = call->Keep(rows[t], Concat("rows[", t, "]"), Access::kWrite);
    id.RequireRank(1);
    id.RequireDType(batch.ids_are_int64 ? "int64" : "int32");
    row.RequireRank(2);
    row.RequireDType(NameOf(batch.table_dtype));
    Check(row.shape()[1] == batch.tables[t].dim, row.name(), " must have ", batch.tables[t].dim,
          " columns. Received: ", row.shape()[1]);
    id_ptrs.push_back(id.data());
    row_ptrs.push_back(row.data());
    capacity.push_back(std::min(id.size(), row.shape()[0]));
  }
  for (size_t f = 0; f < py::len(weights_grads); ++f) {
    if (weights_grads[f].is_none()) continue;
    const Array& grad = call->Keep(weights_grads[f], Concat("weights_grads[", f, "]"), Access::kWrite);
    Check(f < batch.features.size() && batch.features[f].weights, grad.name(),
          " must belong to a feature with weights");
    grad.RequireDType("float32");
    Check(grad.size() == batch.features[f].num_ids, grad.name(),
          " must have one element an id. Received: ", grad.size());
    batch.features[f].weights_grad = static_cast<float*>(grad.data());
  }
  const bool any_weights = py::len(weights_grads) > 0;
  const auto check_capacity = [&](size_t t, int64_t count) {
    Check(count <= capacity[t], "unique_ids and rows of table ", t, " must have room for ", count,
          " rows. Received: ", capacity[t]);
  };
  std::vector<int64_t> counts;
  if (!call->on_cuda) {
    py::gil_scoped_release release;
    StdThreads threads(num_threads);
    EmbeddingBagGradient gradient(batch, threads);
    for (size_t t = 0; t < num_tables; ++t) {
      counts.push_back(gradient.num_rows(static_cast<int>(t)));
      check_capacity(t, counts[t]);
    }
    gradient.Write(id_ptrs, row_ptrs, threads);
    if (any_weights) EmbeddingBagWeightsGradient(batch, threads);
    return counts;
  }
#ifdef MERLIN_WITH_CUDA
  EmbeddingBagGradientCuda gradient(batch);
  const Array& space = call->Keep(workspace, "workspace", Access::kWrite);
  space.RequireDType("uint8");
  Check(space.size() >= static_cast<int64_t>(gradient.workspace_bytes()), "workspace must have ",
        gradient.workspace_bytes(), " bytes. Received: ", space.size());
  py::gil_scoped_release release;
  gradient.Sort(space.data(), StreamFrom(stream));
  counts = gradient.CountRows(StreamFrom(stream));
  for (size_t t = 0; t < num_tables; ++t) check_capacity(t, counts[t]);
  gradient.Write(id_ptrs, row_ptrs, StreamFrom(stream));
  if (any_weights) EmbeddingBagWeightsGradientCuda(batch, StreamFrom(stream));
  return counts;
#else
  NoCudaKernels();
#endif
}

UpdateRule RuleFrom(const py::dict& options) {
  UpdateRule rule;
  for (const auto& [key_object, value] : options) {
    const std::string key = py::cast<std::string>(key_object);
    if (key == "name") {
      rule.kind = RuleKindFrom(py::cast<std::string>(value));
    } else if (key == "nesterov") {
      rule.nesterov = py::cast<bool>(value);
    } else if (key == "stochastic_rounding") {
      rule.stochastic_rounding = py::cast<bool>(value);
    } else if (key == "seed") {
      rule.seed = static_cast<uint64_t>(py::cast<int64_t>(value));
    } else {
      float* const number = key == "beta_1"         ? &rule.beta1
                            : key == "beta_2"       ? &rule.beta2
                            : key == "epsilon"      ? &rule.epsilon
                            : key == "momentum"     ? &rule.momentum
                            : key == "weight_decay" ? &rule.weight_decay
                            : key == "l1"           ? &rule.l1
                            : key == "l2"           ? &rule.l2
                            : key == "clip_norm"    ? &rule.clip_norm
                                                    : nullptr;
      Check(number != nullptr, "rule must hold name, beta_1, beta_2, epsilon, momentum, weight_decay, l1, l2, ",
            "clip_norm, nesterov, stochastic_rounding and seed, or some of these. Received: '", key, "'");
      *number = py::cast<float>(value);
    }
  }
  return rule;
}

// A batch with its gradients, and the tables' state: what a step needs. Kept between steps where arrays stay the same.
class Update {
 public:
  Update(const py::list& tables, const py::list& slots, const py::list& ids, const py::list& row_splits,
         const py::list& weights, const std::vector<int>& table_of_feature, const std::vector<std::string>& combiners,
         const std::vector<std::optional<int64_t>>& padding_ids, const py::list& grads, const py::dict& rule)
      : call_(ReadBags(tables, ids, row_splits, weights, table_of_feature, combiners, padding_ids, Access::kWrite)),
        rule_(RuleFrom(rule)) {
    Attach(call_.get(), grads, "grads", false);
    const SlotCount count = SlotsOf(rule_.kind);
    Check(py::len(slots) == py::len(tables), "slots must hold one list a table. Received: ", py::len(slots), " for ",
          py::len(tables), " tables");
    for (size_t t = 0; t < py::len(tables); ++t) {
      const BagTable& table = call_->batch.tables[t];
      const py::list own = py::cast<py::list>(slots[t]);
      Check(static_cast<int>(py::len(own)) == count.total(), "slots[", t, "] must hold ", count.total(),
            " arrays for this rule. Received: ", py::len(own));
      UpdateTable update{const_cast<void*>(table.rows), {nullptr, nullptr}};
      for (int i = 0; i < count.total(); ++i) {
        const Array& slot = call_->Keep(own[i], Concat("slots[", t, "][", i, "]"), Access::kWrite);
        slot.RequireDType("float32");
        const int64_t size = i >= count.full ? table.num_rows : table.num_rows * table.dim;
        Check(slot.size() == size, slot.name(), " must have ", size, " elements. Received: ", slot.size());
        update.slot[i] = static_cast<float*>(slot.data());
      }
      tables_.push_back(update);
    }
#ifdef MERLIN_WITH_CUDA
    if (call_->on_cuda) cuda_ = std::make_unique<EmbeddingBagUpdateCuda>(call_->batch, tables_, rule_);
#endif
  }

  size_t WorkspaceBytes() const {
#ifdef MERLIN_WITH_CUDA
    if (cuda_) return cuda_->workspace_bytes();
#endif
    return 0;
  }

  void Run(float learning_rate, int64_t step, float grad_scale, [[maybe_unused]] const py::object& workspace,
           [[maybe_unused]] uintptr_t stream, int num_threads) {
    StepInputs inputs;
    inputs.learning_rate = learning_rate;
    inputs.step = step;
    inputs.grad_scale = grad_scale;
    if (!call_->on_cuda) {
      py::gil_scoped_release release;
      StdThreads threads(num_threads);
      EmbeddingBagUpdate(call_->batch, tables_, rule_, inputs, threads);
      return;
    }
#ifdef MERLIN_WITH_CUDA
    const Array space(workspace, "workspace", Access::kWrite);
    space.RequireDType("uint8");
    Check(space.size() >= static_cast<int64_t>(cuda_->workspace_bytes()), "workspace must have ",
          cuda_->workspace_bytes(), " bytes. Received: ", space.size());
    py::gil_scoped_release release;
    cuda_->Run(inputs, space.data(), StreamFrom(stream));
#else
    NoCudaKernels();
#endif
  }

 private:
  std::unique_ptr<BagArrays> call_;
  UpdateRule rule_;
  std::vector<UpdateTable> tables_;
#ifdef MERLIN_WITH_CUDA
  std::unique_ptr<EmbeddingBagUpdateCuda> cuda_;
#endif
};

}  // namespace

void BindEmbeddingBag(py::module_& module) {
  module.def("embedding_bag_forward", &Forward, py::arg("tables"), py::arg("ids"), py::arg("row_splits"),
             py::arg("weights"), py::arg("table_of_feature"), py::arg("combiners"), py::arg("padding_ids"),
             py::arg("outputs"), py::arg("stream") = 0, py::arg("num_threads") = 0,
             "Pools rows of the tables into `outputs`: one array a feature, or one array with all columns.");
  module.def("embedding_bag_grad_workspace", &GradWorkspace, py::arg("tables"), py::arg("ids"), py::arg("row_splits"),
             py::arg("weights"), py::arg("table_of_feature"), py::arg("combiners"), py::arg("padding_ids"),
             "Bytes of device memory that embedding_bag_grad needs as `workspace`; 0 on a CPU.");
  module.def("embedding_bag_grad", &Grad, py::arg("tables"), py::arg("ids"), py::arg("row_splits"), py::arg("weights"),
             py::arg("table_of_feature"), py::arg("combiners"), py::arg("padding_ids"), py::arg("grads"),
             py::arg("unique_ids"), py::arg("rows"), py::arg("weights_grads") = py::list(),
             py::arg("workspace") = py::none(), py::arg("stream") = 0, py::arg("num_threads") = 0,
             "Writes each table's unique ids (ascending) and summed gradient rows; returns how many there are.");
  py::class_<Update>(module, "EmbeddingBagUpdate",
                     "The backward pass and the optimizer's step of all tables, in place. Keeps the arrays that it is "
                     "made of; slots: for each table its float32 state, as the rule has it.")
      .def(py::init<const py::list&, const py::list&, const py::list&, const py::list&, const py::list&,
                    const std::vector<int>&, const std::vector<std::string>&,
                    const std::vector<std::optional<int64_t>>&, const py::list&, const py::dict&>(),
           py::arg("tables"), py::arg("slots"), py::arg("ids"), py::arg("row_splits"), py::arg("weights"),
           py::arg("table_of_feature"), py::arg("combiners"), py::arg("padding_ids"), py::arg("grads"), py::arg("rule"))
      .def_property_readonly("workspace_bytes", &Update::WorkspaceBytes,
                             "Bytes of device memory that a step needs as `workspace`; 0 on a CPU.")
      .def("step", &Update::Run, py::arg("learning_rate"), py::arg("step"), py::arg("grad_scale") = 1.0f,
           py::arg("workspace") = py::none(), py::arg("stream") = 0, py::arg("num_threads") = 0,
           "Steps every row that the batch touches. step: how many steps came before this one.");
  module.def("cpu_instruction_set", &CpuInstructionSet, "The instruction set that CPU kernels use on this machine.");
#ifdef MERLIN_WITH_CUDA
  module.def("take_device_error", &TakeDeviceError,
             "The message of a bad id or split that a CUDA kernel met and skipped since the last call, or ''.");
  module.def("cuda_device_present", &CudaDevicePresent);
  module.def("cuda_device_name", &CudaDeviceName);
  module.def("cuda_architectures", &CudaArchitectures);
  module.def("cuda_version", &CudaRuntimeVersion);
#endif
}

}  // namespace merlin
