// The pass over float16 tiles, for compute capability 9.0: exponentials of scores that never leave the registers.
#include <atomic>

#include "common/cuda_utils.cuh"
#include "inbatch_softmax/cuda_pass.cuh"
#include "inbatch_softmax/cuda_pass.h"
#include "inbatch_softmax/wgmma.cuh"

namespace merlin {
namespace {

constexpr int kGroup = 128;    // threads of a warpgroup
constexpr int kConsumers = 2;  // warpgroups that multiply, of 64 rows each
constexpr int kThreads = (1 + kConsumers) * kGroup;
constexpr int kConsumerWarps = kConsumers * kGroup / 32;

// ---- barriers in shared memory, and the copies that arrive at them ----

__device__ __forceinline__ uint32_t SharedAddress(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}
__device__ __forceinline__ void InitBarrier(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(arrivals));
}
__device__ __forceinline__ void ExpectBytes(uint64_t* barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(SharedAddress(barrier)), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void Arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(SharedAddress(barrier)) : "memory");
}
__device__ __forceinline__ void WaitFor(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{ .reg .pred done;\n"
      "again: mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra.uni over;\n"
      "bra.uni again;\n"
      "over: }" ::"r"(SharedAddress(barrier)),
      "r"(parity)
      : "memory");
}
// One thread copies for all. Addresses and bytes are multiples of 16.
__device__ __forceinline__ void CopyBulk(void* to, const void* from, uint32_t bytes, uint64_t* barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                   SharedAddress(to)),
               "l"(from), "r"(bytes), "r"(SharedAddress(barrier))
               : "memory");
}

// ---- what lies where in shared memory ----

template <int kDim>
struct Layout {
  static constexpr int kColumns = TileColumns(kDim);
  static constexpr int kStages = kDim == 64 ? 6 : 4;
  static constexpr uint32_t kRowBytes = kRowTile * kDim * 2, kTileBytes = kColumns * kDim * 2;
  static constexpr uint32_t kInfoBytes = kColumns * sizeof(SideInfo);
  static constexpr uint32_t kBlockBytes = kColumns * 128;  // from one block of 64 elements to the next
  static constexpr uint32_t kTiles = kRowBytes, kInfos = kTiles + kStages * kTileBytes;
  static constexpr uint32_t kBarriers = kInfos + kStages * kInfoBytes;
  static constexpr uint32_t kBytes = kBarriers + (1 + 2 * kStages) * 8 + 1024;  // to begin at a multiple of 1024
  // A warpgroup's 64 rows are the half of one tile, or a tile of 64.
  static constexpr uint32_t kHalfBytes = kColumns == 64 ? kTileBytes : 64 * 128;
};

// Which tiles of columns a block walks over.
struct TileRange {
  int begin, end;
};
__device__ __forceinline__ TileRange RangeOf(const PassCall& call, int columns, int split) {
  const int tiles = static_cast<int>((call.num_columns + columns - 1) / columns);
  const int each = tiles / call.splits, more = tiles % call.splits;
  const int begin = split * each + min(split, more);
  return {begin, begin + each + (split < more)};
}

template <int kDim>
__device__ void Produce(const PassCall& call, char* shared, int row_tile, TileRange range) {
  using L = Layout<kDim>;
  uint64_t* const rows_full = reinterpret_cast<uint64_t*>(shared + L::kBarriers);
  uint64_t* const full = rows_full + 1;
  uint64_t* const empty = full + L::kStages;
  ExpectBytes(rows_full, L::kRowBytes);
  CopyBulk(shared, static_cast<const char*>(call.rows) + int64_t{row_tile} * L::kRowBytes, L::kRowBytes, rows_full);
  for (int tile = range.begin, stage = 0, phase = 0; tile < range.end; ++tile) {
    WaitFor(empty + stage, phase ^ 1);
    ExpectBytes(full + stage, L::kTileBytes + L::kInfoBytes);
    CopyBulk(shared + L::kTiles + stage * L::kTileBytes,
             static_cast<const char*>(call.columns) + int64_t{tile} * L::kTileBytes, L::kTileBytes, full + stage);
    CopyBulk(shared + L::kInfos + stage * L::kInfoBytes, call.column_info + int64_t{tile} * L::kColumns, L::kInfoBytes,
             full + stage);
    if (++stage == L::kStages) stage = 0, phase ^= 1;
  }
}

// What a thread of a consumer keeps: two rows, of each 8 columns 2.
template <int kDim, Pass kPass, bool kRank>
struct Consumer {
  using L = Layout<kDim>;
  static constexpr int kScores = L::kColumns / 2, kOutputs = kPass == Pass::kLoss ? 2 : kDim / 2;

  float score[kScores];          // of the tile at hand, then their exponentials
  uint32_t weight[kScores / 2];  // exponentials of the tile before, as float16
  float output[kOutputs];
  float reference[2], sum[2], offset[2];
  uint32_t key[2];
  float greater[2];  // how many scores are greater than their row's offset
  float factor;
  bool wide, negative;

  // scores = rows x columns of the tile, under way. Operands advance by their address, in units of 16 bytes.
  __device__ __forceinline__ void StartScores(uint64_t rows, uint64_t tile) {
    wgmma::Hold(score);
    wgmma::Fence();
#pragma unroll
    for (int k = 0; k < kDim / 16; ++k) {
      const uint32_t at = (k / 4 * L::kBlockBytes + k % 4 * 32) / 16;
      wgmma::Multiply(score, rows + at, tile + at, k > 0);
    }
    wgmma::Commit();
  }
  // output += weights x columns of the tile, under way.
  __device__ __forceinline__ void StartOutputs(uint64_t tile) {
    static_assert(kPass != Pass::kLoss);
    wgmma::Hold(output);
    wgmma::Hold(weight);
    wgmma::Fence();
#pragma unroll
    for (int k = 0; k < L::kColumns / 16; ++k) {
      wgmma::MultiplyAdd(output, weight[4 * k], weight[4 * k + 1], weight[4 * k + 2], weight[4 * k + 3],
                         tile + k * (2048 / 16));
    }
    wgmma::Commit();
  }

  // Scores become exponentials, which the sums get. `column`: of the tile's first.
  __device__ __forceinline__ void Exponentials(const PassCall& call, const SideInfo* infos, int64_t row,
                                               int64_t column) {
    const int first = threadIdx.x % 4 * 2;
    bool hit[4] = {};  // each waits for itself only
#pragma unroll
    for (int n = 0; n < kScores / 4; ++n) {
      const float4 pair = *reinterpret_cast<const float4*>(infos + 8 * n + first);
      const uint32_t key0 = __float_as_uint(pair.y), key1 = __float_as_uint(pair.w);
      hit[0] |= key0 == key[0];
      hit[1] |= key1 == key[0];
      hit[2] |= key0 == key[1];
      hit[3] |= key1 == key[1];
      score[4 * n] = fmaf(score[4 * n], factor, -pair.x);
      score[4 * n + 1] = fmaf(score[4 * n + 1], factor, -pair.z);
      score[4 * n + 2] = fmaf(score[4 * n + 2], factor, -pair.x);
      score[4 * n + 3] = fmaf(score[4 * n + 3], factor, -pair.z);
    }
    if (__any_sync(0xffffffffu, hit[0] | hit[1] | hit[2] | hit[3])) LeaveOut(call, infos, row, column);
    float mosts[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
#pragma unroll
    for (int i = 0; i < kScores; ++i) mosts[i % 4] = fmaxf(mosts[i % 4], score[i]);
    const float most[2] = {fmaxf(mosts[0], mosts[1]), fmaxf(mosts[2], mosts[3])};
    if (kRank && __any_sync(0xffffffffu, most[0] > offset[0] || most[1] > offset[1])) {
      // Their difference times 2^60, between 0 and 1, is 0 or 1: two instructions of the multiply-add units.
#pragma unroll
      for (int i = 0; i < kScores; ++i) {
        greater[i % 4 / 2] += __saturatef(fmaf(score[i], 0x1p60f, -0x1p60f * offset[i % 4 / 2]));
      }
    }
    if (__any_sync(0xffffffffu, most[0] > reference[0] + kLazyMax || most[1] > reference[1] + kLazyMax)) {
      float shrink[2];
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const float higher = fmaxf(reference[r], QuadMax(most[r]));
        shrink[r] = ExpTwo(reference[r] - higher);
        sum[r] *= shrink[r];
        reference[r] = higher;
      }
      if constexpr (kPass != Pass::kLoss) {
        wgmma::Wait<0>();  // what is under way has the reference from before
        wgmma::Hold(output);
#pragma unroll
        for (int i = 0; i < kOutputs; ++i) output[i] *= shrink[i % 4 / 2];
      }
    }
    const float from[2] = {reference[0] - kShift, reference[1] - kShift};
#pragma unroll
    for (int i = 0; i < kScores; ++i) {
      score[i] = ExpTwo(score[i] - from[i % 4 / 2]);
    }
    if (kPass == Pass::kBackward && negative) TakeSigns(call, column);
#pragma unroll
    for (int i = 0; i < kScores; ++i) sum[i % 4 / 2] += score[i];
  }

  // Takes the scores of equal ids out.
  __device__ __forceinline__ void LeaveOut(const PassCall& call, const SideInfo* infos, int64_t row, int64_t column) {
    const int first = threadIdx.x % 4 * 2;
    if (wide) {
#pragma unroll
      for (int i = 0; i < kScores; ++i) {
        const int at = 8 * (i / 4) + first + i % 2, r = i % 4 / 2;
        if (infos[at].key == key[r] && SameId(call, row + 8 * r, column + at)) score[i] = -INFINITY;
      }
      return;
    }
#pragma unroll
    for (int n = 0; n < kScores / 4; ++n) {
      const float4 pair = *reinterpret_cast<const float4*>(infos + 8 * n + first);
      const uint32_t keys[2] = {__float_as_uint(pair.y), __float_as_uint(pair.w)};
#pragma unroll
      for (int i = 0; i < 4; ++i) score[4 * n + i] = keys[i % 2] == key[i / 2] ? -INFINITY : score[4 * n + i];
    }
  }

  __device__ __forceinline__ void TakeSigns(const PassCall& call, int64_t column) {
    const int first = threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < kScores; ++i) {
      const int64_t at = column + 8 * (i / 4) + first + i % 2;
      if (at < call.num_columns && call.log_sum_grad[at] < 0.0f) score[i] = -score[i];
    }
  }

  __device__ __forceinline__ void PackWeights() {
#pragma unroll
    for (int i = 0; i < kScores / 2; ++i) {
      const __half2 two = __floats2half2_rn(score[2 * i], score[2 * i + 1]);
      weight[i] = *reinterpret_cast<const uint32_t*>(&two);
    }
  }

  __device__ void Run(const PassCall& call, char* shared, int row_tile, int split, TileRange range) {
    // Of the whole warp, as the compiler must know to keep operands in uniform registers.
    const int group = __shfl_sync(0xffffffffu, threadIdx.x / kGroup, 0) - 1;
    const int lane = threadIdx.x % 32;
    // The thread's first row; the second is 8 further.
    const int64_t row = int64_t{row_tile} * kRowTile + group * 64 + threadIdx.x % kGroup / 32 * 16 + lane / 4;
    factor = TileFactor(call);
    wide = call.scalars->wide != 0;
    negative = call.scalars->negative != 0;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const SideInfo info = call.row_info[row + 8 * r];
      key[r] = info.key;
      offset[r] = info.offset;
      reference[r] = kPass == Pass::kBackward ? kLowest : info.offset;
      sum[r] = greater[r] = 0.0f;
    }
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) output[i] = 0.0f;

    uint64_t* const rows_full = reinterpret_cast<uint64_t*>(shared + L::kBarriers);
    uint64_t* const full = rows_full + 1;
    uint64_t* const empty = full + L::kStages;
    const uint32_t tiles = SharedAddress(shared + L::kTiles);
    const uint64_t rows = wgmma::Operand(SharedAddress(shared) + group * L::kHalfBytes, 16, 1024);
    const uint64_t across = wgmma::Operand(tiles, 16, 1024);  // columns of the tile as they lie, summed along
    const uint64_t along = wgmma::Operand(tiles, L::kBlockBytes, 1024);  // or summed over
    const auto infos = [&](int stage) {
      return reinterpret_cast<const SideInfo*>(shared + L::kInfos + stage * L::kInfoBytes);
    };
    WaitFor(rows_full, 0);
    int stage = 0, phase = 0, before = 0;
    for (int tile = range.begin; tile < range.end; ++tile) {
      WaitFor(full + stage, phase);
      StartScores(rows, across + stage * (L::kTileBytes / 16));
      if constexpr (kPass == Pass::kLoss) {
        wgmma::Wait<0>();
        wgmma::Hold(score);
        Exponentials(call, infos(stage), row, int64_t{tile} * L::kColumns);
        if (lane == 0) Arrive(empty + stage);
      } else {
        if (tile > range.begin) {
          StartOutputs(along + before * (L::kTileBytes / 16));
          wgmma::Wait<1>();
        } else {
          wgmma::Wait<0>();
        }
        wgmma::Hold(score);
        Exponentials(call, infos(stage), row, int64_t{tile} * L::kColumns);
        wgmma::Wait<0>();
        wgmma::Hold(output);
        wgmma::Hold(weight);
        if (tile > range.begin && lane == 0) Arrive(empty + before);
        PackWeights();
      }
      before = stage;
      if (++stage == L::kStages) stage = 0, phase ^= 1;
    }
    if constexpr (kPass != Pass::kLoss) {
      if (range.end > range.begin) {
        StartOutputs(along + before * (L::kTileBytes / 16));
        wgmma::Wait<0>();
        wgmma::Hold(output);
      }
    }
    Write(call, split, row);
  }

  __device__ __forceinline__ void Write(const PassCall& call, int split, int64_t row) {
    const int64_t place = split * PaddedRows(call.num_rows) + row;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float total = QuadSum(sum[r]);
      const int32_t rank = kRank ? QuadSum(static_cast<int32_t>(greater[r])) : 0;
      if (threadIdx.x % 4 == 0) {
        call.sum[place + 8 * r] = total;
        call.reference[place + 8 * r] = reference[r];
        if (kRank) call.rank[place + 8 * r] = rank;
      }
      if constexpr (kPass != Pass::kLoss) {
        float* const to = call.total + (place + 8 * r) * kDim + threadIdx.x % 4 * 2;
#pragma unroll
        for (int n = 0; n < kDim / 8; ++n) {
          *reinterpret_cast<float2*>(to + 8 * n) = make_float2(output[4 * n + 2 * r], output[4 * n + 2 * r + 1]);
        }
      }
    }
  }
};

// A block has 128 rows and a range of the columns: one warpgroup brings columns, tile by tile, into a ring of stages in
// shared memory; two multiply 64 rows each. While the tensor cores add up the columns of one tile, weighted, the
// exponentials of the next are taken. Deterministic.
template <int kDim, Pass kPass, bool kRank>
__global__ void __launch_bounds__(kThreads, 1) softmax_hopper_kernel(const __grid_constant__ PassCall call) {
  using L = Layout<kDim>;
  extern __shared__ char unaligned[];
  char* const shared = unaligned + (1024 - SharedAddress(unaligned) % 1024) % 1024;
  uint64_t* const barriers = reinterpret_cast<uint64_t*>(shared + L::kBarriers);
  if (threadIdx.x == 0) {
    InitBarrier(barriers, 1);
    for (int s = 0; s < L::kStages; ++s) {
      InitBarrier(barriers + 1 + s, 1);
      InitBarrier(barriers + 1 + L::kStages + s, kConsumerWarps);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  }
  __syncthreads();
  const int row_tile = blockIdx.x / call.splits, split = blockIdx.x % call.splits;
  const TileRange range = RangeOf(call, L::kColumns, split);
  if (threadIdx.x < kGroup) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
    if (threadIdx.x == 0) Produce<kDim>(call, shared, row_tile, range);
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
    Consumer<kDim, kPass, kRank> consumer;
    consumer.Run(call, shared, row_tile, split, range);
  }
}

template <int kDim, Pass kPass, bool kRank>
void softmax_hopper_launch(const PassCall& call, cudaStream_t stream) {
  constexpr uint32_t kBytes = Layout<kDim>::kBytes;
  static std::atomic<uint64_t> devices{0};
  AllowSharedMemory(softmax_hopper_kernel<kDim, kPass, kRank>, kBytes, devices);
  const int64_t blocks = PaddedRows(call.num_rows) / kRowTile * call.splits;
  softmax_hopper_kernel<kDim, kPass, kRank><<<static_cast<unsigned>(blocks), kThreads, kBytes, stream>>>(call);
  CheckLaunch("softmax_hopper_kernel");
}

template <int kDim>
void RunDim(Pass pass, const PassCall& call, cudaStream_t stream) {
  if (pass == Pass::kBackward) return softmax_hopper_launch<kDim, Pass::kBackward, false>(call, stream);
  if (pass == Pass::kLoss) {
    return call.rank ? softmax_hopper_launch<kDim, Pass::kLoss, true>(call, stream)
                     : softmax_hopper_launch<kDim, Pass::kLoss, false>(call, stream);
  }
  return call.rank ? softmax_hopper_launch<kDim, Pass::kForward, true>(call, stream)
                   : softmax_hopper_launch<kDim, Pass::kForward, false>(call, stream);
}

}  // namespace

void RunTilePass(Pass pass, const PassCall& call, cudaStream_t stream) {
  if (call.dim == 64) return RunDim<64>(pass, call, stream);
  if (call.dim == 128) return RunDim<128>(pass, call, stream);
  return RunDim<256>(pass, call, stream);
}

}  // namespace merlin
