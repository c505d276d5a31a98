// embedding_bag's backward pass with the optimizer's step, on the CPU.
//
// Partitions of the batch's entries (bag_entries.h) are one list of work over all tables. A worker sorts a partition
// and steps its rows one after the other; while it computes a row, the memory fetches the next ones with their state.
#include <algorithm>

#include "common/check.h"
#include "embedding_bag/bag_entries.h"
#include "embedding_bag/embedding_bag_update.h"
#include "embedding_bag/rows.h"

namespace merlin {
namespace {

constexpr int64_t kRowsAhead = 8;
constexpr int64_t kNanosecondsAnEntry = 100;

// Where a row and its state lie.
struct RowPlace {
  char* row;
  float* slot[2];
};

RowPlace PlaceOf(const BagTable& table, const UpdateTable& update, DType dtype, SlotCount slots, int64_t index) {
  RowPlace place{static_cast<char*>(update.rows) + index * table.dim * SizeOf(dtype), {nullptr, nullptr}};
  for (int i = 0; i < slots.full; ++i) place.slot[i] = update.slot[i] + index * table.dim;
  if (slots.per_row) place.slot[slots.full] = update.slot[slots.full] + index;
  return place;
}

}  // namespace

RuleKind RuleKindFrom(const std::string& name) {
  if (name == "sgd") return RuleKind::kSgd;
  if (name == "momentum") return RuleKind::kMomentum;
  if (name == "adagrad") return RuleKind::kAdagrad;
  if (name == "rowwise_adagrad") return RuleKind::kRowwiseAdagrad;
  if (name == "adam") return RuleKind::kAdam;
  if (name == "rmsprop") return RuleKind::kRmsprop;
  if (name == "ftrl") return RuleKind::kFtrl;
  if (name == "accumulate") return RuleKind::kAccumulate;
  throw InvalidArgument(
      "rule must be 'sgd', 'momentum', 'adagrad', 'rowwise_adagrad', 'adam', 'rmsprop', 'ftrl' or 'accumulate'. "
      "Received: '" +
      name + "'");
}

void CheckUpdate(const BagBatch& batch, const std::vector<UpdateTable>& tables, const UpdateRule& rule) {
  Check(tables.size() == batch.tables.size(), "tables must hold one table for each of the batch's ",
        batch.tables.size(), ". Received: ", tables.size());
  const SlotCount slots = SlotsOf(rule.kind);
  for (size_t t = 0; t < tables.size(); ++t) {
    Check(tables[t].rows != nullptr || batch.tables[t].num_rows == 0, "Table ", t, " must have rows. Received: none");
    for (int i = 0; i < slots.total(); ++i) {
      Check(tables[t].slot[i] != nullptr || batch.tables[t].num_rows == 0, "Table ", t, " must have ", slots.total(),
            " slots for this rule. Received: ", i);
    }
  }
  const auto in_unit = [](float value) { return value >= 0.0f && value < 1.0f; };
  Check(in_unit(rule.beta1) && in_unit(rule.beta2), "beta_1 and beta_2 must be in [0, 1). Received: ", rule.beta1,
        " and ", rule.beta2);
  Check(rule.epsilon >= 0.0f && rule.momentum >= 0.0f && rule.weight_decay >= 0.0f && rule.l1 >= 0.0f &&
            rule.l2 >= 0.0f && rule.clip_norm >= 0.0f,
        "epsilon, momentum, weight_decay, l1, l2 and clip_norm must not be negative. Received: ", rule.epsilon, ", ",
        rule.momentum, ", ", rule.weight_decay, ", ", rule.l1, ", ", rule.l2, " and ", rule.clip_norm);
}

void EmbeddingBagUpdate(const BagBatch& batch, const std::vector<UpdateTable>& tables, const UpdateRule& rule,
                        const StepInputs& step, Threads& threads) {
  CheckUpdate(batch, tables, rule);
  BagEntries entries(batch, threads);
  if (step.grad_scale == 0.0f || entries.size() == 0) return;
  const StepScalars scalars = ScalarsOf(rule, step.learning_rate, step.step, step.grad_scale);
  const SlotCount slots = SlotsOf(rule.kind);
  const int type = static_cast<int>(batch.table_dtype);
  const RowKernels& kernels = Rows();
  const int64_t partitions = entries.num_partitions();
  threads.For(partitions, kNanosecondsAnEntry * (entries.size() / partitions + 1), [&](int64_t begin, int64_t end) {
    std::vector<int64_t> runs;
    std::vector<BagEntries::Entry> buffer;
    std::vector<float> sum;
    BagEntries::Scratch scratch;
    for (int64_t p = begin; p < end; ++p) {
      runs.clear();
      entries.Sort(p, &buffer, &runs);
      if (runs.empty()) continue;
      const int64_t count = static_cast<int64_t>(runs.size());
      runs.push_back(entries.partition_end(p));
      int ahead_table = entries.TableOf(entries[runs[0]].row), t = ahead_table;
      const auto prefetch = [&](int64_t run) {
        const int64_t row = entries[runs[run]].row;
        while (row >= entries.row_base(ahead_table + 1)) ++ahead_table;
        const BagTable& table = batch.tables[ahead_table];
        const RowPlace place =
            PlaceOf(table, tables[ahead_table], batch.table_dtype, slots, row - entries.row_base(ahead_table));
        PrefetchRow(place.row, table.dim * SizeOf(batch.table_dtype));
        for (int i = 0; i < slots.full; ++i) PrefetchRow(place.slot[i], table.dim * 4);
        if (slots.per_row) PrefetchRow(place.slot[slots.full], 4);
        entries.PrefetchRun(runs[run], runs[run + 1], ahead_table);
      };
      for (int64_t run = 0; run < std::min(count, kRowsAhead); ++run) prefetch(run);
      for (int64_t run = 0; run < count; ++run) {
        if (run + kRowsAhead < count) prefetch(run + kRowsAhead);
        const int64_t row = entries[runs[run]].row;
        while (row >= entries.row_base(t + 1)) ++t;
        const int64_t dim = batch.tables[t].dim, index = row - entries.row_base(t);
        sum.resize(dim);
        entries.SumRun(runs[run], runs[run + 1], t, &scratch, sum.data());
        const RowPlace place = PlaceOf(batch.tables[t], tables[t], batch.table_dtype, slots, index);
        kernels.step[type](rule, scalars, index, dim, sum.data(), place.row, place.slot);
      }
    }
  });
}

}  // namespace merlin
