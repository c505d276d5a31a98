// Runs the CPU kernels of dot_interaction over random calls, for a build with AddressSanitizer and
// UndefinedBehaviorSanitizer: forward and gradient of all dtypes, odd sizes, unaligned rows, and every instruction set
// against a plain sum. All buffers are exactly as large as they must be. See test_sanitizers.py.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "dot_interaction/dot_interaction.h"
#include "dot_interaction/interaction_rows.h"
#include "exercise.h"

namespace merlin {
namespace {

using Buffer = std::vector<uint8_t>;

Buffer Floats(DType dtype, int64_t count) {
  Buffer buffer(std::max<int64_t>(1, count * SizeOf(dtype)));
  for (int64_t i = 0; i < count; ++i) {
    if (dtype == DType::kFloat32) {
      reinterpret_cast<float*>(buffer.data())[i] = static_cast<float>(Draw(-100, 100)) / 64.0f;
    } else {
      reinterpret_cast<uint16_t*>(buffer.data())[i] = static_cast<uint16_t>(Draw(0x3800, 0x3c00));
    }
  }
  return buffer;
}

void Call(Threads& threads) {
  const DType dtypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};
  Interaction call{};
  call.dtype = dtypes[Draw(0, 2)];
  call.batch = Draw(0, 5);
  call.dim = Draw(1, 70);
  call.order = Draw(0, 1) ? PairOrder::kLower : PairOrder::kUpper;
  call.self_interaction = Draw(0, 1);
  call.concat_first = Draw(0, 1);
  call.pad_to = Draw(1, 9);
  std::vector<Buffer> buffers;
  buffers.reserve(8);
  const int64_t parts = Draw(1, 3);
  for (int64_t p = 0; p < parts; ++p) {
    const int64_t features = Draw(1, 40), count = call.batch * features * call.dim;
    buffers.push_back(Floats(call.dtype, count));
    void* data = buffers.back().data();
    buffers.push_back(Floats(call.dtype, count));
    call.parts.push_back({data, buffers.back().data(), features});
  }
  Buffer output = Floats(call.dtype, call.batch * call.width());
  call.output = output.data();
  call.grad = output.data();
  DotInteraction(call, threads);
  DotInteractionGradient(call, threads);
}

void Compare(const InteractionRowKernels* kernels) {
  if (kernels == nullptr) return;
  const int64_t features = Draw(1, 40), dim = Draw(1, 70), stride = (features + 15) / 16 * 16;
  const bool lower = Draw(0, 1), self = Draw(0, 1);
  std::vector<std::vector<float>> x(features, std::vector<float>(dim)), out = x;
  std::vector<const float*> rows;
  std::vector<float*> outputs;
  for (int64_t i = 0; i < features; ++i) {
    for (float& value : x[i]) value = static_cast<float>(Draw(-8, 8));  // sums of these are exact
    rows.push_back(x[i].data());
    outputs.push_back(out[i].data());
  }
  std::vector<float> square(features * stride), line(features * (features + (self ? 1 : -1)) / 2);
  std::vector<const char*> next;
  for (const float* row : rows) next.push_back(reinterpret_cast<const char*>(row));
  const RowsAhead ahead(next.data(), features, dim * sizeof(float));
  kernels->products(rows.data(), features, dim, lower, self, line.data(), ahead);
  kernels->unpack(line.data(), features, lower, self, square.data(), stride);
  kernels->combine(rows.data(), features, dim, square.data(), stride, outputs.data(), false, ahead);
  const auto dot = [&](int64_t i, int64_t j) {
    double sum = 0;
    for (int64_t d = 0; d < dim; ++d) sum += x[i][d] * x[j][d];
    return sum;
  };
  for (int64_t i = 0; i < features; ++i) {
    for (int64_t d = 0; d < dim; ++d) {
      double expected = 0;
      for (int64_t j = 0; j < features; ++j) expected += (i == j ? (self ? 2.0 : 0.0) : 1.0) * dot(i, j) * x[j][d];
      REQUIRE(std::abs(out[i][d] - expected) <= 1e-5 * std::abs(expected) + 1e-2);
    }
  }
}

}  // namespace
}  // namespace merlin

int main() {
  merlin::StdThreads threads(2);
  for (int i = 0; i < 200; ++i) merlin::Call(threads);
  for (int i = 0; i < 20; ++i) {
    merlin::Compare(merlin::BaselineInteractionRows());
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
      merlin::Compare(merlin::Avx2InteractionRows());
    }
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl")) {
      merlin::Compare(merlin::Avx512InteractionRows());
    }
#endif
  }
  std::puts("exercised");
}
