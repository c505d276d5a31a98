// Sample kernels for AVX-512 (F, BW, DQ, VL). CMake compiles this file with those flags.
#include "dot_interaction/interaction_rows.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

#include <immintrin.h>

namespace merlin {
namespace {

#include "common/simd_avx512.inc"
#include "dot_interaction/interaction_rows.inc"

constexpr InteractionRowKernels kKernels = MakeInteractionRowKernels("avx512");

}  // namespace

const InteractionRowKernels* Avx512InteractionRows() { return &kKernels; }

}  // namespace merlin

#else

namespace merlin {
const InteractionRowKernels* Avx512InteractionRows() { return nullptr; }
}  // namespace merlin

#endif
