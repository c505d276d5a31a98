// What a training step does to a row that a batch touches: the rules and their numbers. The maths is in row_step.inc.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#ifdef __CUDACC__
#define MERLIN_HOST_DEVICE __host__ __device__
#else
#define MERLIN_HOST_DEVICE __attribute__((always_inline))  // see MERLIN_INLINE in dtypes.h
#endif

namespace merlin {

enum class RuleKind : int32_t { kSgd, kMomentum, kAdagrad, kRowwiseAdagrad, kAdam, kRmsprop, kFtrl, kAccumulate };

struct UpdateRule {
  RuleKind kind = RuleKind::kSgd;
  float beta1 = 0.9f;    // of Adam's first moment
  float beta2 = 0.999f;  // of Adam's second moment; of RMSprop's mean square
  float epsilon = 1e-7f;
  float momentum = 0.0f;
  float weight_decay = 0.0f;  // decoupled: row -= learning rate * weight_decay * row
  float l1 = 0.0f;            // FTRL
  float l2 = 0.0f;            // FTRL's own term; else gradient += 2 l2 row
  float clip_norm = 0.0f;     // 0 for none: largest norm of a row's gradient
  bool nesterov = false;
  bool stochastic_rounding = false;  // of 2-byte tables
  uint64_t seed = 0;                 // of the rounding
};

// Float32 state of a table's rows: `full` of them [num_rows, dim], then one [num_rows] if `per_row`.
struct SlotCount {
  int full;
  bool per_row;
  int total() const { return full + (per_row ? 1 : 0); }
};

inline SlotCount SlotsOf(RuleKind kind) {
  switch (kind) {
    case RuleKind::kSgd:
      return {0, false};
    case RuleKind::kMomentum:
    case RuleKind::kAdagrad:
    case RuleKind::kRmsprop:
      return {1, false};
    case RuleKind::kRowwiseAdagrad:
    case RuleKind::kAccumulate:
      return {0, true};
    case RuleKind::kAdam:
    case RuleKind::kFtrl:
      return {2, false};
  }
  return {0, false};
}

// Throws InvalidArgument for an unknown name.
RuleKind RuleKindFrom(const std::string& name);

// A table that a step changes, beside the BagTable of the same index.
struct UpdateTable {
  void* rows;      // [num_rows, dim] of the batch's table dtype
  float* slot[2];  // as SlotsOf says; null where there is none
};

// What a step brings; on CUDA the three may lie in device memory instead.
struct StepInputs {
  float learning_rate = 0.0f;
  int64_t step = 0;         // steps taken before this one
  float grad_scale = 1.0f;  // multiplies gradients; 0 leaves tables and slots as they are
  const float* learning_rate_on_device = nullptr;
  const int64_t* step_on_device = nullptr;
  const float* grad_scale_on_device = nullptr;
};

// The numbers of one step that do not depend on the row.
struct StepScalars {
  float learning_rate;
  float step_size;  // Adam: learning rate with the bias corrections
  float grad_scale;
  float inverse_learning_rate;  // FTRL
  float gradient_of_row;        // 2 l2, but 0 for FTRL
  float decay;                  // what weight decay adds of the row
  uint32_t noise;               // seed of the rounding in this step
};

// `step` steps have been taken before this one.
MERLIN_HOST_DEVICE inline StepScalars ScalarsOf(const UpdateRule& rule, float learning_rate, int64_t step,
                                                float grad_scale) {
  StepScalars scalars;
  scalars.learning_rate = learning_rate;
  scalars.step_size = learning_rate;
  scalars.grad_scale = grad_scale;
  scalars.inverse_learning_rate = learning_rate == 0.0f ? 0.0f : 1.0f / learning_rate;
  scalars.gradient_of_row = rule.kind == RuleKind::kFtrl ? 0.0f : 2.0f * rule.l2;
  scalars.decay = -learning_rate * rule.weight_decay;
  if (rule.kind == RuleKind::kAdam) {
    const double t = static_cast<double>(step) + 1.0;
    scalars.step_size = static_cast<float>(learning_rate * sqrt(1.0 - pow(static_cast<double>(rule.beta2), t)) /
                                           (1.0 - pow(static_cast<double>(rule.beta1), t)));
  }
  const uint64_t mixed = (rule.seed + static_cast<uint64_t>(step) * 0x9e3779b97f4a7c15ull) * 0xbf58476d1ce4e5b9ull;
  scalars.noise = static_cast<uint32_t>(mixed >> 32) ^ static_cast<uint32_t>(mixed);
  return scalars;
}

}  // namespace merlin
