// lookup_interaction for Python without TensorFlow: NumPy arrays, or DLPack arrays on a CPU or a GPU. Outputs are the
// caller's.
#include "common/check.h"
#include "dot_interaction/lookup_interaction.h"
#include "embedding_bag/bag_arrays.h"

namespace merlin {
namespace {

namespace py = pybind11;

// A call, and the arrays that it points into.
class LookupArrays {
 public:
  LookupArrays(const py::list& tables, const py::list& ids, const std::vector<int>& table_of_feature,
               const std::vector<std::string>& combiners, const std::vector<std::optional<int64_t>>& padding_ids,
               const py::object& first, const py::object& packed, const std::string& packed_name, Access packed_access,
               const py::dict& options) {
    Check(py::len(ids) > 0, "ids must hold at least one array. Received: none");
    py::list none(py::len(ids));
    for (size_t f = 0; f < py::len(ids); ++f) none[f] = py::none();
    arrays_ = ReadBags(tables, ids, /*row_splits=*/none, /*weights=*/none, table_of_feature, combiners, padding_ids);
    BagBatch& bags = arrays_->batch;
    call.pad_to = 1;
    for (const auto& [key_object, value] : options) {
      const std::string key = py::cast<std::string>(key_object);
      if (key == "order") {
        call.order = PairOrderFrom(py::cast<std::string>(value));
      } else if (key == "pad_to") {
        call.pad_to = py::cast<int64_t>(value);
      } else {
        bool* const flag = key == "self_interaction" ? &call.self_interaction
                           : key == "concat_first"   ? &call.concat_first
                           : key == "tf32"           ? &call.tf32
                                                     : nullptr;
        Check(flag != nullptr, "options must be order, pad_to, self_interaction, concat_first and tf32, or some of ",
              "these. Received: '", key, "'");
        *flag = py::cast<bool>(value);
      }
    }
    const Array& output = arrays_->Keep(packed, packed_name, packed_access);
    call.dtype = bags.output_dtype = output.FloatDType();
    call.batch = bags.features[0].num_bags;
    call.dim = bags.tables[bags.features[0].table].dim;
    for (size_t f = 0; f < bags.features.size(); ++f) {
      Check(bags.features[f].num_bags == call.batch, "ids[", f, "] must have ", call.batch,
            " rows, as ids[0]. Received: ", bags.features[f].num_bags);
      Check(bags.tables[bags.features[f].table].dim == call.dim, "Tables must have dim ", call.dim,
            ". Received: ", bags.tables[bags.features[f].table].dim);
    }
    if (!first.is_none()) call.parts.push_back({Checked(first, "first", 1, Access::kRead), nullptr, 1});
    call.parts.push_back({nullptr, nullptr, static_cast<int64_t>(bags.features.size())});
    CheckInteraction(call);
    Check(output.shape() == std::vector<int64_t>({call.batch, call.width()}), packed_name, " must have shape (",
          call.batch, ", ", call.width(), ")");
    packed_ = output.data();
  }

  void Gradients(const py::object& first_grad, const py::object& pooled_grad) {
    Check(first_grad.is_none() == (call.parts.size() == 1), "first_grad must be given if first is, and only then");
    if (call.parts.size() == 2) call.parts[0].grad = Checked(first_grad, "first_grad", 1);
    call.parts.back().grad = Checked(pooled_grad, "pooled_grad", call.parts.back().features);
  }

  void* packed() const { return packed_; }
  void* vectors() const { return vectors_; }
  bool on_cuda() const { return arrays_->on_cuda; }
  BagBatch& bags() const { return arrays_->batch; }

  // The caller's memory for the looked-up vectors, [batch, features * dim], or None.
  void UseVectors(const py::object& vectors) {
    if (!vectors.is_none()) vectors_ = Checked(vectors, "vectors", call.parts.back().features);
  }

  // On a CPU: looks the vectors up, into memory of its own if the caller gave none.
  void Pool(Threads& threads) {
    if (vectors_ == nullptr) {
      own_vectors_.reset(new char[call.batch * call.parts.back().features * call.dim * SizeOf(call.dtype)]);
      vectors_ = own_vectors_.get();
    }
    PlaceVectors(call, vectors_, &bags());
    EmbeddingBagForward(bags(), threads);
    call.parts.back().data = vectors_;
  }

  Interaction call{};

 private:
  void* Checked(const py::object& object, const std::string& name, int64_t features, Access access = Access::kWrite) {
    const Array& array = arrays_->Keep(object, name, access);
    Check(array.FloatDType() == call.dtype && array.shape() == std::vector<int64_t>({call.batch, features * call.dim}),
          name, " must have dtype ", NameOf(call.dtype), " and shape (", call.batch, ", ", features * call.dim, ")");
    return array.data();
  }

  std::unique_ptr<BagArrays> arrays_;
  void* packed_;
  void* vectors_ = nullptr;
  std::unique_ptr<char[]> own_vectors_;
};

void Forward(const py::list& tables, const py::list& ids, const std::vector<int>& table_of_feature,
             const std::vector<std::string>& combiners, const std::vector<std::optional<int64_t>>& padding_ids,
             const py::object& output, const py::object& first, const py::object& vectors,
             [[maybe_unused]] uintptr_t stream, int num_threads, const py::kwargs& options) {
  LookupArrays python(tables, ids, table_of_feature, combiners, padding_ids, first, output, "output", Access::kWrite,
                      options);
  python.call.output = python.packed();
  python.UseVectors(vectors);
  py::gil_scoped_release release;
  if (!python.on_cuda()) {
    StdThreads threads(num_threads);
    python.Pool(threads);
    DotInteraction(python.call, threads);
    return;
  }
#ifdef MERLIN_WITH_CUDA
  LookupInteractionCuda(python.call, python.bags(), reinterpret_cast<CudaStream>(stream));
#else
  NoCudaKernels();
#endif
}

void Grad(const py::list& tables, const py::list& ids, const std::vector<int>& table_of_feature,
          const std::vector<std::string>& combiners, const std::vector<std::optional<int64_t>>& padding_ids,
          const py::object& grad, const py::object& pooled_grad, const py::object& first, const py::object& first_grad,
          const py::object& vectors, [[maybe_unused]] uintptr_t stream, int num_threads, const py::kwargs& options) {
  LookupArrays python(tables, ids, table_of_feature, combiners, padding_ids, first, grad, "grad", Access::kRead,
                      options);
  python.call.grad = python.packed();
  python.Gradients(first_grad, pooled_grad);
  python.UseVectors(vectors);
  py::gil_scoped_release release;
  if (!python.on_cuda()) {
    StdThreads threads(num_threads);
    python.Pool(threads);
    DotInteractionGradient(python.call, threads);
    return;
  }
#ifdef MERLIN_WITH_CUDA
  Check(python.vectors() != nullptr || !NeedsVectors(python.bags()),
        "vectors must be given on CUDA if a feature has more than one id a bag");
  LookupInteractionGradientCuda(python.call, python.bags(), python.vectors(), reinterpret_cast<CudaStream>(stream));
#else
  NoCudaKernels();
#endif
}

}  // namespace

void BindLookupInteraction(py::module_& module) {
  module.def(
      "lookup_interaction_forward", &Forward, py::arg("tables"), py::arg("ids"), py::arg("table_of_feature"),
      py::arg("combiners"), py::arg("padding_ids"), py::arg("output"), py::arg("first") = py::none(),
      py::arg("vectors") = py::none(), py::arg("stream") = 0, py::arg("num_threads") = 0,
      "Pools rows of the tables by blocks of ids, (batch, hotness) a feature, and writes the dot products of all "
      "pairs of `first`, (batch, dim), and the pooled vectors into `output`. vectors: on a CPU, memory for the pooled "
      "vectors, (batch, features * dim), which else every call allocates. Further options: order, pad_to, "
      "self_interaction, concat_first, tf32, as in dot_interaction_forward.");
  module.def(
      "lookup_interaction_grad", &Grad, py::arg("tables"), py::arg("ids"), py::arg("table_of_feature"),
      py::arg("combiners"), py::arg("padding_ids"), py::arg("grad"), py::arg("pooled_grad"),
      py::arg("first") = py::none(), py::arg("first_grad") = py::none(), py::arg("vectors") = py::none(),
      py::arg("stream") = 0, py::arg("num_threads") = 0,
      "Writes the gradient of the pooled vectors, (batch, features * dim), and of `first`, from that of the "
      "output. vectors: memory for the pooled vectors, like pooled_grad; needed on CUDA where a feature has more than "
      "one id.");
}

}  // namespace merlin
