// dot_interaction for Python without TensorFlow: NumPy arrays, or DLPack arrays on a CPU or a GPU. Outputs are the
// caller's.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>

#include "common/arrays.h"
#include "common/check.h"
#include "dot_interaction/dot_interaction.h"
#ifdef MERLIN_WITH_CUDA
#include "dot_interaction/dot_interaction_cuda.h"
#endif

namespace merlin {
namespace {

namespace py = pybind11;

// A call, and the arrays that it points into.
class PythonInteraction {
 public:
  PythonInteraction(const py::list& parts, const std::string& order, bool self_interaction, bool concat_first,
                    int64_t pad_to, bool tf32) {
    call.order = PairOrderFrom(order);
    call.self_interaction = self_interaction;
    call.concat_first = concat_first;
    call.pad_to = pad_to;
    call.tf32 = tf32;
    for (size_t p = 0; p < py::len(parts); ++p) {
      const Array& part = Keep(parts[p], Concat("features[", p, "]"));
      Check(part.shape().size() == 2 || part.shape().size() == 3, part.name(), " must have rank 2 or 3. Received rank ",
            part.shape().size());
      const int64_t features = part.shape().size() == 3 ? part.shape()[1] : 1, dim = part.shape().back();
      if (p == 0) {
        call.dtype = part.FloatDType();
        call.batch = part.shape()[0];
        call.dim = dim;
      }
      Check(part.FloatDType() == call.dtype && part.shape()[0] == call.batch && dim == call.dim, part.name(),
            " must have the dtype, the batch and the last dimension of features[0]");
      call.parts.push_back({part.data(), nullptr, features});
    }
    CheckInteraction(call);
  }

  // The output, or its gradient.
  void* Output(const py::object& object, const std::string& name, Access access) {
    const Array& output = Keep(object, name, access);
    Check(output.FloatDType() == call.dtype && output.shape() == std::vector<int64_t>({call.batch, call.width()}), name,
          " must have the dtype of the features and shape (", call.batch, ", ", call.width(), ")");
    return output.data();
  }

  void Gradients(const py::list& grads) {
    Check(py::len(grads) == call.parts.size(),
          "grads must hold one array for each of features. Received: ", py::len(grads));
    for (size_t p = 0; p < call.parts.size(); ++p) {
      const Array& grad = Keep(grads[p], Concat("grads[", p, "]"), Access::kWrite);
      Check(grad.FloatDType() == call.dtype && grad.shape() == arrays_[p]->shape(), grad.name(),
            " must have the dtype and shape of features[", p, "]");
      call.parts[p].grad = grad.data();
    }
  }

  bool on_cuda() const { return arrays_[0]->on_cuda(); }

  Interaction call{};

 private:
  const Array& Keep(py::handle object, const std::string& name, Access access = Access::kRead) {
    arrays_.push_back(std::make_unique<Array>(object, name, access));
    Check(arrays_.back()->on_cuda() == on_cuda(), name, " must lie on the same device as features[0]");
    return *arrays_.back();
  }

  std::vector<std::unique_ptr<Array>> arrays_;
};

void Forward(const py::list& features, const py::object& output, const std::string& order, bool self_interaction,
             bool concat_first, int64_t pad_to, bool tf32, [[maybe_unused]] uintptr_t stream, int num_threads) {
  PythonInteraction python(features, order, self_interaction, concat_first, pad_to, tf32);
  python.call.output = python.Output(output, "output", Access::kWrite);
  py::gil_scoped_release release;
  if (!python.on_cuda()) {
    StdThreads threads(num_threads);
    DotInteraction(python.call, threads);
    return;
  }
#ifdef MERLIN_WITH_CUDA
  DotInteractionCuda(python.call, reinterpret_cast<CudaStream>(stream));
#else
  NoCudaKernels();
#endif
}

void Grad(const py::list& features, const py::object& grad, const py::list& grads, const std::string& order,
          bool self_interaction, bool concat_first, int64_t pad_to, bool tf32, [[maybe_unused]] uintptr_t stream,
          int num_threads) {
  PythonInteraction python(features, order, self_interaction, concat_first, pad_to, tf32);
  python.call.grad = python.Output(grad, "grad", Access::kRead);
  python.Gradients(grads);
  py::gil_scoped_release release;
  if (!python.on_cuda()) {
    StdThreads threads(num_threads);
    DotInteractionGradient(python.call, threads);
    return;
  }
#ifdef MERLIN_WITH_CUDA
  DotInteractionGradientCuda(python.call, reinterpret_cast<CudaStream>(stream));
#else
  NoCudaKernels();
#endif
}

}  // namespace

void BindDotInteraction(py::module_& module) {
  module.def("dot_interaction_forward", &Forward, py::arg("features"), py::arg("output"), py::arg("order") = "lower",
             py::arg("self_interaction") = false, py::arg("concat_first") = false, py::arg("pad_to") = 1,
             py::arg("tf32") = false, py::arg("stream") = 0, py::arg("num_threads") = 0,
             "Writes the dot products of all pairs of features into `output`. features: arrays (batch, dim) or "
             "(batch, features, dim).");
  module.def("dot_interaction_grad", &Grad, py::arg("features"), py::arg("grad"), py::arg("grads"),
             py::arg("order") = "lower", py::arg("self_interaction") = false, py::arg("concat_first") = false,
             py::arg("pad_to") = 1, py::arg("tf32") = false, py::arg("stream") = 0, py::arg("num_threads") = 0,
             "Writes the gradient of each array of features into `grads`, from that of the output.");
}

}  // namespace merlin
