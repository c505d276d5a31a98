// What the kernels of embedding_bag's forward pass on CUDA share.
//
// Forward geometry. `lanes` threads (a power of two up to 32) form a unit; a unit owns `bags_a_unit` consecutive bags
// of a feature and lanes * pack of their columns (wider rows take several units). Each thread moves 16 bytes of a row
// at once where alignment allows, else 4, else one element. A block has 128 threads and one feature; the features with
// the longest bags come first in a launch, so that the last blocks are short. Bags longer than kLongBag are left to the
// end of the block, where all its units share them. No atomics on what is summed: deterministic. Shared memory: the
// list of long bags and a partial sum a thread.
//
// Features are dealt to two kernels, one launch each. embedding_bag_plain_kernel has those without weights, of any
// combiner but max, that move 16 bytes: bag after bag, few rows under way in a unit but many units.
// embedding_bag_forward_kernel has the others: the ids of consecutive bags are consecutive in memory, so a unit walks
// over all of them without regard to where bags end, with kRowsInFlight rows under way, and writes a bag's output when
// it passes its end.
#pragma once

#include <algorithm>

#include "embedding_bag/bag_device.cuh"

namespace merlin {
namespace {

constexpr int kThreads = 128;
constexpr int kLongBag = 2048;  // ids
constexpr int kIdsAUnit = 64;   // so many ids a unit should have, with short bags, by taking several
constexpr int kMaxBagsAUnit = 32;
constexpr int kMaxBagsABlock = kThreads;  // see ForwardLaunch

constexpr int kCapacity = 128;  // features a launch: 15 of the 32 KiB that a kernel's parameters may have

struct FeatureList {
  int count;
  volatile unsigned long long* note;
  DeviceFeature feature[kCapacity];
};

__device__ __forceinline__ int FeatureOfBlock(const FeatureList& list, uint32_t block) {
  int low = 0, high = list.count - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (block < list.feature[middle].block_end) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

// What a unit of lanes knows of itself.
struct Unit {
  unsigned mask;  // of its lanes in the warp
  int lane;
  int lanes;
  int column;         // this thread's first
  bool owns_columns;  // of the feature's dim
};

__device__ __forceinline__ Unit UnitOfThread(const DeviceFeature& feature, int part, int pack) {
  Unit unit;
  unit.lanes = feature.lanes;
  unit.lane = threadIdx.x % unit.lanes;
  unit.mask = unit.lanes == 32 ? 0xffffffffu : ((1u << unit.lanes) - 1) << (threadIdx.x % 32 / unit.lanes * unit.lanes);
  unit.column = (part * unit.lanes + unit.lane) * pack;
  unit.owns_columns = unit.column < feature.dim;
  return unit;
}

// Writes columns of an output, value_of(k) for k from 0 on. A pack of outputs may be twice as wide as a pack of rows:
// two stores then.
template <typename Out, int kPack, typename ValueOf>
__device__ __forceinline__ void StoreColumns(Out* out, ValueOf&& value_of) {
  constexpr int kStore = kPack * sizeof(Out) > 16 ? kPack / 2 : kPack;
#pragma unroll
  for (int k = 0; k < kPack; k += kStore) {
    Pack<Out, kStore> result;
#pragma unroll
    for (int i = 0; i < kStore; ++i) result.item[i] = RoundTo<Out>(value_of(k + i));
    StoreOnce<Out, kStore>(result, out + k);
  }
}

// Bags of one id each, from `position` on, without weights: every combiner gives the row itself, or zeros for
// padding.
template <typename T, typename Out, typename Id, int kPack, int kRows>
__device__ __forceinline__ void CopyRows(const DeviceFeature& feature, const Unit& unit, int64_t bag, int64_t last_bag,
                                         int64_t position, volatile unsigned long long* note) {
  const char* table = static_cast<const char*>(feature.table) + (unit.owns_columns ? unit.column : 0) * sizeof(T);
  const uint32_t row_bytes = static_cast<uint32_t>(feature.dim) * sizeof(T);
  for (; bag < last_bag; bag += unit.lanes, position += unit.lanes) {
    const int count = static_cast<int>(min(static_cast<int64_t>(unit.lanes), last_bag - bag));
    int32_t own_row = -1;
    if (unit.lane < count) own_row = static_cast<int32_t>(RowAt<Id>(feature, position + unit.lane, note));
    Out* out = static_cast<Out*>(feature.output) + bag * feature.output_stride + unit.column;
    for (int i = 0; i < count; i += kRows) {
      Pack<T, kPack> pack[kRows];
#pragma unroll
      for (int u = 0; u < kRows; ++u) {
        const int32_t row = __shfl_sync(unit.mask, own_row, i + u, unit.lanes);
        pack[u] = LoadConstIf<T, kPack>(
            reinterpret_cast<const T*>(table + static_cast<uint64_t>(static_cast<uint32_t>(row)) * row_bytes),
            i + u < count && row >= 0);
      }
#pragma unroll
      for (int u = 0; u < kRows; ++u) {
        if (i + u < count && unit.owns_columns) {
          StoreColumns<Out, kPack>(out, [&](int k) { return FloatAt(pack[u], k); });
        }
        out += feature.output_stride;
      }
    }
  }
}

// Shared memory is taken from what caches rows, so no more than this is kept of a bag.
struct LongBag {
  uint32_t bag;
  int part;  // which of the units that share its columns
};

// Pools the bags that the block's units left: all units share each. `pool` sums the ids [begin, end) of the columns
// from `column` on into kValues numbers, `merge` adds another unit's to them, `write` writes the bag. The order in
// which units found the bags does not matter: each is summed the same way.
template <int kPack, int kValues, typename PoolIds, typename Merge, typename Write>
__device__ __forceinline__ void ShareLongBags(const DeviceFeature& feature, const LongBag* long_bags, int num_long,
                                              float* partials, volatile unsigned long long* note, PoolIds&& pool,
                                              Merge&& merge, Write&& write) {
  const int lanes = feature.lanes, units = kThreads / lanes, own_unit = threadIdx.x / lanes, lane = threadIdx.x % lanes;
  float* mine = partials + threadIdx.x * kValues;
  for (int i = 0; i < num_long; ++i) {
    const LongBag todo = long_bags[i];
    const BagRange all = RangeOfBag(feature, todo.bag, note);
    const int column = (todo.part * lanes + lane) * kPack;
    const int64_t share = (all.end - all.begin + units - 1) / units;
    const int64_t begin = min(all.end, all.begin + own_unit * share), end = min(all.end, begin + share);
    float value[kValues];
    pool(begin, end, column, value, mine);
#pragma unroll
    for (int k = 0; k < kValues; ++k) mine[k] = value[k];
    __syncthreads();
    if (own_unit == 0) {
      for (int other = 1; other < units; ++other) merge(value, partials + (other * lanes + lane) * kValues);
      write(todo.bag, column, value);
    }
    __syncthreads();
  }
}

}  // namespace
}  // namespace merlin
