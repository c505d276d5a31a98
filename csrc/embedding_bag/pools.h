// Pools bags of rows, compiled once for each instruction set; `Pools()` picks the best set of this machine.
#pragma once

#include <cstdint>

#include "embedding_bag/rows.h"

namespace merlin {

// A bag whose rows are some of a list.
struct PooledBag {
  int64_t bag;
  int64_t begin;  // in the list
  int64_t count;
  float scale;  // what the sum is multiplied by: 1, 1 / sum w, 1 / sqrt(sum w^2), or 0 where that divides by zero
};

struct PoolKernels {
  // For each of the bags, which are in order, out[0..dim) = its scale * the sum of its rows; then `out` moves on by
  // `out_stride` elements. By the types of the table and of `out`. Of `rows` the first `readable` are asked for
  // before they are needed: all, or 0 where the table lies in a core's caches.
  void (*pool[3][3])(const void* table, int64_t dim, const int64_t* rows, const float* coefs, int64_t readable,
                     const PooledBag* bags, int64_t num_bags, int64_t out_stride, void* out);
};

const PoolKernels& Pools();

// One for each instruction set; null where the compiler's target has no such set.
const PoolKernels* BaselinePools();
const PoolKernels* Avx2Pools();
const PoolKernels* Avx512Pools();

}  // namespace merlin
