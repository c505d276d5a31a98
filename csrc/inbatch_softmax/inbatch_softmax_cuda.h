// inbatch_softmax on CUDA: the same calls with pointers to device memory, on a stream.
#pragma once

#include <cstdint>

#include "inbatch_softmax/inbatch_softmax.h"

namespace merlin {

// Bytes of device memory that a call works in, 256-byte aligned: O((batch + candidates) dim). The memory's contents
// need not be kept from the forward to the backward pass.
int64_t InbatchSoftmaxForwardBytes(const InbatchSoftmax& call);
int64_t InbatchSoftmaxBackwardBytes(const InbatchSoftmax& call);

// Nothing waits for the device. `stream` is a cudaStream_t.
void InbatchSoftmaxForwardCuda(const InbatchSoftmax& call, void* workspace, void* stream);
void InbatchSoftmaxBackwardCuda(const InbatchSoftmax& call, const InbatchSoftmaxGradients& grads, void* workspace,
                                void* stream);

}  // namespace merlin
