// Tile kernels for AVX2 with FMA and F16C. CMake compiles this file with those flags.
#include "inbatch_softmax/softmax_tiles.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include <immintrin.h>

namespace merlin {
namespace {

#include "common/simd_avx2.inc"
#include "inbatch_softmax/softmax_tiles.inc"

constexpr SoftmaxTileKernels kKernels = MakeSoftmaxTileKernels("avx2");

}  // namespace

const SoftmaxTileKernels* Avx2SoftmaxTiles() { return &kKernels; }

}  // namespace merlin

#else

namespace merlin {
const SoftmaxTileKernels* Avx2SoftmaxTiles() { return nullptr; }
}  // namespace merlin

#endif
