// Arrays that Python passes: NumPy by the buffer that it has, others (CuPy, PyTorch, JAX) through DLPack. No copy.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/dtypes.h"

namespace merlin {

// What a call does to an array.
enum class Access { kRead, kWrite };

// Keeps the owner, and what it exported, alive while the array is in use.
class Array {
 public:
  // Throws InvalidArgument that calls the array `name` if it is not contiguous, or may not be written though it is to
  // be, or is not an array at all.
  Array(pybind11::handle object, const std::string& name, Access access = Access::kRead);

  void* data() const { return data_; }
  const std::vector<int64_t>& shape() const { return shape_; }
  int64_t size() const;
  const std::string& dtype() const { return dtype_; }  // "float32", "bfloat16", "int64", ...
  bool on_cuda() const { return on_cuda_; }
  const std::string& name() const { return name_; }

  // Checks, in the words of the user.
  void RequireWritable() const;
  void RequireRank(int rank) const;
  void RequireDType(const std::string& dtype) const;
  DType FloatDType() const;

 private:
  void FromNumpy(const pybind11::array& array);
  void FromDlpack(pybind11::handle object);

  std::string name_;
  pybind11::object owner_, exported_;
  void* data_ = nullptr;
  std::vector<int64_t> shape_;
  std::string dtype_;
  bool on_cuda_ = false, read_only_ = false;
};

// Throws InvalidArgument: what a build without CUDA says of arrays on a GPU.
[[noreturn]] void NoCudaKernels();

}  // namespace merlin
