// dot_interaction on a CUDA device: the same calls as dot_interaction.h with device pointers, on a stream.
#pragma once

#include "dot_interaction/dot_interaction.h"

namespace merlin {

using CudaStream = void*;  // a cudaStream_t, so that includers need no CUDA headers

void DotInteractionCuda(const Interaction& interaction, CudaStream stream);
void DotInteractionGradientCuda(const Interaction& interaction, CudaStream stream);

}  // namespace merlin
