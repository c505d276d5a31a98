// Pooling kernels for any processor, and the choice among the sets.
#include "common/instruction_set.h"
#include "embedding_bag/pools.h"

namespace merlin {
namespace {

#include "common/simd_baseline.inc"
#include "embedding_bag/pools.inc"

constexpr PoolKernels kKernels = MakePoolKernels();

}  // namespace

const PoolKernels* BaselinePools() { return &kKernels; }

const PoolKernels& Pools() {
  static const PoolKernels* const best = BestOf(Avx512Pools(), Avx2Pools(), BaselinePools());
  return *best;
}

}  // namespace merlin
