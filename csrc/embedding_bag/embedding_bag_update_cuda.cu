// embedding_bag's backward pass with the optimizer's step on CUDA: sorted pairs (bag_pairs.cuh) and one walk over them
// (bag_walk.cuh) that reads each touched row with its state once and writes both once.
#include "embedding_bag/bag_walk.cuh"
#include "embedding_bag/embedding_bag_update_cuda.h"

namespace merlin {
namespace {

using Vec = float;
#define MERLIN_STEP __device__ __forceinline__
MERLIN_STEP float Set(float value) { return value; }
MERLIN_STEP float Add(float a, float b) { return a + b; }
MERLIN_STEP float Sub(float a, float b) { return a - b; }
MERLIN_STEP float Mul(float a, float b) { return a * b; }
MERLIN_STEP float Fma(float a, float b, float c) { return fmaf(a, b, c); }
MERLIN_STEP float Min(float a, float b) { return fminf(a, b); }
MERLIN_STEP float Max(float a, float b) { return fmaxf(a, b); }
// The hardware's approximations, within 2 ulp: exact ones would cost as much as the memory traffic.
MERLIN_STEP float Div(float a, float b) { return __fdividef(a, b); }
MERLIN_STEP float Sqrt(float a) {
  float root;
  asm("sqrt.approx.f32 %0, %1;" : "=f"(root) : "f"(a));
  return root;
}
MERLIN_STEP float Rsqrt(float a) { return rsqrtf(a); }
MERLIN_STEP uint32_t BitsOfFloat(float value) { return __float_as_uint(value); }
#include "embedding_bag/row_step.inc"
#undef MERLIN_STEP

__device__ __forceinline__ void RoundAtRandom(float value, uint32_t noise, __half* to) {
  *to = __ushort_as_half(RoundToFloat16(value, noise));
}
__device__ __forceinline__ void RoundAtRandom(float value, uint32_t noise, __nv_bfloat16* to) {
  *to = __ushort_as_bfloat16(RoundToBFloat16(value, noise));
}
__device__ __forceinline__ void RoundAtRandom(float value, uint32_t, float* to) { *to = value; }

// kPack elements in as many 16-byte pieces as they need. Rows are written once a step, so they should not push
// gradients out of the caches.
template <typename T, int kPack>
__device__ __forceinline__ void StoreStream(const T (&from)[kPack], T* to) {
  constexpr int kPiece = kPack * sizeof(T) > 16 ? 16 / static_cast<int>(sizeof(T)) : kPack;
#pragma unroll
  for (int k = 0; k < kPack; k += kPiece) {
    Pack<T, kPiece> piece;
#pragma unroll
    for (int i = 0; i < kPiece; ++i) piece.item[i] = from[k + i];
    StoreOnce<T, kPiece>(piece, to + k);
  }
}

// Steps the rows of a table; kSlots: how many full slots there are.
template <typename T, int kSlots>
struct StepRows {
  template <int kPack>
  struct Prefetched {
    Pack<T, kPack> row;
    Pack<float, kPack> slot[kSlots > 0 ? kSlots : 1];
    float of_row;
  };
  UpdateRule rule;
  const StepScalars* scalars_ptr;
  const UpdateTable* tables;
  StepScalars scalars;
  UpdateTable table;  // this thread's

  __device__ __forceinline__ bool Begin(int t) {
    scalars = *scalars_ptr;
    table = tables[t];
    return scalars.grad_scale != 0.0f;
  }
  __device__ __forceinline__ bool NeedsNorm() const { return merlin::NeedsNorm(rule); }
  __device__ __forceinline__ uint32_t Target(const PairTable& of, uint32_t, uint64_t key) const {
    return static_cast<uint32_t>(key - of.row_base);
  }
  template <typename E>
  static __device__ __forceinline__ E* At(void* rows, uint32_t row, int dim, int column) {
    return static_cast<E*>(rows) + (static_cast<uint64_t>(row) * static_cast<uint32_t>(dim) + column);
  }
  template <int kPack>
  __device__ __forceinline__ void Prefetch(const PairTable& of, uint32_t row, int column, bool wanted,
                                           Prefetched<kPack>* to) const {
    LoadOnceIf<T, kPack>(At<T>(table.rows, row, of.dim, column), wanted, &to->row);
#pragma unroll
    for (int s = 0; s < kSlots; ++s)
      LoadOnceIf<float, kPack>(At<float>(table.slot[s], row, of.dim, column), wanted, &to->slot[s]);
    if (kSlots == 0) {
      Pack<float, 1> state;
      LoadOnceIf<float, 1>(table.slot[0] + row, wanted && rule.kind == RuleKind::kRowwiseAdagrad, &state);
      to->of_row = state.item[0];
    }
  }
  template <int kPack>
  __device__ __forceinline__ float SquareOf(const float (&total)[kPack], Prefetched<kPack>* from) const {
    float squares = 0.0f;
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      const float g = GradientOf(scalars, total[k], FloatAt(from->row, k));
      squares = fmaf(g, g, squares);
    }
    return squares;
  }
  template <int kPack>
  __device__ __forceinline__ void Consume(const PairTable& of, uint32_t row, int column, const float (&total)[kPack],
                                          float squares, Prefetched<kPack>* from) const {
    if constexpr (kSlots == 0) {
      if (rule.kind == RuleKind::kSgd) {
        Step<RuleKind::kSgd>(of, row, column, total, squares, from);
      } else if (rule.kind == RuleKind::kRowwiseAdagrad) {
        Step<RuleKind::kRowwiseAdagrad>(of, row, column, total, squares, from);
      } else {
        Step<RuleKind::kAccumulate>(of, row, column, total, squares, from);
      }
    } else if constexpr (kSlots == 1) {
      if (rule.kind == RuleKind::kAdagrad) {
        Step<RuleKind::kAdagrad>(of, row, column, total, squares, from);
      } else if (rule.kind == RuleKind::kMomentum) {
        Step<RuleKind::kMomentum>(of, row, column, total, squares, from);
      } else {
        Step<RuleKind::kRmsprop>(of, row, column, total, squares, from);
      }
    } else {
      if (rule.kind == RuleKind::kAdam) {
        Step<RuleKind::kAdam>(of, row, column, total, squares, from);
      } else {
        Step<RuleKind::kFtrl>(of, row, column, total, squares, from);
      }
    }
  }
  template <RuleKind kKind, int kPack>
  __device__ __forceinline__ void Step(const PairTable& of, uint32_t row, int column, const float (&total)[kPack],
                                       float squares, Prefetched<kPack>* from) const {
    float rate = scalars.learning_rate;
    const float clip = ClipOf(rule, squares);
    const bool last = column + kPack >= of.dim;  // every thread has read the row's state by then
    if (kKind == RuleKind::kRowwiseAdagrad) {
      const float state = from->of_row + squares * clip * clip / static_cast<float>(of.dim);
      rate *= rsqrtf(state + rule.epsilon);
      if (last) table.slot[0][row] = state;
    }
    if (kKind == RuleKind::kAccumulate && last) table.slot[0][row] = 1.0f;
    float stepped[kPack];
#pragma unroll
    for (int k = 0; k < kPack; ++k) {
      float unused = 0.0f;
      const float w = FloatAt(from->row, k);
      const float g = clip * GradientOf(scalars, total[k], w);
      stepped[k] = StepRow(kKind, rule, scalars, rate, g, w, kSlots > 0 ? from->slot[0].item[k] : unused,
                           kSlots > 1 ? from->slot[kSlots - 1].item[k] : unused);
    }
    T result[kPack];
    if (sizeof(T) == 2 && rule.stochastic_rounding) {
#pragma unroll
      for (int k = 0; k < kPack; ++k) {
        RoundAtRandom(stepped[k], NoiseOf(scalars.noise, row, static_cast<uint32_t>(column + k)), &result[k]);
      }
    } else {
#pragma unroll
      for (int k = 0; k < kPack; ++k) result[k] = RoundTo<T>(stepped[k]);
    }
    StoreStream<T, kPack>(result, At<T>(table.rows, row, of.dim, column));
#pragma unroll
    for (int s = 0; s < kSlots; ++s) {
      StoreStream<float, kPack>(from->slot[s].item, At<float>(table.slot[s], row, of.dim, column));
    }
  }
};

__global__ void step_scalars_kernel(UpdateRule rule, StepInputs step, StepScalars* to) {
  *to = ScalarsOf(rule, step.learning_rate_on_device ? *step.learning_rate_on_device : step.learning_rate,
                  step.step_on_device ? *step.step_on_device : step.step,
                  step.grad_scale_on_device ? *step.grad_scale_on_device : step.grad_scale);
}

size_t TablesBytes(size_t count) { return (count * sizeof(UpdateTable) + 255) / 256 * 256; }

}  // namespace

EmbeddingBagUpdateCuda::EmbeddingBagUpdateCuda(const BagBatch& batch, const std::vector<UpdateTable>& tables,
                                               const UpdateRule& rule)
    : batch_(batch), tables_(tables), rule_(rule) {
  CheckUpdate(batch, tables, rule);
  const int bytes = SizeOf(batch.table_dtype);
  const SlotCount slots = SlotsOf(rule.kind);
  bool wide_rows = false;
  const auto aligned = [&](int t, int pack) {
    const int64_t dim = batch.tables[t].dim;
    bool fits = FitPack(pack, tables_[t].rows, dim, dim, bytes) == pack;
    for (int s = 0; s < slots.full; ++s) {
      fits &= dim % pack == 0 && reinterpret_cast<uintptr_t>(tables_[t].slot[s]) % std::min(16, pack * 4) == 0;
    }
    return fits;
  };
  for (const BagTable& table : batch.tables) wide_rows |= table.dim > 32;  // in more than one part, for any pack
  const bool norms = wide_rows && (rule.clip_norm > 0.0f || rule.kind == RuleKind::kRowwiseAdagrad);
  pairs_ = std::make_unique<SortedPairs>(batch, aligned, norms, TablesBytes(tables.size()) + sizeof(StepScalars));
}

EmbeddingBagUpdateCuda::~EmbeddingBagUpdateCuda() = default;

size_t EmbeddingBagUpdateCuda::workspace_bytes() const { return pairs_->workspace_bytes(); }

void EmbeddingBagUpdateCuda::Run(const StepInputs& step, void* workspace, CudaStream stream_ptr) {
  if (pairs_->num_pairs() == 0) return;
  const auto stream = static_cast<cudaStream_t>(stream_ptr);
  const PairView view = pairs_->Sort(workspace, stream);
  char* extra = pairs_->extra(workspace);
  UploadThroughParameters(extra, tables_.data(), tables_.size() * sizeof(UpdateTable), stream);
  auto* scalars = reinterpret_cast<StepScalars*>(extra + TablesBytes(tables_.size()));
  step_scalars_kernel<<<1, 1, 0, stream>>>(rule_, step, scalars);
  CheckLaunch("step_scalars_kernel");
  const auto* tables = reinterpret_cast<const UpdateTable*>(extra);
  DispatchTableAndOutput(batch_.table_dtype, batch_.output_dtype, [&](auto t, auto g) {
    using T = decltype(t);
    const auto launch = [&](auto slots) {
      constexpr int kSlots = decltype(slots)::value;
      LaunchWalk<T, decltype(g), kSlots>(view, pairs_->walk_blocks(),
                                         StepRows<T, kSlots>{rule_, scalars, tables, StepScalars{}, UpdateTable{}},
                                         stream);
    };
    switch (SlotsOf(rule_.kind).full) {
      case 0:
        return launch(std::integral_constant<int, 0>{});
      case 1:
        return launch(std::integral_constant<int, 1>{});
      default:
        return launch(std::integral_constant<int, 2>{});
    }
  });
}

}  // namespace merlin
