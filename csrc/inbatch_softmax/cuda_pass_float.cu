// The pass in float32 arithmetic, for any device and up to 512 dimensions: what "float32" precision runs, and what runs
// where there are no instructions of compute capability 9.0, or too many dimensions for them.
#include <atomic>

#include "common/cuda_utils.cuh"
#include "inbatch_softmax/cuda_pass.cuh"

namespace merlin {
namespace {

constexpr int kThreads = 256, kSide = 64;       // rows of a block, columns of a tile
constexpr int kChunk = 32, kPitch = kSide + 4;  // elements of a vector at a time; floats from one to the next
constexpr int kColumnsAtOnce = 16;              // columns whose whole vectors are in shared memory

template <int kDim>
struct Shared {
  float rows[kChunk][kPitch], columns[kChunk][kPitch];  // element by vector
  float weights[kSide][kPitch];                         // row by column
  float vectors[kColumnsAtOnce][kDim];
};

// Elements `first` to first + kChunk of 64 vectors, transposed; zeros beyond the ends.
__device__ __forceinline__ void LoadChunk(const void* vectors, int64_t from, int64_t count, int stride, int first,
                                          float (&to)[kChunk][kPitch]) {
  const float* const source = static_cast<const float*>(vectors);
  for (int i = threadIdx.x; i < kSide * kChunk; i += kThreads) {
    const int vector = i / kChunk, element = i % kChunk;
    const bool there = from + vector < count && first + element < stride;
    to[element][vector] = there ? __ldg(source + (from + vector) * stride + first + element) : 0.0f;
  }
}

// The sum or maximum of the 16 threads that share 4 rows.
template <typename Join, typename T>
__device__ __forceinline__ T JoinSixteen(T value, Join&& join) {
  for (int step = 8; step > 0; step /= 2) value = join(value, __shfl_xor_sync(0xffffffffu, value, step));
  return value;
}

// A block has 64 rows and a range of the columns, 64 at a time. Thread (y, x) of 16 x 16 computes the scores of rows 4
// y to 4 y + 3 with columns 4 x to 4 x + 3, and of those rows' outputs the columns 4 x to 4 x + 3 of every 64.
// Deterministic.
template <int kDim, Pass kPass>
__global__ void __launch_bounds__(kThreads) softmax_float_kernel(const __grid_constant__ PassCall call) {
  constexpr int kParts = kPass == Pass::kLoss ? 1 : kDim / 64;
  extern __shared__ char memory[];
  Shared<kDim>& shared = *reinterpret_cast<Shared<kDim>*>(memory);
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
  const int64_t first_row = int64_t{blockIdx.x / call.splits} * kSide;
  const int split = blockIdx.x % call.splits;
  const int64_t tiles = (call.num_columns + kSide - 1) / kSide;
  const int64_t begin = tiles * split / call.splits, end = tiles * (split + 1) / call.splits;
  const float factor = *call.scale * kLog2E;
  const bool wide = call.scalars->wide != 0;

  float offset[4], reference[4], sum[4] = {}, output[4][kParts][4] = {};
  uint32_t key[4];
  int rank[4] = {};
  for (int r = 0; r < 4; ++r) {
    const SideInfo info = call.row_info[first_row + 4 * y + r];
    offset[r] = info.offset;
    reference[r] = kPass == Pass::kBackward ? kLowest : info.offset;
    key[r] = info.key;
  }
  for (int64_t tile = begin; tile < end; ++tile) {
    const int64_t first_column = tile * kSide;
    float score[4][4] = {};
    for (int first = 0; first < call.row_stride; first += kChunk) {
      __syncthreads();
      LoadChunk(call.rows, first_row, call.num_rows, call.row_stride, first, shared.rows);
      LoadChunk(call.columns, first_column, call.num_columns, call.row_stride, first, shared.columns);
      __syncthreads();
#pragma unroll 8
      for (int k = 0; k < kChunk; ++k) {
        const float4 a = *reinterpret_cast<const float4*>(&shared.rows[k][4 * y]);
        const float4 b = *reinterpret_cast<const float4*>(&shared.columns[k][4 * x]);
        const float rows[4] = {a.x, a.y, a.z, a.w}, columns[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
        for (int r = 0; r < 4; ++r) {
#pragma unroll
          for (int c = 0; c < 4; ++c) score[r][c] = fmaf(rows[r], columns[c], score[r][c]);
        }
      }
    }
    float sign[4];
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int64_t column = first_column + 4 * x + c;
      const SideInfo info = call.column_info[column];
      if (kPass == Pass::kBackward) {
        sign[c] = column < call.num_columns && call.log_sum_grad[column] < 0.0f ? -1.0f : 1.0f;
      }
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        score[r][c] = fmaf(score[r][c], factor, -info.offset);
        bool out = info.key == key[r];
        if (out && wide) out = SameId(call, first_row + 4 * y + r, column);
        if (out) score[r][c] = -INFINITY;
        if (kPass != Pass::kBackward) rank[r] += score[r][c] > offset[r];
      }
    }
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      const float most = JoinSixteen(fmaxf(fmaxf(score[r][0], score[r][1]), fmaxf(score[r][2], score[r][3])),
                                     [](float a, float b) { return fmaxf(a, b); });
      const float higher = fmaxf(reference[r], most), shrink = exp2f(reference[r] - higher);
      reference[r] = higher;
      sum[r] *= shrink;
#pragma unroll
      for (int p = 0; p < kParts; ++p) {
#pragma unroll
        for (int c = 0; c < 4; ++c) output[r][p][c] *= shrink;
      }
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        score[r][c] = exp2f(score[r][c] - (reference[r] - kShift));
        if (kPass == Pass::kBackward) score[r][c] *= sign[c];
        sum[r] += score[r][c];
      }
    }
    if constexpr (kPass != Pass::kLoss) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        *reinterpret_cast<float4*>(&shared.weights[4 * y + r][4 * x]) =
            make_float4(score[r][0], score[r][1], score[r][2], score[r][3]);
      }
      for (int some = 0; some < kSide; some += kColumnsAtOnce) {
        __syncthreads();
        const float* const source = static_cast<const float*>(call.columns);
        for (int i = threadIdx.x; i < kColumnsAtOnce * kDim; i += kThreads) {
          const int64_t column = first_column + some + i / kDim;
          const bool there = column < call.num_columns && i % kDim < call.row_stride;
          shared.vectors[i / kDim][i % kDim] = there ? __ldg(source + column * call.row_stride + i % kDim) : 0.0f;
        }
        __syncthreads();
        for (int k = 0; k < kColumnsAtOnce; ++k) {
          float weight[4];
#pragma unroll
          for (int r = 0; r < 4; ++r) weight[r] = shared.weights[4 * y + r][some + k];
#pragma unroll
          for (int p = 0; p < kParts; ++p) {
            const float4 v = *reinterpret_cast<const float4*>(&shared.vectors[k][64 * p + 4 * x]);
#pragma unroll
            for (int r = 0; r < 4; ++r) {
              output[r][p][0] = fmaf(weight[r], v.x, output[r][p][0]);
              output[r][p][1] = fmaf(weight[r], v.y, output[r][p][1]);
              output[r][p][2] = fmaf(weight[r], v.z, output[r][p][2]);
              output[r][p][3] = fmaf(weight[r], v.w, output[r][p][3]);
            }
          }
        }
      }
    }
  }
  const int64_t place = split * PaddedRows(call.num_rows) + first_row + 4 * y;
#pragma unroll
  for (int r = 0; r < 4; ++r) {
    const float all = JoinSixteen(sum[r], [](float a, float b) { return a + b; });
    const int ranks = JoinSixteen(rank[r], [](int a, int b) { return a + b; });
    if (x == 0) {
      call.sum[place + r] = all;
      call.reference[place + r] = reference[r];
      if (kPass != Pass::kBackward && call.rank) call.rank[place + r] = ranks;
    }
    if constexpr (kPass != Pass::kLoss) {
#pragma unroll
      for (int p = 0; p < kParts; ++p) {
        *reinterpret_cast<float4*>(call.total + (place + r) * kDim + 64 * p + 4 * x) =
            make_float4(output[r][p][0], output[r][p][1], output[r][p][2], output[r][p][3]);
      }
    }
  }
}

template <int kDim, Pass kPass>
void softmax_float_launch(const PassCall& call, cudaStream_t stream) {
  constexpr int kBytes = sizeof(Shared<kDim>);
  static std::atomic<uint64_t> devices{0};
  AllowSharedMemory(softmax_float_kernel<kDim, kPass>, kBytes, devices);
  const int64_t blocks = PaddedRows(call.num_rows) / kSide * call.splits;
  softmax_float_kernel<kDim, kPass><<<static_cast<unsigned>(blocks), kThreads, kBytes, stream>>>(call);
  CheckLaunch("softmax_float_kernel");
}

template <int kDim>
void RunDim(Pass pass, const PassCall& call, cudaStream_t stream) {
  switch (pass) {
    case Pass::kLoss:
      return softmax_float_launch<kDim, Pass::kLoss>(call, stream);
    case Pass::kForward:
      return softmax_float_launch<kDim, Pass::kForward>(call, stream);
    case Pass::kBackward:
      return softmax_float_launch<kDim, Pass::kBackward>(call, stream);
  }
}

}  // namespace

void RunFloatPass(Pass pass, const PassCall& call, cudaStream_t stream) {
  switch (call.dim) {
    case 64:
      return RunDim<64>(pass, call, stream);
    case 128:
      return RunDim<128>(pass, call, stream);
    case 256:
      return RunDim<256>(pass, call, stream);
    default:
      return RunDim<512>(pass, call, stream);
  }
}

}  // namespace merlin
