// dot_interaction on the CPU: a sample at a time, its features in the first-level cache; samples over the threads.
#include <algorithm>
#include <cstring>

#include "common/check.h"
#include "dot_interaction/dot_interaction.h"
#include "dot_interaction/interaction_rows.h"

namespace merlin {
namespace {

// Gradients of more bytes in all would only push other things out of the caches.
constexpr int64_t kCachedBytes = 16 << 20;

// What a thread works with: the rows of one sample as float32, and the square of its pairs' gradients.
class Sample {
 public:
  explicit Sample(const Interaction& call)
      : call_(call),
        kernels_(InteractionRows()),
        features_(call.features()),
        stride_((features_ + 15) / 16 * 16),
        element_(SizeOf(call.dtype)),
        converted_(call.dtype == DType::kFloat32 ? 0 : features_ * call.dim),
        gradient_(converted_.size()),
        line_(std::max(call.pairs(), call.dim)),
        square_(features_ * stride_),
        rows_(features_),
        ahead_(features_),
        outputs_(features_) {}

  void Forward(int64_t sample) {
    LoadRows(sample);
    char* out = static_cast<char*>(call_.output) + sample * call_.width() * element_;
    int64_t column = 0;
    if (call_.concat_first) {
      std::memcpy(out, FirstRow(sample), call_.dim * element_);
      column = call_.dim;
    }
    float* line = call_.dtype == DType::kFloat32 ? reinterpret_cast<float*>(out) + column : line_.data();
    kernels_.products(rows_.data(), features_, call_.dim, call_.order == PairOrder::kLower, call_.self_interaction,
                      line, Ahead(sample + 1));
    const int64_t pairs = call_.pairs();
    if (line == line_.data()) kernels_.store[Type()](line, pairs, out + column * element_);
    std::memset(out + (column + pairs) * element_, 0, (call_.width() - column - pairs) * element_);
  }

  void Backward(int64_t sample) {
    LoadRows(sample);
    const char* grad = static_cast<const char*>(call_.grad) + sample * call_.width() * element_;
    const int64_t column = call_.concat_first ? call_.dim : 0;
    const float* line = reinterpret_cast<const float*>(grad) + column;
    if (call_.dtype != DType::kFloat32) {
      kernels_.load[Type()](grad + column * element_, call_.pairs(), line_.data());
      line = line_.data();
    }
    const bool lower = call_.order == PairOrder::kLower;
    kernels_.unpack(line, features_, lower, call_.self_interaction, square_.data(), stride_);
    PointOutputs(sample);
    kernels_.combine(rows_.data(), features_, call_.dim, square_.data(), stride_, outputs_.data(), Streams(),
                     Ahead(sample + 1));
    if (call_.concat_first) {
      kernels_.load[Type()](grad, call_.dim, line_.data());
      for (int64_t d = 0; d < call_.dim; ++d) outputs_[0][d] += line_[d];
    }
    if (call_.dtype != DType::kFloat32) StoreGradients(sample);
  }

 private:
  int Type() const { return static_cast<int>(call_.dtype); }

  const char* FirstRow(int64_t sample) const {
    const InteractionPart& part = call_.parts[0];
    return static_cast<const char*>(part.data) + sample * part.features * call_.dim * element_;
  }

  void LoadRows(int64_t sample) {
    int64_t feature = 0;
    for (const InteractionPart& part : call_.parts) {
      const int64_t bytes = part.features * call_.dim * element_;
      const char* data = static_cast<const char*>(part.data) + sample * bytes;
      if (call_.dtype != DType::kFloat32) {
        kernels_.load[Type()](data, part.features * call_.dim, converted_.data() + feature * call_.dim);
      }
      for (int64_t i = 0; i < part.features; ++i, ++feature) {
        rows_[feature] = call_.dtype == DType::kFloat32 ? reinterpret_cast<const float*>(data) + i * call_.dim
                                                        : converted_.data() + feature * call_.dim;
      }
    }
  }

  // The rows of a sample, none after the last.
  RowsAhead Ahead(int64_t sample) {
    int64_t feature = 0;
    for (const InteractionPart& part : call_.parts) {
      const int64_t bytes = call_.dim * element_;
      const char* data = static_cast<const char*>(part.data) + sample * part.features * bytes;
      for (int64_t i = 0; i < part.features; ++i) ahead_[feature++] = data + i * bytes;
    }
    return RowsAhead(ahead_.data(), sample < call_.batch ? features_ : 0, call_.dim * element_);
  }

  void PointOutputs(int64_t sample) {
    int64_t feature = 0;
    for (const InteractionPart& part : call_.parts) {
      float* grad = static_cast<float*>(part.grad) + sample * part.features * call_.dim;
      for (int64_t i = 0; i < part.features; ++i, ++feature) {
        outputs_[feature] =
            call_.dtype == DType::kFloat32 ? grad + i * call_.dim : gradient_.data() + feature * call_.dim;
      }
    }
  }

  // The concatenated row's gradient is added in place, and must be in the caches.
  bool Streams() const {
    if (call_.dtype != DType::kFloat32 || call_.dim % 16 != 0 || call_.concat_first) return false;
    if (call_.batch * features_ * call_.dim * element_ <= kCachedBytes) return false;
    return std::all_of(call_.parts.begin(), call_.parts.end(),
                       [](const InteractionPart& part) { return reinterpret_cast<uintptr_t>(part.grad) % 64 == 0; });
  }

  void StoreGradients(int64_t sample) {
    int64_t feature = 0;
    for (const InteractionPart& part : call_.parts) {
      const int64_t count = part.features * call_.dim;
      kernels_.store[Type()](gradient_.data() + feature * call_.dim, count,
                             static_cast<char*>(part.grad) + sample * count * element_);
      feature += part.features;
    }
  }

  const Interaction& call_;
  const InteractionRowKernels& kernels_;
  const int64_t features_, stride_, element_;
  std::vector<float> converted_, gradient_, line_, square_;
  std::vector<const float*> rows_;
  std::vector<const char*> ahead_;
  std::vector<float*> outputs_;
};

int64_t NanosecondsASample(const Interaction& call) { return call.features() * call.features() * call.dim / 32 + 200; }

}  // namespace

PairOrder PairOrderFrom(const std::string& name) {
  if (name == "lower") return PairOrder::kLower;
  if (name == "upper") return PairOrder::kUpper;
  throw InvalidArgument("order must be 'lower' or 'upper'. Received: '" + name + "'");
}

int64_t Interaction::features() const {
  int64_t total = 0;
  for (const InteractionPart& part : parts) total += part.features;
  return total;
}

int64_t Interaction::width() const {
  const int64_t width = pairs() + (concat_first ? dim : 0);
  return (width + pad_to - 1) / pad_to * pad_to;
}

void CheckPadTo(int64_t pad_to) {
  Check(pad_to >= 1 && pad_to <= 1024, "pad_to must be in [1, 1024]. Received: ", pad_to);
}

void CheckInteraction(const Interaction& call) {
  Check(!call.parts.empty(), "features must hold at least one tensor. Received: none");
  for (const InteractionPart& part : call.parts) {
    Check(part.features >= 1, "Each tensor must hold at least one feature. Received: ", part.features);
  }
  Check(call.features() <= kMaxInteractionFeatures, "features must be at most ", kMaxInteractionFeatures,
        " together. Received: ", call.features());
  Check(call.dim >= 1 && call.dim <= kMaxInteractionDim, "dim must be in [1, ", kMaxInteractionDim,
        "]. Received: ", call.dim);
  CheckPadTo(call.pad_to);
}

void DotInteraction(const Interaction& call, Threads& threads) {
  CheckInteraction(call);
  threads.For(call.batch, NanosecondsASample(call), [&](int64_t begin, int64_t end) {
    Sample sample(call);
    for (int64_t b = begin; b < end; ++b) sample.Forward(b);
  });
}

void DotInteractionGradient(const Interaction& call, Threads& threads) {
  CheckInteraction(call);
  threads.For(call.batch, 2 * NanosecondsASample(call), [&](int64_t begin, int64_t end) {
    Sample sample(call);
    for (int64_t b = begin; b < end; ++b) sample.Backward(b);
  });
}

}  // namespace merlin
