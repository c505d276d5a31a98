// Gradient of the tables on CUDA, as unique rows.
//
//   1. list:    every id becomes (key, value): key = its row among all tables' rows, value = its bag (or its position,
//               where ids have coefficients of their own). Padding and bad ids get the largest key.
//   2. sort:    one radix sort of all pairs, by the bits that the keys need. Stable, so a row keeps the input's order.
//   3. runs:    the first pair of each distinct key (CUB select), then for each table the range of its runs.
//   4. reduce:  a run's gradients are summed in order by `lanes` threads. Runs longer than kLongRun are cut into chunks
//               that many blocks sum; one block adds the chunks, in order.
// No float atomics: the result is the same in every run. Nothing is read back but the counts that CountRows asks for.
#include <thrust/iterator/counting_iterator.h>

#include <algorithm>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_select.cuh>
#include <numeric>

#include "embedding_bag/bag_device.cuh"
#include "embedding_bag/bag_runs.cuh"
#include "embedding_bag/embedding_bag_cuda.h"

namespace merlin {
namespace {

constexpr int kThreads = 256;

// Where list_pairs_kernel writes; null pointers for what the batch does not need.
template <typename Key>
struct PairTargets {
  Key* keys;
  uint32_t* values;
  float* bag_scale;
  uint32_t* bag_of_id;
  float* coef_of_id;
  Key no_key;
};

constexpr int kListLanes = 8;

// All features in one launch; a block has one feature. Dense features whose pairs need no coefficients: a thread owns
// one id. Others: kListLanes lanes own one bag.
template <typename Id, typename Key>
__global__ void __launch_bounds__(kThreads)
    list_pairs_kernel(const DeviceFeature* features, const GradFeature* grads, int num_features,
                      const uint32_t* id_base, const BagTableDevice* tables, PairTargets<Key> to,
                      volatile unsigned long long* note) {
  int f = 0;
  for (int high = num_features - 1; f < high;) {
    const int middle = (f + high) / 2;
    if (blockIdx.x < features[middle].block_end) {
      high = middle;
    } else {
      f = middle + 1;
    }
  }
  const DeviceFeature& feature = features[f];
  const GradFeature& grad = grads[f];
  const int64_t thread =
      static_cast<int64_t>(blockIdx.x - (f == 0 ? 0 : features[f - 1].block_end)) * kThreads + threadIdx.x;
  const Key row_base = static_cast<Key>(tables[grad.table].row_base);
  if (!feature.row_splits && !to.bag_scale && !to.coef_of_id) {
    if (thread >= feature.num_ids) return;
    const int64_t row = RowAt<Id>(feature, thread, note);
    to.keys[id_base[f] + thread] = row == kNoRow ? to.no_key : row_base + static_cast<Key>(row);
    to.values[id_base[f] + thread] = grad.bag_base + static_cast<uint32_t>(thread) / feature.ids_a_bag;
    return;
  }
  const int64_t bag = thread / kListLanes;
  if (bag >= feature.num_bags) return;
  const int lane = threadIdx.x % kListLanes;
  const unsigned mask = 0xffu << (threadIdx.x % 32 / kListLanes * kListLanes);
  const BagRange range = RangeOfBag(feature, static_cast<uint32_t>(bag), note);
  const bool is_max = feature.combiner == static_cast<int>(Combiner::kMax);
  const uint32_t global_bag = grad.bag_base + static_cast<uint32_t>(bag);
  float sum = 0.0f, sum_of_squares = 0.0f;
  int32_t place = 0;  // among the bag's rows
  for (int64_t base = range.begin; base < range.end; base += kListLanes) {
    const int64_t p = base + lane;
    const int64_t row = p < range.end ? RowAt<Id>(feature, p, note) : kNoRow;
    const unsigned present = __ballot_sync(mask, row != kNoRow) & mask;
    if (p < range.end) {
      const uint32_t position = id_base[f] + static_cast<uint32_t>(p);
      to.keys[position] = row == kNoRow ? to.no_key : row_base + static_cast<Key>(row);
      to.values[position] = to.coef_of_id ? position : global_bag;
      const float weight = row == kNoRow ? 0.0f : feature.weights ? __ldg(feature.weights + p) : 1.0f;
      sum += weight;
      sum_of_squares += weight * weight;
      if (to.coef_of_id) {
        to.bag_of_id[position] = global_bag;
        const int before = __popc(present & ((1u << (threadIdx.x % 32)) - 1));
        to.coef_of_id[position] = is_max ? __int_as_float(place + before) : weight;
      }
    }
    place += __popc(present);
  }
  for (int step = kListLanes / 2; step > 0; step /= 2) {
    sum += __shfl_xor_sync(mask, sum, step, kListLanes);
    sum_of_squares += __shfl_xor_sync(mask, sum_of_squares, step, kListLanes);
  }
  if (lane == 0 && to.bag_scale) to.bag_scale[global_bag] = ScaleOf(feature.combiner, sum, sum_of_squares);
}

// Blocks of list_pairs_kernel for one feature.
int64_t ListBlocks(const BagFeature& feature, bool needs_bags) {
  const int64_t threads = feature.row_splits || needs_bags ? feature.num_bags * kListLanes : feature.num_ids;
  return (threads + kThreads - 1) / kThreads;
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
  __device__ bool operator()(uint32_t i) const { return keys[i] < no_key && (i == 0 || keys[i - 1] != keys[i]); }
};

// The first index in [0, count) for which below(index) is false, or count. A whole warp searches: 32 probes a step.
template <typename Below>
__device__ __forceinline__ uint32_t FirstNotBelow(uint32_t count, Below&& below) {
  const int lane = threadIdx.x % 32;
  uint32_t low = 0, high = count;  // the answer is in [low, high]
  while (low < high) {
    const uint32_t step = (high - low + 31) / 32, probe = low + lane * step;
    const unsigned passed = __ballot_sync(0xffffffffu, probe < high && below(probe));
    if (passed == 0) return low;
    const uint32_t last = low + (31 - __clz(passed)) * step;  // the last probe that is below
    low = last + 1;
    high = min(high, last + step);
  }
  return low;
}

// Warp t finds the first run of table t; the last warp the end of the last run, one behind the pairs with a real key.
template <typename Key>
__global__ void bound_tables_kernel(const Key* keys, uint32_t num_pairs, Key no_key, uint32_t* run_begin,
                                    const uint32_t* num_runs_ptr, const BagTableDevice* tables, int num_tables,
                                    uint32_t* table_runs) {
  const uint32_t num_runs = *num_runs_ptr;
  const int t = (blockIdx.x * blockDim.x + threadIdx.x) / 32;
  if (t > num_tables) return;
  uint32_t found = num_runs;
  if (t == num_tables) {
    const uint32_t end = FirstNotBelow(num_pairs, [&](uint32_t i) { return keys[i] < no_key; });
    if (threadIdx.x % 32 == 0) run_begin[num_runs] = end;
  } else {
    const Key base = static_cast<Key>(tables[t].row_base);
    found = FirstNotBelow(num_runs, [&](uint32_t i) { return keys[run_begin[i]] < base; });
  }
  if (threadIdx.x % 32 == 0) table_runs[t] = found;
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
  int SortAs(const BagBatch& batch, char* at_ptr, cudaStream_t stream) const;
  RunView View(const BagBatch& batch, char* at_ptr, int sorted_buffer) const;
};

// Returns which of the two buffers has the sorted pairs.
template <typename Key>
int EmbeddingBagGradientCuda::Layout::SortAs(const BagBatch& batch, char* w, cudaStream_t stream) const {
  volatile unsigned long long* note = DeviceNote();
  const Key no_key = static_cast<Key>(num_rows);
  const auto* feature_ptr = reinterpret_cast<const DeviceFeature*>(w + features);
  const auto* grad_ptr = reinterpret_cast<const GradFeature*>(w + grads);
  const auto* table_ptr = reinterpret_cast<const BagTableDevice*>(w + tables);
  size_t before = 0;
  int64_t blocks = 0;
  for (const BagFeature& feature : batch.features) {
    // Ids outside every bag, which only broken row_splits leave, must not keep garbage keys.
    if (feature.row_splits && feature.num_ids > 0) {
      CheckCuda(
          cudaMemsetAsync(reinterpret_cast<Key*>(w + keys[0]) + before, 0xff, feature.num_ids * sizeof(Key), stream),
          "cudaMemsetAsync");
    }
    before += feature.num_ids;
    blocks += ListBlocks(feature, scaled || per_id);
  }
  const PairTargets<Key> to{reinterpret_cast<Key*>(w + keys[0]),
                            reinterpret_cast<uint32_t*>(w + values[0]),
                            scaled ? reinterpret_cast<float*>(w + bag_scale) : nullptr,
                            per_id ? reinterpret_cast<uint32_t*>(w + bag_of_id) : nullptr,
                            per_id ? reinterpret_cast<float*>(w + coef_of_id) : nullptr,
                            no_key};
  const auto list = [&](auto id) {
    list_pairs_kernel<decltype(id), Key><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(
        feature_ptr, grad_ptr, static_cast<int>(batch.features.size()), reinterpret_cast<const uint32_t*>(w + id_base),
        table_ptr, to, note);
  };
  batch.ids_are_int64 ? list(int64_t{}) : list(int32_t{});
  CheckLaunch("list_pairs_kernel");
  for (size_t f = 0; f < batch.features.size(); ++f) {
    const BagFeature& feature = batch.features[f];
    if (feature.combiner != Combiner::kMax) continue;
    const int64_t cells = feature.num_bags * batch.tables[feature.table].dim;
    if (cells == 0) continue;
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
  const Key* sorted = k.Current();
  bytes = cub_bytes;
  CheckCuda(cub::DeviceSelect::If(w + cub, bytes, thrust::counting_iterator<uint32_t>(0), runs, count, n,
                                  BeginsRun<Key>{sorted, no_key}, stream),
            "cub::DeviceSelect");
  const int warps = static_cast<int>(batch.tables.size()) + 1;
  bound_tables_kernel<Key><<<(warps + 3) / 4, 128, 0, stream>>>(sorted, num_ids, no_key, runs, count, table_ptr,
                                                                warps - 1, reinterpret_cast<uint32_t*>(w + table_runs));
  CheckLaunch("bound_tables_kernel");
  return k.selector;
}

RunView EmbeddingBagGradientCuda::Layout::View(const BagBatch& batch, char* w, int sorted_buffer) const {
  RunView view{};
  view.tables = reinterpret_cast<const BagTableDevice*>(w + tables);
  view.features = reinterpret_cast<const GradFeature*>(w + grads);
  view.num_tables = static_cast<int>(batch.tables.size());
  view.keys = w + keys[sorted_buffer];
  view.wide_keys = wide_keys;
  view.values = reinterpret_cast<const uint32_t*>(w + values[sorted_buffer]);
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
  int64_t blocks = 0;
  for (size_t f = 0; f < count; ++f) {
    const BagFeature& from = batch_.features[f];
    features.push_back(MakeDeviceFeature(batch_, static_cast<int>(f)));
    blocks += ListBlocks(from, layout.scaled || layout.per_id);
    Check(blocks <= INT32_MAX, "All features together must need fewer than 2^31 blocks. Received: ", blocks);
    features.back().block_end = static_cast<uint32_t>(blocks);
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
    sorted_buffer_ = layout.SortAs<uint64_t>(batch_, workspace_, stream);
  } else {
    sorted_buffer_ = layout.SortAs<uint32_t>(batch_, workspace_, stream);
  }
}

std::vector<int64_t> EmbeddingBagGradientCuda::CountRows(CudaStream stream_ptr) const {
  const auto stream = static_cast<cudaStream_t>(stream_ptr);
  const Layout layout(batch_);
  std::vector<uint32_t> bounds(batch_.tables.size() + 1);
  CheckCuda(
      cudaMemcpyAsync(bounds.data(), workspace_ + layout.table_runs, bounds.size() * 4, cudaMemcpyDeviceToHost, stream),
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
  WriteRuns(batch_, layout.View(batch_, workspace_, sorted_buffer_), ids, rows, static_cast<cudaStream_t>(stream));
}

}  // namespace merlin
