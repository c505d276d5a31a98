// Sample kernels for any processor, and the choice among the sets.
#include "common/instruction_set.h"
#include "dot_interaction/interaction_rows.h"

namespace merlin {
namespace {

#include "common/simd_baseline.inc"
#include "dot_interaction/interaction_rows.inc"

constexpr InteractionRowKernels kKernels = MakeInteractionRowKernels("baseline");

}  // namespace

const InteractionRowKernels* BaselineInteractionRows() { return &kKernels; }

const InteractionRowKernels& InteractionRows() {
  static const InteractionRowKernels* const best = BestOf(Avx512InteractionRows(), Avx2InteractionRows(), &kKernels);
  return *best;
}

}  // namespace merlin
