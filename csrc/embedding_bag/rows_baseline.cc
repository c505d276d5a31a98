// Row kernels for any processor, and the choice among the sets.
#include "common/instruction_set.h"
#include "embedding_bag/rows.h"

namespace merlin {
namespace {

#include "common/simd_baseline.inc"
#include "embedding_bag/rows.inc"

constexpr RowKernels kKernels = MakeRowKernels("baseline");

}  // namespace

const RowKernels* BaselineRows() { return &kKernels; }

const RowKernels& Rows() {
  static const RowKernels* const best = BestOf(Avx512Rows(), Avx2Rows(), BaselineRows());
  return *best;
}

}  // namespace merlin
