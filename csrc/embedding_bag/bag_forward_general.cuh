// The forward pass of bags with weights, of combiner max, and of rows that cannot be moved by 16 bytes.
#pragma once

#include "embedding_bag/bag_forward.cuh"

namespace merlin {
namespace {

// Rows under way in a unit, and blocks a multiprocessor should hold: enough of both for the memory's latency, with the
// registers that 16 bytes of a row and their float sums take (docs/performance.md).
template <typename T>
constexpr int kRowsInFlight = sizeof(T) == 4 ? 8 : 4;
template <typename T>
constexpr int kBlocksAProcessor = sizeof(T) == 4 ? 5 : 6;
constexpr int kUnitsToFillDevice = 4096;

// A bag under way: the running sum of its rows and of its weights.
template <int kPack, bool kMax>
struct Running {
  float total[kPack];
  float sum, sum_of_squares;  // of the weights; kMax: sum counts the rows

  __device__ __forceinline__ void Clear() {
#pragma unroll
    for (int k = 0; k < kPack; ++k) total[k] = kMax ? -INFINITY : 0.0f;
    sum = sum_of_squares = 0.0f;
  }
  __device__ __forceinline__ void Merge(const Running& other) {
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      total[k] = kMax ? fmaxf(total[k], other.total[k]) : total[k] + other.total[k];
    }
    sum += other.sum;
    sum_of_squares += other.sum_of_squares;
  }
  template <typename Out>
  __device__ __forceinline__ void Write(const DeviceFeature& feature, int64_t bag, const Unit& unit) const {
    if (!unit.owns_columns) return;
    const float scale = kMax ? (sum == 0.0f ? 0.0f : 1.0f) : ScaleOf(feature.combiner, sum, sum_of_squares);
    Out* out = static_cast<Out*>(feature.output) + bag * feature.output_stride + unit.column;
    StoreColumns<Out, kPack>(out, [&](int k) { return kMax && sum == 0.0f ? 0.0f : total[k] * scale; });
  }
};

// Walks over the ids [position, end). After the id at which a bag ends, calls next_bag(), which takes `running` away
// and returns where the next one ends, or -1 for nowhere.
template <typename T, typename Id, int kPack, bool kMax, typename NextBag>
__device__ __forceinline__ void Walk(const DeviceFeature& feature, const Unit& unit, int64_t position, int64_t end,
                                     int64_t bag_end, Running<kPack, kMax>* running, volatile unsigned long long* note,
                                     NextBag&& next_bag) {
  // The rare cases, max and unaligned rows, need not be as deep: it halves the time to compile this file.
  constexpr int kRows = kMax ? 2 : kPack * sizeof(T) == 16 ? kRowsInFlight<T> : kRowsInFlight<T> / 2;
  constexpr int kNever = INT32_MAX;
  const bool weighted = feature.weights != nullptr;
  const char* table = static_cast<const char*>(feature.table) + (unit.owns_columns ? unit.column : 0) * sizeof(T);
  const uint32_t row_bytes = static_cast<uint32_t>(feature.dim) * sizeof(T);
  const auto load = [&](int32_t row) {
    return LoadConstIf<T, kPack>(
        reinterpret_cast<const T*>(table + static_cast<uint64_t>(static_cast<uint32_t>(row)) * row_bytes), row >= 0);
  };
  for (; position < end; position += unit.lanes) {
    // Each lane reads one id and its weight; then all lanes walk over them together.
    const int count = static_cast<int>(min(static_cast<int64_t>(unit.lanes), end - position));
    // How many of these ids, and of those behind them, come before the bag's end.
    const auto ids_left = [&](int64_t until) {
      return until < 0 ? kNever : static_cast<int>(min(until - position, static_cast<int64_t>(kNever)));
    };
    int left = ids_left(bag_end);
    int32_t own_row = -1;
    float own_weight = 0.0f;
    if (unit.lane < count) {
      own_row = static_cast<int32_t>(RowAt<Id>(feature, position + unit.lane, note));
      if (weighted) own_weight = __ldg(feature.weights + position + unit.lane);
    }
    const bool plain = !kMax && !weighted && __all_sync(unit.mask, own_row >= 0 || unit.lane >= count);
    Running<kPack, kMax> part = *running;  // of the bag's ids among these
    if (!kMax) part.Clear();
    for (int i = 0; i < count; i += kRows) {
      Pack<T, kPack> pack[kRows];
      if (!kMax && plain && i + kRows <= min(count, left)) {
        // Most ids of long bags: all are of one bag, none is missing, all weigh the same.
#pragma unroll
        for (int u = 0; u < kRows; ++u) pack[u] = load(__shfl_sync(unit.mask, own_row, i + u, unit.lanes));
#pragma unroll
        for (int u = 0; u < kRows; ++u) {
#pragma unroll
          for (int k = 0; k < kPack; ++k) part.total[k] += FloatAt(pack[u], k);
        }
        part.sum += kRows;
        part.sum_of_squares += kRows;
        if (i + kRows == left) {
          running->Merge(part);
          bag_end = next_bag();
          left = ids_left(bag_end);
          running->Clear();
          part.Clear();
        }
        continue;
      }
      int32_t row[kRows];
#pragma unroll
      for (int u = 0; u < kRows; ++u) {
        row[u] = i + u < count ? __shfl_sync(unit.mask, own_row, i + u, unit.lanes) : -1;
        pack[u] = load(row[u]);
      }
#pragma unroll
      for (int u = 0; u < kRows; ++u) {
        if (i + u >= count) break;
        const float weight = weighted ? __shfl_sync(unit.mask, own_weight, i + u, unit.lanes) : 1.0f;
        if (row[u] >= 0) {
          part.sum += weight;
          part.sum_of_squares += weight * weight;
#pragma unroll
          for (int k = 0; k < kPack; ++k) {
            const float value = FloatAt(pack[u], k);
            part.total[k] = kMax ? fmaxf(part.total[k], value) : fmaf(weight, value, part.total[k]);
          }
        }
        if (i + u + 1 == left) {
          if (kMax) {
            *running = part;
          } else {
            running->Merge(part);
          }
          bag_end = next_bag();
          left = ids_left(bag_end);
          running->Clear();
          part.Clear();
        }
      }
    }
    if (kMax) {
      *running = part;
    } else {
      running->Merge(part);  // sums of 32 rows first keep long bags exact to a few ulp
    }
  }
}

template <typename T, typename Out, typename Id, int kPack, bool kMax>
__device__ __forceinline__ void PoolBlock(const DeviceFeature& feature, uint32_t block, LongBag* long_bags,
                                          int* num_long, float* partials, volatile unsigned long long* note) {
  const int units = kThreads / feature.lanes, own_unit = threadIdx.x / feature.lanes;
  const int parts = (feature.dim + feature.lanes * kPack - 1) / (feature.lanes * kPack);
  const int64_t index = static_cast<int64_t>(block) * units + own_unit;
  const int part = static_cast<int>(index % parts);
  Unit unit = UnitOfThread(feature, part, kPack);

  int64_t bag = index / parts * feature.bags_a_unit;
  const int64_t last_bag = min(bag + feature.bags_a_unit, static_cast<int64_t>(feature.num_bags));
  // With row_splits each lane knows the ids of one of the unit's bags, which are no more than its lanes.
  const int64_t first_bag = bag;
  uint32_t own_begin = 0, own_end = 0;
  if (feature.row_splits) {
    if (bag + unit.lane < last_bag) {
      const BagRange own = RangeOfBag(feature, static_cast<uint32_t>(bag + unit.lane), note);
      own_begin = static_cast<uint32_t>(own.begin);
      own_end = static_cast<uint32_t>(own.end);
    }
  }
  if (!kMax && !feature.weights) {
    const bool single =
        feature.row_splits ? bag + unit.lane >= last_bag || own_end - own_begin == 1 : feature.ids_a_bag == 1;
    if (__all_sync(unit.mask, single)) {
      const int64_t position = feature.row_splits ? int64_t{__shfl_sync(unit.mask, own_begin, 0, unit.lanes)} : bag;
      CopyRows<T, Out, Id, kPack, kRowsInFlight<T>>(feature, unit, bag, last_bag, position, note);
      bag = last_bag;
    }
  }
  const auto range_of = [&](int64_t b) -> BagRange {
    if (!feature.row_splits) return RangeOfBag(feature, static_cast<uint32_t>(b), note);
    const int from = static_cast<int>(b - first_bag);
    return {__shfl_sync(unit.mask, own_begin, from, unit.lanes), __shfl_sync(unit.mask, own_end, from, unit.lanes)};
  };
  Running<kPack, kMax> running;
  running.Clear();
  // Writes empty bags from `bag` on, notes long ones, and stops at the next bag to walk over.
  BagRange range{0, 0};
  const auto find_bag = [&] {
    for (; bag < last_bag; ++bag) {
      range = range_of(bag);
      if (range.end - range.begin > kLongBag) {
        if (unit.lane == 0) long_bags[atomicAdd(num_long, 1)] = {static_cast<uint32_t>(bag), part};
      } else if (range.end == range.begin) {
        running.template Write<Out>(feature, bag, unit);
      } else {
        return;
      }
    }
  };
  find_bag();
  while (bag < last_bag) {
    // A stretch of bags without a gap between them: up to the next long one, broken splits, or the unit's last bag.
    const int64_t begin = range.begin;
    int64_t end;
    if (feature.row_splits) {
      end = range.end;
      for (int64_t b = bag + 1; b < last_bag; ++b) {
        const BagRange next = range_of(b);
        if (next.begin != end || next.end - next.begin > kLongBag) break;
        end = next.end;
      }
    } else {
      end = last_bag * feature.ids_a_bag;
    }
    Walk<T, Id, kPack, kMax>(feature, unit, begin, end, range.end, &running, note, [&] {
      running.template Write<Out>(feature, bag, unit);
      running.Clear();
      const int64_t passed = range.end;
      ++bag;
      if (!feature.row_splits) return range.end += feature.ids_a_bag;
      if (passed == end) return int64_t{-1};
      find_bag();
      return range.end;
    });
    find_bag();
  }

  __syncthreads();
  constexpr int kValues = kPack + 2;
  const auto running_of = [](const float* value) {
    Running<kPack, kMax> other;
#pragma unroll
    for (int k = 0; k < kPack; ++k) other.total[k] = value[k];
    other.sum = value[kPack];
    other.sum_of_squares = value[kPack + 1];
    return other;
  };
  const auto values_of = [](const Running<kPack, kMax>& other, float(&value)[kValues]) {
#pragma unroll
    for (int k = 0; k < kPack; ++k) value[k] = other.total[k];
    value[kPack] = other.sum;
    value[kPack + 1] = other.sum_of_squares;
  };
  const auto at_column = [&](int column) {
    unit.column = column;
    unit.owns_columns = column < feature.dim;
  };
  ShareLongBags<kPack, kValues>(
      feature, long_bags, *num_long, partials, note,
      [&](int64_t begin, int64_t end, int column, float(&value)[kValues], float*) {
        at_column(column);
        running.Clear();
        Walk<T, Id, kPack, kMax>(feature, unit, begin, end, int64_t{-1}, &running, note, [] { return int64_t{-1}; });
        values_of(running, value);
      },
      [&](float(&value)[kValues], const float* theirs) {
        Running<kPack, kMax> merged = running_of(value);
        merged.Merge(running_of(theirs));
        values_of(merged, value);
      },
      [&](uint32_t bag, int column, const float(&value)[kValues]) {
        at_column(column);
        running_of(value).template Write<Out>(feature, bag, unit);
      });
}

template <typename T, typename Out, typename Id>
__global__ void __launch_bounds__(kThreads, kBlocksAProcessor<T>)
    embedding_bag_forward_kernel(const __grid_constant__ FeatureList list) {
  constexpr int kWide = 16 / sizeof(T);
  __shared__ LongBag long_bags[kMaxBagsABlock];
  __shared__ float partials[kThreads * (kWide + 2)];
  __shared__ int num_long;
  if (threadIdx.x == 0) num_long = 0;
  __syncthreads();
  const int f = FeatureOfBlock(list, blockIdx.x);
  const DeviceFeature& feature = list.feature[f];
  const uint32_t block = blockIdx.x - (f == 0 ? 0 : list.feature[f - 1].block_end);
  const bool is_max = feature.combiner == static_cast<int>(Combiner::kMax);

  const auto pool = [&](auto pack) {
    constexpr int kPack = decltype(pack)::value;
    if (is_max) {
      PoolBlock<T, Out, Id, kPack, true>(feature, block, long_bags, &num_long, partials, list.note);
    } else {
      PoolBlock<T, Out, Id, kPack, false>(feature, block, long_bags, &num_long, partials, list.note);
    }
  };
  if (feature.pack == kWide) {
    pool(std::integral_constant<int, kWide>{});
  } else {
    if constexpr (sizeof(T) == 2) {
      if (feature.pack == 2) return pool(std::integral_constant<int, 2>{});
    }
    pool(std::integral_constant<int, 1>{});
  }
}

}  // namespace
}  // namespace merlin
