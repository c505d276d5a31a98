// lookup_interaction: embedding_bag and dot_interaction in one, on CUDA: the pooled vectors go from the tables' rows
// into the products, and never to memory.
//
// The features are those of at most one dense part and then those of `bags`, which must all have one dim, the
// interaction's, and be pooled from blocks of up to kMaxFusedHotness ids a bag, unweighted. Results are to the bit
// those of the two ops one after the other.
#pragma once

#include "dot_interaction/dot_interaction.h"
#include "embedding_bag/embedding_bag.h"

namespace merlin {

using CudaStream = void*;  // a cudaStream_t

constexpr int kMaxFusedFeatures = 32;
constexpr int kMaxFusedHotness = 16;

// `interaction.parts`: the dense part, if any, and one for the bags, without data. Throws InvalidArgument if they are
// not fit for the kernels.
void CheckLookupInteraction(const Interaction& interaction, const BagBatch& bags);

void LookupInteractionCuda(const Interaction& interaction, const BagBatch& bags, CudaStream stream);
// The gradient of the part without data is that of the pooled vectors, [batch, features of the bags, dim].
void LookupInteractionGradientCuda(const Interaction& interaction, const BagBatch& bags, CudaStream stream);

}  // namespace merlin
