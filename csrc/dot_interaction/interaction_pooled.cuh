// lookup_interaction on CUDA, forward, where features have several ids: pooled into shared memory, multiplied from
// there.
//
// A warp computes one sample after the other. Lane f looks after feature f: it reads the sample's ids and lists where
// their rows are. Then units of lanes, as many as embedding_bag has for a row, each pool some of the features: a unit
// goes through the rows of all its features one after the other, kRowsInFlight under way, and wherever a feature ends,
// writes its vector to shared memory, summed, scaled and rounded as embedding_bag does. The next sample's rows are
// listed while this one's vectors are multiplied. Rows of more than 32 x 16 bytes are done part after part.
#pragma once

#include "dot_interaction/interaction_forward.cuh"

namespace merlin {
namespace {

template <typename Table>
constexpr int kRowsInFlight = sizeof(Table) == 2 ? 6 : 8;  // of a unit
constexpr int kPartBytes = 512;                            // of a table's row: 16 a lane

// What a listed row is to its feature: bits of a code beside the feature's number.
constexpr int kEndsFeature = 1 << 8, kEndsWindow = 1 << 9;

struct PooledArgs {
  InteractionArgs x;
  int lanes;      // of a unit
  int listed;     // rows of a sample
  int row_bytes;  // of a vector's part in shared memory, with what keeps rows apart in its banks
  int staged_bytes;
};

// How many bytes of shared memory a warp needs, and where in them things lie.
struct PooledMemory {
  int rows, codes, vectors, staging, bytes;
};
inline PooledMemory MemoryOf(const PooledArgs& args) {
  const auto up = [](int bytes) { return (bytes + 15) / 16 * 16; };
  PooledMemory at{};
  at.codes = at.rows + up(args.listed * static_cast<int>(sizeof(char*)));
  at.vectors = at.codes + up(args.listed * static_cast<int>(sizeof(int)));
  at.staging = at.vectors + args.x.features * args.row_bytes;
  at.bytes = at.staging + args.staged_bytes;
  return at;
}

// The rows that a unit pools: [begin, end) of the list.
struct UnitRows {
  int begin, end;
};

// Writes what each listed row is to its feature, and returns this lane's place in the list and its unit's rows. Units
// take features in turns; the list has one unit's rows after the other's.
__device__ __forceinline__ UnitRows ListRows(const PooledArgs& args, int lane, int* codes, int* own_place) {
  const int units = kWarp / args.lanes, unit = lane / args.lanes;
  UnitRows own{0, 0};
  *own_place = 0;
  for (int f = 0; f < args.x.features; ++f) {
    const int hotness = args.x.place[f].ids == nullptr ? 0 : args.x.place[f].hotness;
    if (f % units < unit) own.begin += hotness;
    if (f % units <= unit) own.end += hotness;
    const bool before = f % units < lane % units || (f % units == lane % units && f < lane);
    if (before) *own_place += hotness;
  }
  if (lane < args.x.features && args.x.place[lane].ids != nullptr) {
    const int hotness = args.x.place[lane].hotness;
    for (int k = 0; k < hotness; ++k) {
      const bool ends = k + 1 == hotness, ends_window = !ends && (k + 1) % args.lanes == 0;
      codes[*own_place + k] = lane | (ends ? kEndsFeature : 0) | (ends_window ? kEndsWindow : 0);
    }
  }
  return own;
}

// Lists where this lane's feature has its rows in a sample.
__device__ __forceinline__ void FindRows(const PooledArgs& args, const RowPlace& own, int own_place, int64_t sample,
                                         const char** rows) {
  if (own.ids == nullptr || sample >= args.x.batch) return;
  for (int begin = 0; begin < own.hotness; begin += 4) {
    int64_t id[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (begin + k < own.hotness) id[k] = IdAt(args.x, own, sample * own.hotness + begin + k);
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      if (begin + k < own.hotness) rows[own_place + begin + k] = RowOf(args.x, own, id[k]);
    }
  }
}

// Pools the unit's features into `vectors` at this lane's columns of the part from `part` on.
template <typename T, typename Table>
__device__ __forceinline__ void Pool(const PooledArgs& args, UnitRows unit, int lane, int part, const char* const* rows,
                                     const int* codes, char* vectors) {
  constexpr int kPack = 16 / sizeof(Table);
  const int own_column = lane % args.lanes * kPack;
  const bool owns = part + own_column < args.x.dim;
  const int offset = owns ? (part + own_column) * static_cast<int>(sizeof(Table)) : 0;
  // Each `lanes` rows of a feature are summed first, as embedding_bag does.
  float window[kPack] = {}, total[kPack] = {}, count = 0.0f;
  for (int i = unit.begin; i < unit.end; i += kRowsInFlight<Table>) {
    Pack<Table, kPack> pack[kRowsInFlight<Table>];
    unsigned found = 0;
#pragma unroll
    for (int u = 0; u < kRowsInFlight<Table>; ++u) {
      const char* row = i + u < unit.end ? rows[i + u] : nullptr;
      if (row != nullptr) found |= 1u << u;
      pack[u] = LoadConstIf<Table, kPack>(reinterpret_cast<const Table*>(row + offset), row != nullptr && owns);
    }
#pragma unroll
    for (int u = 0; u < kRowsInFlight<Table>; ++u) {
#pragma unroll
      for (int k = 0; k < kPack; ++k) window[k] += FloatAt(pack[u], k);
      if (found >> u & 1) count += 1.0f;
      const int code = i + u < unit.end ? codes[i + u] : 0;
      if ((code & (kEndsFeature | kEndsWindow)) == 0) continue;
#pragma unroll
      for (int k = 0; k < kPack; ++k) {
        total[k] += window[k];
        window[k] = 0.0f;
      }
      if ((code & kEndsFeature) == 0) continue;
      const int feature = code & 0xff;
      const float scale = ScaleOf(args.x.place[feature].combiner, count, count);
      Pack<T, kPack> vector;
#pragma unroll
      for (int k = 0; k < kPack; ++k) {
        vector.item[k] = RoundTo<T>(total[k] * scale);
        total[k] = 0.0f;
      }
      count = 0.0f;
      Store(vector, reinterpret_cast<T*>(vectors + feature * args.row_bytes) + own_column);
    }
  }
}

// kBlockWarps: a constant, since computing with the block's size costs the 2-byte kernel a sixth of its speed
// (docs/performance.md).
template <typename T, typename Table, int kTiles, bool kExact, int kBlockWarps>
__global__ void __launch_bounds__(kBlockWarps* kWarp, (sizeof(Table) == 2 ? 4 : 3) * (kWarps / kBlockWarps))
    pooled_interaction_kernel(const __grid_constant__ PooledArgs args, T* output, PooledMemory memory) {
  constexpr int kRows = 2 * kTiles, kElements = kChunkBytes / sizeof(T), kPart = kPartBytes / sizeof(Table);
  extern __shared__ __align__(16) char shared[];
  uint16_t* const list = reinterpret_cast<uint16_t*>(shared);
  const int lane = threadIdx.x % kWarp, group = lane / 4, quad = lane % 4;
  char* const own_memory = shared + kProductListBytes<kTiles> + (threadIdx.x / kWarp) * memory.bytes;
  ListProducts<T, kTiles, kBlockWarps>(args.x, list);
  __syncthreads();
  const char** const rows = reinterpret_cast<const char**>(own_memory + memory.rows);
  int* const codes = reinterpret_cast<int*>(own_memory + memory.codes);
  char* const vectors = own_memory + memory.vectors;
  const int64_t step = int64_t{gridDim.x} * kBlockWarps;
  int64_t sample = int64_t{blockIdx.x} * kBlockWarps + threadIdx.x / kWarp;
  if (sample >= args.x.batch) return;

  // What no unit writes, the end of a chunk behind short rows, stays zero.
  for (int at = lane * 16; at < args.x.features * args.row_bytes; at += kWarp * 16) {
    *reinterpret_cast<uint4*>(vectors + at) = make_uint4(0, 0, 0, 0);
  }
  RowPlace own{};
  if (lane < args.x.features) own = args.x.place[lane];
  int own_place;
  const UnitRows unit = ListRows(args, lane, codes, &own_place);
  FindRows(args, own, own_place, sample, rows);
  __syncwarp();
  const RowPlace& first = args.x.place[0];
  for (; sample < args.x.batch; sample += step) {
    const char* const first_row = first.base + sample * first.stride;
    float total[kTiles][kRows][4] = {};
    for (int part = 0; part < args.x.dim; part += kPart) {
      const int columns = min(args.x.dim - part, kPart);
      Pool<T, Table>(args, unit, lane, part, rows, codes, vectors);
      if (first.ids == nullptr) {
        for (int column = lane * (16 / sizeof(T)); column < columns; column += kWarp * 16 / sizeof(T)) {
          *reinterpret_cast<uint4*>(vectors + column * sizeof(T)) =
              __ldg(reinterpret_cast<const uint4*>(first_row + (part + column) * sizeof(T)));
        }
      }
      __syncwarp();
      if (part + kPart >= args.x.dim) FindRows(args, own, own_place, sample + step, rows);
      for (int column = 0; column < columns; column += kElements) {
        uint4 x[1][kRows];
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
          const int feature = 8 * r + group;
          x[0][r] = feature < args.x.features
                        ? *reinterpret_cast<const uint4*>(vectors + feature * args.row_bytes +
                                                          (column + quad * (kElements / 4)) * sizeof(T))
                        : make_uint4(0, 0, 0, 0);
        }
        MultiplyChunks<T, kTiles, 1, kExact>(total, x, 1);
      }
      __syncwarp();
    }
    WriteProducts<T, kTiles>(args.x, list, total, reinterpret_cast<const T*>(first_row), output + sample * args.x.width,
                             own_memory + memory.staging, lane);
  }
}

template <typename T, typename Table, int kTiles, bool kExact, int kBlockWarps>
void LaunchPooled(const PooledArgs& args, const PooledMemory& memory, T* output, cudaStream_t stream) {
  const auto kernel = pooled_interaction_kernel<T, Table, kTiles, kExact, kBlockWarps>;
  const int shared = kProductListBytes<kTiles> + kBlockWarps * memory.bytes;
  const auto blocks =
      std::min((args.x.batch + kBlockWarps - 1) / kBlockWarps, BlocksAtOnce(kernel, kBlockWarps * kWarp, shared));
  kernel<<<static_cast<unsigned>(blocks), kBlockWarps * kWarp, shared, stream>>>(args, output, memory);
  CheckLaunch("pooled_interaction_kernel");
}

template <typename T, typename Table, int kTiles, bool kExact>
void LaunchPooled(const InteractionArgs& x, T* output, cudaStream_t stream) {
  PooledArgs args{x, 0, 0, 0, 0};
  const int bytes = std::min(x.dim * static_cast<int>(sizeof(Table)), kPartBytes);
  args.lanes = LanesFor(bytes / 16);
  for (int f = 0; f < x.features; ++f) args.listed += x.place[f].ids == nullptr ? 0 : x.place[f].hotness;
  // Whole chunks, and 64 bytes more or less than a multiple of 128: the eight lanes that read at once read two rows.
  const int vector = args.lanes * 16 / static_cast<int>(sizeof(Table)) * static_cast<int>(sizeof(T));
  args.row_bytes = (std::max(vector, kChunkBytes) + 127) / 128 * 128 + 64;
  args.staged_bytes = StagedRowBytes(x.width, sizeof(T));
  const PooledMemory memory = MemoryOf(args);
  // The largest shapes need 140 KB for four warps.
  const int wanted = kProductListBytes<kTiles> + kWarps * memory.bytes;
  wanted <= kMaxShared ? LaunchPooled<T, Table, kTiles, kExact, kWarps>(args, memory, output, stream)
                       : LaunchPooled<T, Table, kTiles, kExact, kWarps / 2>(args, memory, output, stream);
}

}  // namespace
}  // namespace merlin
