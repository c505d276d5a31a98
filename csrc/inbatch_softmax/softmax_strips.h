// The forward pass of inbatch_softmax on the CPU that sums up candidates, too.
#pragma once

#include "inbatch_softmax/inbatch_softmax.h"
#include "inbatch_softmax/softmax_queries.h"

namespace merlin {

// Writes all outputs of `call`, whose candidate_sums is not null.
void SoftmaxInStrips(const InbatchSoftmax& call, const SoftmaxQueries& queries, Threads& threads);

}  // namespace merlin
