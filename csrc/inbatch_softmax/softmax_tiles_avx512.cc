// Tile kernels for AVX-512 (F, BW, DQ, VL). CMake compiles this file with those flags.
#include "inbatch_softmax/softmax_tiles.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

#include <immintrin.h>

namespace merlin {
namespace {

#include "common/simd_avx512.inc"
#include "inbatch_softmax/softmax_tiles.inc"

constexpr SoftmaxTileKernels kKernels = MakeSoftmaxTileKernels("avx512");

}  // namespace

const SoftmaxTileKernels* Avx512SoftmaxTiles() { return &kKernels; }

}  // namespace merlin

#else

namespace merlin {
const SoftmaxTileKernels* Avx512SoftmaxTiles() { return nullptr; }
}  // namespace merlin

#endif
