// Gradient of the tables on CUDA, as unique rows.
//
//   1. list:    every id becomes (key, value): key = its row among all tables' rows, value = its bag (or its position,
//               where ids have coefficients of their own). Padding and bad ids get the largest key.
//   2. sort:    one radix sort of all pairs, by the bits that the keys need. Stable, so a row keeps the input's order.
//   3. runs:    the first pair of each distinct key (CUB select), then for each table the range of its runs.
//   4. reduce:  a run's gradients are summed in order by `lanes` threads. Runs longer than kLongRun are cut into chunks
//               that many blocks sum; one block adds the chunks, in order.
// No float atomics: the result is the same in every run. Nothing is read back but the counts that CountRows asks for.
#include <algorithm>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_select.cuh>
#include <numeric>
#include <thrust/iterator/counting_iterator.h>

#include "embedding_bag/bag_device.cuh"
#include "embedding_bag/bag_runs.cuh"
#include "embedding_bag/embedding_bag_cuda.h"

namespace merlin {
namespace {

constexpr int kThreads = 256;

// 8 lanes own one bag.
template <typename Id, typename Key>
__global__ void __launch_bounds__(kThreads)
    list_pairs_kernel(const DeviceFeature* features, const GradFeature* grads, int f, const uint32_t* id_base,
                      Key no_key, Key* keys, uint32_t* values, float* bag_scale, uint32_t* bag_of_id, float* coef_of_id,
                      const BagTableDevice* tables, volatile unsigned long long* note) {
  constexpr int kLanes = 8;
  const DeviceFeature& feature = features[f];
  const GradFeature& grad = grads[f];
  const int64_t bag = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) / kLanes;
  if (bag >= feature.num_bags) return;
  const int lane = threadIdx.x % kLanes;
  const unsigned mask = 0xffu << (threadIdx.x % 32 / kLanes * kLanes);
  const BagRange range = RangeOfBag(feature, static_cast<uint32_t>(bag), note);
  const bool is_max = feature.combiner == static_cast<int>(Combiner::kMax);
  const uint32_t global_bag = grad.bag_base + static_cast<uint32_t>(bag);
  const Key row_base = static_cast<Key>(tables[grad.table].row_base);
  float sum = 0.0f, sum_of_squares = 0.0f;
  int32_t place = 0;  // among the bag's rows
  for (int64_t base = range.begin; base < range.end; base += kLanes) {
    const int64_t p = base + lane;
    const int64_t row = p < range.end ? RowAt<Id>(feature, p, note) : kNoRow;
    const unsigned present = __ballot_sync(mask, row != kNoRow) & mask;
    if (p < range.end) {
      const uint32_t position = id_base[f] + static_cast<uint32_t>(p);
      keys[position] = row == kNoRow ? no_key : row_base + static_cast<Key>(row);
      values[position] = coef_of_id ? position : global_bag;
      const float weight = row == kNoRow ? 0.0f : feature.weights ? __ldg(feature.weights + p) : 1.0f;
      sum += weight;
      sum_of_squares += weight * weight;
      if (coef_of_id) {
        bag_of_id[position] = global_bag;
        const int before = __popc(present & ((1u << (threadIdx.x % 32)) - 1));
        coef_of_id[position] = is_max ? __int_as_float(place + before) : weight;
      }
    }
    place += __popc(present);
  }
  for (int step = kLanes / 2; step > 0; step /= 2) {
    sum += __shfl_xor_sync(mask, sum, step, kLanes);
    sum_of_squares += __shfl_xor_sync(mask, sum_of_squares, step, kLanes);
  }
  if (lane == 0 && bag_scale) bag_scale[global_bag] = ScaleOf(feature.combiner, sum, sum_of_squares);
}

// A thread owns one column of one bag of a max feature: which of the bag's rows has the largest value, first come.
template <typename T, typename Id>
__global__ void __launch_bounds__(kThreads)
    max_winners_kernel(const DeviceFeature* features, int f, int32_t* winners, volatile unsigned long long* note) {
  const DeviceFeature& feature = features[f];
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t bag = i / feature.dim, d = i % feature.dim;
  if (bag >= feature.num_bags) return;
  const BagRange range = RangeOfBag(feature, static_cast<uint32_t>(bag), note);
  int32_t place = 0, winner = -1;
  float largest = 0.0f;
  for (int64_t p = range.begin; p < range.end; ++p) {
    const int64_t row = RowAt<Id>(feature, p, note);
    if (row == kNoRow) continue;
    const float value = AsFloat(__ldg(static_cast<const T*>(feature.table) + row * feature.dim + d));
    if (winner < 0 || value > largest) {
      largest = value;
      winner = place;
    }
    ++place;
  }
  winners[i] = winner;
}

// Positions of the sorted pairs where a run begins; padding's key begins none.
template <typename Key>
struct BeginsRun {
  const Key* keys;
  Key no_key;
  __device__ bool operator()(uint32_t i) const {
    return keys[i] < no_key && (i == 0 || keys[i - 1] != keys[i]);
  }
};

// Thread t: the end of the last run (one behind the pairs with a real key), and the first run of table t.
template <typename Key>
__global__ void bound_tables_kernel(const Key* keys, uint32_t num_pairs, Key no_key, uint32_t* run_begin,
                                    const uint32_t* num_runs_ptr, const BagTableDevice* tables, int num_tables,
                                    uint32_t* table_runs) {
  const uint32_t num_runs = *num_runs_ptr;
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  if (t > num_tables) return;
  const auto first_at_least = [](uint32_t count, auto&& below) {
    uint32_t low = 0, high = count;
    while (low < high) {
      const uint32_t middle = low + (high - low) / 2;
      if (below(middle)) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  };
  if (t == num_tables) {
    run_begin[num_runs] = first_at_least(num_pairs, [&](uint32_t i) { return keys[i] < no_key; });
    table_runs[t] = num_runs;
    return;
  }
  const Key base = static_cast<Key>(tables[t].row_base);
  table_runs[t] = first_at_least(num_runs, [&](uint32_t i) { return keys[run_begin[i]] < base; });
}

}  // namespace

// Where everything lies in the workspace.
struct EmbeddingBagGradientCuda::Layout {
  bool wide_keys, per_id, scaled;
  uint32_t num_ids, num_bags;
  int64_t num_rows;
  int key_bits;
  size_t features, grads, tables, id_base, keys[2], values[2], bag_scale, bag_of_id, coef_of_id, run_begin, num_runs,
      table_runs, winners, long_runs, chunks, partials, targets, cub, cub_bytes, total;
  std::vector<size_t> winner_offset;
  int64_t max_dim;
  uint32_t max_long_runs, max_chunks;

  explicit Layout(const BagBatch& batch) {
    size_t ids = 0, bags = 0, winner_count = 0;
    bool has_max = false, has_weights = false;
    max_dim = 1;
    scaled = false;
    for (const BagFeature& feature : batch.features) {
      ids += feature.num_ids;
      bags += feature.num_bags;
      has_max |= feature.combiner == Combiner::kMax;
      has_weights |= feature.weights != nullptr;
      scaled |= feature.combiner == Combiner::kMean || feature.combiner == Combiner::kSqrtn;
      winner_offset.push_back(winner_count);
      if (feature.combiner == Combiner::kMax) winner_count += feature.num_bags * batch.tables[feature.table].dim;
    }
    num_rows = 0;
    for (const BagTable& table : batch.tables) {
      num_rows += table.num_rows;
      max_dim = std::max(max_dim, table.dim);
    }
    Check(ids < INT32_MAX && bags < UINT32_MAX, "All features together must have fewer than 2^31 ids and 2^32 bags on ",
          "CUDA. Received: ", ids, " ids in ", bags, " bags");
    num_ids = static_cast<uint32_t>(ids);
    num_bags = static_cast<uint32_t>(bags);
    per_id = has_max || has_weights;
    wide_keys = num_rows >= UINT32_MAX;
    key_bits = 1;
    while (key_bits < 63 && (int64_t{1} << key_bits) <= num_rows) ++key_bits;
    max_chunks = num_ids / kChunk + num_ids / kLongRun + 1;
    max_long_runs = num_ids / kLongRun + 1;

    size_t at = 0;
    const auto take = [&](size_t bytes) {
      const size_t here = at;
      at += (bytes + 255) / 256 * 256;
      return here;
    };
    const size_t key = wide_keys ? 8 : 4;
    features = take(batch.features.size() * sizeof(DeviceFeature));
    grads = take(batch.features.size() * sizeof(GradFeature));
    tables = take((batch.tables.size() + 1) * sizeof(BagTableDevice));
    id_base = take(batch.features.size() * 4);
    for (int i = 0; i < 2; ++i) {
      keys[i] = take(ids * key);
      values[i] = take(ids * 4);
    }
    bag_scale = take(scaled ? bags * 4 : 0);
    bag_of_id = take(per_id ? ids * 4 : 0);
    coef_of_id = take(per_id ? ids * 4 : 0);
    run_begin = take((ids + 1) * 4);
    num_runs = take(4);
    table_runs = take((batch.tables.size() + 1) * 4);
    winners = take(winner_count * 4);
    long_runs = take(sizeof(LongRunCounts) + max_long_runs * sizeof(LongRun));
    chunks = take(max_chunks * sizeof(RunChunk));
    partials = take(static_cast<size_t>(max_chunks) * max_dim * 4);
    targets = take(2 * batch.tables.size() * sizeof(void*));
    cub_bytes = CubBytes();
    cub = take(cub_bytes);
    total = at;
  }

  size_t CubBytes() const {
    size_t sort = 0, select = 0;
    if (wide_keys) {
      cub::DoubleBuffer<uint64_t> k;
      cub::DoubleBuffer<uint32_t> v;
      CheckCuda(cub::DeviceRadixSort::SortPairs(nullptr, sort, k, v, static_cast<int>(num_ids)), "cub sort");
      CheckCuda(cub::DeviceSelect::If(nullptr, select, thrust::counting_iterator<uint32_t>(0), (uint32_t*)nullptr,
                                      (uint32_t*)nullptr, static_cast<int>(num_ids), BeginsRun<uint64_t>{}),
                "cub select");
    } else {
      cub::DoubleBuffer<uint32_t> k, v;
      CheckCuda(cub::DeviceRadixSort::SortPairs(nullptr, sort, k, v, static_cast<int>(num_ids)), "cub sort");
      CheckCuda(cub::DeviceSelect::If(nullptr, select, thrust::counting_iterator<uint32_t>(0), (uint32_t*)nullptr,
                                      (uint32_t*)nullptr, static_cast<int>(num_ids), BeginsRun<uint32_t>{}),
                "cub select");
    }
    return std::max<size_t>(1, std::max(sort, select));
  }

  template <typename Key>
  void SortAs(const BagBatch& batch, char* at_ptr, cudaStream_t stream) const;
  RunView View(const BagBatch& batch, char* at_ptr) const;
};

template <typename Key>
void EmbeddingBagGradientCuda::Layout::SortAs(const BagBatch& batch, char* w, cudaStream_t stream) const {
  volatile unsigned long long* note = DeviceNote();
  const Key no_key = static_cast<Key>(num_rows);
  const auto* feature_ptr = reinterpret_cast<const DeviceFeature*>(w + features);
  const auto* grad_ptr = reinterpret_cast<const GradFeature*>(w + grads);
  const auto* table_ptr = reinterpret_cast<const BagTableDevice*>(w + tables);
  for (size_t f = 0; f < batch.features.size(); ++f) {
    const BagFeature& feature = batch.features[f];
    if (feature.num_bags == 0) continue;
    // Ids outside every bag, which only broken row_splits leave, must not keep garbage keys.
    if (feature.row_splits && feature.num_ids > 0) {
      size_t before = 0;
      for (size_t g = 0; g < f; ++g) before += batch.features[g].num_ids;
      CheckCuda(cudaMemsetAsync(reinterpret_cast<Key*>(w + keys[0]) + before, 0xff, feature.num_ids * sizeof(Key), stream),
                "cudaMemsetAsync");
    }
    const unsigned blocks = static_cast<unsigned>((feature.num_bags * 8 + kThreads - 1) / kThreads);
    const auto list = [&](auto id) {
      list_pairs_kernel<decltype(id), Key><<<blocks, kThreads, 0, stream>>>(
          feature_ptr, grad_ptr, static_cast<int>(f), reinterpret_cast<const uint32_t*>(w + id_base), no_key,
          reinterpret_cast<Key*>(w + keys[0]), reinterpret_cast<uint32_t*>(w + values[0]),
          scaled ? reinterpret_cast<float*>(w + bag_scale) : nullptr,
          per_id ? reinterpret_cast<uint32_t*>(w + bag_of_id) : nullptr,
          per_id ? reinterpret_cast<float*>(w + coef_of_id) : nullptr, table_ptr, note);
    };
    batch.ids_are_int64 ? list(int64_t{}) : list(int32_t{});
    CheckLaunch("list_pairs_kernel");
    if (feature.combiner != Combiner::kMax) continue;
    const int64_t cells = feature.num_bags * batch.tables[feature.table].dim;
    Check(cells < (int64_t{1} << 38), "Feature '", batch.names[f], "' is too large for combiner 'max' on CUDA");
    DispatchDType(batch.table_dtype, [&](auto t) {
      const auto launch = [&](auto id) {
        max_winners_kernel<decltype(t), decltype(id)>
            <<<static_cast<unsigned>((cells + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
                feature_ptr, static_cast<int>(f), reinterpret_cast<int32_t*>(w + winners) + winner_offset[f], note);
      };
      batch.ids_are_int64 ? launch(int64_t{}) : launch(int32_t{});
    });
    CheckLaunch("max_winners_kernel");
  }
  const int n = static_cast<int>(num_ids);
  auto* runs = reinterpret_cast<uint32_t*>(w + run_begin);
  auto* count = reinterpret_cast<uint32_t*>(w + num_runs);
  cub::DoubleBuffer<Key> k(reinterpret_cast<Key*>(w + keys[0]), reinterpret_cast<Key*>(w + keys[1]));
  cub::DoubleBuffer<uint32_t> v(reinterpret_cast<uint32_t*>(w + values[0]), reinterpret_cast<uint32_t*>(w + values[1]));
  size_t bytes = cub_bytes;
  CheckCuda(cub::DeviceRadixSort::SortPairs(w + cub, bytes, k, v, n, 0, key_bits, stream), "cub::DeviceRadixSort");
  // Keep the sorted pairs at a known place: the number of passes decides where they end.
  if (k.Current() != reinterpret_cast<Key*>(w + keys[0])) {
    CheckCuda(cudaMemcpyAsync(w + keys[0], k.Current(), num_ids * sizeof(Key), cudaMemcpyDeviceToDevice, stream), "copy");
    CheckCuda(cudaMemcpyAsync(w + values[0], v.Current(), num_ids * 4, cudaMemcpyDeviceToDevice, stream), "copy");
  }
  const auto* sorted = reinterpret_cast<const Key*>(w + keys[0]);
  bytes = cub_bytes;
  CheckCuda(cub::DeviceSelect::If(w + cub, bytes, thrust::counting_iterator<uint32_t>(0), runs, count, n,
                                  BeginsRun<Key>{sorted, no_key}, stream),
            "cub::DeviceSelect");
  const int threads = static_cast<int>(batch.tables.size()) + 1;
  bound_tables_kernel<Key><<<(threads + 63) / 64, 64, 0, stream>>>(
      sorted, num_ids, no_key, runs, count, table_ptr, threads - 1, reinterpret_cast<uint32_t*>(w + table_runs));
  CheckLaunch("bound_tables_kernel");
}

RunView EmbeddingBagGradientCuda::Layout::View(const BagBatch& batch, char* w) const {
  RunView view{};
  view.tables = reinterpret_cast<const BagTableDevice*>(w + tables);
  view.features = reinterpret_cast<const GradFeature*>(w + grads);
  view.num_tables = static_cast<int>(batch.tables.size());
  view.keys = w + keys[0];
  view.wide_keys = wide_keys;
  view.values = reinterpret_cast<const uint32_t*>(w + values[0]);
  view.run_begin = reinterpret_cast<const uint32_t*>(w + run_begin);
  view.table_runs = reinterpret_cast<const uint32_t*>(w + table_runs);
  view.bag_scale = scaled ? reinterpret_cast<const float*>(w + bag_scale) : nullptr;
  view.bag_of_id = per_id ? reinterpret_cast<const uint32_t*>(w + bag_of_id) : nullptr;
  view.coef_of_id = per_id ? reinterpret_cast<const float*>(w + coef_of_id) : nullptr;
  view.winners = reinterpret_cast<const int32_t*>(w + winners);
  view.long_counts = reinterpret_cast<LongRunCounts*>(w + long_runs);
  view.long_runs = reinterpret_cast<LongRun*>(w + long_runs + sizeof(LongRunCounts));
  view.chunks = reinterpret_cast<RunChunk*>(w + chunks);
  view.partials = reinterpret_cast<float*>(w + partials);
  view.targets = reinterpret_cast<void**>(w + targets);
  view.max_dim = static_cast<int>(max_dim);
  return view;
}

EmbeddingBagGradientCuda::EmbeddingBagGradientCuda(const BagBatch& batch) : batch_(batch) {
  CheckBatch(batch);
  workspace_bytes_ = Layout(batch).total;
}

void EmbeddingBagGradientCuda::Sort(void* workspace, CudaStream stream_ptr) {
  workspace_ = static_cast<char*>(workspace);
  const auto stream = static_cast<cudaStream_t>(stream_ptr);
  const Layout layout(batch_);
  const size_t count = batch_.features.size();

  // Features are described in the caller's order; those of one table are found through a list.
  std::vector<DeviceFeature> features;
  std::vector<GradFeature> grads;
  std::vector<uint32_t> id_base;
  uint32_t ids = 0, bags = 0;
  for (size_t f = 0; f < count; ++f) {
    const BagFeature& from = batch_.features[f];
    features.push_back(MakeDeviceFeature(batch_, static_cast<int>(f)));
    GradFeature grad{};
    grad.grad = from.grad;
    grad.stride = static_cast<int32_t>(from.output_stride);
    grad.bag_base = bags;
    grad.table = from.table;
    grad.is_max = from.combiner == Combiner::kMax;
    grad.winner_offset = layout.winner_offset[f];
    grads.push_back(grad);
    id_base.push_back(ids);
    ids += static_cast<uint32_t>(from.num_ids);
    bags += static_cast<uint32_t>(from.num_bags);
  }
  std::vector<BagTableDevice> tables;
  int64_t rows = 0;
  for (size_t t = 0; t < batch_.tables.size(); ++t) {
    BagTableDevice table{};
    table.row_base = rows;
    table.dim = static_cast<int32_t>(batch_.tables[t].dim);
    for (size_t f = 0; f < count; ++f) {
      if (grads[f].table != static_cast<int>(t)) continue;
      table.only_feature = table.num_features++ == 0 ? static_cast<int32_t>(f) : -1;
    }
    rows += batch_.tables[t].num_rows;
    tables.push_back(table);
  }
  // The copies are from pageable memory: the driver keeps its own copy before it returns.
  const auto upload = [&](size_t offset, const void* from, size_t bytes) {
    if (bytes == 0) return;
    CheckCuda(cudaMemcpyAsync(workspace_ + offset, from, bytes, cudaMemcpyHostToDevice, stream), "cudaMemcpyAsync");
  };
  for (auto& grad : grads) grad.num_features = static_cast<int32_t>(count);
  upload(layout.features, features.data(), features.size() * sizeof(DeviceFeature));
  upload(layout.grads, grads.data(), grads.size() * sizeof(GradFeature));
  upload(layout.tables, tables.data(), tables.size() * sizeof(BagTableDevice));
  upload(layout.id_base, id_base.data(), id_base.size() * 4);
  if (layout.num_ids == 0) {
    CheckCuda(cudaMemsetAsync(workspace_ + layout.table_runs, 0, (tables.size() + 1) * 4, stream), "cudaMemsetAsync");
    CheckCuda(cudaMemsetAsync(workspace_ + layout.run_begin, 0, 4, stream), "cudaMemsetAsync");
  } else if (layout.wide_keys) {
    layout.SortAs<uint64_t>(batch_, workspace_, stream);
  } else {
    layout.SortAs<uint32_t>(batch_, workspace_, stream);
  }
}

std::vector<int64_t> EmbeddingBagGradientCuda::CountRows(CudaStream stream_ptr) const {
  const auto stream = static_cast<cudaStream_t>(stream_ptr);
  const Layout layout(batch_);
  std::vector<uint32_t> bounds(batch_.tables.size() + 1);
  CheckCuda(cudaMemcpyAsync(bounds.data(), workspace_ + layout.table_runs, bounds.size() * 4, cudaMemcpyDeviceToHost,
                            stream),
            "cudaMemcpyAsync");
  CheckCuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  std::vector<int64_t> counts;
  for (size_t t = 0; t + 1 < bounds.size(); ++t) counts.push_back(int64_t{bounds[t + 1]} - bounds[t]);
  return counts;
}

void EmbeddingBagGradientCuda::Write(const std::vector<void*>& ids, const std::vector<void*>& rows,
                                     CudaStream stream) const {
  const Layout layout(batch_);
  if (layout.num_ids == 0) return;
  WriteRuns(batch_, layout.View(batch_, workspace_), ids, rows, static_cast<cudaStream_t>(stream));
}

}  // namespace merlin
