// embedding_bag on CUDA: forward, and the gradient of the weights.
//
// Forward geometry. `lanes` threads (a power of two up to 32) own one bag and up to lanes * pack of its columns; wider
// rows take several such units. A block of 256 threads holds 256 / lanes units of one feature; the launch's blocks run
// feature by feature, the features with the longest bags first, so that the last blocks are short. Each thread moves 16
// bytes of a row at once where alignment allows (else 4, else one element) and has kRowsInFlight rows under way. No
// shared memory, no atomics: deterministic.
#include <algorithm>
#include <numeric>

#include "embedding_bag/bag_device.cuh"
#include "embedding_bag/embedding_bag_cuda.h"

namespace merlin {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsInFlight = 8;

template <int kCapacity>
struct FeatureList {
  int count;
  volatile unsigned long long* note;
  DeviceFeature feature[kCapacity];
};

template <int kCapacity>
__device__ __forceinline__ int FeatureOfBlock(const FeatureList<kCapacity>& list, uint32_t block) {
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

// One unit: kPack columns a lane of one bag. Lanes of a unit stay together; units of a warp may differ in length.
template <typename T, typename Out, typename Id, int kPack, bool kMax>
__device__ __forceinline__ void PoolUnit(const DeviceFeature& feature, uint32_t bag, int column, int lane, int lanes,
                                         unsigned mask, volatile unsigned long long* note) {
  const BagRange range = RangeOfBag(feature, bag, note);
  const bool owns_columns = column < feature.dim;
  const T* table = static_cast<const T*>(feature.table) + (owns_columns ? column : 0);
  float total[kPack];
#pragma unroll
  for (int k = 0; k < kPack; ++k) total[k] = kMax ? -INFINITY : 0.0f;
  float sum = 0.0f, sum_of_squares = 0.0f;  // of the weights this lane read
  bool any = false;

  for (int64_t base = range.begin; base < range.end; base += lanes) {
    // Each lane reads one id and its weight; then all lanes walk over them together.
    int64_t row = kNoRow;
    float weight = 0.0f;
    if (base + lane < range.end) {
      row = RowAt<Id>(feature, base + lane, note);
      if (row != kNoRow) weight = feature.weights ? __ldg(feature.weights + base + lane) : 1.0f;
      sum += weight;
      sum_of_squares += weight * weight;
    }
    const int count = static_cast<int>(min(static_cast<int64_t>(lanes), range.end - base));
    float part[kPack] = {};  // of these ids: short sums first keep long bags exact to a few ulp
    for (int i = 0; i < count; i += kRowsInFlight) {
      Pack<T, kPack> pack[kRowsInFlight];
      float coef[kRowsInFlight];
#pragma unroll
      for (int u = 0; u < kRowsInFlight; ++u) {
        const int from = min(i + u, lanes - 1);
        const int64_t r = __shfl_sync(mask, row, from, lanes);
        coef[u] = __shfl_sync(mask, weight, from, lanes);
        if (i + u >= count || r == kNoRow) {
          coef[u] = 0.0f;
          pack[u] = Pack<T, kPack>{};
          if (kMax) coef[u] = -1.0f;  // marks: no row
        } else if (owns_columns) {
          pack[u] = LoadConst<T, kPack>(table + r * feature.dim);
        }
      }
#pragma unroll
      for (int u = 0; u < kRowsInFlight; ++u) {
        if (kMax && coef[u] < 0.0f) continue;
        any = true;
#pragma unroll
        for (int k = 0; k < kPack; ++k) {
          const float value = AsFloat(pack[u].item[k]);
          if (kMax) {
            total[k] = fmaxf(total[k], value);
          } else {
            part[k] = fmaf(coef[u], value, part[k]);
          }
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kPack; ++k) total[k] += kMax ? 0.0f : part[k];
  }

  float scale = 1.0f;
  if (!kMax && feature.combiner != static_cast<int>(Combiner::kSum)) {
    for (int step = lanes / 2; step > 0; step /= 2) {
      sum += __shfl_xor_sync(mask, sum, step, lanes);
      sum_of_squares += __shfl_xor_sync(mask, sum_of_squares, step, lanes);
    }
    scale = ScaleOf(feature.combiner, sum, sum_of_squares);
  }
  if (!owns_columns) return;
  Pack<Out, kPack> result;
#pragma unroll
  for (int k = 0; k < kPack; ++k) {
    result.item[k] = RoundTo<Out>(kMax && !any ? 0.0f : total[k] * scale);
  }
  // A pack of outputs may be twice as wide as a pack of rows: two stores then.
  Out* out = static_cast<Out*>(feature.output) + static_cast<int64_t>(bag) * feature.output_stride + column;
  constexpr int kStore = kPack * sizeof(Out) > 16 ? kPack / 2 : kPack;
#pragma unroll
  for (int k = 0; k < kPack; k += kStore) {
    Store<Out, kStore>(*reinterpret_cast<const Pack<Out, kStore>*>(&result.item[k]), out + k);
  }
}

template <typename T, typename Out, typename Id, int kCapacity>
__global__ void __launch_bounds__(kThreads)
    embedding_bag_forward_kernel(const __grid_constant__ FeatureList<kCapacity> list) {
  const int f = FeatureOfBlock(list, blockIdx.x);
  const DeviceFeature& feature = list.feature[f];
  const uint32_t first_block = f == 0 ? 0 : list.feature[f - 1].block_end;
  const int lanes = feature.lanes, pack = feature.pack;
  const int lane = threadIdx.x % lanes;
  const unsigned mask = lanes == 32 ? 0xffffffffu : ((1u << lanes) - 1) << (threadIdx.x % 32 / lanes * lanes);
  const int parts = (feature.dim + lanes * pack - 1) / (lanes * pack);
  const int64_t unit = static_cast<int64_t>(blockIdx.x - first_block) * (kThreads / lanes) + threadIdx.x / lanes;
  if (unit >= static_cast<int64_t>(feature.num_bags) * parts) return;
  const uint32_t bag = static_cast<uint32_t>(unit / parts);
  const int column = (static_cast<int>(unit % parts) * lanes + lane) * pack;
  const bool is_max = feature.combiner == static_cast<int>(Combiner::kMax);
  constexpr int kWide = 16 / sizeof(T);

#define MERLIN_POOL(PACK)                                                                                      \
  is_max ? PoolUnit<T, Out, Id, PACK, true>(feature, bag, column, lane, lanes, mask, list.note)                \
         : PoolUnit<T, Out, Id, PACK, false>(feature, bag, column, lane, lanes, mask, list.note)
  if (pack == kWide) {
    MERLIN_POOL(kWide);
  } else if (sizeof(T) == 2 && pack == 2) {
    MERLIN_POOL(2);
  } else {
    MERLIN_POOL(1);
  }
#undef MERLIN_POOL
}

// A warp owns one bag: it computes the dot product of the bag's gradient with each row (lanes share the columns), keeps
// it in weights_grad, and then applies the combiner's correction (see WeightsGradientOfBags in embedding_bag_cpu.cc).
template <typename T, typename Out, typename Id>
__global__ void __launch_bounds__(kThreads) embedding_bag_weights_gradient_kernel(
    const __grid_constant__ DeviceFeature feature, volatile unsigned long long* note) {
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
      for (int d = lane; d < feature.dim; d += 32) dot = fmaf(AsFloat(__ldg(values + d)), AsFloat(__ldg(grad + d)), dot);
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

template <int kCapacity>
void ForwardLaunch(const BagBatch& batch, const DeviceFeature* features, int count, cudaStream_t stream) {
  FeatureList<kCapacity> list;
  list.count = count;
  list.note = DeviceNote();
  std::copy(features, features + count, list.feature);
  uint64_t blocks = 0;
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
    blocks += (feature.num_bags * parts + units_a_block - 1) / units_a_block;
    Check(blocks <= INT32_MAX, "All features together must need fewer than 2^31 blocks. Received: ", blocks);
    feature.block_end = static_cast<uint32_t>(blocks);
  }
  if (blocks == 0) return;
  DispatchTableAndOutput(batch.table_dtype, batch.output_dtype, [&](auto t, auto o) {
    const auto launch = [&](auto id) {
      embedding_bag_forward_kernel<decltype(t), decltype(o), decltype(id), kCapacity>
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
  std::stable_sort(features.begin(), features.end(), [&](const DeviceFeature& a, const DeviceFeature& b) {
    return ids_a_bag(a) > ids_a_bag(b);
  });
  constexpr int kFew = 32, kMany = 256;  // 256 features take 28 of the 32 KiB that a kernel's parameters may have
  for (int begin = 0; begin < count; begin += kMany) {
    const int part = std::min(kMany, count - begin);
    const auto s = static_cast<cudaStream_t>(stream);
    if (part <= kFew) {
      ForwardLaunch<kFew>(batch, features.data() + begin, part, s);
    } else {
      ForwardLaunch<kMany>(batch, features.data() + begin, part, s);
    }
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
