// The arrays of a call from Python, and what they say of bags.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/arrays.h"
#include "embedding_bag/embedding_bag.h"

namespace merlin {

// What the arrays of one call say, and the arrays themselves so that they live as long.
struct BagArrays {
  BagBatch batch;
  std::vector<std::unique_ptr<Array>> arrays;
  bool on_cuda = false;

  // Throws InvalidArgument, as all of this does, unless it lies where the first one does.
  const Array& Keep(pybind11::handle object, const std::string& name, Access access = Access::kRead);
};

// The features' outputs and gradients are left empty.
std::unique_ptr<BagArrays> ReadBags(const pybind11::list& tables, const pybind11::list& ids,
                                    const pybind11::list& row_splits, const pybind11::list& weights,
                                    const std::vector<int>& table_of_feature, const std::vector<std::string>& combiners,
                                    const std::vector<std::optional<int64_t>>& padding_ids,
                                    Access tables_access = Access::kRead);

}  // namespace merlin
