// embedding_bag's backward pass with the optimizer's step on a CUDA device; see embedding_bag_update.h.
#pragma once

#include <memory>
#include <vector>

#include "embedding_bag/embedding_bag_cuda.h"
#include "embedding_bag/embedding_bag_update.h"

namespace merlin {

// The caller owns `workspace`, workspace_bytes() of device memory, 256-byte aligned. Nothing waits for the device; ids
// out of range are skipped and noted, as in the forward pass.
class EmbeddingBagUpdateCuda {
 public:
  EmbeddingBagUpdateCuda(const BagBatch& batch, const std::vector<UpdateTable>& tables, const UpdateRule& rule);
  ~EmbeddingBagUpdateCuda();
  size_t workspace_bytes() const;
  void Run(const StepInputs& step, void* workspace, CudaStream stream);

 private:
  const BagBatch& batch_;
  std::vector<UpdateTable> tables_;
  UpdateRule rule_;
  std::unique_ptr<SortedPairs> pairs_;
};

}  // namespace merlin
