// What the forward and the backward kernel share: where rows lie, tensor core instructions, and the order of pairs.
//
// No operand goes through shared memory. A warp multiplies 16 x 8 blocks by mma.m16n8k16 (m16n8k8 for TF32), whose
// operands are spread over the lanes in a fixed pattern; but the order of the summed index is free, as long as both
// operands have the same, and so is the order of the result's columns. So each lane loads 16 contiguous bytes of a row,
// and calls them what the instruction wants: quads of lanes read 64 contiguous bytes, and nothing is transposed.
#pragma once

#include <algorithm>
#include <type_traits>

#include "common/cuda_utils.cuh"
#include "dot_interaction/dot_interaction.h"
#include "embedding_bag/bag_device.cuh"

namespace merlin {

constexpr int kWarp = 32;
constexpr int kBlockRows = 32;  // features that a warp's operands hold
constexpr unsigned kAllLanes = 0xffffffffu;

// Where a feature's rows are. Without ids: that of sample 0, and how far apart those of consecutive samples; with ids:
// a table's first row, and how far apart its rows.
struct RowPlace {
  const char* base;
  uint32_t stride;  // bytes
  // Of lookups:
  int32_t num_rows;
  const void* ids;  // [batch, hotness]
  int64_t padding_id;
  int16_t hotness, combiner, index;  // index: in the caller's order, for notes
};

// Where the gradient of a feature goes: that of sample 0, and how far apart those of consecutive samples.
struct GradientPlace {
  char* base;
  uint32_t stride;  // bytes
};

struct InteractionArgs {
  int64_t batch;
  int features, dim, width;
  bool lower, self, concat_first;
  bool ids_are_int64;
  volatile unsigned long long* note;
  RowPlace place[kMaxInteractionFeatures];
};

// The place of the pair i > j (or i == j) among the pairs.
struct Pairs {
  int features, self;
  bool lower;

  __device__ __forceinline__ explicit Pairs(const InteractionArgs& args)
      : features(args.features), self(args.self ? 1 : 0), lower(args.lower) {}
  __device__ __forceinline__ int operator()(int i, int j) const {
    return lower ? ((i * (i - 1)) >> 1) + self * i + j
                 : j * (features - 1 + self) - ((j * (j - 1)) >> 1) + i - j - 1 + self;
  }
  __device__ __forceinline__ bool has(int i, int j) const { return i < features && (j < i || (self && j == i)); }
  __device__ __forceinline__ int count() const { return ((features * (features - 1)) >> 1) + self * features; }
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

// The 16 bytes (W = uint2: 8 bytes) of a row from element `column` on; what lies beyond `dim` is zero. kVector: rows
// are 16-byte aligned and multiples of 16 bytes long.
template <typename T, bool kVector, typename W = uint4>
__device__ __forceinline__ W LoadChunk(const char* row, int column, int dim) {
  constexpr int kElements = sizeof(W) / sizeof(T);
  const T* from = reinterpret_cast<const T*>(row) + column;
  if constexpr (kVector) {
    const bool wanted = row != nullptr && column < dim;
    if constexpr (std::is_same_v<T, float>) {
      return __ldg(FromZerosUnless(wanted, reinterpret_cast<const W*>(from)));
    } else {  // slower that way at 128 columns (docs/performance.md)
      return wanted ? __ldg(reinterpret_cast<const W*>(from)) : W{};
    }
  } else {
    T item[kElements];
#pragma unroll
    for (int k = 0; k < kElements; ++k) item[k] = __ldg(FromZerosUnless(row != nullptr && column + k < dim, from + k));
    return *reinterpret_cast<const W*>(item);
  }
}

__device__ __forceinline__ uint32_t WordOf(const uint4& chunk, int i) {
  return i == 0 ? chunk.x : i == 1 ? chunk.y : i == 2 ? chunk.z : chunk.w;
}
__device__ __forceinline__ uint32_t WordOf(const uint2& chunk, int i) { return i == 0 ? chunk.x : chunk.y; }

// ---- where rows come from ----

// A lane has the rows of kRows features of a sample; begin with Start, then Next for every sample. Row says where one
// of them is, and Chunk reads a Word of 16 or 8 bytes there; all lanes of a warp ask together.

// Rows that lie in memory as they are, sample after sample.
template <typename T, int kRows, bool kVector, typename W = uint4>
struct DenseRows {
  using Element = T;
  using Word = W;
  static constexpr bool kStartIsCheap = true;  // cheaper than the registers that keep it
  const char* row[kRows];
  uint32_t stride[kRows];

  template <typename FeatureOf>
  __device__ __forceinline__ void Start(const InteractionArgs& args, int64_t sample, int64_t, FeatureOf&& feature_of) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const int feature = feature_of(r);
      row[r] = nullptr;
      stride[r] = 0;
      if (feature < args.features) {
        stride[r] = args.place[feature].stride;
        row[r] = args.place[feature].base + sample * stride[r];
      }
    }
  }
  __device__ __forceinline__ void Next(const InteractionArgs&, int64_t, int64_t step) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) row[r] = row[r] == nullptr ? nullptr : row[r] + step * stride[r];
  }
  __device__ __forceinline__ const char* Row(int r) const { return row[r]; }
  __device__ __forceinline__ W Chunk(const InteractionArgs& args, const char* from, int, int column) const {
    return LoadChunk<T, kVector, W>(from, column, args.dim);
  }
};

// 16 bytes of T from a row of Table, which is T or float: rows are aligned.
template <typename T, typename Table>
__device__ __forceinline__ uint4 LoadConverted(const char* row, int column, int dim) {
  if constexpr (std::is_same_v<T, Table>) {
    return LoadChunk<T, true>(row, column, dim);
  } else {
    const uint4 low = LoadChunk<float, true>(row, column, dim), high = LoadChunk<float, true>(row, column + 4, dim);
    T item[8];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      item[k] = RoundTo<T>(__uint_as_float(WordOf(low, k)));
      item[4 + k] = RoundTo<T>(__uint_as_float(WordOf(high, k)));
    }
    return *reinterpret_cast<const uint4*>(item);
  }
}

__device__ __forceinline__ int64_t IdAt(const InteractionArgs& args, const RowPlace& place, int64_t position) {
  return args.ids_are_int64 ? __ldg(static_cast<const int64_t*>(place.ids) + position)
                            : __ldg(static_cast<const int32_t*>(place.ids) + position);
}

// The row of an id, null for padding, and with a note for an id out of range.
__device__ __forceinline__ const char* RowOf(const InteractionArgs& args, const RowPlace& place, int64_t id) {
  if (id == place.padding_id && id != kNoPadding) return nullptr;
  if (id < 0 || id >= place.num_rows) {
    NoteError(args.note, NoteKind::kId, place.index, id);
    return nullptr;
  }
  return place.base + static_cast<uint64_t>(id) * place.stride;
}

// Rows of tables, one id a sample; features without ids are as in DenseRows. Each lane of the warp looks after one
// feature: it keeps the feature's place, reads its ids and finds its rows, and the lanes that load a row ask for it.
// (Lanes that look at the places of the rows that they load wait: eight places at once are eight reads of constants.)
// The next sample's ids are under way while this one's rows are.
template <typename T, typename Table, int kRows>
struct OneHotRows {
  using Element = T;
  using Word = uint4;
  static constexpr bool kStartIsCheap = false;
  int feature[kRows];  // of this lane's rows, and the lanes that look after them
  // Of the feature that this lane looks after:
  RowPlace own;     // base is null if there is none
  const char* row;  // of this sample
  int64_t next_id;

  template <typename FeatureOf>
  __device__ __forceinline__ void Start(const InteractionArgs& args, int64_t sample, int64_t step,
                                        FeatureOf&& feature_of) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) feature[r] = feature_of(r);
    const int lane = threadIdx.x % kWarp;
    own = RowPlace{};
    if (lane < args.features) own = args.place[lane];
    FetchId(args, sample);
    Point(args, sample);
    FetchId(args, sample + step);
  }
  __device__ __forceinline__ void Next(const InteractionArgs& args, int64_t sample, int64_t step) {
    Point(args, sample + step);
    FetchId(args, sample + 2 * step);
  }
  __device__ __forceinline__ void FetchId(const InteractionArgs& args, int64_t sample) {
    if (own.ids != nullptr && sample < args.batch) next_id = IdAt(args, own, sample);
  }
  __device__ __forceinline__ void Point(const InteractionArgs& args, int64_t sample) {
    row = nullptr;
    if (own.base == nullptr || sample >= args.batch) return;
    row = own.ids == nullptr ? own.base + sample * own.stride : RowOf(args, own, next_id);
  }
  __device__ __forceinline__ const char* Row(int r) const {
    return reinterpret_cast<const char*>(__shfl_sync(kAllLanes, reinterpret_cast<uintptr_t>(row), feature[r]));
  }
  __device__ __forceinline__ uint4 Chunk(const InteractionArgs& args, const char* from, int r, int column) const {
    if constexpr (!std::is_same_v<T, Table>) {  // only the first feature may have no table
      if (feature[r] == 0 && args.place[0].ids == nullptr) return LoadChunk<T, true>(from, column, args.dim);
    }
    return LoadConverted<T, Table>(from, column, args.dim);
  }
};

// A packed row of `bytes`, with its place within 16 bytes before it.
inline int StagedBytes(int bytes) { return (bytes + 31) / 16 * 16; }

// Host side: places of the parts' rows, and whether all are fit for LoadChunk<kVector>.
InteractionArgs ArgsOf(const Interaction& call);
void PlaceGradients(const Interaction& call, GradientPlace (&places)[kMaxInteractionFeatures]);
bool RowsAreAligned(const Interaction& call, bool with_gradients);
int Multiprocessors();

constexpr int kWarps = 4;              // of a block whose warps take a sample each
constexpr int kMaxShared = 99 * 1024;  // bytes that all devices of compute capability 8.0 and newer let a block have

// Lets the kernel have `shared` bytes a block, and returns how many blocks of `threads` the device runs at once.
template <typename Kernel>
int64_t BlocksAtOnce(Kernel kernel, int threads, int shared) {
  CheckCuda(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared), "cudaFuncSetAttribute");
  int resident = 0;
  CheckCuda(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, threads, shared),
            "cudaOccupancyMaxActiveBlocksPerMultiprocessor");
  return int64_t{Multiprocessors()} * std::max(resident, 1);
}

template <typename T>
constexpr DType kDTypeOf = std::is_same_v<T, float>    ? DType::kFloat32
                           : std::is_same_v<T, __half> ? DType::kFloat16
                                                       : DType::kBFloat16;

}  // namespace merlin
