// Arrays that Python passes: NumPy by the buffer that it has, others (CuPy, PyTorch, JAX) through DLPack. No copy.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/dtypes.h"

namespace merlin {

// Keeps the owner alive while the array is in use.
class Array {
 public:
  // Throws InvalidArgument that calls the array `name` if it is not contiguous, or not an array at all.
  Array(pybind11::handle object, const std::string& name);

  void* data() const { return data_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  int64_t size() const;
  const std::string& dtype() const { return dtype_; }  // "float32", "bfloat16", "int64", ...
  bool on_cuda() const { return on_cuda_; }
  const std::string& name() const { return name_; }

  // Checks, in the words of the user.
  void RequireRank(int rank) const;
  void RequireDType(const std::string& dtype) const;
  DType FloatDType() const;

 private:
  void FromNumpy(const pybind11::array& array);
  void FromDlpack(pybind11::handle object);

  std::string name_;
  pybind11::object owner_;
  void* data_ = nullptr;
  std::vector<int64_t> shape_;
  std::string dtype_;
  bool on_cuda_ = false;
};

// Throws InvalidArgument: what a build without CUDA says of arrays on a GPU.
[[noreturn]] void NoCudaKernels();

}  // namespace merlin
