// Walks over sorted pairs: sums the gradients of each run (the pairs of one key) and hands the sum to a consumer.
//
// A unit of `lanes` threads owns a tile of `tile` pairs of one table and `pack` columns a thread. A run belongs to the
// tile in which it begins: its unit follows it past the tile's end. Unless the run covers the next tile as a whole:
// then every tile that it touches leaves a partial sum, and finish_runs_kernel, a block a run, adds them. So no unit
// walks over more than two tiles of pairs, however hot a row is. A unit reads keys and values of `lanes` pairs at once,
// one a lane; then it loads the gradients of kPairs pairs, with the rows whose runs end there, before it uses any of
// them (see FromZerosUnless). All sums are added in an order that depends on the batch alone: deterministic.
//
// A consumer has
//   bool Begin(int t)                         called once a thread, for its table; false: there is nothing to do
//   Prefetched<kPack>                         what it loads of a row before the row's sum is known
//   uint32_t Target(table, i, key)            what it must know of the run that ends with pair i
//   void Prefetch(table, target, column, wanted, Prefetched*)   reads nothing unless wanted
//   void Consume(table, target, column, total, norm, Prefetched*)   norm: sum over the columns of SquareOf, if
//   NeedsNorm bool NeedsNorm(), float SquareOf(total, Prefetched*)
#pragma once

#include "embedding_bag/bag_pairs.cuh"

namespace merlin {
namespace {

constexpr int kFinishThreads = 512;
constexpr int kTilesOfWarp = 48;  // longer runs are finished by a block

// Lanes that share a row, and this thread's place among them.
struct RowUnit {
  unsigned mask;
  int lanes, lane, shift;  // shift: of the unit's bits in a warp's ballot
};

// kLanes: how many there are where that is known, so that masks are constants; 0: as the table says.
template <int kLanes>
__device__ __forceinline__ RowUnit UnitOf(int lanes) {
  RowUnit unit;
  if (kLanes) lanes = kLanes;
  unit.lanes = lanes;
  unit.lane = threadIdx.x % lanes;
  unit.shift = threadIdx.x % 32 / lanes * lanes;
  unit.mask = lanes == 32 ? 0xffffffffu : ((1u << lanes) - 1) << unit.shift;
  return unit;
}
__device__ __forceinline__ unsigned BitsWhere(const RowUnit& unit, bool condition) {
  return (__ballot_sync(unit.mask, condition) & unit.mask) >> unit.shift;
}
__device__ __forceinline__ unsigned LowBits(int count) { return count >= 32 ? 0xffffffffu : (1u << count) - 1; }
template <typename P>
__device__ __forceinline__ P* ShuffleAddress(const RowUnit& unit, P* pointer, int from) {
  return reinterpret_cast<P*>(__shfl_sync(unit.mask, reinterpret_cast<unsigned long long>(pointer), from, unit.lanes));
}

// Sums each of the values over the lanes, all together: one after the other they cost as much as loads.
template <int kCount>
__device__ __forceinline__ void SumOverLanes(const RowUnit& unit, float (&values)[kCount]) {
  for (int step = unit.lanes / 2; step > 0; step /= 2) {
#pragma unroll
    for (int u = 0; u < kCount; ++u) values[u] += __shfl_xor_sync(unit.mask, values[u], step, unit.lanes);
  }
  __syncwarp(unit.mask);  // what the lanes read before comes before what they write afterwards
}

__device__ __forceinline__ void PrefetchL2(const void* from) { asm volatile("prefetch.global.L2 [%0];" ::"l"(from)); }

__device__ __forceinline__ uint64_t KeyAt(const PairView& view, uint32_t i) {
  return view.wide_keys ? __ldg(static_cast<const unsigned long long*>(view.keys) + i)
                        : __ldg(static_cast<const uint32_t*>(view.keys) + i);
}

__device__ __forceinline__ int FeatureOfBag(const PairView& view, const PairTable& table, uint32_t bag) {
  if (table.only_feature >= 0) return table.only_feature;
  int low = 0, high = view.num_features - 1;
  while (low < high) {
    const int middle = (low + high + 1) / 2;
    if (bag < view.features[middle].bag_base) {
      high = middle - 1;
    } else {
      low = middle;
    }
  }
  return low;
}

// Where the gradient of a pair lies and what it is multiplied by.
template <typename Grad>
struct PairGradient {
  const Grad* row;
  float coef;
  const int32_t* winner;  // max: which of the bag's rows won each column; else null
  int32_t place;          // max: this pair's

  __device__ __forceinline__ void Find(const PairView& view, const PairTable& table, uint32_t i) {
    const uint32_t value = __ldg(view.values + i);
    const uint32_t bag = view.bag_of_id ? __ldg(view.bag_of_id + value) : value;
    const GradFeature& feature = view.features[FeatureOfBag(view, table, bag)];
    const int64_t own_bag = bag - feature.bag_base;
    row = static_cast<const Grad*>(feature.grad) + own_bag * feature.stride;
    coef = view.bag_scale ? __ldg(view.bag_scale + bag) : 1.0f;
    winner = nullptr;
    place = 0;
    if (!view.coef_of_id) return;
    const float own = __ldg(view.coef_of_id + value);
    if (feature.is_max) {
      winner = view.winners + feature.winner_offset + own_bag * table.dim;
      place = __float_as_int(own);
      coef = 1.0f;
    } else {
      coef *= own;
    }
  }
};

// The gradient of pair j of the window, at kPack columns; kGeneral: with coefficients and max features.
template <typename Grad, int kPack, bool kGeneral>
__device__ __forceinline__ void LoadPair(const RowUnit& unit, const PairGradient<Grad>& own, bool has_max, int j,
                                         bool wanted, int column, Pack<Grad, kPack>* pack, float* coef) {
  const Grad* row = ShuffleAddress(unit, own.row, j);
  *pack = LoadConstIf<Grad, kPack>(row + column, wanted);
  *coef = kGeneral ? __shfl_sync(unit.mask, own.coef, j, unit.lanes) : 1.0f;
  if (!kGeneral || !has_max) return;
  const int32_t* winner = ShuffleAddress(unit, own.winner, j);
  const int32_t place = __shfl_sync(unit.mask, own.place, j, unit.lanes);
  if (!winner || !wanted) return;
#pragma unroll
  for (int k = 0; k < kPack; ++k) {
    if (winner[column + k] != place) pack->item[k] = RoundTo<Grad>(0.0f);
  }
}

__device__ __forceinline__ float* PartialOf(const PairView& view, const PairTable& table, uint32_t tile, int side) {
  const int width = (table.dim + 3) / 4 * 4;
  return view.partials + static_cast<int64_t>(table.partial_begin) * 4 +
         (static_cast<int64_t>(tile) * 2 + side) * width;
}

// The pairs of a tile's unit: runs [begin, end) to consume, and the parts of long runs that leave partial sums.
struct TileRanges {
  uint32_t begin, end;
  uint32_t part_begin[2], part_end[2];  // of a run that began earlier, of a run that goes on
};

// The first position in [from, to) whose pair ends its run, one behind it; or `to`. All lanes of the unit search.
__device__ __forceinline__ uint32_t BehindRun(const PairView& view, const RowUnit& unit, uint32_t from, uint32_t to,
                                              uint32_t pairs_end) {
  for (uint32_t base = from; base < to; base += unit.lanes) {
    const uint32_t p = base + unit.lane;
    const bool ends = p < to && (p + 1 == pairs_end || KeyAt(view, p + 1) != KeyAt(view, p));
    const unsigned found = BitsWhere(unit, ends);
    if (found) return base + __ffs(found);
  }
  return to;
}

// False: the tile has padding only.
__device__ __forceinline__ bool RangesOfTile(const PairView& view, const PairTable& table, const RowUnit& unit,
                                             uint32_t number, TileRanges* ranges) {
  const uint32_t tile = view.tile;
  const uint32_t begin = table.pair_begin + number * tile, end = min(begin + tile, table.pair_end);
  const uint64_t first_key = KeyAt(view, begin), last_key = KeyAt(view, end - 1);
  if (first_key == table.no_key) return false;
  const uint64_t key_before = begin == table.pair_begin ? table.no_key : KeyAt(view, begin - 1);
  const uint64_t key_behind = end == table.pair_end ? table.no_key : KeyAt(view, end);
  const uint64_t tile_before = begin - table.pair_begin > tile ? KeyAt(view, begin - tile - 1) : table.no_key;
  const uint64_t tile_behind = KeyAt(view, min(end + tile, table.pair_end) - 1);
  const bool starts_earlier = key_before == first_key, whole = last_key == first_key;
  const bool goes_on = key_behind == last_key && last_key != table.no_key;
  const bool head_long = starts_earlier && (whole || tile_before == first_key);
  const bool cut = goes_on && ((starts_earlier && whole) || tile_behind == last_key);

  ranges->part_begin[0] = ranges->part_end[0] = begin;
  ranges->part_begin[1] = ranges->part_end[1] = end;
  ranges->begin = begin;
  ranges->end = end;
  if (starts_earlier) {
    ranges->begin = whole ? end : BehindRun(view, unit, begin, end, table.pair_end);
    if (head_long) ranges->part_end[0] = ranges->begin;
  }
  if (last_key == table.no_key) {
    // Padding stands at the end: the last real pair is the last one that ends a run before it.
    uint32_t last = ranges->begin;
    for (uint32_t base = begin; base < end; base += unit.lanes) {
      const uint32_t p = base + unit.lane;
      const unsigned real = BitsWhere(unit, p < end && KeyAt(view, p) != table.no_key);
      if (real) last = max(last, base + 32 - __clz(real));
    }
    ranges->end = last;
  } else if (goes_on && !cut && ranges->begin < end) {
    ranges->end = BehindRun(view, unit, end, min(end + tile, table.pair_end), table.pair_end);
  } else if (cut && ranges->begin < end) {
    // The run that goes on begins behind the last end of a run.
    uint32_t start = ranges->begin;
    for (uint32_t base = ranges->begin; base + 1 < end; base += unit.lanes) {
      const uint32_t p = base + unit.lane;
      const unsigned ends = BitsWhere(unit, p + 1 < end && KeyAt(view, p + 1) != KeyAt(view, p));
      if (ends) start = base + 32 - __clz(ends);
    }
    ranges->end = ranges->part_begin[1] = start;
  }
  return true;
}

// A partial sum: of the pairs [begin, end), all of one run.
template <typename Grad, int kPack, bool kGeneral>
__device__ void SumPart(const PairView& view, const PairTable& table, const RowUnit& unit, uint32_t begin, uint32_t end,
                        int column, float* partial) {
  constexpr int kInFlight = 8;
  const bool owns = column < table.dim;
  float total[kPack] = {};
  for (uint32_t base = begin; base < end; base += unit.lanes) {
    PairGradient<Grad> own{};
    if (base + unit.lane < end) own.Find(view, table, base + unit.lane);
    const int count = static_cast<int>(min(end - base, static_cast<uint32_t>(unit.lanes)));
    // A hot row may stand several times in a bag: its pairs follow each other, and their gradient is read once.
    unsigned todo = LowBits(count);
    if (!kGeneral) {
      const Grad* before = reinterpret_cast<const Grad*>(
          __shfl_up_sync(unit.mask, reinterpret_cast<unsigned long long>(own.row), 1, unit.lanes));
      todo &= BitsWhere(unit, unit.lane == 0 || before != own.row);
    }
    while (todo) {
      Pack<Grad, kPack> pack[kInFlight];
      float coef[kInFlight];
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        const bool any = todo != 0;
        const int j = any ? __ffs(todo) - 1 : 0;
        todo &= todo - 1;
        LoadPair<Grad, kPack, kGeneral>(unit, own, table.has_max, j, owns && any, column, &pack[u], &coef[u]);
        if (!kGeneral) coef[u] = static_cast<float>((todo ? __ffs(todo) - 1 : count) - j);
      }
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
#pragma unroll
        for (int k = 0; k < kPack; ++k) total[k] = fmaf(coef[u], FloatAt(pack[u], k), total[k]);
      }
    }
  }
  if (!owns) return;
#pragma unroll
  for (int k = 0; k < kPack; ++k) partial[column + k] = total[k];
}

// The runs [begin, end), at this thread's columns. kNorms: only notes each run's sum of squares in view.norms.
template <typename Grad, int kPack, int kPairs, bool kGeneral, bool kNorms, typename Consumer>
__device__ __forceinline__ void WalkRuns(const PairView& view, const PairTable& table, const RowUnit& unit,
                                         uint32_t begin, uint32_t end, int part, int column, bool norms_known,
                                         Consumer& consumer) {
  const bool owns = column < table.dim;
  const bool norms_here = kNorms || (consumer.NeedsNorm() && !norms_known);
  float total[kPack] = {};
  for (uint32_t base = begin; base < end; base += unit.lanes) {
    const uint32_t p = base + unit.lane;
    PairGradient<Grad> own{};
    uint32_t own_target = 0;
    bool own_ends = false;
    if (p < end) {
      const uint64_t key = KeyAt(view, p);
      own_ends = p + 1 == end || KeyAt(view, p + 1) != key;
      own.Find(view, table, p);
      if (own_ends) own_target = consumer.Target(table, p, key);
    }
    const unsigned ends = BitsWhere(unit, own_ends);
    const int count = static_cast<int>(min(end - base, static_cast<uint32_t>(unit.lanes)));
    for (int i = 0; i < count; i += kPairs) {
      Pack<Grad, kPack> pack[kPairs];
      typename Consumer::template Prefetched<kPack> fetched[kPairs];
      float coef[kPairs];
#pragma unroll
      for (int u = 0; u < kPairs; ++u) {
        const int j = min(i + u, count - 1);
        LoadPair<Grad, kPack, kGeneral>(unit, own, table.has_max, j, owns && i + u < count, column, &pack[u], &coef[u]);
        const uint32_t target = __shfl_sync(unit.mask, own_target, j, unit.lanes);
        consumer.Prefetch(table, target, column, i + u < count && (ends >> j & 1) && owns, &fetched[u]);
      }
      // After pair u; runs that end there leave zeros for the next.
      const auto add = [&](int u, float(&sum)[kPack]) {
        const bool run_ends = i + u < count && (ends >> (i + u) & 1);
#pragma unroll
        for (int k = 0; k < kPack; ++k) {
          sum[k] = fmaf(coef[u], FloatAt(pack[u], k), total[k]);
          total[k] = run_ends ? 0.0f : sum[k];
        }
        return run_ends;
      };
      const auto consume = [&](int u, const float(&sum)[kPack], float norm) {
        const uint32_t target = __shfl_sync(unit.mask, own_target, i + u, unit.lanes);
        if (owns) consumer.Consume(table, target, column, sum, norm, &fetched[u]);
      };
      if (!norms_here) {
#pragma unroll
        for (int u = 0; u < kPairs; ++u) {
          float sum[kPack];
          if (add(u, sum)) consume(u, sum, norms_known ? view.norms[base + i + u] : 0.0f);
        }
        continue;
      }
      float sum[kPairs][kPack], norm[kPairs];
#pragma unroll
      for (int u = 0; u < kPairs; ++u) {
        add(u, sum[u]);
        norm[u] = owns ? consumer.SquareOf(sum[u], &fetched[u]) : 0.0f;
      }
      SumOverLanes(unit, norm);
#pragma unroll
      for (int u = 0; u < kPairs; ++u) {
        if (i + u >= count || !(ends >> (i + u) & 1)) continue;
        if (!kNorms) {
          consume(u, sum[u], norm[u]);
        } else if (unit.lane == 0) {
          view.norms[base + i + u] = part == 0 ? norm[u] : view.norms[base + i + u] + norm[u];
        }
      }
    }
  }
  if (kNorms) __syncwarp(unit.mask);
}

__device__ __forceinline__ int TableOfBlock(const PairView& view, uint32_t block) {
  int low = 0, high = view.num_tables - 1;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (block < view.tables[middle].block_end) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return low;
}

template <typename Grad, int kPack, int kLanes, int kPairs, bool kGeneral, typename Consumer>
__device__ __forceinline__ void WalkBlock(const PairView& view, int t, const PairTable& table, uint32_t block,
                                          Consumer& consumer) {
  const RowUnit unit = UnitOf<kLanes>(table.lanes);
  const uint32_t number = block * (kWalkThreads / unit.lanes) + threadIdx.x / unit.lanes;
  if (number >= (table.pair_end - table.pair_begin + view.tile - 1) / view.tile) return;
  TileRanges ranges;
  // The pairs' bags will be needed as soon as the runs are known.
  for (uint32_t i = unit.lane * 8; i < view.tile; i += unit.lanes * 8) {
    PrefetchL2(view.values + min(table.pair_begin + number * view.tile + i, table.pair_end - 1));
  }
  if (!RangesOfTile(view, table, unit, number, &ranges)) return;
  const int width = unit.lanes * kPack, parts = (table.dim + width - 1) / width;
  for (int side = 0; side < 2; ++side) {
    if (ranges.part_begin[side] == ranges.part_end[side]) continue;
    for (int part = 0; part < parts; ++part) {
      SumPart<Grad, kPack, kGeneral>(view, table, unit, ranges.part_begin[side], ranges.part_end[side],
                                     part * width + unit.lane * kPack, PartialOf(view, table, number, side));
    }
    if (side == 1 && unit.lane == 0) {
      // Runs of many tiles are finished by a block, others by a warp: two ends of one list.
      const uint64_t far = uint64_t{table.pair_begin} + (uint64_t{number} + kTilesOfWarp) * view.tile;
      const bool big =
          far < table.pair_end && KeyAt(view, static_cast<uint32_t>(far)) == KeyAt(view, ranges.part_begin[1]);
      const uint32_t place = atomicAdd(view.num_long_runs + (big ? 1 : 0), 1);
      view.long_runs[big ? view.max_long_runs - 1 - place : place] = {static_cast<uint32_t>(t), number};
    }
  }
  const bool norms_first = parts > 1 && consumer.NeedsNorm();
  if (norms_first) {
    for (int part = 0; part < parts; ++part) {
      WalkRuns<Grad, kPack, 1, kGeneral, true>(view, table, unit, ranges.begin, ranges.end, part,
                                               part * width + unit.lane * kPack, false, consumer);
    }
  }
  for (int part = 0; part < parts; ++part) {
    WalkRuns<Grad, kPack, kPairs, kGeneral, false>(view, table, unit, ranges.begin, ranges.end, part,
                                                   part * width + unit.lane * kPack, norms_first, consumer);
  }
}

// kGeneral: for batches with coefficients or max features.
template <typename T, typename Grad, int kBlocks, int kPairs, bool kGeneral, typename Consumer>
__global__ void __launch_bounds__(kWalkThreads, kBlocks) walk_runs_kernel(PairView view, Consumer consumer) {
  const int t = TableOfBlock(view, blockIdx.x);
  if (!consumer.Begin(t)) return;
  const PairTable table = view.tables[t];
  const uint32_t block = blockIdx.x - (t == 0 ? 0 : view.tables[t - 1].block_end);
  constexpr int kWide = 16 / (sizeof(T) > sizeof(Grad) ? sizeof(T) : sizeof(Grad));
  if (!kGeneral && table.pack == kWide && table.lanes == 32) {
    WalkBlock<Grad, kWide, kGeneral ? 0 : 32, kPairs, kGeneral>(view, t, table, block, consumer);
  } else if (table.pack == kWide) {
    WalkBlock<Grad, kWide, 0, kPairs, kGeneral>(view, t, table, block, consumer);
  } else {
    WalkBlock<Grad, 1, 0, kPairs, kGeneral>(view, t, table, block, consumer);
  }
}

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

// Sums the partial sums of a long run at this thread's columns: every kWarps-th, from `first` on.
template <int kPack, int kWarps>
__device__ __forceinline__ void SumPartials(const PairView& view, const PairTable& table, uint32_t first_tile,
                                            uint32_t more_tiles, uint32_t first, int column, float (&total)[kPack]) {
  constexpr int kInFlight = 16;
  const bool owns = column < table.dim;
#pragma unroll
  for (int k = 0; k < kPack; ++k) total[k] = 0.0f;
  for (uint32_t i = first; i <= more_tiles; i += kWarps * kInFlight) {
    Pack<float, kPack> part[kInFlight];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const uint32_t tile = i + u * kWarps;
      const float* from = PartialOf(view, table, first_tile + tile, tile == 0 ? 1 : 0) + column;
      LoadOnceIf<float, kPack>(from, tile <= more_tiles && owns, &part[u]);
    }
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
#pragma unroll
      for (int k = 0; k < kPack; ++k) total[k] += part[u].item[k];
    }
  }
}

// A long run, by a warp (kWarps 1, sums unused) or by a block whose first warp consumes.
template <int kPack, int kWarps, typename Consumer>
__device__ __forceinline__ void FinishRun(const PairView& view, const LongRun& run, float* sums, Consumer& consumer) {
  const PairTable table = view.tables[run.table];
  const RowUnit unit = UnitOf<32>(32);
  const int warp = kWarps == 1 ? 0 : threadIdx.x / 32;
  const uint32_t tile_end = table.pair_begin + (run.tile + 1) * view.tile;  // long runs go on: the tile is full
  const uint64_t key = KeyAt(view, tile_end - 1);
  const uint32_t tiles_behind = (table.pair_end - tile_end + view.tile - 1) / view.tile;
  const uint32_t more =
      FirstNotBelow(tiles_behind, [&](uint32_t i) { return KeyAt(view, tile_end + i * view.tile) == key; });
  // The run's last pair, for consumers that count runs.
  uint32_t last_pair = 0;
  if (warp == 0) {
    const uint32_t begin = tile_end + (more - 1) * view.tile, count = min(view.tile, table.pair_end - begin);
    last_pair = begin + FirstNotBelow(count, [&](uint32_t i) { return KeyAt(view, begin + i) == key; }) - 1;
  }
  const int width = 32 * kPack, parts = (table.dim + width - 1) / width;
  typename Consumer::template Prefetched<kPack> fetched;
  float total[kPack], norm = 0.0f;
  const uint32_t target = warp == 0 ? consumer.Target(table, last_pair, key) : 0;
  for (int pass = consumer.NeedsNorm() ? 0 : 1; pass < 2; ++pass) {
    for (int part = 0; part < parts; ++part) {
      const int column = part * width + unit.lane * kPack;
      const bool owns = column < table.dim;
      consumer.Prefetch(table, target, column, warp == 0 && owns, &fetched);
      SumPartials<kPack, kWarps>(view, table, run.tile, more, warp, column, total);
      if constexpr (kWarps > 1) {
        __syncthreads();  // the last use of `sums` is over
#pragma unroll
        for (int k = 0; k < kPack; ++k) sums[threadIdx.x * kPack + k] = total[k];
        __syncthreads();
        if (warp != 0) continue;
        for (int other = 1; other < kWarps; ++other) {
#pragma unroll
          for (int k = 0; k < kPack; ++k) total[k] += sums[(other * 32 + unit.lane) * kPack + k];
        }
      }
      if (pass == 0) {
        float squares[1] = {owns ? consumer.SquareOf(total, &fetched) : 0.0f};
        SumOverLanes(unit, squares);
        norm += squares[0];
      } else if (owns) {
        consumer.Consume(table, target, column, total, norm, &fetched);
      }
    }
  }
}

template <int kWide, typename Consumer>
__global__ void __launch_bounds__(kFinishThreads) finish_runs_kernel(PairView view, Consumer consumer) {
  constexpr int kWarps = kFinishThreads / 32;
  __shared__ float sums[kFinishThreads * kWide];
  const uint32_t small = view.num_long_runs[0], big = view.num_long_runs[1];
  for (uint32_t i = blockIdx.x; i < big; i += gridDim.x) {
    const LongRun run = view.long_runs[view.max_long_runs - 1 - i];
    if (!consumer.Begin(static_cast<int>(run.table))) return;
    if (view.tables[run.table].pack == kWide) {
      FinishRun<kWide, kWarps>(view, run, sums, consumer);
    } else {
      FinishRun<1, kWarps>(view, run, sums, consumer);
    }
  }
  for (uint32_t i = threadIdx.x / 32 * gridDim.x + blockIdx.x; i < small; i += gridDim.x * kWarps) {
    const LongRun run = view.long_runs[i];
    if (!consumer.Begin(static_cast<int>(run.table))) return;
    if (view.tables[run.table].pack == kWide) {
      FinishRun<kWide, 1>(view, run, sums, consumer);
    } else {
      FinishRun<1, 1>(view, run, sums, consumer);
    }
  }
}

inline int Processors() {
  int device, processors;
  CheckCuda(cudaGetDevice(&device), "cudaGetDevice");
  CheckCuda(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
  return processors;
}

// Blocks a multiprocessor should hold and pairs under way in a unit: the registers of what is loaded for them, with no
// more warps than those leave room for (docs/performance.md). kSlots: float vectors that are loaded beside each row.
template <typename T, int kSlots>
struct WalkGeometry {
  static constexpr int kBlocks = kSlots == 2 ? 4 : kSlots == 1 || sizeof(T) == 2 ? 6 : 7;
  static constexpr int kPairs = sizeof(T) == 2 ? 2 : 4;
};

template <typename T, typename Grad, int kSlots, typename Consumer>
void LaunchWalk(const PairView& view, unsigned walk_blocks, const Consumer& consumer, cudaStream_t stream) {
  if (walk_blocks == 0) return;
  constexpr int kBlocks = WalkGeometry<T, kSlots>::kBlocks, kPairs = WalkGeometry<T, kSlots>::kPairs;
  if (view.bag_scale || view.coef_of_id) {
    walk_runs_kernel<T, Grad, kBlocks, kPairs, true><<<walk_blocks, kWalkThreads, 0, stream>>>(view, consumer);
  } else {
    walk_runs_kernel<T, Grad, kBlocks, kPairs, false><<<walk_blocks, kWalkThreads, 0, stream>>>(view, consumer);
  }
  CheckLaunch("walk_runs_kernel");
  constexpr int kWide = 16 / (sizeof(T) > sizeof(Grad) ? sizeof(T) : sizeof(Grad));
  finish_runs_kernel<kWide><<<2 * Processors(), kFinishThreads, 0, stream>>>(view, consumer);
  CheckLaunch("finish_runs_kernel");
}

}  // namespace
}  // namespace merlin
