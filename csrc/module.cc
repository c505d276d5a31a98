// The Python module merlin_models._C: the kernels without TensorFlow.
#include <pybind11/pybind11.h>

#include "common/check.h"

namespace merlin {
void BindDotInteraction(pybind11::module_& module);
void BindEmbeddingBag(pybind11::module_& module);
void BindInbatchSoftmax(pybind11::module_& module);
void BindLookupInteraction(pybind11::module_& module);
}  // namespace merlin

PYBIND11_MODULE(_C, module) {
  module.doc() = "Kernels of merlin_models on NumPy and DLPack arrays.";
  pybind11::register_exception<merlin::InvalidArgument>(module, "InvalidArgument", PyExc_ValueError);
  pybind11::register_exception<merlin::DeviceFailure>(module, "DeviceFailure", PyExc_RuntimeError);
  module.attr("version") = MERLIN_VERSION;
#ifdef MERLIN_WITH_CUDA
  module.attr("with_cuda") = true;
#else
  module.attr("with_cuda") = false;
#endif
  merlin::BindDotInteraction(module);
  merlin::BindEmbeddingBag(module);
  merlin::BindInbatchSoftmax(module);
  merlin::BindLookupInteraction(module);
}
