// Gradient of the tables on CUDA, as unique rows: sorted pairs (bag_pairs.cuh), numbered runs, and a walk
// (bag_walk.cuh) that writes each run's sum to the row of its number. Nothing is read back but the counts that
// CountRows asks for.
#include "embedding_bag/bag_walk.cuh"
#include "embedding_bag/embedding_bag_cuda.h"

namespace merlin {
namespace {

// What counts the runs of tables, and where results go.
struct UniqueTargets {
  const uint32_t* run_numbers;
  void* const* ids;  // of each table
  void* const* rows;
  bool ids_are_int64;
};

template <typename T>
struct UniqueRows {
  template <int kPack>
  struct Prefetched {};
  UniqueTargets to;
  T* rows = nullptr;  // of this thread's table

  __device__ __forceinline__ bool Begin(int t) {
    rows = static_cast<T*>(to.rows[t]);
    return true;
  }
  __device__ __forceinline__ bool NeedsNorm() const { return false; }
  __device__ __forceinline__ uint32_t Target(const PairTable& table, uint32_t i, uint64_t) const {
    const uint32_t before = table.pair_begin == 0 ? 0 : __ldg(to.run_numbers + table.pair_begin - 1);
    return __ldg(to.run_numbers + i) - before - 1;
  }
  template <int kPack>
  __device__ __forceinline__ void Prefetch(const PairTable&, uint32_t, int, bool, Prefetched<kPack>*) const {}
  template <int kPack>
  __device__ __forceinline__ float SquareOf(const float (&)[kPack], Prefetched<kPack>*) const {
    return 0.0f;
  }
  template <int kPack>
  __device__ __forceinline__ void Consume(const PairTable& table, uint32_t place, int column,
                                          const float (&total)[kPack], float, Prefetched<kPack>*) const {
    Pack<T, kPack> pack;
#pragma unroll
    for (int k = 0; k < kPack; ++k) pack.item[k] = RoundTo<T>(total[k]);
    T* row = rows + static_cast<int64_t>(place) * table.dim + column;
    constexpr int kStore = kPack * sizeof(T) > 16 ? kPack / 2 : kPack;
#pragma unroll
    for (int k = 0; k < kPack; k += kStore) {
      Store<T, kStore>(*reinterpret_cast<const Pack<T, kStore>*>(&pack.item[k]), row + k);
    }
  }
};

// A thread writes the id of the run that ends at its pair.
__global__ void __launch_bounds__(kWalkThreads) write_ids_kernel(PairView view, UniqueTargets to, uint32_t num_pairs) {
  const uint32_t i = blockIdx.x * kWalkThreads + threadIdx.x;
  if (i >= num_pairs) return;
  const uint64_t key = KeyAt(view, i);
  if (i + 1 < num_pairs && KeyAt(view, i + 1) == key) return;
  int low = 0, high = view.num_tables - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (i < view.tables[middle].pair_end) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  const PairTable& table = view.tables[low];
  if (key == table.no_key) return;
  const uint32_t before = table.pair_begin == 0 ? 0 : __ldg(to.run_numbers + table.pair_begin - 1);
  const uint32_t place = __ldg(to.run_numbers + i) - before - 1;
  const int64_t id = static_cast<int64_t>(key - table.row_base);
  if (to.ids_are_int64) {
    static_cast<int64_t*>(to.ids[low])[place] = id;
  } else {
    static_cast<int32_t*>(to.ids[low])[place] = static_cast<int32_t>(id);
  }
}

__global__ void count_rows_kernel(PairView view, const uint32_t* run_numbers, uint32_t* counts) {
  const int t = blockIdx.x * blockDim.x + threadIdx.x;
  if (t >= view.num_tables) return;
  const PairTable& table = view.tables[t];
  counts[t] = 0;
  if (table.pair_begin == table.pair_end) return;
  const uint32_t before = table.pair_begin == 0 ? 0 : run_numbers[table.pair_begin - 1];
  const bool has_padding = KeyAt(view, table.pair_end - 1) == table.no_key;
  counts[t] = run_numbers[table.pair_end - 1] - before - (has_padding ? 1 : 0);
}

// What this gradient keeps behind the pairs in the workspace.
struct Extra {
  size_t run_numbers, counts, targets, scan, scan_bytes, total;

  Extra(size_t num_ids, size_t num_tables) {
    size_t at = 0;
    const auto take = [&](size_t bytes) {
      const size_t here = at;
      at += (bytes + 255) / 256 * 256;
      return here;
    };
    run_numbers = take(num_ids * 4);
    counts = take(num_tables * 4);
    targets = take(2 * num_tables * sizeof(void*));
    scan_bytes = num_ids == 0 ? 1 : SortedPairs::NumberRunsBytes(static_cast<uint32_t>(num_ids));
    scan = take(scan_bytes);
    total = at;
  }
};

size_t NumIds(const BagBatch& batch) {
  size_t ids = 0;
  for (const BagFeature& feature : batch.features) ids += feature.num_bags == 0 ? 0 : feature.num_ids;
  return ids;
}

}  // namespace

// TensorFlow aligns what it allocates, and other callers pass whole arrays: rows are checked before they are written.
EmbeddingBagGradientCuda::EmbeddingBagGradientCuda(const BagBatch& batch) : batch_(batch) {
  CheckBatch(batch);
  Check(NumIds(batch) < INT32_MAX,
        "All features together must have fewer than 2^31 ids on CUDA. Received: ", NumIds(batch));
  const int bytes = SizeOf(batch.table_dtype);
  pairs_ = std::make_unique<SortedPairs>(
      batch, [&](int t, int pack) { return batch.tables[t].dim % pack == 0 && pack * bytes <= 16; }, false,
      Extra(NumIds(batch), batch.tables.size()).total);
}

EmbeddingBagGradientCuda::~EmbeddingBagGradientCuda() = default;

size_t EmbeddingBagGradientCuda::workspace_bytes() const { return pairs_->workspace_bytes(); }

void EmbeddingBagGradientCuda::Sort(void* workspace, CudaStream stream_ptr) {
  const auto stream = static_cast<cudaStream_t>(stream_ptr);
  workspace_ = workspace;
  view_ = std::make_unique<PairView>(pairs_->Sort(workspace, stream));
  const Extra extra(pairs_->num_pairs(), batch_.tables.size());
  char* at = pairs_->extra(workspace);
  auto* numbers = reinterpret_cast<uint32_t*>(at + extra.run_numbers);
  if (pairs_->num_pairs() > 0) {
    SortedPairs::NumberRuns(*view_, pairs_->num_pairs(), numbers, at + extra.scan, extra.scan_bytes, stream);
  }
  const int tables = static_cast<int>(batch_.tables.size());
  count_rows_kernel<<<(tables + 63) / 64, 64, 0, stream>>>(*view_, numbers,
                                                           reinterpret_cast<uint32_t*>(at + extra.counts));
  CheckLaunch("count_rows_kernel");
}

std::vector<int64_t> EmbeddingBagGradientCuda::CountRows(CudaStream stream_ptr) const {
  const auto stream = static_cast<cudaStream_t>(stream_ptr);
  const Extra extra(pairs_->num_pairs(), batch_.tables.size());
  std::vector<uint32_t> counts(batch_.tables.size());
  CheckCuda(cudaMemcpyAsync(counts.data(), pairs_->extra(workspace_) + extra.counts, counts.size() * 4,
                            cudaMemcpyDeviceToHost, stream),
            "cudaMemcpyAsync");
  CheckCuda(cudaStreamSynchronize(stream), "cudaStreamSynchronize");
  return std::vector<int64_t>(counts.begin(), counts.end());
}

void EmbeddingBagGradientCuda::Write(const std::vector<void*>& ids, const std::vector<void*>& rows,
                                     CudaStream stream_ptr) const {
  if (pairs_->num_pairs() == 0) return;
  const auto stream = static_cast<cudaStream_t>(stream_ptr);
  const size_t count = batch_.tables.size();
  for (size_t t = 0; t < count; ++t) {
    const int pack_bytes = pairs_->tables()[t].pack * SizeOf(batch_.table_dtype);
    Check(reinterpret_cast<uintptr_t>(rows[t]) % pack_bytes == 0, "rows of table ", t, " must be aligned to ",
          pack_bytes, " bytes");
  }
  const Extra extra(pairs_->num_pairs(), count);
  char* at = pairs_->extra(workspace_);
  std::vector<void*> pointers(ids);
  pointers.insert(pointers.end(), rows.begin(), rows.end());
  UploadThroughParameters(at + extra.targets, pointers.data(), pointers.size() * sizeof(void*), stream);
  auto* targets = reinterpret_cast<void**>(at + extra.targets);
  const UniqueTargets to{reinterpret_cast<const uint32_t*>(at + extra.run_numbers), targets, targets + count,
                         batch_.ids_are_int64};
  write_ids_kernel<<<(pairs_->num_pairs() + kWalkThreads - 1) / kWalkThreads, kWalkThreads, 0, stream>>>(
      *view_, to, pairs_->num_pairs());
  CheckLaunch("write_ids_kernel");
  DispatchTableAndOutput(batch_.table_dtype, batch_.output_dtype, [&](auto t, auto g) {
    using T = decltype(t);
    LaunchWalk<T, decltype(g), 0>(*view_, pairs_->walk_blocks(), UniqueRows<T>{to}, stream);
  });
}

}  // namespace merlin
