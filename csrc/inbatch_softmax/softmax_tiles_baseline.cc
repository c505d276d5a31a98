// Tile kernels for any processor, and the choice among the sets.
#include "common/instruction_set.h"
#include "inbatch_softmax/softmax_tiles.h"

namespace merlin {
namespace {

#include "common/simd_baseline.inc"
#include "inbatch_softmax/softmax_tiles.inc"

constexpr SoftmaxTileKernels kKernels = MakeSoftmaxTileKernels("baseline");

}  // namespace

const SoftmaxTileKernels* BaselineSoftmaxTiles() { return &kKernels; }

const SoftmaxTileKernels& SoftmaxTiles() {
  static const SoftmaxTileKernels* const best = BestOf(Avx512SoftmaxTiles(), Avx2SoftmaxTiles(), &kKernels);
  return *best;
}

}  // namespace merlin
