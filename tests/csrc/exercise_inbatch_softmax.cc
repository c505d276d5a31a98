// Runs the CPU kernels of inbatch_softmax over random calls, for a build with AddressSanitizer and
// UndefinedBehaviorSanitizer: forward and gradient of all dtypes, odd sizes, unaligned rows, and every instruction
// set's tiles against plain sums. All buffers are exactly as large as they must be. See test_sanitizers.py.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <vector>

#include "exercise.h"
#include "inbatch_softmax/inbatch_softmax.h"
#include "inbatch_softmax/softmax_tiles.h"

namespace merlin {
namespace {

using Buffer = std::vector<uint8_t>;

Buffer Elements(DType dtype, int64_t count) {
  Buffer buffer(std::max<int64_t>(1, count * SizeOf(dtype)));
  for (int64_t i = 0; i < count; ++i) {
    if (dtype == DType::kFloat32) {
      reinterpret_cast<float*>(buffer.data())[i] = static_cast<float>(Draw(-100, 100)) / 256.0f;
    } else {
      reinterpret_cast<uint16_t*>(buffer.data())[i] = static_cast<uint16_t>(Draw(0x3000, 0x3800));
    }
  }
  return buffer;
}

std::vector<float> Floats(int64_t count) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(Draw(-8, 8));  // sums of products of these are exact
  return values;
}

void Call(Threads& threads) {
  const DType dtypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};
  InbatchSoftmax call{};
  call.dtype = dtypes[Draw(0, 2)];
  call.batch = Draw(0, 120);
  call.candidates = Draw(0, 300);
  call.dim = Draw(0, 9) ? Draw(1, 70) : Draw(500, 512);
  const Buffer queries = Elements(call.dtype, call.batch * call.dim);
  const Buffer positives = Elements(call.dtype, call.batch * call.dim);
  const Buffer keys = Elements(call.dtype, call.candidates * call.dim);
  const float scale = static_cast<float>(Draw(1, 100)) / 4.0f;
  const int64_t most = Draw(0, 400);
  std::vector<int64_t> positive_ids(call.batch), candidate_ids(call.candidates), rank(call.batch);
  for (int64_t& id : positive_ids) id = Draw(0, most);
  for (int64_t& id : candidate_ids) id = Draw(0, most);
  const std::vector<float> positive_log_q = Floats(call.batch), candidate_log_q = Floats(call.candidates);
  std::vector<float> loss(call.batch), log_sum(call.batch), positive_score(call.batch), mean(call.batch * call.dim);
  call.queries = queries.data();
  call.positives = positives.data();
  call.keys = keys.data();
  call.scale = &scale;
  call.positive_ids = positive_ids.data();
  call.candidate_ids = candidate_ids.data();
  const bool corrected = Draw(0, 1);
  call.positive_log_q = corrected ? positive_log_q.data() : nullptr;
  call.candidate_log_q = corrected ? candidate_log_q.data() : nullptr;
  call.loss = loss.data();
  call.log_sum = log_sum.data();
  call.positive_score = positive_score.data();
  InbatchSoftmaxForward(call, threads);
  call.rank = rank.data();
  call.mean = mean.data();
  std::vector<float> query_weights = Floats(call.batch), candidate_sums, candidate_weights;
  const bool summed = InbatchSoftmaxSumsCandidates(call.batch, call.candidates) && Draw(0, 3);
  if (summed) {
    candidate_sums.resize(std::max<int64_t>(1, call.candidates * call.dim));
    candidate_weights.resize(std::max<int64_t>(1, call.candidates));
    call.query_weights = Draw(0, 1) ? query_weights.data() : nullptr;
    call.candidate_sums = candidate_sums.data();
    call.candidate_weights = corrected ? candidate_weights.data() : nullptr;
  }
  InbatchSoftmaxForward(call, threads);
  for (float value : loss) REQUIRE(std::isfinite(value) && value >= 0.0f);
  for (int64_t value : rank) REQUIRE(value >= 0 && value <= call.candidates);

  Buffer queries_grad = queries, positives_grad = positives, keys_grad = keys;
  std::vector<float> log_sum_grad = Floats(call.batch), positive_score_grad = Floats(call.batch);
  std::vector<float> positive_log_q_grad(call.batch), candidate_log_q_grad(call.candidates);
  for (int64_t i = 0; summed && Draw(0, 1) && i < call.batch; ++i) {
    log_sum_grad[i] = call.query_weights ? 0.75f * query_weights[i] : 0.75f;
  }
  float scale_grad;
  InbatchSoftmaxGradients grads{};
  grads.candidate_sums = call.candidate_sums;
  grads.candidate_weights = call.candidate_weights;
  grads.log_sum = log_sum.data();
  grads.positive_score = positive_score.data();
  grads.mean = mean.data();
  grads.log_sum_grad = log_sum_grad.data();
  grads.positive_score_grad = positive_score_grad.data();
  grads.queries = queries_grad.data();
  grads.positives = positives_grad.data();
  grads.keys = keys_grad.data();
  grads.scale = &scale_grad;
  grads.positive_log_q = corrected ? positive_log_q_grad.data() : nullptr;
  grads.candidate_log_q = corrected ? candidate_log_q_grad.data() : nullptr;
  InbatchSoftmaxBackward(call, grads, threads);
  REQUIRE(std::isfinite(scale_grad));
}

bool Near(double actual, double expected) { return std::abs(actual - expected) <= 1e-5 * std::abs(expected) + 1e-6; }

int64_t RoundUp(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

// What adds rows to columns' sums: all rows in one call, and in two.
void Across(const SoftmaxTileKernels& kernels, std::vector<float> tile, int64_t rows, int64_t columns, int64_t dim,
            const std::vector<float>& a) {
  const int64_t padded = RoundUp(columns, kernels.width), padded_dim = RoundUp(dim, kernels.panel);
  const int64_t step = rows * kernels.width;
  const auto weight = [&](int64_t r, int64_t c) {
    return tile[c / kernels.width * step + r * kernels.width + c % kernels.width];
  };
  kernels.scale(tile.data() + (rows - 1) * kernels.width, step, columns, 0.5f);
  const std::vector<float> factors = Floats(rows);
  const int64_t half = rows / kernels.rows / 2 * kernels.rows;
  std::vector<float> sums[2];
  std::vector<double> totals[2];
  for (int i : {0, 1}) {
    sums[i].assign(padded * padded_dim, 1.0f);
    totals[i].assign(padded, 1.0);
  }
  const auto add = [&](int i, int64_t first, int64_t count) {
    std::vector<float> by_row(std::max<int64_t>(1, count * padded_dim));
    kernels.pack_scaled(a.data() + first * dim, factors.data() + first, count, dim, by_row.data());
    const float* from = tile.data() + first * kernels.width;
    kernels.accumulate_across(from, step, count, by_row.data(), columns, padded_dim, sums[i].data());
    kernels.sum_across(from, step, count, factors.data() + first, columns, totals[i].data());
  };
  add(0, 0, rows);
  add(1, 0, half);
  add(1, half, rows - half);
  REQUIRE(sums[0] == sums[1] && totals[0] == totals[1]);
  for (int64_t c = 0; c < columns; ++c) {
    double total = 1.0, size = 1.0;
    for (int64_t r = 0; r < rows; ++r) {
      total += weight(r, c) * factors[r];
      size += std::abs(weight(r, c) * factors[r]);
    }
    REQUIRE(std::abs(totals[0][c] - total) <= 1e-5 * size);
    for (int64_t d = 0; d < dim; ++d) {
      double sum = 1.0, largest = 1.0;
      for (int64_t r = 0; r < rows; ++r) {
        sum += weight(r, c) * factors[r] * a[r * dim + d];
        largest += std::abs(weight(r, c) * factors[r] * a[r * dim + d]);
      }
      const int64_t at = d / kernels.panel * kernels.panel * padded + c * kernels.panel + d % kernels.panel;
      REQUIRE(std::abs(sums[0][at] - sum) <= 1e-5 * largest);
    }
  }
}

// The tile kernels of one instruction set on one chunk of columns.
void Compare(const SoftmaxTileKernels* kernels) {
  if (kernels == nullptr) return;
  const int64_t rows = RoundUp(Draw(1, 30), kernels->rows), columns = Draw(1, 100), dim = Draw(1, 70);
  const int64_t stride = RoundUp(columns, kernels->panel), padded_dim = RoundUp(dim, kernels->panel);
  const std::vector<float> a = Floats(rows * dim), b = Floats(columns * dim);
  std::vector<float> by_dimension(stride * dim), by_column(columns * padded_dim), scratch(padded_dim);
  kernels->pack[0](b.data(), columns, dim, by_dimension.data(), by_column.data(), scratch.data());

  const bool of_rows = Draw(0, 1);
  const std::vector<float> offset = Floats(of_rows ? rows : stride);
  std::vector<float> tile(rows * stride);
  const int64_t step = rows * kernels->width;
  const auto place = [&](int64_t r, int64_t c) {
    return c / kernels->width * step + r * kernels->width + c % kernels->width;
  };
  kernels->scores(a.data(), rows, dim, by_dimension.data(), columns, 0.25f, offset.data(), of_rows, tile.data(), step);
  const auto score = [&](int64_t r, int64_t c) {
    double sum = 0;
    for (int64_t d = 0; d < dim; ++d) sum += a[r * dim + d] * b[c * dim + d];
    return 0.25 * sum + offset[of_rows ? r : c];
  };
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) REQUIRE(tile[place(r, c)] == score(r, c));
  }

  std::vector<float> sums = Floats(rows * padded_dim);
  const std::vector<float> before = sums;
  kernels->accumulate(tile.data(), step, rows, by_column.data(), columns, padded_dim, sums.data());
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t d = 0; d < dim; ++d) {
      double sum = before[r * padded_dim + d], size = std::abs(sum);
      for (int64_t c = 0; c < columns; ++c) {
        sum += score(r, c) * b[c * dim + d];
        size += std::abs(score(r, c) * b[c * dim + d]);
      }
      REQUIRE(std::abs(sums[r * padded_dim + d] - sum) <= 1e-5 * size);
    }
  }

  Across(*kernels, tile, rows, columns, dim, a);

  const float nothing = -std::numeric_limits<float>::infinity();
  // A row by itself, as a tile of one.
  std::vector<float> scores(stride), log_sum = Floats(stride), grad = Floats(stride);
  for (int64_t c = 0; c < columns; ++c) scores[c] = tile[place(0, c)];
  std::fill(scores.begin() + columns, scores.end(), nothing);
  scores[Draw(0, columns - 1)] = nothing;
  const std::vector<float> given = scores;
  SoftmaxRowState state{1.5f, 2.0, 3};
  std::vector<float> row_sums(padded_dim, 1.0f);
  kernels->softmax(scores.data(), kernels->width, columns, 1.5f, &state, row_sums.data(), padded_dim);
  const float max = std::max(1.5f, *std::max_element(given.begin(), given.end()));
  double sum = 2.0 * std::exp(1.5 - max);
  int64_t greater = 3;
  for (int64_t c = 0; c < columns; ++c) {
    REQUIRE(Near(scores[c], std::exp(static_cast<double>(given[c]) - max)));
    REQUIRE(given[c] != nothing || scores[c] == 0.0f);
    sum += scores[c];
    greater += given[c] > 1.5f;
  }
  REQUIRE(state.max == max && state.greater == greater && Near(state.sum, sum));
  for (float value : row_sums) REQUIRE(Near(value, std::exp(1.5 - max)));

  scores = given;
  for (int64_t c = 0; c < stride; ++c) log_sum[c] = std::max(log_sum[c], given[c] - 60.0f);
  const float total = kernels->weights(scores.data(), kernels->width, columns, log_sum.data(), grad.data());
  double expected = 0, size = 0;
  for (int64_t c = 0; c < columns; ++c) {
    const double weight = grad[c] * std::exp(static_cast<double>(given[c]) - log_sum[c]);
    REQUIRE(Near(scores[c], weight));
    expected += weight;
    size += std::abs(weight);
  }
  REQUIRE(std::abs(total - expected) <= 1e-5 * size + 1e-6);

  std::vector<float> pair(rows), pair_offset = Floats(rows);
  kernels->pair_scores(a.data(), a.data(), rows, dim, 0.25f, pair_offset.data(), pair.data());
  for (int64_t r = 0; r < rows; ++r) {
    double square = 0;
    for (int64_t d = 0; d < dim; ++d) square += a[r * dim + d] * a[r * dim + d];
    REQUIRE(pair[r] == 0.25 * square + pair_offset[r]);
  }
}

}  // namespace
}  // namespace merlin

int main() {
  merlin::StdThreads one(1), two(2);  // one takes more strips
  for (int i = 0; i < 100; ++i) merlin::Call(i % 2 ? one : two);
  for (int i = 0; i < 50; ++i) {
    merlin::Compare(merlin::BaselineSoftmaxTiles());
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) merlin::Compare(merlin::Avx2SoftmaxTiles());
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl")) {
      merlin::Compare(merlin::Avx512SoftmaxTiles());
    }
#endif
  }
  std::puts("exercised");
}
