// Pooling kernels for AVX2 with FMA and F16C (every x86-64 server since 2013). CMake compiles this file with those
// flags.
#include "embedding_bag/pools.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include <immintrin.h>

namespace merlin {
namespace {

#include "common/simd_avx2.inc"
#include "embedding_bag/pools.inc"

constexpr PoolKernels kKernels = MakePoolKernels();

}  // namespace

const PoolKernels* Avx2Pools() { return &kKernels; }

}  // namespace merlin

#else

namespace merlin {
const PoolKernels* Avx2Pools() { return nullptr; }
}  // namespace merlin

#endif
