// Lists the pairs of a batch in one launch and sorts them with CUB, by the bits that the keys need. The sort is stable:
// a row keeps the order of the input.
#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>

#include <algorithm>
#include <cstring>
#include <cub/device/device_radix_sort.cuh>
#include <cub/device/device_scan.cuh>

#include "embedding_bag/bag_pairs.cuh"

namespace merlin {
namespace {

constexpr int kThreads = 256;
constexpr int kListLanes = 8;

// Where list_pairs_kernel writes; null pointers for what the batch does not need.
template <typename Key>
struct PairTargets {
  Key* keys;
  uint32_t* values;
  float* bag_scale;
  uint32_t* bag_of_id;
  float* coef_of_id;
};

// All features in one launch; a block has one feature. Dense features whose pairs need no coefficients: a thread owns
// one id. Others: kListLanes lanes own one bag.
template <typename Id, typename Key>
__global__ void __launch_bounds__(kThreads)
    list_pairs_kernel(const DeviceFeature* features, const GradFeature* grads, int num_features,
                      const uint32_t* id_base, const PairTable* tables, PairTargets<Key> to,
                      volatile unsigned long long* note) {
  int f = 0;
  for (int high = num_features - 1; f < high;) {
    const int middle = (f + high) / 2;
    if (blockIdx.x < features[middle].block_end) {
      high = middle;
    } else {
      f = middle + 1;
    }
  }
  const DeviceFeature& feature = features[f];
  const GradFeature& grad = grads[f];
  const int64_t thread =
      static_cast<int64_t>(blockIdx.x - (f == 0 ? 0 : features[f - 1].block_end)) * kThreads + threadIdx.x;
  const Key row_base = static_cast<Key>(tables[grad.table].row_base);
  const Key no_key = static_cast<Key>(tables[grad.table].no_key);
  if (!feature.row_splits && !to.bag_scale && !to.coef_of_id) {
    if (thread >= feature.num_ids) return;
    const int64_t row = RowAt<Id>(feature, thread, note);
    to.keys[id_base[f] + thread] = row == kNoRow ? no_key : row_base + static_cast<Key>(row);
    to.values[id_base[f] + thread] = grad.bag_base + static_cast<uint32_t>(thread) / feature.ids_a_bag;
    return;
  }
  const int64_t bag = thread / kListLanes;
  if (bag >= feature.num_bags) return;
  const int lane = threadIdx.x % kListLanes;
  const unsigned mask = 0xffu << (threadIdx.x % 32 / kListLanes * kListLanes);
  const BagRange range = RangeOfBag(feature, static_cast<uint32_t>(bag), note);
  if (feature.row_splits) {
    // Ids outside every bag, which only broken row_splits leave, must have a key, too.
    const auto skip = [&](int64_t begin, int64_t end) {
      end = min(end, feature.num_ids);
      for (int64_t p = max(begin, int64_t{0}) + lane; p < end; p += kListLanes) {
        to.keys[id_base[f] + static_cast<uint32_t>(p)] = no_key;
        to.values[id_base[f] + static_cast<uint32_t>(p)] = grad.bag_base;
      }
    };
    const int64_t begin = __ldg(feature.row_splits + bag), end = __ldg(feature.row_splits + bag + 1);
    if (range.begin == range.end && begin < end) skip(begin, end);
    if (bag == 0 && begin > 0) skip(0, begin);
    if (bag + 1 == feature.num_bags && end < feature.num_ids) skip(end, feature.num_ids);
  }
  const bool is_max = feature.combiner == static_cast<int>(Combiner::kMax);
  const uint32_t global_bag = grad.bag_base + static_cast<uint32_t>(bag);
  float sum = 0.0f, sum_of_squares = 0.0f;
  int32_t place = 0;  // among the bag's rows
  for (int64_t base = range.begin; base < range.end; base += kListLanes) {
    const int64_t p = base + lane;
    const int64_t row = p < range.end ? RowAt<Id>(feature, p, note) : kNoRow;
    const unsigned present = __ballot_sync(mask, row != kNoRow) & mask;
    if (p < range.end) {
      const uint32_t position = id_base[f] + static_cast<uint32_t>(p);
      to.keys[position] = row == kNoRow ? no_key : row_base + static_cast<Key>(row);
      to.values[position] = to.coef_of_id ? position : global_bag;
      const float weight = row == kNoRow ? 0.0f : feature.weights ? __ldg(feature.weights + p) : 1.0f;
      sum += weight;
      sum_of_squares += weight * weight;
      if (to.coef_of_id) {
        to.bag_of_id[position] = global_bag;
        const int before = __popc(present & ((1u << (threadIdx.x % 32)) - 1));
        to.coef_of_id[position] = is_max ? __int_as_float(place + before) : weight;
      }
    }
    place += __popc(present);
  }
  for (int step = kListLanes / 2; step > 0; step /= 2) {
    sum += __shfl_xor_sync(mask, sum, step, kListLanes);
    sum_of_squares += __shfl_xor_sync(mask, sum_of_squares, step, kListLanes);
  }
  if (lane == 0 && to.bag_scale) to.bag_scale[global_bag] = ScaleOf(feature.combiner, sum, sum_of_squares);
}

// Blocks of list_pairs_kernel for one feature.
int64_t ListBlocks(const DeviceFeature& feature, bool needs_bags) {
  const int64_t threads = feature.row_splits || needs_bags ? int64_t{feature.num_bags} * kListLanes : feature.num_ids;
  return (threads + kThreads - 1) / kThreads;
}

// A thread owns one column of one bag of a max feature: which of the bag's rows has the largest value, first come.
template <typename T, typename Id>
__global__ void __launch_bounds__(kThreads)
    max_winners_kernel(const DeviceFeature* features, int f, int32_t* winners, volatile unsigned long long* note) {
  const DeviceFeature& feature = features[f];
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t bag = i / feature.dim, d = i % feature.dim;
  if (bag >= feature.num_bags) return;
  const BagRange range = RangeOfBag(feature, static_cast<uint32_t>(bag), note);
  int32_t place = 0, winner = -1;
  float largest = 0.0f;
  for (int64_t p = range.begin; p < range.end; ++p) {
    const int64_t row = RowAt<Id>(feature, p, note);
    if (row == kNoRow) continue;
    const float value = AsFloat(__ldg(static_cast<const T*>(feature.table) + row * feature.dim + d));
    if (winner < 0 || value > largest) {
      largest = value;
      winner = place;
    }
    ++place;
  }
  winners[i] = winner;
}

template <typename Key>
struct BeginsRun {
  const Key* keys;
  __device__ uint32_t operator()(uint32_t i) const { return i == 0 || keys[i - 1] != keys[i] ? 1u : 0u; }
};

template <typename Key>
void NumberRunsAs(const PairView* view, uint32_t num_pairs, uint32_t* run_numbers, void* temporary, size_t* bytes,
                  cudaStream_t stream) {
  const auto flags = thrust::make_transform_iterator(
      thrust::counting_iterator<uint32_t>(0), BeginsRun<Key>{view ? static_cast<const Key*>(view->keys) : nullptr});
  CheckCuda(cub::DeviceScan::InclusiveSum(temporary, *bytes, flags, run_numbers, static_cast<int>(num_pairs), stream),
            "cub::DeviceScan");
}

}  // namespace

void SortedPairs::PlanBatch() {
  CheckBatch(batch_);
  const size_t count = batch_.features.size(), num_tables = batch_.tables.size();
  std::vector<uint64_t> ids_of_table(num_tables);
  uint64_t ids = 0, bags = 0;
  tables_.resize(num_tables);
  for (PairTable& table : tables_) table.only_feature = -2;
  for (size_t f = 0; f < count; ++f) {
    const BagFeature& from = batch_.features[f];
    per_id_ |= from.combiner == Combiner::kMax || from.weights != nullptr;
    scaled_ |= from.combiner == Combiner::kMean || from.combiner == Combiner::kSqrtn;
  }
  for (size_t f = 0; f < count; ++f) {
    const BagFeature& from = batch_.features[f];
    features_.push_back(MakeDeviceFeature(batch_, static_cast<int>(f)));
    if (from.num_bags == 0) features_.back().num_ids = 0;
    list_blocks_ += ListBlocks(features_.back(), scaled_ || per_id_);
    Check(list_blocks_ <= INT32_MAX,
          "All features together must need fewer than 2^31 blocks. Received: ", list_blocks_);
    features_.back().block_end = static_cast<uint32_t>(list_blocks_);
    PairTable& table = tables_[from.table];
    table.only_feature = table.only_feature == -2 ? static_cast<int32_t>(f) : -1;
    table.has_max |= from.combiner == Combiner::kMax;
    GradFeature grad{};
    grad.grad = from.grad;
    grad.stride = static_cast<int32_t>(from.output_stride);
    grad.bag_base = static_cast<uint32_t>(bags);
    grad.table = from.table;
    grad.is_max = from.combiner == Combiner::kMax;
    grad.winner_offset = winner_count_;
    if (grad.is_max) winner_count_ += from.num_bags * batch_.tables[from.table].dim;
    grads_.push_back(grad);
    id_base_.push_back(static_cast<uint32_t>(ids));
    ids += features_.back().num_ids;
    ids_of_table[from.table] += features_.back().num_ids;
    bags += from.num_bags;
    Check(ids < INT32_MAX && bags < UINT32_MAX, "All features together must have fewer than 2^31 ids and 2^32 bags on ",
          "CUDA. Received: ", ids, " ids in ", bags, " bags");
  }
  uint64_t rows = 0;
  uint32_t pairs = 0;
  for (size_t t = 0; t < num_tables; ++t) {
    PairTable& table = tables_[t];
    table.row_base = rows;
    table.no_key = rows + batch_.tables[t].num_rows;
    rows = table.no_key + 1;
    table.pair_begin = pairs;
    table.pair_end = pairs += static_cast<uint32_t>(ids_of_table[t]);
    table.dim = static_cast<int32_t>(batch_.tables[t].dim);
  }
  num_ids_ = pairs;
  num_bags_ = static_cast<uint32_t>(bags);
  wide_keys_ = rows > UINT32_MAX;
  while (key_bits_ < 63 && (uint64_t{1} << key_bits_) < rows) ++key_bits_;
  key_bits_ = std::max(key_bits_, 1);
}

int SortedPairs::FitGradients(int table, int pack) const {
  for (const BagFeature& feature : batch_.features) {
    if (feature.table != table || feature.num_bags == 0) continue;
    pack = std::min(pack, FitPack(pack, feature.grad, feature.output_stride, batch_.tables[table].dim,
                                  SizeOf(batch_.output_dtype)));
  }
  return pack;
}

void SortedPairs::PlanWorkspace(bool with_norms, size_t extra_bytes) {
  Check(partial_floats_ / 4 < UINT32_MAX, "The batch is too large for one call on CUDA. Received: ", num_ids_, " ids");
  with_norms_ = with_norms;
  size_t at = 0;
  const auto take = [&](size_t bytes) {
    const size_t here = at;
    at += (bytes + 255) / 256 * 256;
    return here;
  };
  at_features_ = take(features_.size() * sizeof(DeviceFeature));
  at_grads_ = take(grads_.size() * sizeof(GradFeature));
  at_tables_ = take(tables_.size() * sizeof(PairTable));
  at_id_base_ = take(id_base_.size() * 4);
  at_count_ = take(8);
  upload_bytes_ = at;
  const size_t key = wide_keys_ ? 8 : 4, ids = num_ids_;
  for (int i = 0; i < 2; ++i) {
    keys_[i] = take(ids * key);
    values_[i] = take(ids * 4);
  }
  bag_scale_ = take(scaled_ ? size_t{num_bags_} * 4 : 0);
  bag_of_id_ = take(per_id_ ? ids * 4 : 0);
  coef_of_id_ = take(per_id_ ? ids * 4 : 0);
  winners_ = take(winner_count_ * 4);
  long_runs_ = take((num_tiles_ + 1) * sizeof(LongRun));
  partials_ = take(static_cast<size_t>(partial_floats_) * 4);
  norms_ = take(with_norms ? ids * 4 : 0);
  if (num_ids_ > 0) {
    if (wide_keys_) {
      cub::DoubleBuffer<uint64_t> k;
      cub::DoubleBuffer<uint32_t> v;
      CheckCuda(cub::DeviceRadixSort::SortPairs(nullptr, cub_bytes_, k, v, static_cast<int>(num_ids_), 0, key_bits_),
                "cub::DeviceRadixSort");
    } else {
      cub::DoubleBuffer<uint32_t> k, v;
      CheckCuda(cub::DeviceRadixSort::SortPairs(nullptr, cub_bytes_, k, v, static_cast<int>(num_ids_), 0, key_bits_),
                "cub::DeviceRadixSort");
    }
  }
  cub_ = take(std::max<size_t>(cub_bytes_, 1));
  extra_ = take(extra_bytes);
  total_ = at;
}

template <typename Key>
int SortedPairs::SortAs(char* w, cudaStream_t stream) const {
  volatile unsigned long long* note = DeviceNote();
  const auto* feature_ptr = reinterpret_cast<const DeviceFeature*>(w + at_features_);
  const PairTargets<Key> to{reinterpret_cast<Key*>(w + keys_[0]), reinterpret_cast<uint32_t*>(w + values_[0]),
                            scaled_ ? reinterpret_cast<float*>(w + bag_scale_) : nullptr,
                            per_id_ ? reinterpret_cast<uint32_t*>(w + bag_of_id_) : nullptr,
                            per_id_ ? reinterpret_cast<float*>(w + coef_of_id_) : nullptr};
  const auto list = [&](auto id) {
    list_pairs_kernel<decltype(id), Key><<<static_cast<unsigned>(list_blocks_), kThreads, 0, stream>>>(
        feature_ptr, reinterpret_cast<const GradFeature*>(w + at_grads_), static_cast<int>(features_.size()),
        reinterpret_cast<const uint32_t*>(w + at_id_base_), reinterpret_cast<const PairTable*>(w + at_tables_), to,
        note);
  };
  batch_.ids_are_int64 ? list(int64_t{}) : list(int32_t{});
  CheckLaunch("list_pairs_kernel");
  for (size_t f = 0; f < batch_.features.size(); ++f) {
    const BagFeature& feature = batch_.features[f];
    const int64_t cells = feature.num_bags * batch_.tables[feature.table].dim;
    if (feature.combiner != Combiner::kMax || cells == 0) continue;
    Check(cells < (int64_t{1} << 38), "Feature '", batch_.names[f], "' is too large for combiner 'max' on CUDA");
    DispatchDType(batch_.table_dtype, [&](auto t) {
      const auto launch = [&](auto id) {
        max_winners_kernel<decltype(t), decltype(id)>
            <<<static_cast<unsigned>((cells + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
                feature_ptr, static_cast<int>(f), reinterpret_cast<int32_t*>(w + winners_) + grads_[f].winner_offset,
                note);
      };
      batch_.ids_are_int64 ? launch(int64_t{}) : launch(int32_t{});
    });
    CheckLaunch("max_winners_kernel");
  }
  cub::DoubleBuffer<Key> k(reinterpret_cast<Key*>(w + keys_[0]), reinterpret_cast<Key*>(w + keys_[1]));
  cub::DoubleBuffer<uint32_t> v(reinterpret_cast<uint32_t*>(w + values_[0]),
                                reinterpret_cast<uint32_t*>(w + values_[1]));
  size_t bytes = cub_bytes_;
  CheckCuda(cub::DeviceRadixSort::SortPairs(w + cub_, bytes, k, v, static_cast<int>(num_ids_), 0, key_bits_, stream),
            "cub::DeviceRadixSort");
  return k.selector;
}

PairView SortedPairs::Sort(void* workspace, cudaStream_t stream) {
  char* w = static_cast<char*>(workspace);
  std::vector<char> upload(upload_bytes_);
  const auto copy = [&](size_t at, const void* from, size_t bytes) {
    if (bytes > 0) std::memcpy(upload.data() + at, from, bytes);
  };
  copy(at_features_, features_.data(), features_.size() * sizeof(DeviceFeature));
  copy(at_grads_, grads_.data(), grads_.size() * sizeof(GradFeature));
  copy(at_tables_, tables_.data(), tables_.size() * sizeof(PairTable));
  copy(at_id_base_, id_base_.data(), id_base_.size() * 4);
  UploadThroughParameters(w, upload.data(), upload.size(), stream);
  int sorted = 0;
  if (num_ids_ > 0) sorted = wide_keys_ ? SortAs<uint64_t>(w, stream) : SortAs<uint32_t>(w, stream);
  PairView view{};
  view.tables = reinterpret_cast<const PairTable*>(w + at_tables_);
  view.features = reinterpret_cast<const GradFeature*>(w + at_grads_);
  view.keys = w + keys_[sorted];
  view.values = reinterpret_cast<const uint32_t*>(w + values_[sorted]);
  view.bag_scale = scaled_ ? reinterpret_cast<const float*>(w + bag_scale_) : nullptr;
  view.bag_of_id = per_id_ ? reinterpret_cast<const uint32_t*>(w + bag_of_id_) : nullptr;
  view.coef_of_id = per_id_ ? reinterpret_cast<const float*>(w + coef_of_id_) : nullptr;
  view.winners = reinterpret_cast<const int32_t*>(w + winners_);
  view.num_long_runs = reinterpret_cast<uint32_t*>(w + at_count_);
  view.max_long_runs = num_tiles_ + 1;
  view.tile = tile_;
  view.long_runs = reinterpret_cast<LongRun*>(w + long_runs_);
  view.partials = reinterpret_cast<float*>(w + partials_);
  view.norms = with_norms_ ? reinterpret_cast<float*>(w + norms_) : nullptr;
  view.num_tables = static_cast<int>(tables_.size());
  view.num_features = static_cast<int>(grads_.size());
  view.wide_keys = wide_keys_;
  return view;
}

size_t SortedPairs::NumberRunsBytes(uint32_t num_pairs) {
  size_t bytes = 0, wide_bytes = 0;
  NumberRunsAs<uint32_t>(nullptr, num_pairs, nullptr, nullptr, &bytes, nullptr);
  NumberRunsAs<uint64_t>(nullptr, num_pairs, nullptr, nullptr, &wide_bytes, nullptr);
  return std::max(bytes, wide_bytes);
}

void SortedPairs::NumberRuns(const PairView& view, uint32_t num_pairs, uint32_t* run_numbers, void* temporary,
                             size_t bytes, cudaStream_t stream) {
  if (view.wide_keys) {
    NumberRunsAs<uint64_t>(&view, num_pairs, run_numbers, temporary, &bytes, stream);
  } else {
    NumberRunsAs<uint32_t>(&view, num_pairs, run_numbers, temporary, &bytes, stream);
  }
}

}  // namespace merlin
