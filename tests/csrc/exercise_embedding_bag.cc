// Runs the CPU kernels of embedding_bag over random batches, for a build with AddressSanitizer and
// UndefinedBehaviorSanitizer: forward, both gradients and every update rule; odd sizes, unaligned rows, empty bags and
// batches, padding, bad ids, ids that change meanwhile. All buffers are exactly as large as they must be, so that the
// sanitizers see one element too many. See test_sanitizers.py.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "common/check.h"
#include "embedding_bag/embedding_bag_update.h"
#include "exercise.h"

namespace merlin {
namespace {

// A batch that owns its buffers.
struct Owned {
  BagBatch batch;
  std::vector<std::vector<uint8_t>> buffers;
  std::vector<UpdateTable> updates;

  template <typename T>
  T* Make(size_t count) {
    buffers.emplace_back(std::max<size_t>(1, count * sizeof(T)));
    return reinterpret_cast<T*>(buffers.back().data());
  }
  void* MakeFloats(DType dtype, size_t count) {
    if (dtype == DType::kFloat32) {
      float* data = Make<float>(count);
      for (size_t i = 0; i < count; ++i) data[i] = static_cast<float>(Draw(-100, 100)) / 64.0f;
      return data;
    }
    uint16_t* data = Make<uint16_t>(count);
    for (size_t i = 0; i < count; ++i) data[i] = static_cast<uint16_t>(Draw(0x3800, 0x3c00));  // finite in both types
    return data;
  }
};

void Fill(Owned* owned, RuleKind kind, bool weighted_and_max) {
  BagBatch& batch = owned->batch;
  const DType dtypes[] = {DType::kFloat32, DType::kFloat16, DType::kBFloat16};
  batch.table_dtype = dtypes[Draw(0, 2)];
  batch.output_dtype = Draw(0, 1) ? DType::kFloat32 : batch.table_dtype;
  batch.ids_are_int64 = Draw(0, 1);
  const int num_tables = static_cast<int>(Draw(1, 3));
  const SlotCount slots = SlotsOf(kind);
  for (int t = 0; t < num_tables; ++t) {
    const int64_t rows = Draw(1, 300), dims[] = {1, 3, 4, 7, 16, 17, 33, 64, 100, 130};
    const int64_t dim = dims[Draw(0, 9)];
    void* data = owned->MakeFloats(batch.table_dtype, rows * dim);
    batch.tables.push_back({data, rows, dim});
    UpdateTable update{data, {nullptr, nullptr}};
    for (int i = 0; i < slots.total(); ++i) {
      const size_t count = i >= slots.full ? rows : rows * dim;
      update.slot[i] = owned->Make<float>(count);
      for (size_t k = 0; k < count; ++k) update.slot[i][k] = 0.1f;
    }
    owned->updates.push_back(update);
  }
  const int num_features = static_cast<int>(Draw(1, 4));
  for (int f = 0; f < num_features; ++f) {
    BagFeature feature{};
    feature.table = static_cast<int32_t>(Draw(0, num_tables - 1));
    feature.combiner = static_cast<Combiner>(Draw(0, weighted_and_max ? 3 : 2));
    feature.num_bags = Draw(0, 40);
    feature.padding_id = Draw(0, 1) ? 0 : kNoPadding;
    const bool dense = Draw(0, 1);
    if (dense) {
      feature.num_ids = feature.num_bags * Draw(1, 5);
    } else {
      int64_t* splits = owned->Make<int64_t>(feature.num_bags + 1);
      splits[0] = 0;
      for (int64_t b = 0; b < feature.num_bags; ++b) splits[b + 1] = splits[b] + Draw(0, Draw(0, 9) == 0 ? 700 : 6);
      feature.row_splits = splits;
      feature.num_ids = splits[feature.num_bags];
    }
    const int64_t rows = batch.tables[feature.table].num_rows, dim = batch.tables[feature.table].dim;
    if (batch.ids_are_int64) {
      int64_t* ids = owned->Make<int64_t>(feature.num_ids);
      for (int64_t i = 0; i < feature.num_ids; ++i) ids[i] = Draw(0, rows - 1);
      feature.ids = ids;
    } else {
      int32_t* ids = owned->Make<int32_t>(feature.num_ids);
      for (int64_t i = 0; i < feature.num_ids; ++i) ids[i] = static_cast<int32_t>(Draw(0, rows - 1));
      feature.ids = ids;
    }
    if (weighted_and_max && feature.combiner != Combiner::kMax && Draw(0, 1)) {
      float* weights = owned->Make<float>(feature.num_ids);
      for (int64_t i = 0; i < feature.num_ids; ++i) weights[i] = static_cast<float>(Draw(1, 8)) / 4.0f;
      feature.weights = weights;
      feature.weights_grad = owned->Make<float>(feature.num_ids);
    }
    feature.output_stride = dim;
    feature.output = owned->Make<uint8_t>(feature.num_bags * dim * SizeOf(batch.output_dtype));
    feature.grad = owned->MakeFloats(batch.output_dtype, feature.num_bags * dim);
    batch.features.push_back(feature);
    batch.names.push_back("f" + std::to_string(f));
  }
}

void RunAll(RuleKind kind, int threads_count, bool weighted_and_max) {
  Owned owned;
  owned.buffers.reserve(256);
  Fill(&owned, kind, weighted_and_max);
  StdThreads threads(threads_count);
  EmbeddingBagForward(owned.batch, threads);
  EmbeddingBagWeightsGradient(owned.batch, threads);
  EmbeddingBagGradient gradient(owned.batch, threads);
  std::vector<void*> ids, rows;
  for (size_t t = 0; t < owned.batch.tables.size(); ++t) {
    const int64_t count = gradient.num_rows(static_cast<int>(t));
    REQUIRE(count <= owned.batch.tables[t].num_rows);
    ids.push_back(owned.Make<uint8_t>(count * (owned.batch.ids_are_int64 ? 8 : 4)));
    rows.push_back(owned.Make<uint8_t>(count * owned.batch.tables[t].dim * SizeOf(owned.batch.table_dtype)));
  }
  gradient.Write(ids, rows, threads);
  UpdateRule rule;
  rule.kind = kind;
  rule.momentum = 0.9f;
  rule.l1 = rule.l2 = 0.01f;
  rule.clip_norm = Draw(0, 1) ? 1.0f : 0.0f;
  rule.stochastic_rounding = Draw(0, 1);
  StepInputs step;
  step.learning_rate = 0.01f;
  for (step.step = 0; step.step < 2; ++step.step) {
    EmbeddingBagUpdate(owned.batch, owned.updates, rule, step, threads);
  }
}

void RefusesBadIds() {
  for (int64_t bad : {int64_t{-1}, int64_t{5}, INT64_MAX, INT64_MIN + 1}) {
    std::vector<float> table(5 * 3), grad(3), output(3);
    std::vector<int64_t> ids{2, bad};
    BagBatch batch;
    batch.table_dtype = batch.output_dtype = DType::kFloat32;
    batch.ids_are_int64 = true;
    batch.tables.push_back({table.data(), 5, 3});
    BagFeature feature{};
    feature.ids = ids.data();
    feature.num_ids = 2;
    feature.num_bags = 1;
    feature.padding_id = kNoPadding;
    feature.output_stride = 3;
    feature.output = output.data();
    feature.grad = grad.data();
    batch.features.push_back(feature);
    batch.names.push_back("f");
    StdThreads threads(2);
    int refused = 0;
    try {
      EmbeddingBagForward(batch, threads);
    } catch (const InvalidArgument&) {
      ++refused;
    }
    try {
      EmbeddingBagUpdate(batch, {{table.data(), {nullptr, nullptr}}}, UpdateRule{}, StepInputs{}, threads);
    } catch (const InvalidArgument&) {
      ++refused;
    }
    REQUIRE(refused == 2);
  }
}

// Does something between the parts of an op, as another thread may that shares its arrays.
class Meddler : public Threads {
 public:
  explicit Meddler(std::function<void()> meddle) : meddle_(std::move(meddle)) {}
  int count() const override { return 2; }
  void For(int64_t total, int64_t, const std::function<void(int64_t, int64_t)>& body) override {
    body(0, total);
    meddle_();
  }

 private:
  std::function<void()> meddle_;
};

// Ids and row_splits that change while they are read: an error or numbers, but nothing outside of memory. The table is
// as large as it takes for rows to lie in partitions of their own.
void StaysInMemoryWhereIdsChange(bool ragged) {
  constexpr int64_t kRows = 1000, kIds = 64;
  for (const int64_t other : {kRows - 1, int64_t{-2}}) {
    std::vector<float> table(kRows * 3), grad(kIds * 3, 1.0f);
    std::vector<int64_t> ids(kIds), splits(kIds + 1);
    for (int64_t i = 0; i <= kIds; ++i) splits[i] = i;
    BagBatch batch;
    batch.table_dtype = batch.output_dtype = DType::kFloat32;
    batch.ids_are_int64 = true;
    batch.tables.push_back({table.data(), kRows, 3});
    BagFeature feature{};
    feature.ids = ids.data();
    feature.row_splits = ragged ? splits.data() : nullptr;
    feature.num_ids = feature.num_bags = kIds;
    feature.padding_id = -2;  // so that fewer may come
    feature.output_stride = 3;
    feature.grad = grad.data();
    batch.features.push_back(feature);
    batch.names.push_back("f");
    Meddler threads([&] {
      if (ragged) {
        splits[kIds / 2] = 1'000'000;
      } else {
        std::fill(ids.begin(), ids.end(), other);
      }
    });
    bool refused = false;
    try {
      EmbeddingBagUpdate(batch, {{table.data(), {nullptr, nullptr}}}, UpdateRule{}, StepInputs{}, threads);
    } catch (const InvalidArgument&) {
      refused = true;
    }
    REQUIRE(refused == !ragged);  // of row_splits there is a copy
    REQUIRE(!refused || std::all_of(table.begin(), table.end(), [](float x) { return x == 0.0f; }));
  }
}

}  // namespace
}  // namespace merlin

int main() {
  using merlin::RuleKind;
  const RuleKind kinds[] = {RuleKind::kSgd,  RuleKind::kMomentum, RuleKind::kAdagrad, RuleKind::kRowwiseAdagrad,
                            RuleKind::kAdam, RuleKind::kRmsprop,  RuleKind::kFtrl,    RuleKind::kAccumulate};
  for (int round = 0; round < 20; ++round) {
    for (RuleKind kind : kinds) merlin::RunAll(kind, 1 + round % 3, round % 2 == 0);
  }
  merlin::RefusesBadIds();
  for (const bool ragged : {false, true}) merlin::StaysInMemoryWhereIdsChange(ragged);
  std::puts("exercised");
}
