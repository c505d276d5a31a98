// Calls each CPU kernel once on fixed inputs, in one thread, inside a function of its own: callgrind counts what is
// executed there. See instruction_counts.py, which builds and runs this against the installed kernels.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "dot_interaction/dot_interaction.h"
#include "embedding_bag/embedding_bag_update.h"
#include "inbatch_softmax/inbatch_softmax.h"

// callgrind counts between entry and return of these, and writes what it counted when they return.
#define COUNTED extern "C" __attribute__((noinline))

namespace {

using merlin::DType;

uint64_t state = 20261123;

// Uniform in [0, bound); a linear congruence, so that every machine draws the same.
int64_t Draw(int64_t bound) {
  state = state * 6364136223846793005ull + 1442695040888963407ull;
  return static_cast<int64_t>((state >> 33) % static_cast<uint64_t>(bound));
}

std::vector<float> Floats(int64_t count) {
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(Draw(2001) - 1000) / 8000.0f;
  return values;
}

std::vector<uint16_t> Halves(int64_t count) {  // numbers in bfloat16 and in float16
  std::vector<uint16_t> values(count);
  for (uint16_t& value : values) value = static_cast<uint16_t>(0x3c00 + Draw(0x100));
  return values;
}

merlin::StdThreads threads(1);

constexpr int64_t kRows = 1000, kBags = 256;

// Two features, one of bags of `hot` ids, the other ragged with fewer; a fifth of the ids are among a few hot rows.
struct Bags {
  int64_t dim, num_bags;
  std::vector<float> table, output, grad, first, second;
  std::vector<uint16_t> half_table, half_output;
  std::vector<int64_t> ids[2], row_splits{0};
  merlin::BagBatch batch;

  Bags(DType dtype, int64_t dim, int64_t hot, int64_t num_bags = kBags)
      : dim(dim),
        num_bags(num_bags),
        table(Floats(kRows * dim)),
        output(2 * num_bags * dim),
        grad(Floats(2 * num_bags * dim)),
        first(kRows * dim, 0.1f),
        second(kRows * dim, 0.1f),
        half_table(Halves(kRows * dim)),
        half_output(2 * num_bags * dim) {
    for (int64_t b = 0; b < num_bags; ++b) row_splits.push_back(row_splits.back() + Draw(hot));
    ids[0].resize(num_bags * hot);
    ids[1].resize(row_splits.back());
    for (auto& each : ids) {
      for (int64_t& id : each) id = Draw(5) ? Draw(kRows) : Draw(10);
    }
    const bool half = dtype != DType::kFloat32;
    batch.table_dtype = batch.output_dtype = dtype;
    batch.ids_are_int64 = true;
    batch.tables.push_back({half ? static_cast<void*>(half_table.data()) : table.data(), kRows, dim});
    for (int f = 0; f < 2; ++f) {
      merlin::BagFeature feature{};
      feature.ids = ids[f].data();
      feature.num_ids = static_cast<int64_t>(ids[f].size());
      feature.row_splits = f ? row_splits.data() : nullptr;
      feature.num_bags = num_bags;
      feature.padding_id = merlin::kNoPadding;
      feature.output_stride = dim;
      feature.output = half ? static_cast<void*>(half_output.data() + f * num_bags * dim)
                            : static_cast<void*>(output.data() + f * num_bags * dim);
      feature.grad = grad.data() + f * num_bags * dim;
      feature.combiner = f ? merlin::Combiner::kMean : merlin::Combiner::kSum;
      batch.features.push_back(feature);
      batch.names.push_back(f ? "ragged" : "dense");
    }
  }

  void Update(merlin::RuleKind kind) {
    merlin::UpdateRule rule;
    rule.kind = kind;
    merlin::StepInputs step;
    step.learning_rate = 0.01f;
    const int slots = merlin::SlotsOf(kind).total();
    EmbeddingBagUpdate(batch,
                       {{table.data(), {slots > 0 ? first.data() : nullptr, slots > 1 ? second.data() : nullptr}}},
                       rule, step, threads);
  }
};

struct Products {
  static constexpr int64_t kBatch = 32, kFeatures = 27, kDim = 128;
  std::vector<float> x = Floats(kBatch * kFeatures * kDim), x_grad = x, output;
  merlin::Interaction call{};

  Products() {
    call.dtype = DType::kFloat32;
    call.batch = kBatch;
    call.dim = kDim;
    call.parts.push_back({x.data(), x_grad.data(), kFeatures});
    call.order = merlin::PairOrder::kLower;
    call.pad_to = 1;
    output = Floats(kBatch * call.width());
    call.output = output.data();
    call.grad = output.data();
  }
};

struct Softmax {
  static constexpr int64_t kBatch = 256, kDim = 64;
  std::vector<float> queries = Floats(kBatch * kDim), candidates = Floats(kBatch * kDim), log_q = Floats(kBatch);
  std::vector<int64_t> ids = std::vector<int64_t>(kBatch), rank = ids;
  std::vector<float> loss = log_q, log_sum = log_q, score = log_q, mean = queries, up = Floats(kBatch);
  std::vector<float> sums = candidates, weights = log_q;
  std::vector<float> queries_grad = queries, positives_grad = queries, candidates_grad = queries,
                     positive_log_q_grad = log_q, candidate_log_q_grad = log_q;
  float scale = 20.0f, scale_grad = 0.0f;
  merlin::InbatchSoftmax call{};
  merlin::InbatchSoftmaxGradients grads{};

  Softmax() {
    for (int64_t& id : ids) id = Draw(8 * kBatch);
    call.dtype = DType::kFloat32;
    call.batch = call.candidates = kBatch;
    call.dim = kDim;
    call.queries = queries.data();
    call.positives = call.keys = candidates.data();
    call.scale = &scale;
    call.positive_ids = call.candidate_ids = ids.data();
    call.positive_log_q = call.candidate_log_q = log_q.data();
    call.loss = loss.data();
    call.log_sum = log_sum.data();
    call.positive_score = score.data();
    call.rank = rank.data();
    call.mean = mean.data();
    grads.log_sum = log_sum.data();
    grads.positive_score = score.data();
    grads.mean = mean.data();
    grads.log_sum_grad = grads.positive_score_grad = up.data();
    grads.queries = queries_grad.data();
    grads.positives = positives_grad.data();
    grads.keys = candidates_grad.data();
    grads.scale = &scale_grad;
    grads.positive_log_q = positive_log_q_grad.data();
    grads.candidate_log_q = candidate_log_q_grad.data();
  }

  // The gradients of a mean, whose candidates' are summed up in the forward pass.
  void Mean() {
    std::fill(up.begin(), up.end(), 1.0f / kBatch);
    call.candidate_sums = sums.data();
    call.candidate_weights = weights.data();
    grads.candidate_sums = sums.data();
    grads.candidate_weights = weights.data();
  }
};

}  // namespace

COUNTED void count_embedding_bag_forward(Bags& bags) { EmbeddingBagForward(bags.batch, threads); }
COUNTED void count_embedding_bag_forward_bfloat16(Bags& bags) { EmbeddingBagForward(bags.batch, threads); }
COUNTED void count_embedding_bag_forward_float16(Bags& bags) { EmbeddingBagForward(bags.batch, threads); }
COUNTED void count_embedding_bag_forward_short_bags(Bags& bags) { EmbeddingBagForward(bags.batch, threads); }
COUNTED void count_embedding_bag_gradient(Bags& bags, std::vector<int64_t>& ids, std::vector<float>& rows) {
  merlin::EmbeddingBagGradient(bags.batch, threads).Write({ids.data()}, {rows.data()}, threads);
}
COUNTED void count_embedding_bag_update_sgd(Bags& bags) { bags.Update(merlin::RuleKind::kSgd); }
COUNTED void count_embedding_bag_update_adagrad(Bags& bags) { bags.Update(merlin::RuleKind::kAdagrad); }
COUNTED void count_embedding_bag_update_rowwise_adagrad(Bags& bags) { bags.Update(merlin::RuleKind::kRowwiseAdagrad); }
COUNTED void count_embedding_bag_update_adam(Bags& bags) { bags.Update(merlin::RuleKind::kAdam); }
COUNTED void count_dot_interaction_forward(Products& products) { DotInteraction(products.call, threads); }
COUNTED void count_dot_interaction_gradient(Products& products) { DotInteractionGradient(products.call, threads); }
COUNTED void count_inbatch_softmax_forward(Softmax& softmax) { InbatchSoftmaxForward(softmax.call, threads); }
COUNTED void count_inbatch_softmax_gradient(Softmax& softmax) {
  InbatchSoftmaxBackward(softmax.call, softmax.grads, threads);
}
COUNTED void count_inbatch_softmax_forward_of_mean(Softmax& softmax) { InbatchSoftmaxForward(softmax.call, threads); }
COUNTED void count_inbatch_softmax_gradient_of_mean(Softmax& softmax) {
  InbatchSoftmaxBackward(softmax.call, softmax.grads, threads);
}

int main() {
  std::printf("%s\n", merlin::CpuInstructionSet());
  if (std::strcmp(merlin::CpuInstructionSet(), "avx2") != 0) return 0;  // valgrind shows no AVX-512
  Bags bags(DType::kFloat32, 128, 16), half_bags(DType::kBFloat16, 128, 16), wide_bags(DType::kFloat32, 512, 4);
  std::vector<int64_t> ids(kRows);
  std::vector<float> rows(kRows * bags.dim);
  Products products;
  Softmax softmax;
  count_embedding_bag_forward(bags);
  count_embedding_bag_forward_bfloat16(half_bags);
  count_embedding_bag_gradient(bags, ids, rows);
  count_embedding_bag_update_sgd(wide_bags);
  count_embedding_bag_update_adagrad(wide_bags);
  count_embedding_bag_update_adam(wide_bags);
  count_dot_interaction_forward(products);
  Products again;
  count_dot_interaction_gradient(again);
  count_inbatch_softmax_forward(softmax);
  count_inbatch_softmax_gradient(softmax);
  softmax.Mean();
  count_inbatch_softmax_forward_of_mean(softmax);
  count_inbatch_softmax_gradient_of_mean(softmax);
  // Made last, since what is made before draws the numbers that its figure was counted with.
  Bags float16_bags(DType::kFloat16, 128, 16), short_bags(DType::kFloat32, 64, 2, 4096),
      rowwise_bags(DType::kFloat32, 512, 4);
  count_embedding_bag_forward_float16(float16_bags);
  count_embedding_bag_forward_short_bags(short_bags);
  count_embedding_bag_update_rowwise_adagrad(rowwise_bags);
}
