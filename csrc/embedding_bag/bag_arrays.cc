#include "embedding_bag/bag_arrays.h"

#include "common/check.h"

namespace merlin {
namespace {

namespace py = pybind11;

Combiner CombinerFrom(const std::string& name) {
  if (name == "sum") return Combiner::kSum;
  if (name == "mean") return Combiner::kMean;
  if (name == "sqrtn") return Combiner::kSqrtn;
  if (name == "max") return Combiner::kMax;
  throw InvalidArgument("combiner must be 'sum', 'mean', 'sqrtn' or 'max'. Received: '" + name + "'");
}

}  // namespace

const Array& BagArrays::Keep(py::handle object, const std::string& name, Access access) {
  arrays.push_back(std::make_unique<Array>(object, name, access));
  const Array& array = *arrays.back();
  Check(array.on_cuda() == on_cuda || arrays.size() == 1, name, " must lie on the same device as the tables");
  on_cuda = array.on_cuda();
  return array;
}

std::unique_ptr<BagArrays> ReadBags(const py::list& tables, const py::list& ids, const py::list& row_splits,
                                    const py::list& weights, const std::vector<int>& table_of_feature,
                                    const std::vector<std::string>& combiners,
                                    const std::vector<std::optional<int64_t>>& padding_ids, Access tables_access) {
  auto call = std::make_unique<BagArrays>();
  BagBatch& batch = call->batch;
  const size_t n = py::len(ids);
  Check(py::len(row_splits) == n && py::len(weights) == n && table_of_feature.size() == n && combiners.size() == n &&
            padding_ids.size() == n,
        "row_splits, weights, table_of_feature, combiners and padding_ids must have one entry a feature. Received: ",
        py::len(row_splits), ", ", py::len(weights), ", ", table_of_feature.size(), ", ", combiners.size(), " and ",
        padding_ids.size(), " for ", n, " features");
  for (size_t t = 0; t < py::len(tables); ++t) {
    const Array& table = call->Keep(tables[t], Concat("tables[", t, "]"), tables_access);
    table.RequireRank(2);
    if (t == 0) batch.table_dtype = table.FloatDType();
    Check(table.FloatDType() == batch.table_dtype, "tables must have one dtype. Received: ", NameOf(batch.table_dtype),
          " and ", table.dtype());
    batch.tables.push_back({table.data(), table.shape()[0], table.shape()[1]});
  }
  for (size_t f = 0; f < n; ++f) {
    const std::string where = Concat("[", f, "]");
    BagFeature feature{};
    const Array& values = call->Keep(ids[f], "ids" + where);
    Check(values.dtype() == "int32" || values.dtype() == "int64", values.name(),
          " must have dtype int32 or int64. Received: ", values.dtype());
    if (f == 0) batch.ids_are_int64 = values.dtype() == "int64";
    Check((values.dtype() == "int64") == batch.ids_are_int64, "ids must have one dtype. Received: int32 and int64");
    Check(table_of_feature[f] >= 0 && table_of_feature[f] < static_cast<int>(batch.tables.size()), "table_of_feature",
          where, " must be in [0, ", batch.tables.size(), "). Received: ", table_of_feature[f]);
    feature.ids = values.data();
    feature.num_ids = values.size();
    feature.table = table_of_feature[f];
    feature.combiner = CombinerFrom(combiners[f]);
    feature.padding_id = padding_ids[f].value_or(kNoPadding);
    if (row_splits[f].is_none()) {
      values.RequireRank(2);
      feature.num_bags = values.shape()[0];
    } else {
      values.RequireRank(1);
      const Array& splits = call->Keep(row_splits[f], "row_splits" + where);
      splits.RequireRank(1);
      splits.RequireDType("int64");
      Check(splits.size() >= 1, splits.name(), " must have at least one element. Received: none");
      feature.row_splits = static_cast<const int64_t*>(splits.data());
      feature.num_bags = splits.size() - 1;
    }
    if (!weights[f].is_none()) {
      const Array& weight = call->Keep(weights[f], "weights" + where);
      weight.RequireDType("float32");
      Check(weight.shape() == values.shape(), weight.name(), " must have the shape of its ids");
      feature.weights = static_cast<const float*>(weight.data());
    }
    batch.features.push_back(feature);
    batch.names.push_back(std::to_string(f));
  }
  return call;
}

}  // namespace merlin
