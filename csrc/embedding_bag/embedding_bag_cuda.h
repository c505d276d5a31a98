// embedding_bag on a CUDA device: the same batches as embedding_bag.h with device pointers, on a stream.
//
// Ids and row_splits lie in device memory and are not read by the host. A kernel that meets an id out of range, or
// row_splits that break their rule, skips that id or bag (nothing is read out of bounds) and notes it in a word of
// host memory. The next call on the device, or TakeDeviceError, finds the note without waiting for the device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "embedding_bag/embedding_bag.h"

namespace merlin {

using CudaStream = void*;  // a cudaStream_t, so that includers need no CUDA headers

void EmbeddingBagForwardCuda(const BagBatch& batch, CudaStream stream);
void EmbeddingBagWeightsGradientCuda(const BagBatch& batch, CudaStream stream);

class SortedPairs;
struct PairView;

// Gradient of the tables as unique rows. The caller owns `workspace`, workspace_bytes() of device memory, 256-byte
// aligned.
class EmbeddingBagGradientCuda {
 public:
  explicit EmbeddingBagGradientCuda(const BagBatch& batch);
  ~EmbeddingBagGradientCuda();
  size_t workspace_bytes() const;
  // Sorts the batch's ids. Does not wait for the device.
  void Sort(void* workspace, CudaStream stream);
  // Unique rows of each table. Waits for the stream: the caller wants to allocate.
  std::vector<int64_t> CountRows(CudaStream stream) const;
  // As EmbeddingBagGradient::Write, with device pointers.
  void Write(const std::vector<void*>& ids, const std::vector<void*>& rows, CudaStream stream) const;

 private:
  const BagBatch& batch_;
  std::unique_ptr<SortedPairs> pairs_;
  std::unique_ptr<PairView> view_;
  void* workspace_ = nullptr;
};

void CopyOnDevice(void* to, const void* from, size_t bytes, CudaStream stream);

// The message of an error that kernels noted since the last call, or empty. `names` are the features' names if known.
std::string TakeDeviceError();

bool CudaDevicePresent();
std::string CudaDeviceName();
// Compiled-in architectures, as CMake was given them, e.g. "80;90".
const char* CudaArchitectures();
int CudaRuntimeVersion();

}  // namespace merlin
