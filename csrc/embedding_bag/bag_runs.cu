// Sums the gradients of each run and hands the row to a consumer.
//
// reduce_runs_kernel: a warp takes tiles of 32 consecutive runs of one table. `lanes` threads own one run and `pack`
// columns each, so 32 / lanes runs are under way in a warp, kRunsInFlight times; wider rows are walked in parts.
// list_long_runs_kernel: a thread owns a run, and cuts it into chunks if it is long (reduce_runs_kernel skips those).
// sum_chunks_kernel: a warp owns a chunk; its groups of lanes take every (32 / lanes)-th pair and are added at the end.
// reduce_long_runs_kernel: a block owns a long run; its warps take every 8th chunk, in order, and are added in order.
// The order of every sum depends on the batch alone: deterministic.
#include <algorithm>

#include "embedding_bag/bag_runs.cuh"

namespace merlin {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kPairsInFlight = 4;
constexpr int kRunsInFlight = 1;  // more cost registers and were slower: docs/performance.md

// Where results go: unique ids and rows of each table.
struct RowTargets {
  void* const* ids;
  void* const* rows;
  bool ids_are_int64;
};

__device__ __forceinline__ int TableOfRun(const RunView& view, uint32_t run) {
  int low = 0, high = view.num_tables - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (run < view.table_runs[middle]) {
      high = middle - 1;
    } else {
      low = middle;
    }
  }
  return low;
}

__device__ __forceinline__ const GradFeature& FeatureOfBag(const RunView& view, const BagTableDevice& table,
                                                           uint32_t bag) {
  if (table.num_features == 1) return view.features[table.only_feature];
  int low = 0, high = view.features[0].num_features - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (bag < view.features[middle].bag_base) {
      high = middle - 1;
    } else {
      low = middle;
    }
  }
  return view.features[low];
}

// A table, and the feature that reads it where there is just one: kept in registers while its runs are summed.
struct TableOfRuns {
  BagTableDevice table;
  GradFeature feature;

  __device__ __forceinline__ TableOfRuns(const RunView& view, int t) : table(view.tables[t]) {
    feature = view.features[table.num_features == 1 ? table.only_feature : 0];
  }
};

// The gradient of the pair with `value`, at kPack columns from `column`, times its coefficient.
template <typename Grad, int kPack>
__device__ __forceinline__ void LoadPair(const RunView& view, const TableOfRuns& of, uint32_t value, int column,
                                         Pack<Grad, kPack>* pack, float* coef) {
  const uint32_t bag = view.bag_of_id ? __ldg(view.bag_of_id + value) : value;
  const GradFeature feature = of.table.num_features == 1 ? of.feature : FeatureOfBag(view, of.table, bag);
  const uint32_t own_bag = bag - feature.bag_base;
  *pack = LoadConst<Grad, kPack>(static_cast<const Grad*>(feature.grad) +
                                 static_cast<int64_t>(own_bag) * feature.stride + column);
  if (feature.is_max) {
    const int32_t own = __float_as_int(__ldg(view.coef_of_id + value));
    const int32_t* winner =
        view.winners + feature.winner_offset + static_cast<int64_t>(own_bag) * of.table.dim + column;
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      if (winner[k] != own) pack->item[k] = RoundTo<Grad>(0.0f);
    }
    *coef = 1.0f;
    return;
  }
  *coef = view.bag_scale ? __ldg(view.bag_scale + bag) : 1.0f;
  if (view.coef_of_id) *coef *= __ldg(view.coef_of_id + value);
}

// total += sum of the gradients of pairs begin, begin + step, ... below end, at kPack columns from `column`.
template <typename Grad, int kPack>
__device__ __forceinline__ void SumPairs(const RunView& view, const TableOfRuns& of, uint32_t begin, uint32_t end,
                                         uint32_t step, int column, float (&total)[kPack]) {
  for (uint32_t i = begin; i < end; i += kPairsInFlight * step) {
    Pack<Grad, kPack> pack[kPairsInFlight];
    float coef[kPairsInFlight];
#pragma unroll
    for (int u = 0; u < kPairsInFlight; ++u) {
      coef[u] = 0.0f;
      pack[u] = Pack<Grad, kPack>{};
      if (i + u * step >= end) continue;
      LoadPair<Grad, kPack>(view, of, __ldg(view.values + i + u * step), column, &pack[u], &coef[u]);
    }
#pragma unroll
    for (int u = 0; u < kPairsInFlight; ++u) {
#pragma unroll
      for (int k = 0; k < kPack; ++k) total[k] = fmaf(coef[u], AsFloat(pack[u].item[k]), total[k]);
    }
  }
}

template <typename T, int kPack>
__device__ __forceinline__ void WriteRow(const RunView& view, const RowTargets& to, int t, uint32_t run, int column,
                                         const float (&total)[kPack]) {
  const BagTableDevice& table = view.tables[t];
  const uint32_t place = run - view.table_runs[t];
  if (!to.rows[t]) return;
  if (column == 0) {
    const uint32_t pair = view.run_begin[run];
    const int64_t key = view.wide_keys ? static_cast<int64_t>(static_cast<const uint64_t*>(view.keys)[pair])
                                       : static_cast<int64_t>(static_cast<const uint32_t*>(view.keys)[pair]);
    const int64_t id = key - table.row_base;
    if (to.ids_are_int64) {
      static_cast<int64_t*>(to.ids[t])[place] = id;
    } else {
      static_cast<int32_t*>(to.ids[t])[place] = static_cast<int32_t>(id);
    }
  }
  Pack<T, kPack> pack;
#pragma unroll
  for (int k = 0; k < kPack; ++k) pack.item[k] = RoundTo<T>(total[k]);
  T* row = static_cast<T*>(to.rows[t]) + static_cast<int64_t>(place) * table.dim + column;
  constexpr int kStore = kPack * sizeof(T) > 16 ? kPack / 2 : kPack;
#pragma unroll
  for (int k = 0; k < kPack; k += kStore) {
    Store<T, kStore>(*reinterpret_cast<const Pack<T, kStore>*>(&pack.item[k]), row + k);
  }
}

__device__ __forceinline__ int LanesOf(int dim, int pack) {
  int lanes = 1;
  while (lanes < 32 && lanes * pack < dim) lanes *= 2;
  return lanes;
}

template <typename T, typename Grad, int kPack>
__global__ void __launch_bounds__(kThreads) reduce_runs_kernel(RunView view, RowTargets to) {
  const uint32_t num_runs = view.table_runs[view.num_tables];
  const int lane = threadIdx.x % 32;
  const uint32_t warp = (blockIdx.x * kThreads + threadIdx.x) / 32;
  const uint32_t num_warps = gridDim.x * kWarps;
  for (uint32_t tile = warp * 32; tile < num_runs; tile += num_warps * 32) {
    // A tile may cross tables: each run finds its own.
    for (uint32_t next = tile; next < min(tile + 32, num_runs);) {
      const int t = TableOfRun(view, next);
      const uint32_t stop = min(min(tile + 32, num_runs), view.table_runs[t + 1]);
      const TableOfRuns of(view, t);
      const int dim = of.table.dim, lanes = LanesOf(dim, kPack);
      // Each lane looks up one run of the tile; then the groups of lanes take them in turn, kRunsInFlight at a time.
      const bool mine = next + lane < stop;
      const uint32_t own_begin = mine ? __ldg(view.run_begin + next + lane) : 0;
      const uint32_t own_end = mine ? __ldg(view.run_begin + next + lane + 1) : 0;
      const uint32_t own_value = mine ? __ldg(view.values + own_begin) : 0;
      const int groups = 32 / lanes, count = static_cast<int>(stop - next);
      for (int first = 0; first < count; first += groups * kRunsInFlight) {
        uint32_t begin[kRunsInFlight], end[kRunsInFlight], value[kRunsInFlight];
#pragma unroll
        for (int u = 0; u < kRunsInFlight; ++u) {
          const int from = first + u * groups + lane / lanes;
          begin[u] = __shfl_sync(0xffffffffu, own_begin, from & 31);
          end[u] = __shfl_sync(0xffffffffu, own_end, from & 31);
          value[u] = __shfl_sync(0xffffffffu, own_value, from & 31);
          if (from >= count || end[u] - begin[u] > kLongRun) end[u] = begin[u];
        }
        for (int column = lane % lanes * kPack; column < dim; column += lanes * kPack) {
          Pack<Grad, kPack> pack[kRunsInFlight];
          float coef[kRunsInFlight];
#pragma unroll
          for (int u = 0; u < kRunsInFlight; ++u) {
            if (end[u] > begin[u]) LoadPair<Grad, kPack>(view, of, value[u], column, &pack[u], &coef[u]);
          }
#pragma unroll
          for (int u = 0; u < kRunsInFlight; ++u) {
            if (end[u] == begin[u]) continue;
            float total[kPack];
#pragma unroll
            for (int k = 0; k < kPack; ++k) total[k] = coef[u] * AsFloat(pack[u].item[k]);
            SumPairs<Grad, kPack>(view, of, begin[u] + 1, end[u], 1, column, total);
            WriteRow<T, kPack>(view, to, t, next + first + u * groups + lane / lanes, column, total);
          }
        }
      }
      next = stop;
    }
  }
}

__global__ void __launch_bounds__(kThreads) list_long_runs_kernel(RunView view) {
  const uint32_t num_runs = view.table_runs[view.num_tables];
  for (uint32_t run = blockIdx.x * kThreads + threadIdx.x; run < num_runs; run += gridDim.x * kThreads) {
    const uint32_t begin = view.run_begin[run], end = view.run_begin[run + 1];
    if (end - begin <= kLongRun) continue;
    const uint32_t count = (end - begin + kChunk - 1) / kChunk;
    const uint32_t first = atomicAdd(&view.long_counts->chunks, count);
    const uint32_t table = TableOfRun(view, run);
    view.long_runs[atomicAdd(&view.long_counts->runs, 1)] = {run, first, count, table};
    for (uint32_t c = 0; c < count; ++c) {
      view.chunks[first + c] = {begin + c * kChunk, min(end, begin + (c + 1) * kChunk), table};
    }
  }
}

template <typename Grad, int kPack>
__global__ void __launch_bounds__(kThreads) sum_chunks_kernel(RunView view) {
  const uint32_t num_chunks = view.long_counts->chunks;
  const int lane = threadIdx.x % 32;
  for (uint32_t c = (blockIdx.x * kThreads + threadIdx.x) / 32; c < num_chunks; c += gridDim.x * kWarps) {
    const RunChunk chunk = view.chunks[c];
    const TableOfRuns of(view, chunk.table);
    const BagTableDevice& table = of.table;
    const int lanes = LanesOf(table.dim, kPack), groups = 32 / lanes;
    for (int part = 0; part < table.dim; part += lanes * kPack) {
      const int column = part + lane % lanes * kPack;
      float total[kPack] = {};
      if (column < table.dim) {
        SumPairs<Grad, kPack>(view, of, chunk.begin + lane / lanes, chunk.end, groups, column, total);
      }
      for (int step = lanes; step < 32; step *= 2) {
#pragma unroll
        for (int k = 0; k < kPack; ++k) total[k] += __shfl_xor_sync(0xffffffffu, total[k], step);
      }
      if (lane >= lanes || column >= table.dim) continue;
      float* partial = view.partials + static_cast<int64_t>(c) * view.max_dim + column;
#pragma unroll
      for (int k = 0; k < kPack; ++k) partial[k] = total[k];
    }
  }
}

template <typename T, int kPack>
__global__ void __launch_bounds__(kThreads) reduce_long_runs_kernel(RunView view, RowTargets to) {
  __shared__ float sums[kWarps][32 * kPack];
  const uint32_t num_runs = view.long_counts->runs;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (uint32_t i = blockIdx.x; i < num_runs; i += gridDim.x) {
    const LongRun run = view.long_runs[i];
    const int dim = view.tables[run.table].dim;
    for (int part = 0; part < dim; part += 32 * kPack) {
      const int column = part + lane * kPack;
      float total[kPack] = {};
      for (uint32_t c = warp; column < dim && c < run.num_chunks; c += kWarps) {
        const float* partial = view.partials + static_cast<int64_t>(run.first_chunk + c) * view.max_dim + column;
#pragma unroll
        for (int k = 0; k < kPack; ++k) total[k] += partial[k];
      }
      __syncthreads();  // the last part's sums have been read
#pragma unroll
      for (int k = 0; k < kPack; ++k) sums[warp][lane * kPack + k] = total[k];
      __syncthreads();
      if (warp != 0 || column >= dim) continue;
      for (int other = 1; other < kWarps; ++other) {
#pragma unroll
        for (int k = 0; k < kPack; ++k) total[k] += sums[other][lane * kPack + k];
      }
      WriteRow<T, kPack>(view, to, run.table, run.run, column, total);
    }
  }
}

int BlocksToFillDevice() {
  int device, processors;
  CheckCuda(cudaGetDevice(&device), "cudaGetDevice");
  CheckCuda(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  return processors * (2048 / kThreads);
}

// Elements that a thread may move at once in every table and feature of the batch: the whole launch uses one size.
int PackOfBatch(const BagBatch& batch, const std::vector<void*>& rows) {
  const int grad_bytes = SizeOf(batch.output_dtype), row_bytes = SizeOf(batch.table_dtype);
  int pack = 16 / std::max(grad_bytes, row_bytes);
  const auto fit = [&](const void* pointer, int64_t stride, int64_t dim, int bytes) {
    const auto fits = [&] {
      return dim % pack == 0 && stride % pack == 0 && reinterpret_cast<uintptr_t>(pointer) % (pack * bytes) == 0;
    };
    while (pack > 1 && !fits()) pack /= 2;
  };
  for (const BagFeature& f : batch.features) fit(f.grad, f.output_stride, batch.tables[f.table].dim, grad_bytes);
  for (size_t t = 0; t < rows.size(); ++t) fit(rows[t], batch.tables[t].dim, batch.tables[t].dim, row_bytes);
  return pack;
}

}  // namespace

void WriteRuns(const BagBatch& batch, const RunView& view, const std::vector<void*>& ids,
               const std::vector<void*>& rows, cudaStream_t stream) {
  const size_t count = batch.tables.size();
  std::vector<void*> pointers(ids);
  pointers.insert(pointers.end(), rows.begin(), rows.end());
  CheckCuda(
      cudaMemcpyAsync(view.targets, pointers.data(), pointers.size() * sizeof(void*), cudaMemcpyHostToDevice, stream),
      "cudaMemcpyAsync");
  const RowTargets to{view.targets, view.targets + count, batch.ids_are_int64};
  CheckCuda(cudaMemsetAsync(view.long_counts, 0, sizeof(LongRunCounts), stream), "cudaMemsetAsync");
  const int blocks = BlocksToFillDevice(), pack = PackOfBatch(batch, rows);
  list_long_runs_kernel<<<blocks, kThreads, 0, stream>>>(view);
  CheckLaunch("list_long_runs_kernel");
  DispatchTableAndOutput(batch.table_dtype, batch.output_dtype, [&](auto t, auto g) {
    using T = decltype(t);
    using Grad = decltype(g);
    const auto launch = [&](auto pack_constant) {
      constexpr int kPack = decltype(pack_constant)::value;
      sum_chunks_kernel<Grad, kPack><<<blocks, kThreads, 0, stream>>>(view);
      CheckLaunch("sum_chunks_kernel");
      reduce_runs_kernel<T, Grad, kPack><<<blocks, kThreads, 0, stream>>>(view, to);
      CheckLaunch("reduce_runs_kernel");
      reduce_long_runs_kernel<T, kPack><<<blocks / 8, kThreads, 0, stream>>>(view, to);
      CheckLaunch("reduce_long_runs_kernel");
    };
    constexpr int kWide = 16 / (sizeof(T) > sizeof(Grad) ? sizeof(T) : sizeof(Grad));
    if (pack == kWide) {
      launch(std::integral_constant<int, kWide>{});
    } else {
      launch(std::integral_constant<int, 1>{});
    }
  });
}

}  // namespace merlin
