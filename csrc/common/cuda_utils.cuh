// Small pieces that CUDA kernels share: launch checks, packs of elements, conversions.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <atomic>
#include <cstdint>
#include <type_traits>

#include "common/check.h"
#include "common/dtypes.h"

namespace merlin {

inline void CheckCuda(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // clear it: the caller's next launch check must not find this one
  throw DeviceFailure(Concat(what, " failed: ", cudaGetErrorString(status)));
}
inline void CheckLaunch(const char* kernel) { CheckCuda(cudaGetLastError(), kernel); }

// What kernels need that move 16 bytes at once. Arrays through DLPack may begin anywhere.
inline bool IsAligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }
template <typename... Parts>
void CheckAligned(const void* pointer, const Parts&... rule) {
  if (IsAligned(pointer)) return;
  throw InvalidArgument(
      Concat(rule..., ". Received: ", reinterpret_cast<uintptr_t>(pointer) % 16, " bytes behind one"));
}

// More shared memory than a kernel has by itself, once for each device: the attribute belongs to the current one.
template <typename Kernel>
void AllowSharedMemory(Kernel* kernel, int bytes, std::atomic<uint64_t>& devices) {
  int device = 0;
  CheckCuda(cudaGetDevice(&device), "cudaGetDevice");
  const uint64_t bit = uint64_t{1} << (device % 64);
  if (device < 64 && (devices.load(std::memory_order_acquire) & bit) != 0) return;
  CheckCuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), "cudaFuncSetAttribute");
  devices.fetch_or(bit, std::memory_order_release);
}

// N elements that one thread moves at once: 16, 4 or 2 bytes.
template <typename T, int N>
struct alignas(N * sizeof(T)) Pack {
  T item[N];
};

template <int kBytes>
struct Word;
template <>
struct Word<16> {
  using type = uint4;
};
template <>
struct Word<8> {
  using type = uint2;
};
template <>
struct Word<4> {
  using type = uint32_t;
};
template <>
struct Word<2> {
  using type = uint16_t;
};

// Read-only for the whole kernel.
template <typename T, int N>
__device__ __forceinline__ Pack<T, N> LoadConst(const T* from) {
  using W = typename Word<N * sizeof(T)>::type;
  const W word = __ldg(reinterpret_cast<const W*>(from));
  return *reinterpret_cast<const Pack<T, N>*>(&word);
}
// What is read in place of a row that is not wanted: zeros. A load under a condition becomes a load into other
// registers and moves that wait for it, so that loads meant to be under way together follow one another
// (docs/performance.md).
namespace {
[[maybe_unused]] __device__ uint4 zero_word;
}

template <typename T>
__device__ __forceinline__ const T* FromZerosUnless(bool wanted, const T* from) {
  return wanted ? from : reinterpret_cast<const T*>(&zero_word);
}
template <typename T, int N>
__device__ __forceinline__ Pack<T, N> LoadConstIf(const T* from, bool wanted) {
  return LoadConst<T, N>(FromZerosUnless(wanted, from));
}
// N elements in as many pieces of up to 16 bytes as they need, or zeros; the caches need not keep them.
template <typename T, int N>
__device__ __forceinline__ void LoadOnceIf(const T* from, bool wanted, Pack<T, N>* to) {
  constexpr int kPiece = N * sizeof(T) > 16 ? 16 / static_cast<int>(sizeof(T)) : N;
  using W = typename Word<kPiece * sizeof(T)>::type;
#pragma unroll
  for (int k = 0; k < N; k += kPiece) {
    *reinterpret_cast<W*>(to->item + k) = __ldcs(FromZerosUnless(wanted, reinterpret_cast<const W*>(from + k)));
  }
}
template <typename T, int N>
__device__ __forceinline__ Pack<T, N> Load(const T* from) {
  using W = typename Word<N * sizeof(T)>::type;
  const W word = *reinterpret_cast<const W*>(from);
  return *reinterpret_cast<const Pack<T, N>*>(&word);
}
template <typename T, int N>
__device__ __forceinline__ void Store(const Pack<T, N>& pack, T* to) {
  using W = typename Word<N * sizeof(T)>::type;
  *reinterpret_cast<W*>(to) = *reinterpret_cast<const W*>(&pack);
}

__device__ __forceinline__ float AsFloat(float value) { return value; }
__device__ __forceinline__ float AsFloat(__half value) { return __half2float(value); }
__device__ __forceinline__ float AsFloat(__nv_bfloat16 value) { return __bfloat162float(value); }

// Element k of a pack. Of bfloat16 by the word that holds two of them: from its 16 bits alone the upper one takes a
// register more, filled as soon as the word is there, and loads that should be under way by then wait behind that.
template <typename T, int N>
__device__ __forceinline__ float FloatAt(const Pack<T, N>& pack, int k) {
  if constexpr (std::is_same_v<T, __nv_bfloat16> && N % 2 == 0) {
    const uint32_t word = reinterpret_cast<const uint32_t*>(pack.item)[k / 2];
    return __uint_as_float(k % 2 ? word & 0xffff0000u : word << 16);
  } else {
    return AsFloat(pack.item[k]);
  }
}

template <typename T>
__device__ __forceinline__ T RoundTo(float value);
template <>
__device__ __forceinline__ float RoundTo<float>(float value) {
  return value;
}
template <>
__device__ __forceinline__ __half RoundTo<__half>(float value) {
  return __float2half_rn(value);
}
template <>
__device__ __forceinline__ __nv_bfloat16 RoundTo<__nv_bfloat16>(float value) {
  return __float2bfloat16_rn(value);
}

// For results that this kernel does not read again: they need not stay in the caches.
template <typename T, int N>
__device__ __forceinline__ void StoreOnce(const Pack<T, N>& pack, T* to) {
  using W = typename Word<N * sizeof(T)>::type;
  __stcs(reinterpret_cast<W*>(to), *reinterpret_cast<const W*>(&pack));
}

// Calls body with a value of the CUDA type of `dtype`.
template <typename Body>
void DispatchDType(DType dtype, Body&& body) {
  switch (dtype) {
    case DType::kFloat32:
      return body(float{});
    case DType::kFloat16:
      return body(__half{});
    case DType::kBFloat16:
      return body(__nv_bfloat16{});
  }
}

// Tables of one type give outputs of the same type or of float32; float32 tables give any.
template <typename Body>
void DispatchTableAndOutput(DType table, DType output, Body&& body) {
  DispatchDType(table, [&](auto t) {
    using T = decltype(t);
    if (table == output) return body(t, t);
    if (output == DType::kFloat32) return body(t, float{});
    if constexpr (std::is_same_v<T, float>) {
      return DispatchDType(output, [&](auto o) { body(t, o); });
    } else {
      throw InvalidArgument(Concat("output_dtype must be float32 or the table's ", NameOf(table),
                                   " on CUDA. Received: ", NameOf(output)));
    }
  });
}

}  // namespace merlin
