// The forward pass of the common case: sums of rows without weights, 16 bytes a thread. What the general kernel knows
// besides costs registers, and with them the warps that hide where hot rows come from the caches (docs/performance.md).
#pragma once

#include "embedding_bag/bag_forward.cuh"

namespace merlin {
namespace {

template <int kLanes>
constexpr int kPlainRows = kLanes == 16 ? 6 : 4;  // under way in a unit
constexpr int kPlainBlocks = 8;                   // a multiprocessor should hold: 64 registers a thread
constexpr int kPlainUnitsToFillDevice = 16384;

inline bool IsPlain(const DeviceFeature& feature, int wide) {
  return feature.pack == wide && !feature.weights && feature.combiner != static_cast<int>(Combiner::kMax) &&
         feature.num_ids < INT32_MAX - 64 && feature.num_bags < INT32_MAX;
}

// The ids that a unit's lanes hold, one each.
struct IdWindow {
  int32_t begin, end;
  int32_t own_row;  // -1: padding or bad
};

// kLanes threads, or as many as the feature says for 0.
template <int kLanes>
struct PlainUnit {
  __device__ __forceinline__ static int Lanes(const DeviceFeature& feature) { return kLanes ? kLanes : feature.lanes; }
  __device__ __forceinline__ static int Lane(int lanes) { return threadIdx.x % lanes; }
  __device__ __forceinline__ static int Shift(int lanes) { return threadIdx.x % 32 / lanes * lanes; }
  __device__ __forceinline__ static unsigned Mask(int lanes) {
    return lanes == 32 ? 0xffffffffu : ((1u << lanes) - 1) << Shift(lanes);
  }
};

// Sums the rows of the ids [begin, end) into `sum`; returns how many there are without padding. Each 32 are summed
// first, and those sums in `more`, this thread's shared memory.
template <typename T, typename Id, int kPack, int kLanes, typename Readable>
__device__ __forceinline__ int SumRows(const DeviceFeature& feature, const char* table, int32_t begin, int32_t end,
                                       Readable&& readable, IdWindow* window, float (&sum)[kPack], float* more,
                                       volatile unsigned long long* note) {
  using U = PlainUnit<kLanes>;
  constexpr int kRows = kPlainRows<kLanes>;
  const int lanes = U::Lanes(feature);
  int found = 0;
  bool in_parts = false;
  for (;;) {
    // A window holds all ids of a bag, or begins with the next of them: a sum does not depend on what lies around its
    // bag.
    if (begin < window->begin || begin >= window->end || (end > window->end && begin != window->begin)) {
      window->begin = begin;
      window->end = min(begin + lanes, readable());
      window->own_row = -1;
      if (begin + U::Lane(lanes) < window->end) {
        window->own_row = static_cast<int32_t>(RowAt<Id>(feature, begin + U::Lane(lanes), note));
      }
    }
    int from = begin - window->begin;
    const int until = min(end, window->end) - window->begin;
    const bool counts = window->own_row >= 0 && U::Lane(lanes) >= from && U::Lane(lanes) < until;
    found += __popc(__ballot_sync(U::Mask(lanes), counts) & U::Mask(lanes));
    begin += until - from;
#pragma unroll
    for (int k = 0; k < kPack; ++k) sum[k] = 0.0f;
    for (; from < until; from += kRows) {
      Pack<T, kPack> pack[kRows];
#pragma unroll
      for (int u = 0; u < kRows; ++u) {
        const int32_t row = __shfl_sync(U::Mask(lanes), window->own_row, from + u, lanes);
        pack[u] = LoadConstIf<T, kPack>(
            reinterpret_cast<const T*>(table + static_cast<uint64_t>(static_cast<uint32_t>(row)) *
                                                   (static_cast<uint32_t>(feature.dim) * sizeof(T))),
            from + u < until && row >= 0);
      }
#pragma unroll
      for (int u = 0; u < kRows; ++u) {
#pragma unroll
        for (int k = 0; k < kPack; ++k) sum[k] += FloatAt(pack[u], k);
      }
    }
    if (begin >= end && !in_parts) return found;
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      if (in_parts) sum[k] += more[k];
      more[k] = sum[k];
    }
    if (begin >= end) return found;
    in_parts = true;
  }
}

template <typename Out, int kPack>
__device__ __forceinline__ void WritePlain(const DeviceFeature& feature, int64_t bag, int column, int found,
                                           const float (&sum)[kPack]) {
  if (column >= feature.dim) return;
  const float scale = ScaleOf(feature.combiner, static_cast<float>(found), static_cast<float>(found));
  Out* out = static_cast<Out*>(feature.output) + bag * feature.output_stride + column;
  StoreColumns<Out, kPack>(out, [&](int k) { return sum[k] * scale; });
}

template <typename T>
__device__ __forceinline__ const char* ColumnOf(const DeviceFeature& feature, int column) {
  return static_cast<const char*>(feature.table) + (column < feature.dim ? column : 0) * sizeof(T);
}

template <typename T, typename Out, typename Id, int kLanes>
__device__ __forceinline__ void PoolPlainBlock(const DeviceFeature& feature, uint32_t block, LongBag* long_bags,
                                               int* num_long, float* partials, volatile unsigned long long* note) {
  using U = PlainUnit<kLanes>;
  constexpr int kPack = 16 / sizeof(T);
  const int lanes = U::Lanes(feature);
  const int parts = (feature.dim + lanes * kPack - 1) / (lanes * kPack);
  const int64_t index = static_cast<int64_t>(block) * (kThreads / lanes) + threadIdx.x / lanes;
  const int part = static_cast<int>(index % parts), column = (part * lanes + U::Lane(lanes)) * kPack;
  const int32_t first = static_cast<int32_t>(min(index / parts * feature.bags_a_unit, int64_t{feature.num_bags}));
  const int32_t last = min(first + feature.bags_a_unit, static_cast<int32_t>(feature.num_bags));
  // With row_splits each lane knows the ids of one of the unit's bags, which are no more than its lanes.
  int32_t own_begin = 0, own_end = 0;
  if (feature.row_splits && first + U::Lane(lanes) < last) {
    const BagRange own = RangeOfBag(feature, static_cast<uint32_t>(first + U::Lane(lanes)), note);
    own_begin = static_cast<int32_t>(own.begin);
    own_end = static_cast<int32_t>(own.end);
  }
  const bool single =
      feature.row_splits ? first + U::Lane(lanes) >= last || own_end - own_begin == 1 : feature.ids_a_bag == 1;
  if (__all_sync(U::Mask(lanes), single)) {
    const int64_t position = feature.row_splits ? __shfl_sync(U::Mask(lanes), own_begin, 0, lanes) : first;
    const Unit unit{U::Mask(lanes), U::Lane(lanes), lanes, column, column < feature.dim};
    CopyRows<T, Out, Id, kPack, kPlainRows<kLanes>>(feature, unit, first, last, position, note);
    return;
  }
  const char* table = ColumnOf<T>(feature, column);
  IdWindow window{0, 0, -1};
  for (int32_t bag = first; bag < last; ++bag) {
    int32_t begin, end;
    if (feature.row_splits) {
      begin = __shfl_sync(U::Mask(lanes), own_begin, bag - first, lanes);
      end = __shfl_sync(U::Mask(lanes), own_end, bag - first, lanes);
    } else {
      begin = bag * static_cast<int32_t>(feature.ids_a_bag);
      end = begin + static_cast<int32_t>(feature.ids_a_bag);
    }
    const auto readable = [&] {  // where the ids of the unit's bags end
      if (!feature.row_splits) return last * static_cast<int32_t>(feature.ids_a_bag);
      return max(end, __shfl_sync(U::Mask(lanes), own_end, last - 1 - first, lanes));
    };
    if (end - begin > kLongBag) {
      if (U::Lane(lanes) == 0) long_bags[atomicAdd(num_long, 1)] = {static_cast<uint32_t>(bag), part};
      continue;
    }
    float sum[kPack] = {};
    const int found = begin == end ? 0
                                   : SumRows<T, Id, kPack, kLanes>(feature, table, begin, end, readable, &window, sum,
                                                                   partials + threadIdx.x * (kPack + 1), note);
    WritePlain<Out, kPack>(feature, bag, column, found, sum);
  }
}

// Not inlined, so that it takes no registers of the loop above.
template <typename T, typename Out, typename Id>
__device__ __noinline__ void PoolLongBags(const DeviceFeature& feature, const LongBag* long_bags, int num_long,
                                          float* partials, volatile unsigned long long* note) {
  constexpr int kPack = 16 / sizeof(T), kValues = kPack + 1;  // the last one: how many rows, as bits of an int
  ShareLongBags<kPack, kValues>(
      feature, long_bags, num_long, partials, note,
      [&](int64_t begin, int64_t end, int column, float(&value)[kValues], float* mine) {
        const int32_t stop = static_cast<int32_t>(end);
        float sum[kPack] = {};
        IdWindow window{0, 0, -1};
        const int found = begin == end ? 0
                                       : SumRows<T, Id, kPack, 0>(
                                             feature, ColumnOf<T>(feature, column), static_cast<int32_t>(begin), stop,
                                             [=] { return stop; }, &window, sum, mine, note);
#pragma unroll
        for (int k = 0; k < kPack; ++k) value[k] = sum[k];
        value[kPack] = __int_as_float(found);
      },
      [](float(&value)[kValues], const float* theirs) {
#pragma unroll
        for (int k = 0; k < kPack; ++k) value[k] += theirs[k];
        value[kPack] = __int_as_float(__float_as_int(value[kPack]) + __float_as_int(theirs[kPack]));
      },
      [&](uint32_t bag, int column, const float(&value)[kValues]) {
        float sum[kPack];
#pragma unroll
        for (int k = 0; k < kPack; ++k) sum[k] = value[k];
        WritePlain<Out, kPack>(feature, bag, column, __float_as_int(value[kPack]), sum);
      });
}

template <typename T, typename Out, typename Id>
__global__ void __launch_bounds__(kThreads, kPlainBlocks)
    embedding_bag_plain_kernel(const __grid_constant__ FeatureList list) {
  __shared__ LongBag long_bags[kMaxBagsABlock];
  __shared__ float partials[kThreads * (16 / sizeof(T) + 1)];
  __shared__ int num_long;
  if (threadIdx.x == 0) num_long = 0;
  __syncthreads();
  const int f = FeatureOfBlock(list, blockIdx.x);
  const DeviceFeature& feature = list.feature[f];
  const uint32_t block = blockIdx.x - (f == 0 ? 0 : list.feature[f - 1].block_end);
  if (feature.lanes == 32) {
    PoolPlainBlock<T, Out, Id, 32>(feature, block, long_bags, &num_long, partials, list.note);
  } else if (feature.lanes == 16) {
    PoolPlainBlock<T, Out, Id, 16>(feature, block, long_bags, &num_long, partials, list.note);
  } else {
    PoolPlainBlock<T, Out, Id, 0>(feature, block, long_bags, &num_long, partials, list.note);
  }
  __syncthreads();
  if (num_long > 0) PoolLongBags<T, Out, Id>(feature, long_bags, num_long, partials, list.note);
}

}  // namespace
}  // namespace merlin
