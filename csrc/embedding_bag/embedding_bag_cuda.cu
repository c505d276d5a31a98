// embedding_bag on CUDA: the launches of the forward pass, and the gradient of the weights.
#include <algorithm>

#include "embedding_bag/bag_forward_general.cuh"
#include "embedding_bag/bag_forward_plain.cuh"
#include "embedding_bag/embedding_bag_cuda.h"

namespace merlin {
namespace {

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

// How many elements a thread moves at once, and how many threads share a row.
void ChoosePack(const BagBatch& batch, DeviceFeature* feature) {
  const int wide = 16 / SizeOf(batch.table_dtype);
  int pack = FitPack(wide, feature->table, feature->dim, feature->dim, SizeOf(batch.table_dtype));
  if (batch.table_dtype != DType::kFloat32 && pack < wide && pack > 2) pack = 2;
  if (batch.table_dtype == DType::kFloat32 && pack < wide) pack = 1;
  // Outputs wider than their rows are stored in two halves.
  const int store = pack * SizeOf(batch.output_dtype) > 16 ? pack / 2 : pack;
  if (FitPack(store, feature->output, feature->output_stride, feature->dim, SizeOf(batch.output_dtype)) < store) {
    pack = 1;
  }
  feature->pack = static_cast<uint16_t>(pack);
  feature->lanes = static_cast<uint16_t>(LanesFor((feature->dim + pack - 1) / pack));
}

// All features plain, or none.
void ForwardLaunch(const BagBatch& batch, const DeviceFeature* features, int count, bool plain, cudaStream_t stream) {
  FeatureList list;
  list.count = count;
  list.note = DeviceNote();
  std::copy(features, features + count, list.feature);
  uint64_t blocks = 0;
  int64_t total_bags = 0;
  for (int i = 0; i < count; ++i) total_bags += features[i].num_bags;
  const int64_t units_to_fill = plain ? kPlainUnitsToFillDevice : kUnitsToFillDevice;
  for (int i = 0; i < count; ++i) {
    DeviceFeature& feature = list.feature[i];
    const int64_t columns = feature.lanes * feature.pack, parts = (feature.dim + columns - 1) / columns;
    const int64_t units_a_block = kThreads / feature.lanes;
    // Several short bags a unit, as long as the device stays full; never more than the block's list of long bags holds.
    const int64_t ids_a_bag = std::max<int64_t>(1, feature.num_bags == 0 ? 1 : feature.num_ids / feature.num_bags);
    const int64_t most = std::min<int64_t>(
        {kIdsAUnit / ids_a_bag, kMaxBagsAUnit, kMaxBagsABlock / units_a_block, total_bags * parts / units_to_fill});
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
      const auto kernel = plain ? embedding_bag_plain_kernel<decltype(t), decltype(o), decltype(id)>
                                : embedding_bag_forward_kernel<decltype(t), decltype(o), decltype(id)>;
      kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(list);
    };
    batch.ids_are_int64 ? launch(int64_t{}) : launch(int32_t{});
  });
  CheckLaunch(plain ? "embedding_bag_plain_kernel" : "embedding_bag_forward_kernel");
}

}  // namespace

void EmbeddingBagForwardCuda(const BagBatch& batch, CudaStream stream) {
  CheckBatch(batch);
  std::vector<DeviceFeature> features;
  for (int f = 0; f < static_cast<int>(batch.features.size()); ++f) {
    features.push_back(MakeDeviceFeature(batch, f));
    ChoosePack(batch, &features.back());
  }
  const auto ids_a_bag = [](const DeviceFeature& f) { return f.num_bags == 0 ? 0 : f.num_ids / f.num_bags; };
  std::stable_sort(features.begin(), features.end(),
                   [&](const DeviceFeature& a, const DeviceFeature& b) { return ids_a_bag(a) > ids_a_bag(b); });
  const int wide = 16 / SizeOf(batch.table_dtype);
  const auto others = std::stable_partition(features.begin(), features.end(),
                                            [&](const DeviceFeature& feature) { return IsPlain(feature, wide); });
  const auto launch = [&](auto from, auto to, bool plain) {
    for (; from != to; from += std::min<int64_t>(kCapacity, to - from)) {
      const int count = static_cast<int>(std::min<int64_t>(kCapacity, to - from));
      ForwardLaunch(batch, &*from, count, plain, static_cast<cudaStream_t>(stream));
    }
  };
  launch(features.begin(), others, true);
  launch(others, features.end(), false);
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
