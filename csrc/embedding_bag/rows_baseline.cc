// Row kernels for any processor; the compiler vectorises them for the target's base instruction set.
#include "embedding_bag/rows.h"

namespace merlin {
namespace {

constexpr int64_t kWidth = 4;
struct Vec {
  float lane[kWidth];
};

template <typename T>
inline Vec Load(const T* from) {
  return {{ToFloat(from[0]), ToFloat(from[1]), ToFloat(from[2]), ToFloat(from[3])}};
}
template <typename T>
inline void Store(const Vec& value, T* to) {
  for (int i = 0; i < kWidth; ++i) to[i] = FromFloat<T>(value.lane[i]);
}
inline Vec Set(float value) { return {{value, value, value, value}}; }
inline Vec Add(Vec a, const Vec& b) {
  for (int i = 0; i < kWidth; ++i) a.lane[i] += b.lane[i];
  return a;
}
inline Vec Mul(Vec a, const Vec& b) {
  for (int i = 0; i < kWidth; ++i) a.lane[i] *= b.lane[i];
  return a;
}
inline Vec Fma(Vec a, const Vec& b, const Vec& c) {
  for (int i = 0; i < kWidth; ++i) a.lane[i] = a.lane[i] * b.lane[i] + c.lane[i];
  return a;
}
inline Vec Sub(Vec a, const Vec& b) {
  for (int i = 0; i < kWidth; ++i) a.lane[i] -= b.lane[i];
  return a;
}
inline Vec Div(Vec a, const Vec& b) {
  for (int i = 0; i < kWidth; ++i) a.lane[i] /= b.lane[i];
  return a;
}
inline Vec Min(Vec a, const Vec& b) {
  for (int i = 0; i < kWidth; ++i) a.lane[i] = a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i];
  return a;
}
inline Vec Max(Vec a, const Vec& b) {
  for (int i = 0; i < kWidth; ++i) a.lane[i] = a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i];
  return a;
}
inline Vec Sqrt(Vec a) {
  for (int i = 0; i < kWidth; ++i) a.lane[i] = sqrtf(a.lane[i]);
  return a;
}
inline Vec Rsqrt(Vec a) { return Div(Set(1.0f), Sqrt(a)); }
inline float Sum(const Vec& a) { return (a.lane[0] + a.lane[1]) + (a.lane[2] + a.lane[3]); }

#include "embedding_bag/rows.inc"

constexpr RowKernels kKernels = MakeRowKernels("baseline");

}  // namespace

const RowKernels* BaselineRows() { return &kKernels; }

const RowKernels& Rows() {
  static const RowKernels* const best = [] {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (Avx512Rows() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
      return Avx512Rows();
    }
    if (Avx2Rows() && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Avx2Rows();
#endif
    return BaselineRows();
  }();
  return *best;
}

}  // namespace merlin
