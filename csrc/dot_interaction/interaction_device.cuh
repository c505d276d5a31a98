// What the forward and the backward kernel share: where rows lie, tensor core instructions, and the order of pairs.
//
// No operand goes through shared memory. A warp multiplies 16 x 8 blocks by mma.m16n8k16 (m16n8k8 for TF32), whose
// operands are spread over the lanes in a fixed pattern; but the order of the summed index is free, as long as both
// operands have the same, and so is the order of the result's columns. So each lane loads 16 contiguous bytes of a row,
// and calls them what the instruction wants: quads of lanes read 64 contiguous bytes, and nothing is transposed.
#pragma once

#include <type_traits>

#include "common/cuda_utils.cuh"
#include "dot_interaction/dot_interaction.h"

namespace merlin {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// Where the rows of sample 0 are, and how far apart those of consecutive samples.
struct RowPlaces {
  const char* row[kMaxInteractionFeatures];
  uint32_t stride[kMaxInteractionFeatures];  // bytes
};

struct InteractionArgs {
  int64_t batch;
  int features, dim, width;
  bool lower, self, concat_first;
  RowPlaces places;
};

// The place of the pair i > j (or i == j) among the pairs.
struct Pairs {
  int features, self;
  bool lower;

  __device__ __forceinline__ int operator()(int i, int j) const {
    return lower ? ((i * (i - 1)) >> 1) + self * i + j
                 : j * (features - 1 + self) - ((j * (j - 1)) >> 1) + i - j - 1 + self;
  }
  __device__ __forceinline__ bool has(int i, int j) const { return i < features && (j < i || (self && j == i)); }
};

// ---- tensor cores ----

__device__ __forceinline__ void Mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], __nv_bfloat16) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void Mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], __half) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// TF32: the operands are float32 bits that RoundToTf32 gave.
__device__ __forceinline__ void Mma(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], float) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ uint32_t RoundToTf32(float value) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}

// An operand of N registers as the instruction takes it. kExact (float only) keeps what TF32 drops in a second one, so
// that three products are as good as one of float32.
template <typename T, int N, bool kExact>
struct Operand {
  uint32_t high[N], low[kExact ? N : 1];

  // From 32 bits of a row: one float, or two 2-byte elements.
  __device__ __forceinline__ void Set(int i, uint32_t word) {
    if constexpr (!std::is_same_v<T, float>) {
      high[i] = word;
    } else {
      const float value = __uint_as_float(word);
      high[i] = RoundToTf32(value);
      if constexpr (kExact) low[i] = RoundToTf32(value - __uint_as_float(high[i]));
    }
  }
};

template <typename T, bool kExact>
__device__ __forceinline__ void Multiply(float (&c)[4], const Operand<T, 4, kExact>& a,
                                         const Operand<T, 2, kExact>& b) {
  if constexpr (kExact) {  // small ones first
    Mma(c, a.low, b.high, T{});
    Mma(c, a.high, b.low, T{});
  }
  Mma(c, a.high, b.high, T{});
}

// ---- memory ----

// 16 bytes of a row from element `column` on; what lies beyond `dim` is zero. kVector: rows are 16-byte aligned and
// multiples of 16 bytes long.
template <typename T, bool kVector>
__device__ __forceinline__ uint4 LoadChunk(const char* row, int column, int dim) {
  constexpr int kElements = 16 / sizeof(T);
  uint4 chunk = make_uint4(0, 0, 0, 0);
  if constexpr (kVector) {
    if (row != nullptr && column < dim) chunk = __ldg(reinterpret_cast<const uint4*>(row + column * sizeof(T)));
  } else if (row != nullptr) {
    const T* from = reinterpret_cast<const T*>(row) + column;
    T item[kElements];
#pragma unroll
    for (int k = 0; k < kElements; ++k) item[k] = column + k < dim ? __ldg(from + k) : RoundTo<T>(0.0f);
    chunk = *reinterpret_cast<const uint4*>(item);
  }
  return chunk;
}

__device__ __forceinline__ uint32_t WordOf(const uint4& chunk, int i) {
  return i == 0 ? chunk.x : i == 1 ? chunk.y : i == 2 ? chunk.z : chunk.w;
}

// Host side: places of the parts' rows, and whether all are fit for LoadChunk<kVector>.
InteractionArgs ArgsOf(const Interaction& call);
void PlaceGradients(const Interaction& call, char* (&rows)[kMaxInteractionFeatures]);
bool RowsAreAligned(const Interaction& call, bool with_gradients);
int Multiprocessors();

template <typename T>
constexpr DType kDTypeOf = std::is_same_v<T, float>    ? DType::kFloat32
                           : std::is_same_v<T, __half> ? DType::kFloat16
                                                       : DType::kBFloat16;

}  // namespace merlin
