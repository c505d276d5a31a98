// lookup_interaction on CUDA: the kernels of dot_interaction over rows that are looked up, and one over pooled rows.
#include "dot_interaction/dot_interaction_cuda.h"
#include "dot_interaction/interaction_gradient.cuh"
#include "dot_interaction/interaction_pooled.cuh"
#include "dot_interaction/lookup_interaction.h"
#include "embedding_bag/embedding_bag_cuda.h"

namespace merlin {
namespace {

InteractionArgs LookupArgs(const Interaction& call, const BagBatch& bags) {
  InteractionArgs args = ArgsOf(call);
  args.note = DeviceNote();
  args.ids_are_int64 = bags.ids_are_int64;
  const int first = args.features - static_cast<int>(bags.features.size());
  for (size_t f = 0; f < bags.features.size(); ++f) {
    const BagFeature& feature = bags.features[f];
    const BagTable& table = bags.tables[feature.table];
    RowPlace& place = args.place[first + f];
    place.base = static_cast<const char*>(table.rows);
    place.stride = static_cast<uint32_t>(table.dim * SizeOf(bags.table_dtype));
    place.num_rows = static_cast<int32_t>(table.num_rows);
    place.ids = feature.ids;
    place.padding_id = feature.padding_id;
    place.hotness = static_cast<int16_t>(feature.num_bags == 0 ? 1 : feature.num_ids / feature.num_bags);
    place.combiner = static_cast<int16_t>(feature.combiner);
    place.index = static_cast<int16_t>(f);
  }
  return args;
}

// Calls body(element, table element) with values of the CUDA types.
template <typename Body>
void DispatchTypes(DType dtype, DType table_dtype, Body&& body) {
  DispatchDType(dtype, [&](auto t) {
    using T = decltype(t);
    if constexpr (!std::is_same_v<T, float>) {
      if (table_dtype == DType::kFloat32) return body(t, float{});
    }
    body(t, t);
  });
}

template <typename T, typename Table, bool kExact>
void Forward(const InteractionArgs& args, bool one_hot, void* output_ptr, cudaStream_t stream) {
  // Rows of float tables take twice the registers until they are rounded to two bytes.
  constexpr int kFew = std::is_same_v<T, Table> ? kChunksUnderWay<T, 1> : 2;
  T* output = static_cast<T*>(output_ptr);
  if (args.features <= 16) {
    one_hot ? LaunchForward<OneHotRows<T, Table, 2>, 1, kFew, kExact>(args, output, stream)
            : LaunchPooled<T, Table, 1, kExact>(args, output, stream);
  } else {
    one_hot ? LaunchForward<OneHotRows<T, Table, 4>, 2, kChunksUnderWay<T, 2>, kExact>(args, output, stream)
            : LaunchPooled<T, Table, 2, kExact>(args, output, stream);
  }
}

}  // namespace

void CheckLookupInteraction(const Interaction& call, const BagBatch& bags) {
  CheckInteraction(call);
  Check(call.features() <= kMaxFusedFeatures, "features must be at most ", kMaxFusedFeatures,
        " together in lookup_interaction. Received: ", call.features());
  Check(call.parts.size() <= 2 && call.parts.back().data == nullptr &&
            call.parts.back().features == static_cast<int64_t>(bags.features.size()) &&
            (call.parts.size() == 1 || call.parts[0].features == 1),
        "lookup_interaction takes one dense feature or none before those of the bags");
  Check(call.dim * SizeOf(call.dtype) % 16 == 0 && call.dim * SizeOf(bags.table_dtype) % 16 == 0,
        "Rows must be a multiple of 16 bytes long in lookup_interaction. Received: ", call.dim, " elements");
  Check(bags.table_dtype == call.dtype || bags.table_dtype == DType::kFloat32,
        "Tables must be float32, or of the dtype of the output. Received: ", NameOf(bags.table_dtype));
  for (const InteractionPart& part : call.parts) {
    for (const void* begin : {part.data, static_cast<const void*>(part.grad)}) {
      CheckAligned(begin, "The dense feature and gradients must begin at a multiple of 16 bytes in ",
                   "lookup_interaction on CUDA");
    }
  }
  Check(!call.concat_first || call.parts.size() == 2,
        "concat_first needs a dense feature in lookup_interaction. Received: none");
  for (size_t f = 0; f < bags.features.size(); ++f) {
    const BagFeature& feature = bags.features[f];
    const BagTable& table = bags.tables[feature.table];
    CheckAligned(table.rows, "The table of feature '", bags.names[f],
                 "' must begin at a multiple of 16 bytes in lookup_interaction on CUDA");
    Check(table.dim == call.dim, "Tables must have the last dimension of the dense feature, ", call.dim,
          ". Received: ", table.dim, " for feature '", bags.names[f], "'");
    Check(feature.row_splits == nullptr && feature.weights == nullptr && feature.combiner != Combiner::kMax &&
              feature.num_bags == call.batch && feature.num_ids >= feature.num_bags &&
              feature.num_ids <= feature.num_bags * kMaxFusedHotness,
          "Feature '", bags.names[f], "' must have a block of ", call.batch, " x 1 to ", kMaxFusedHotness,
          " ids without weights, pooled by sum, mean or sqrtn, in lookup_interaction");
    Check(table.num_rows <= INT32_MAX, "Feature '", bags.names[f],
          "' must read a table of fewer than 2^31 rows on CUDA. Received: ", table.num_rows);
  }
}

void LookupInteractionCuda(const Interaction& call, const BagBatch& bags, CudaStream stream_ptr) {
  CheckLookupInteraction(call, bags);
  if (call.batch == 0 || call.width() == 0) return;
  const auto stream = static_cast<cudaStream_t>(stream_ptr);
  const InteractionArgs args = LookupArgs(call, bags);
  const bool one_hot = !NeedsVectors(bags);
  DispatchTypes(call.dtype, bags.table_dtype, [&](auto element, auto table) {
    using T = decltype(element);
    using Table = decltype(table);
    constexpr bool kFloat = std::is_same_v<T, float>;
    if (kFloat && !call.tf32) return Forward<T, Table, kFloat>(args, one_hot, call.output, stream);
    Forward<T, Table, false>(args, one_hot, call.output, stream);
  });
}

bool NeedsVectors(const BagBatch& bags) {
  return std::any_of(bags.features.begin(), bags.features.end(),
                     [](const BagFeature& feature) { return feature.num_ids != feature.num_bags; });
}

void LookupInteractionGradientCuda(const Interaction& call, const BagBatch& bags, void* vectors,
                                   CudaStream stream_ptr) {
  CheckLookupInteraction(call, bags);
  if (call.batch == 0) return;
  if (NeedsVectors(bags)) {
    // Rows of several ids are pooled once for all columns, which is less than what looking them up block by block
    // costs.
    BagBatch pooled = bags;
    PlaceVectors(call, vectors, &pooled);
    EmbeddingBagForwardCuda(pooled, stream_ptr);
    Interaction dense = call;
    dense.parts.back().data = vectors;
    return DotInteractionGradientCuda(dense, stream_ptr);
  }
  const auto stream = static_cast<cudaStream_t>(stream_ptr);
  GradientArgs args{};
  args.x = LookupArgs(call, bags);
  args.grad = static_cast<const char*>(call.grad);
  PlaceGradients(call, args.dx);
  DispatchTypes(call.dtype, bags.table_dtype, [&](auto element, auto table) {
    using T = decltype(element);
    using Rows = OneHotRows<T, decltype(table), 8>;
    constexpr bool kFloat = std::is_same_v<T, float>;
    if (kFloat && !call.tf32) return LaunchGradient<Rows, true, kFloat>(args, stream);
    LaunchGradient<Rows, true, false>(args, stream);
  });
}

}  // namespace merlin
