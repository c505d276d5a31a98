// Tables in shared memory, for kernels in which a thread block computes a sample: where the features' rows are, and
// where the pairs are in a packed row. Looked up there they cost one read each, whichever features the lanes ask for.
#pragma once

#include "dot_interaction/interaction_device.cuh"

namespace merlin {
namespace {

// A feature's row: that of sample 0, and how far apart those of consecutive samples. Null where there is no feature.
struct __align__(16) RowStart {
  const char* base;
  int64_t stride;  // bytes

  __device__ __forceinline__ const char* Of(int64_t sample) const { return base + sample * stride; }
};

// The pair i > j (or i == j) is `row[i] + column[j]` bytes behind the first pair.
struct Places {
  int *row, *column;
  RowStart* start;
};
constexpr int kPlaceBytes = 2 * sizeof(int) + sizeof(RowStart);  // of a feature

__device__ __forceinline__ Places PlacesIn(char* memory, int count) {
  int* const row = reinterpret_cast<int*>(memory + count * sizeof(RowStart));
  return {row, row + count, reinterpret_cast<RowStart*>(memory)};
}

// Lists the places of `count` features, at least as many as there are. By the block; its threads must meet before they
// are read.
template <typename T>
__device__ __forceinline__ void ListPlaces(const InteractionArgs& args, int count, const Places& places) {
  const Pairs pairs(args);
  for (int f = threadIdx.x; f < count; f += blockDim.x) {
    places.row[f] = (pairs(f, 0) - pairs(0, 0)) * static_cast<int>(sizeof(T));
    places.column[f] = pairs(0, f) * static_cast<int>(sizeof(T));
    places.start[f] = f < args.features ? RowStart{args.place[f].base, args.place[f].stride} : RowStart{nullptr, 0};
  }
}

}  // namespace
}  // namespace merlin
