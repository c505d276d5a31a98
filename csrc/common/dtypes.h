// Element types of tables, outputs and gradients, and the 2-byte floats as the CPU sees them.
#pragma once

#include <cstdint>
#include <cstring>

// Always inlined: files compiled for several instruction sets include this, and must not share out-of-line copies.
#define MERLIN_INLINE __attribute__((always_inline)) inline

namespace merlin {

enum class DType : int32_t { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2 };

inline int SizeOf(DType dtype) { return dtype == DType::kFloat32 ? 4 : 2; }

inline const char* NameOf(DType dtype) {
  return dtype == DType::kFloat32 ? "float32" : dtype == DType::kFloat16 ? "float16" : "bfloat16";
}

struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

namespace internal {
MERLIN_INLINE uint32_t BitsOf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}
MERLIN_INLINE float FloatOf(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
}  // namespace internal

MERLIN_INLINE float ToFloat(float value) { return value; }
MERLIN_INLINE float ToFloat(BFloat16 value) { return internal::FloatOf(uint32_t{value.bits} << 16); }
MERLIN_INLINE float ToFloat(Float16 value) {
  // No float32 subnormal may occur on the way: TensorFlow's threads flush them to zero.
  const uint32_t magnitude = uint32_t{value.bits & 0x7fffu} << 13;
  const uint32_t sign = uint32_t{value.bits & 0x8000u} << 16;
  if (magnitude >= 0x0f800000u) return internal::FloatOf(sign | 0x70000000u | magnitude);  // infinity, NaN
  if (magnitude >= 0x00800000u) return internal::FloatOf(sign | (magnitude + 0x38000000u));
  const float subnormal = internal::FloatOf(0x38800000u | magnitude) - internal::FloatOf(0x38800000u);
  return internal::FloatOf(sign | internal::BitsOf(subnormal));
}

template <typename T>
T FromFloat(float value);

template <>
MERLIN_INLINE float FromFloat<float>(float value) {
  return value;
}
template <>
MERLIN_INLINE BFloat16 FromFloat<BFloat16>(float value) {
  const uint32_t bits = internal::BitsOf(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x0040u)};  // quiet NaN
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}
template <>
MERLIN_INLINE Float16 FromFloat<Float16>(float value) {
  const uint32_t bits = internal::BitsOf(value);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};   // NaN
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // rounds to infinity
  if (magnitude < 0x38800000u) {
    // Subnormal result: adding 0.5 lets the float unit round to the nearest multiple of 2^-24, ties to even.
    const float shifted = internal::FloatOf(magnitude) + 0.5f;
    return {static_cast<uint16_t>(sign | (internal::BitsOf(shifted) - 0x3f000000u))};
  }
  const uint32_t rounded = magnitude + 0x0fffu + ((magnitude >> 13) & 1u);
  return {static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13))};
}

}  // namespace merlin
