// Row kernels for AVX-512 (F, BW, DQ, VL). CMake compiles this file with those flags.
#include "embedding_bag/rows.h"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512DQ__)

#include <immintrin.h>

namespace merlin {
namespace {

constexpr int64_t kWidth = 16;
using Vec = __m512;

inline Vec Load(const float* from) { return _mm512_loadu_ps(from); }
inline Vec Load(const Float16* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
inline Vec Load(const BFloat16* from) {
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
inline void Store(Vec value, float* to) { _mm512_storeu_ps(to, value); }
inline void Store(Vec value, Float16* to) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(value, _MM_FROUND_TO_NEAREST_INT));
}
inline void Store(Vec value, BFloat16* to) {
  const __m512i bits = _mm512_castps_si512(value);
  const __m512i last = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(last, _mm512_set1_epi32(0x7fff)));
  const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
  const __mmask16 nan = _mm512_cmp_ps_mask(value, value, _CMP_UNORD_Q);
  const __m512i top = _mm512_srli_epi32(_mm512_mask_blend_epi32(nan, rounded, quiet), 16);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(top));
}
inline Vec Set(float value) { return _mm512_set1_ps(value); }
inline Vec Add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
inline Vec Mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
inline Vec Fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
inline Vec Sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
inline Vec Div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
inline Vec Min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
inline Vec Max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
inline Vec Sqrt(Vec a) { return _mm512_sqrt_ps(a); }
inline Vec Rsqrt(Vec a) {
  const Vec guess = _mm512_rsqrt14_ps(a);  // one Newton step makes 14 bits 24
  return Mul(guess, _mm512_fnmadd_ps(Mul(Mul(a, Set(0.5f)), guess), guess, Set(1.5f)));
}
inline float Sum(Vec a) { return _mm512_reduce_add_ps(a); }

#include "embedding_bag/rows.inc"

constexpr RowKernels kKernels = MakeRowKernels("avx512");

}  // namespace

const RowKernels* Avx512Rows() { return &kKernels; }

}  // namespace merlin

#else

namespace merlin {
const RowKernels* Avx512Rows() { return nullptr; }
}  // namespace merlin

#endif
