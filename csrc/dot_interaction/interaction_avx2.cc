// Sample kernels for AVX2 with FMA and F16C. CMake compiles this file with those flags.
#include "dot_interaction/interaction_rows.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include <immintrin.h>

namespace merlin {
namespace {

#include "common/simd_avx2.inc"
#include "dot_interaction/interaction_rows.inc"

constexpr InteractionRowKernels kKernels = MakeInteractionRowKernels("avx2");

}  // namespace

const InteractionRowKernels* Avx2InteractionRows() { return &kKernels; }

}  // namespace merlin

#else

namespace merlin {
const InteractionRowKernels* Avx2InteractionRows() { return nullptr; }
}  // namespace merlin

#endif
