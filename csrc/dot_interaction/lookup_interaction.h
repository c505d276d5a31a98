// lookup_interaction: embedding_bag and dot_interaction in one. On CUDA the pooled vectors go from the tables' rows
// into the products, and never to device memory; on a CPU the two kernels run one after the other.
//
// On CUDA the features are those of at most one dense part and then those of `bags`, which must all have one dim, the
// interaction's, and be pooled from blocks of up to kMaxFusedHotness ids a bag, unweighted. Results are to the bit
// those of the two ops one after the other.
#pragma once

#include "dot_interaction/dot_interaction.h"
#include "embedding_bag/embedding_bag.h"

namespace merlin {

using CudaStream = void*;  // a cudaStream_t

constexpr int kMaxFusedFeatures = 32;
constexpr int kMaxFusedHotness = 16;

// ---- CUDA ----

// `interaction.parts`: the dense part, if any, and one for the bags, without data. Throws InvalidArgument if they are
// not fit for the kernels.
void CheckLookupInteraction(const Interaction& interaction, const BagBatch& bags);

void LookupInteractionCuda(const Interaction& interaction, const BagBatch& bags, CudaStream stream);

// Whether the gradient needs memory for the pooled vectors, [batch, features of the bags, dim]: where a feature has
// more than one id a bag.
bool NeedsVectors(const BagBatch& bags);
// The gradient of the part without data is that of the pooled vectors. `vectors`: memory for these, if it needs any.
void LookupInteractionGradientCuda(const Interaction& interaction, const BagBatch& bags, void* vectors,
                                   CudaStream stream);

// Lets the bags' features write into `vectors`, [batch, features of the bags, dim].
inline void PlaceVectors(const Interaction& interaction, void* vectors, BagBatch* bags) {
  const auto features = static_cast<int64_t>(bags->features.size());
  for (int64_t f = 0; f < features; ++f) {
    bags->features[f].output = static_cast<char*>(vectors) + f * interaction.dim * SizeOf(interaction.dtype);
    bags->features[f].output_stride = features * interaction.dim;
  }
}

}  // namespace merlin
