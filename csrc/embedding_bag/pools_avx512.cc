// Pooling kernels for AVX-512 (F, BW, DQ, VL). CMake compiles this file with those flags.
#include "embedding_bag/pools.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

#include <immintrin.h>

namespace merlin {
namespace {

#include "common/simd_avx512.inc"
#include "embedding_bag/pools.inc"

constexpr PoolKernels kKernels = MakePoolKernels();

}  // namespace

const PoolKernels* Avx512Pools() { return &kKernels; }

}  // namespace merlin

#else

namespace merlin {
const PoolKernels* Avx512Pools() { return nullptr; }
}  // namespace merlin

#endif
