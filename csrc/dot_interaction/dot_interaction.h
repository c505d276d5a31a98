// dot_interaction: the dot products of all pairs of a sample's feature vectors, as DLRM has them, without a framework.
//
// The features of one sample are the rows of X, [features, dim]; they come as parts, [batch, features of the part, dim]
// each, contiguous. The output row holds, one after the other,
//   dim elements   the first feature itself, if `concat_first`
//   pairs          x_i . x_j for i > j (i >= j with `self_interaction`), ordered by kLower or kUpper
//   zeros          up to a multiple of `pad_to`.
// Products are summed in float32. The gradient of X is (dP + dP^T) X, plus that of the concatenated row.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/dtypes.h"
#include "common/parallel.h"

namespace merlin {

constexpr int kMaxInteractionFeatures = 128;
constexpr int kMaxInteractionDim = 1024;

// Which triangle of X X^T is read row by row: (1,0) (2,0) (2,1) (3,0) ... or (0,1) (0,2) ... (1,2) ...
enum class PairOrder : int32_t { kLower = 0, kUpper = 1 };
PairOrder PairOrderFrom(const std::string& name);  // "lower", "upper"

struct InteractionPart {
  const void* data;
  void* grad;  // backward only: written
  int64_t features;
};

struct Interaction {
  DType dtype;  // of parts, output and gradients
  int64_t batch;
  int64_t dim;
  std::vector<InteractionPart> parts;
  PairOrder order;
  bool self_interaction;
  bool concat_first;
  int64_t pad_to;
  bool tf32;  // CUDA, float32: multiply with TF32 instead of float32 accuracy

  void* output;      // forward: [batch, width()]
  const void* grad;  // backward: of the output

  int64_t features() const;
  int64_t pairs() const { return features() * (features() + (self_interaction ? 1 : -1)) / 2; }
  int64_t width() const;
};

// Throws InvalidArgument if sizes are out of range.
void CheckInteraction(const Interaction& interaction);
void CheckPadTo(int64_t pad_to);

void DotInteraction(const Interaction& interaction, Threads& threads);
void DotInteractionGradient(const Interaction& interaction, Threads& threads);

}  // namespace merlin
