#include "common/arrays.h"

#include <numeric>

#include "common/check.h"

namespace merlin {
namespace {

namespace py = pybind11;

// The DLPack exchange structures, as its specification (version 0.x) lays them out.
struct DlDevice {
  int32_t type;
  int32_t id;
};
struct DlType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};
struct DlTensor {
  void* data;
  DlDevice device;
  int32_t rank;
  DlType type;
  int64_t* shape;
  int64_t* strides;
  uint64_t byte_offset;
};

constexpr int kDlCpu = 1, kDlCuda = 2, kDlCudaHost = 3;

std::string NameOfDlType(const DlType& type) {
  static const char* const kKinds[] = {"int", "uint", "float", "handle", "bfloat", "complex", "bool"};
  const std::string kind = type.code < 7 ? kKinds[type.code] : "unknown";
  return kind + std::to_string(type.bits) + (type.lanes == 1 ? "" : "x" + std::to_string(type.lanes));
}

// NumPy works its own name out in Python, which takes longer than the lookup of a small batch: it is asked for where
// its kind and size do not tell, as with bfloat16.
std::string NameOfNumpyType(const py::dtype& type) {
  const std::string bits = std::to_string(8 * type.itemsize());
  switch (type.kind()) {
    case 'f':
      return "float" + bits;
    case 'i':
      return "int" + bits;
    case 'u':
      return "uint" + bits;
    default:
      return py::str(type.attr("name"));
  }
}

std::string Join(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + ")";
}

}  // namespace

Array::Array(py::handle object, const std::string& name, Access access)
    : name_(name), owner_(py::reinterpret_borrow<py::object>(object)) {
  if (py::isinstance<py::array>(object)) {
    FromNumpy(py::reinterpret_borrow<py::array>(object));
  } else {
    Check(py::hasattr(object, "__dlpack__"), name,
          " must be a NumPy array or support DLPack. Received: ", std::string(py::str(py::type::of(object))));
    FromDlpack(object);
  }
  if (access == Access::kWrite) RequireWritable();
}

void Array::FromNumpy(const py::array& array) {
  Check(array.flags() & py::array::c_style, name_, " must be contiguous in row-major order");
  data_ = const_cast<void*>(array.data());
  read_only_ = !array.writeable();
  for (py::ssize_t i = 0; i < array.ndim(); ++i) shape_.push_back(array.shape(i));
  dtype_ = NameOfNumpyType(array.dtype());
  const char order = array.dtype().byteorder();
  Check(order == '=' || order == '|', name_, " must have this machine's order of bytes. Received: '", order, "'");
}

void Array::FromDlpack(py::handle object) {
  exported_ = object.attr("__dlpack__")();
  // DLManagedTensor begins with its DLTensor. The capsule keeps ownership: it is not renamed to "used", so its own
  // destructor, when the array is no longer in use, frees the exchange structure and the memory, if that is a copy.
  const auto* tensor = static_cast<const DlTensor*>(PyCapsule_GetPointer(exported_.ptr(), "dltensor"));
  if (!tensor) throw py::error_already_set();
  Check(tensor->device.type == kDlCpu || tensor->device.type == kDlCuda || tensor->device.type == kDlCudaHost, name_,
        " must lie in host or CUDA memory. Received: DLPack device type ", tensor->device.type);
  on_cuda_ = tensor->device.type == kDlCuda;
  data_ = static_cast<char*>(tensor->data) + tensor->byte_offset;
  shape_.assign(tensor->shape, tensor->shape + tensor->rank);
  int64_t expected = 1;
  for (int i = tensor->rank - 1; tensor->strides && i >= 0; --i) {
    Check(shape_[i] <= 1 || size() == 0 || tensor->strides[i] == expected, name_,
          " must be contiguous in row-major order. Received: shape ", Join(shape_), " with stride ", tensor->strides[i],
          " in dimension ", i);
    expected *= shape_[i];
  }
  dtype_ = NameOfDlType(tensor->type);
}

int64_t Array::size() const {
  return std::accumulate(shape_.begin(), shape_.end(), int64_t{1}, std::multiplies<int64_t>());
}

void Array::RequireWritable() const { Check(!read_only_, name_, " must be writable. Received: a read-only array"); }

void Array::RequireRank(int rank) const {
  Check(static_cast<int>(shape_.size()) == rank, name_, " must have rank ", rank, ". Received shape: ", Join(shape_));
}

void Array::RequireDType(const std::string& dtype) const {
  Check(dtype_ == dtype, name_, " must have dtype ", dtype, ". Received: ", dtype_);
}

DType Array::FloatDType() const {
  if (dtype_ == "float32") return DType::kFloat32;
  if (dtype_ == "float16") return DType::kFloat16;
  if (dtype_ == "bfloat16") return DType::kBFloat16;
  throw InvalidArgument(name_ + " must have dtype float32, float16 or bfloat16. Received: " + dtype_);
}

void NoCudaKernels() { throw InvalidArgument("This build has no CUDA kernels: arrays must lie in host memory"); }

}  // namespace merlin
