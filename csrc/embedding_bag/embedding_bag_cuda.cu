// embedding_bag on CUDA: forward, and the gradient of the weights.
//
// Forward geometry. `lanes` threads (a power of two up to 32) form a unit; a unit owns `bags_a_unit` consecutive bags
// of a feature and lanes * pack of their columns (wider rows take several units). The ids of consecutive bags are
// consecutive in memory, so a unit walks over all of them without regard to where bags end, with kRowsInFlight rows
// under way, and writes a bag's output when it passes its end: one-hot features keep as many loads in flight as
// multi-hot ones. Each thread moves 16 bytes of a row at once where alignment allows, else 4, else one element. A block
// has 128 threads and one feature; the features with the longest bags come first in the launch, so that the last blocks
// are short. Bags longer than kLongBag are left to the end of the block, where all its units share them. No atomics:
// deterministic. Shared memory: the list of long bags and a partial sum a unit.
#include <algorithm>
#include <numeric>

#include "embedding_bag/bag_device.cuh"
#include "embedding_bag/embedding_bag_cuda.h"

namespace merlin {
namespace {

constexpr int kThreads = 128;
// Rows under way in a unit, and blocks a multiprocessor should hold: enough of both for the memory's latency, with the
// registers that 16 bytes of a row and their float sums take (docs/performance.md).
template <typename T>
constexpr int kRowsInFlight = sizeof(T) == 4 ? 8 : 4;
template <typename T>
constexpr int kBlocksAProcessor = sizeof(T) == 4 ? 5 : 6;
constexpr int kLongBag = 2048;  // ids
constexpr int kIdsAUnit = 64;   // so many ids a unit should have, with short bags, by taking several
constexpr int kMaxBagsAUnit = 32;
constexpr int kUnitsToFillDevice = 4096;
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
    Pack<Out, kPack> result;
#pragma unroll
    for (int k = 0; k < kPack; ++k) result.item[k] = RoundTo<Out>(kMax && sum == 0.0f ? 0.0f : total[k] * scale);
    // A pack of outputs may be twice as wide as a pack of rows: two stores then.
    Out* out = static_cast<Out*>(feature.output) + bag * feature.output_stride + unit.column;
    constexpr int kStore = kPack * sizeof(Out) > 16 ? kPack / 2 : kPack;
#pragma unroll
    for (int k = 0; k < kPack; k += kStore) {
      StoreOnce<Out, kStore>(*reinterpret_cast<const Pack<Out, kStore>*>(&result.item[k]), out + k);
    }
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
    return LoadConst<T, kPack>(
        reinterpret_cast<const T*>(table + static_cast<uint64_t>(static_cast<uint32_t>(row)) * row_bytes));
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
          for (int k = 0; k < kPack; ++k) part.total[k] += AsFloat(pack[u].item[k]);
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
        pack[u] = Pack<T, kPack>{};
        if (row[u] >= 0) pack[u] = load(row[u]);
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
            const float value = AsFloat(pack[u].item[k]);
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

// Bags of one id each, from `position` on, without weights: every combiner gives the row itself, or zeros for
// padding.
template <typename T, typename Out, typename Id, int kPack>
__device__ __forceinline__ void CopyRows(const DeviceFeature& feature, const Unit& unit, int64_t bag, int64_t last_bag,
                                         int64_t position, volatile unsigned long long* note) {
  constexpr int kRows = kRowsInFlight<T>;
  constexpr int kStore = kPack * sizeof(Out) > 16 ? kPack / 2 : kPack;
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
        pack[u] = Pack<T, kPack>{};
        if (i + u < count && row >= 0) {
          pack[u] = LoadConst<T, kPack>(
              reinterpret_cast<const T*>(table + static_cast<uint64_t>(static_cast<uint32_t>(row)) * row_bytes));
        }
      }
#pragma unroll
      for (int u = 0; u < kRows; ++u) {
        if (i + u < count && unit.owns_columns) {
          Pack<Out, kPack> result;
#pragma unroll
          for (int k = 0; k < kPack; ++k) result.item[k] = RoundTo<Out>(AsFloat(pack[u].item[k]));
#pragma unroll
          for (int k = 0; k < kPack; k += kStore) {
            StoreOnce<Out, kStore>(*reinterpret_cast<const Pack<Out, kStore>*>(&result.item[k]), out + k);
          }
        }
        out += feature.output_stride;
      }
    }
  }
}

struct LongBag {
  int64_t bag, begin, end;
  int part;  // which of the units that share its columns
};

template <typename T, typename Out, typename Id, int kPack, bool kMax>
__device__ __forceinline__ void PoolBlock(const DeviceFeature& feature, uint32_t block, LongBag* long_bags,
                                          int* num_long, float* partials, volatile unsigned long long* note) {
  const int units = kThreads / feature.lanes, own_unit = threadIdx.x / feature.lanes;
  const int parts = (feature.dim + feature.lanes * kPack - 1) / (feature.lanes * kPack);
  const int64_t index = static_cast<int64_t>(block) * units + own_unit;
  const int part = static_cast<int>(index % parts);
  Unit unit;
  unit.lanes = feature.lanes;
  unit.lane = threadIdx.x % unit.lanes;
  unit.mask = unit.lanes == 32 ? 0xffffffffu : ((1u << unit.lanes) - 1) << (threadIdx.x % 32 / unit.lanes * unit.lanes);
  unit.column = (part * unit.lanes + unit.lane) * kPack;
  unit.owns_columns = unit.column < feature.dim;

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
      CopyRows<T, Out, Id, kPack>(feature, unit, bag, last_bag, position, note);
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
        if (unit.lane == 0) long_bags[atomicAdd(num_long, 1)] = {bag, range.begin, range.end, part};
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
  // The order in which units found long bags does not matter: each is summed the same way.
  for (int i = 0; i < *num_long; ++i) {
    const LongBag& todo = long_bags[i];
    unit.column = (todo.part * unit.lanes + unit.lane) * kPack;
    unit.owns_columns = unit.column < feature.dim;
    const int64_t share = (todo.end - todo.begin + units - 1) / units;
    const int64_t begin = min(todo.end, todo.begin + own_unit * share), end = min(todo.end, begin + share);
    running.Clear();
    Walk<T, Id, kPack, kMax>(feature, unit, begin, end, int64_t{-1}, &running, note, [] { return int64_t{-1}; });
    float* mine = partials + threadIdx.x * (kPack + 2);
#pragma unroll
    for (int k = 0; k < kPack; ++k) mine[k] = running.total[k];
    mine[kPack] = running.sum;
    mine[kPack + 1] = running.sum_of_squares;
    __syncthreads();
    if (own_unit == 0) {
      for (int other = 1; other < units; ++other) {
        const float* theirs = partials + (other * unit.lanes + unit.lane) * (kPack + 2);
        Running<kPack, kMax> add;
#pragma unroll
        for (int k = 0; k < kPack; ++k) add.total[k] = theirs[k];
        add.sum = theirs[kPack];
        add.sum_of_squares = theirs[kPack + 1];
        running.Merge(add);
      }
      running.template Write<Out>(feature, todo.bag, unit);
    }
    __syncthreads();
  }
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

// A warp owns one bag: it computes the dot product of the bag's gradient with each row (lanes share the columns), keeps
// it in weights_grad, and then applies the combiner's correction (see WeightsGradientOfBags in embedding_bag_cpu.cc).
template <typename T, typename Out, typename Id>
__global__ void __launch_bounds__(kThreads)
    embedding_bag_weights_gradient_kernel(const __grid_constant__ DeviceFeature feature,
                                          volatile unsigned long long* note) {
  const int64_t bag = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / 32;
  const int lane = threadIdx.x % 32;
  if (bag >= feature.num_bags) return;
  const BagRange range = RangeOfBag(feature, static_cast<uint32_t>(bag), note);
  const Out* grad = static_cast<const Out*>(feature.grad) + bag * feature.output_stride;
  float sum = 0.0f, sum_of_squares = 0.0f, weighted = 0.0f;
  for (int64_t p = range.begin; p < range.end; ++p) {
    const int64_t row = RowAt<Id>(feature, p, note);
    float dot = 0.0f;
    if (row != kNoRow) {
      const T* values = static_cast<const T*>(feature.table) + row * feature.dim;
      for (int d = lane; d < feature.dim; d += 32)
        dot = fmaf(AsFloat(__ldg(values + d)), AsFloat(__ldg(grad + d)), dot);
      for (int step = 16; step > 0; step /= 2) dot += __shfl_xor_sync(0xffffffffu, dot, step);
      const float weight = __ldg(feature.weights + p);
      sum += weight;
      sum_of_squares += weight * weight;
      weighted += weight * dot;
    }
    if (lane == 0) feature.weights_grad[p] = dot;
  }
  __syncwarp();
  const float scale = ScaleOf(feature.combiner, sum, sum_of_squares);
  for (int64_t p = range.begin + lane; p < range.end; p += 32) {
    if (RowAt<Id>(feature, p, note) == kNoRow) continue;
    float value = feature.weights_grad[p] * scale;
    if (feature.combiner == static_cast<int>(Combiner::kMean)) value -= weighted * scale * scale;
    if (feature.combiner == static_cast<int>(Combiner::kSqrtn)) {
      value -= __ldg(feature.weights + p) * weighted * scale * scale * scale;
    }
    feature.weights_grad[p] = value;
  }
}

void ForwardLaunch(const BagBatch& batch, const DeviceFeature* features, int count, cudaStream_t stream) {
  FeatureList list;
  list.count = count;
  list.note = DeviceNote();
  std::copy(features, features + count, list.feature);
  uint64_t blocks = 0;
  int64_t total_bags = 0;
  for (int i = 0; i < count; ++i) total_bags += features[i].num_bags;
  const int wide = 16 / SizeOf(batch.table_dtype);
  for (int i = 0; i < count; ++i) {
    DeviceFeature& feature = list.feature[i];
    int pack = FitPack(wide, feature.table, feature.dim, feature.dim, SizeOf(batch.table_dtype));
    if (batch.table_dtype != DType::kFloat32 && pack < wide && pack > 2) pack = 2;
    if (batch.table_dtype == DType::kFloat32 && pack < wide) pack = 1;
    // Outputs wider than their rows are stored in two halves.
    const int store = pack * SizeOf(batch.output_dtype) > 16 ? pack / 2 : pack;
    if (FitPack(store, feature.output, feature.output_stride, feature.dim, SizeOf(batch.output_dtype)) < store) {
      pack = 1;
    }
    feature.pack = static_cast<uint16_t>(pack);
    feature.lanes = static_cast<uint16_t>(LanesFor((feature.dim + pack - 1) / pack));
    const int64_t parts = (feature.dim + feature.lanes * pack - 1) / (feature.lanes * pack);
    const int64_t units_a_block = kThreads / feature.lanes;
    // Several short bags a unit, as long as the device stays full; never more than the block's list of long bags holds.
    const int64_t ids_a_bag = std::max<int64_t>(1, feature.num_bags == 0 ? 1 : feature.num_ids / feature.num_bags);
    const int64_t most = std::min<int64_t>({kIdsAUnit / ids_a_bag, kMaxBagsAUnit, kMaxBagsABlock / units_a_block,
                                            total_bags * parts / kUnitsToFillDevice});
    const int64_t bags = std::max<int64_t>(1, feature.row_splits ? std::min<int64_t>(most, feature.lanes) : most);
    feature.bags_a_unit = static_cast<uint16_t>(bags);
    const int64_t units = (feature.num_bags + feature.bags_a_unit - 1) / feature.bags_a_unit * parts;
    blocks += (units + units_a_block - 1) / units_a_block;
    Check(blocks <= INT32_MAX, "All features together must need fewer than 2^31 blocks. Received: ", blocks);
    feature.block_end = static_cast<uint32_t>(blocks);
  }
  if (blocks == 0) return;
  DispatchTableAndOutput(batch.table_dtype, batch.output_dtype, [&](auto t, auto o) {
    const auto launch = [&](auto id) {
      embedding_bag_forward_kernel<decltype(t), decltype(o), decltype(id)>
          <<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(list);
    };
    batch.ids_are_int64 ? launch(int64_t{}) : launch(int32_t{});
  });
  CheckLaunch("embedding_bag_forward_kernel");
}

}  // namespace

void EmbeddingBagForwardCuda(const BagBatch& batch, CudaStream stream) {
  CheckBatch(batch);
  const int count = static_cast<int>(batch.features.size());
  std::vector<DeviceFeature> features;
  for (int f = 0; f < count; ++f) features.push_back(MakeDeviceFeature(batch, f));
  const auto ids_a_bag = [](const DeviceFeature& f) { return f.num_bags == 0 ? 0 : f.num_ids / f.num_bags; };
  std::stable_sort(features.begin(), features.end(),
                   [&](const DeviceFeature& a, const DeviceFeature& b) { return ids_a_bag(a) > ids_a_bag(b); });
  for (int begin = 0; begin < count; begin += kCapacity) {
    ForwardLaunch(batch, features.data() + begin, std::min(kCapacity, count - begin),
                  static_cast<cudaStream_t>(stream));
  }
}

void EmbeddingBagWeightsGradientCuda(const BagBatch& batch, CudaStream stream) {
  CheckBatch(batch);
  const auto s = static_cast<cudaStream_t>(stream);
  for (size_t f = 0; f < batch.features.size(); ++f) {
    const DeviceFeature feature = MakeDeviceFeature(batch, static_cast<int>(f));
    if (!feature.weights_grad || feature.num_ids == 0) continue;
    // Ids outside every bag, which only broken row_splits leave, get zero.
    CheckCuda(cudaMemsetAsync(feature.weights_grad, 0, feature.num_ids * sizeof(float), s), "cudaMemsetAsync");
    const unsigned blocks = (feature.num_bags + kThreads / 32 - 1) / (kThreads / 32);
    if (blocks == 0) continue;
    DispatchTableAndOutput(batch.table_dtype, batch.output_dtype, [&](auto t, auto o) {
      const auto launch = [&](auto id) {
        embedding_bag_weights_gradient_kernel<decltype(t), decltype(o), decltype(id)>
            <<<blocks, kThreads, 0, s>>>(feature, DeviceNote());
      };
      batch.ids_are_int64 ? launch(int64_t{}) : launch(int32_t{});
    });
    CheckLaunch("embedding_bag_weights_gradient_kernel");
  }
}

}  // namespace merlin
