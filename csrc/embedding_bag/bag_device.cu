#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

#include "embedding_bag/bag_device.cuh"
#include "embedding_bag/embedding_bag_cuda.h"

namespace merlin {
namespace {

std::mutex note_mutex;
std::map<int, volatile unsigned long long*> note_of_device;

// What a note says of a value: the ends of its range stand for all that lies beyond them, too.
std::string ToldValue(int64_t value) {
  if (value == kMostNoted) return Concat(value, " or more");
  if (value == kLeastNoted) return Concat(value, " or less");
  return Concat(value);
}

template <int kBytes>
struct ParameterBytes {
  uint4 word[kBytes / 16];
};

template <int kBytes>
__global__ void upload_kernel(const __grid_constant__ ParameterBytes<kBytes> from, uint4* to, int words) {
  for (int i = threadIdx.x; i < words; i += blockDim.x) to[i] = from.word[i];
}

template <int kBytes>
void UploadPart(char* to, const char* from, size_t bytes, cudaStream_t stream) {
  ParameterBytes<kBytes> parameter;
  std::memcpy(&parameter, from, bytes);
  upload_kernel<kBytes>
      <<<1, 256, 0, stream>>>(parameter, reinterpret_cast<uint4*>(to), static_cast<int>((bytes + 15) / 16));
  CheckLaunch("upload_kernel");
}

}  // namespace

void UploadThroughParameters(void* to, const void* from, size_t bytes, cudaStream_t stream) {
  constexpr size_t kLarge = 30 * 1024, kSmall = 4000;
  char* at = static_cast<char*>(to);
  const char* source = static_cast<const char*>(from);
  for (; bytes > 0;) {
    const size_t part = std::min(bytes, kLarge);
    if (part > kSmall) {
      UploadPart<kLarge>(at, source, part, stream);
    } else {
      UploadPart<kSmall>(at, source, part, stream);
    }
    at += part;
    source += part;
    bytes -= part;
  }
}

void CopyOnDevice(void* to, const void* from, size_t bytes, CudaStream stream) {
  CheckCuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, static_cast<cudaStream_t>(stream)),
            "cudaMemcpyAsync");
}

volatile unsigned long long* DeviceNote() {
  int device;
  CheckCuda(cudaGetDevice(&device), "cudaGetDevice");
  std::lock_guard<std::mutex> lock(note_mutex);
  auto& note = note_of_device[device];
  if (!note) {
    void* memory;
    CheckCuda(cudaHostAlloc(&memory, sizeof(unsigned long long), cudaHostAllocMapped | cudaHostAllocPortable),
              "cudaHostAlloc");
    note = static_cast<volatile unsigned long long*>(memory);
    *note = 0;
  }
  return note;  // unified addressing: the same pointer on host and device
}

std::string TakeDeviceError() {
  std::lock_guard<std::mutex> lock(note_mutex);
  for (auto& [device, note] : note_of_device) {
    const unsigned long long word = *note;
    if (word == 0) continue;
    *note = 0;
    const std::string value = ToldValue(static_cast<int64_t>(word << 16) >> 16);
    const int feature = static_cast<int>((word >> 48) & 0xfff);
    const std::string where = Concat(" of feature number ", feature, " of an earlier call on GPU ", device);
    switch (static_cast<NoteKind>(word >> 60)) {
      case NoteKind::kId:
        return Concat("Ids", where, " must be in [0, rows of its table). Received: ", value, ". The id was skipped");
      case NoteKind::kSplitsOrder:
        return Concat("row_splits", where, " must not decrease. Received: a decrease to ", value,
                      ". The bag was taken as empty");
      case NoteKind::kSplitsStart:
        return Concat("row_splits", where, " must start at 0. Received: ", value);
      case NoteKind::kSplitsEnd:
        return Concat("row_splits", where, " must end at the number of ids. Received: ", value);
      case NoteKind::kNone:
        break;
    }
    return Concat("Unknown device note ", word);
  }
  return "";
}

DeviceFeature MakeDeviceFeature(const BagBatch& batch, int f) {
  const BagFeature& from = batch.features[f];
  const BagTable& table = batch.tables[from.table];
  Check(table.dim <= INT32_MAX && from.output_stride <= INT32_MAX, "Feature '", batch.names[f],
        "' must have a dim and an output stride below 2^31 on CUDA. Received: ", table.dim, " and ",
        from.output_stride);
  Check(table.num_rows <= INT32_MAX, "Feature '", batch.names[f],
        "' must read a table of fewer than 2^31 rows on CUDA. Received: ", table.num_rows);
  DeviceFeature to{};
  to.ids = from.ids;
  to.row_splits = from.row_splits;
  to.weights = from.weights;
  to.table = table.rows;
  to.output = from.output;
  to.grad = from.grad;
  to.weights_grad = from.weights_grad;
  to.num_ids = from.num_ids;
  to.num_rows = table.num_rows;
  to.padding_id = from.padding_id;
  to.num_bags = static_cast<uint32_t>(from.num_bags);
  to.ids_a_bag = from.num_bags == 0 ? 0 : static_cast<uint32_t>(from.num_ids / from.num_bags);
  to.dim = static_cast<int32_t>(table.dim);
  to.output_stride = static_cast<int32_t>(from.output_stride);
  to.combiner = static_cast<int32_t>(from.combiner);
  to.index = f;
  return to;
}

int FitPack(int pack, const void* pointer, int64_t stride, int64_t dim, int element_bytes) {
  const auto fits = [&](int elements) {
    return dim % elements == 0 && stride % elements == 0 &&
           reinterpret_cast<uintptr_t>(pointer) % (elements * element_bytes) == 0;
  };
  while (pack > 1 && !fits(pack)) pack /= 2;
  return pack;
}

int LanesFor(int64_t count) {
  int lanes = 1;
  while (lanes < 32 && lanes < count) lanes *= 2;
  return lanes;
}

bool CudaDevicePresent() {
  int count = 0;
  const bool present = cudaGetDeviceCount(&count) == cudaSuccess && count > 0;
  cudaGetLastError();
  return present;
}

std::string CudaDeviceName() {
  cudaDeviceProp properties;
  CheckCuda(cudaGetDeviceProperties(&properties, 0), "cudaGetDeviceProperties");
  return properties.name;
}

const char* CudaArchitectures() { return MERLIN_CUDA_ARCHITECTURES; }

int CudaRuntimeVersion() { return CUDART_VERSION; }

}  // namespace merlin
