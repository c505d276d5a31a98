// What the CUDA kernels of embedding_bag share: the device form of a feature, reading ids, noting errors.
#pragma once

#include "common/cuda_utils.cuh"
#include "embedding_bag/embedding_bag.h"

namespace merlin {

// One 8-byte word of mapped host memory: 0, or kind (4 bits), feature (12 bits), value (48 bits, two's complement). A
// value that 48 bits cannot hold is noted as the nearest that they can.
enum class NoteKind : uint64_t { kNone = 0, kId = 1, kSplitsOrder = 2, kSplitsStart = 3, kSplitsEnd = 4 };
constexpr int64_t kMostNoted = (int64_t{1} << 47) - 1, kLeastNoted = -kMostNoted - 1;

__device__ __forceinline__ void NoteError(volatile unsigned long long* note, NoteKind kind, int feature,
                                          int64_t value) {
  value = value > kMostNoted ? kMostNoted : value < kLeastNoted ? kLeastNoted : value;
  *note = (static_cast<unsigned long long>(kind) << 60) | (static_cast<unsigned long long>(feature & 0xfff) << 48) |
          (static_cast<unsigned long long>(value) & 0xffffffffffffull);
}

// The host side of the note of the current device: a mapped pointer for kernels, kept for the life of the process.
volatile unsigned long long* DeviceNote();

// A feature with its table, as kernels read it.
struct DeviceFeature {
  const void* ids;
  const int64_t* row_splits;
  const float* weights;
  const void* table;
  void* output;
  const void* grad;
  float* weights_grad;
  int64_t num_ids;
  int64_t num_rows;
  int64_t padding_id;
  uint32_t num_bags;
  uint32_t ids_a_bag;
  int32_t dim;
  int32_t output_stride;
  int32_t combiner;
  int32_t index;       // in the caller's order
  uint32_t block_end;  // one behind the feature's last block of the launch
  uint16_t lanes;      // threads that share a bag's columns, a power of two
  uint16_t pack;       // elements a thread moves at once
  uint16_t bags_a_unit;
};

struct BagRange {
  int64_t begin, end;
};

// The ids of one bag; an empty range, and a note, where row_splits break their rule. Called by one lane or all.
__device__ __forceinline__ BagRange RangeOfBag(const DeviceFeature& feature, uint32_t bag,
                                               volatile unsigned long long* note) {
  if (!feature.row_splits) {
    const int64_t begin = int64_t{bag} * feature.ids_a_bag;
    return {begin, begin + feature.ids_a_bag};
  }
  const int64_t begin = __ldg(feature.row_splits + bag), end = __ldg(feature.row_splits + bag + 1);
  if (bag == 0 && begin != 0) NoteError(note, NoteKind::kSplitsStart, feature.index, begin);
  if (bag + 1 == feature.num_bags && end != feature.num_ids) {
    NoteError(note, NoteKind::kSplitsEnd, feature.index, end);
  }
  if (begin < 0 || end < begin || end > feature.num_ids) {
    if (end < begin) NoteError(note, NoteKind::kSplitsOrder, feature.index, end);
    return {0, 0};
  }
  return {begin, end};
}

constexpr int64_t kNoRow = -1;

// The table row of the id at `position`; kNoRow for padding, and, with a note, for an id out of range.
template <typename Id>
__device__ __forceinline__ int64_t RowAt(const DeviceFeature& feature, int64_t position,
                                         volatile unsigned long long* note) {
  const int64_t id = __ldg(static_cast<const Id*>(feature.ids) + position);
  if (id == feature.padding_id && id != kNoPadding) return kNoRow;
  if (id < 0 || id >= feature.num_rows) {
    NoteError(note, NoteKind::kId, feature.index, id);
    return kNoRow;
  }
  return id;
}

// What a bag's sum is multiplied by.
__device__ __forceinline__ float ScaleOf(int combiner, float sum, float sum_of_squares) {
  if (combiner == static_cast<int>(Combiner::kMean)) return sum == 0.0f ? 0.0f : 1.0f / sum;
  if (combiner == static_cast<int>(Combiner::kSqrtn)) {
    return sum_of_squares == 0.0f ? 0.0f : 1.0f / sqrtf(sum_of_squares);
  }
  return 1.0f;
}

// The feature and its table with their addresses; geometry (block_end, lanes, pack) is the launcher's.
DeviceFeature MakeDeviceFeature(const BagBatch& batch, int f);

// Largest number of elements, of 16, 4 or one element's bytes, that a thread may move at once so that every row of
// `dim` elements `stride` apart stays aligned at `pointer`. `pack` is the largest that the caller can use.
int FitPack(int pack, const void* pointer, int64_t stride, int64_t dim, int element_bytes);

// Copies a few KB from the host to the device as kernel parameters: the host waits for nothing and may free `from` at
// once, and a stream that is captured into a CUDA graph keeps the bytes. Both addresses are 16-byte aligned.
void UploadThroughParameters(void* to, const void* from, size_t bytes, cudaStream_t stream);

// Smallest power of two that is at least `count`, at most 32.
int LanesFor(int64_t count);

}  // namespace merlin
