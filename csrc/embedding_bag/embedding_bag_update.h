// embedding_bag's backward pass and the optimizer's step in one: sorts the batch's ids, sums each touched row's
// gradient and steps the row with its state, in place. Nothing is written but the touched rows and their state; rows
// outside of the batch do not move. The order of every sum depends on the batch alone: deterministic.
#pragma once

#include "embedding_bag/embedding_bag.h"
#include "embedding_bag/row_step.h"

namespace merlin {

// Throws InvalidArgument where a table lacks a slot, or numbers are out of range.
void CheckUpdate(const BagBatch& batch, const std::vector<UpdateTable>& tables, const UpdateRule& rule);

// `batch` as for the gradient, with `grad` of every feature; tables[t] belongs to batch.tables[t], whose `rows` it may
// be. All ids are checked before anything is written.
void EmbeddingBagUpdate(const BagBatch& batch, const std::vector<UpdateTable>& tables, const UpdateRule& rule,
                        const StepInputs& step, Threads& threads);

}  // namespace merlin
