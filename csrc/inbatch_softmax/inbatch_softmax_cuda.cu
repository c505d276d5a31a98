// inbatch_softmax on CUDA: workspace and launches. The passes over all pairs are in cuda_pass_hopper.cu and
// cuda_pass_float.cu.
#include <algorithm>

#include "inbatch_softmax/cuda_finish.cuh"
#include "inbatch_softmax/cuda_prepare.cuh"
#include "inbatch_softmax/inbatch_softmax_cuda.h"

namespace merlin {
namespace {

struct Device {
  int multiprocessors;
  bool hopper;
};

Device CurrentDevice() {
  int device, major, minor;
  Device found;
  CheckCuda(cudaGetDevice(&device), "cudaGetDevice");
  CheckCuda(cudaDeviceGetAttribute(&found.multiprocessors, cudaDevAttrMultiProcessorCount, device), "attribute");
  CheckCuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "attribute");
  CheckCuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "attribute");
#ifdef MERLIN_WITH_HOPPER
  found.hopper = major == 9 && minor == 0;
#else
  found.hopper = false;
#endif
  return found;
}

// How a call is run: which pass, and into how many parts each row's columns are split so that no multiprocessor idles.
struct Plan {
  bool tiles;
  int dim;  // padded
  int splits;
  int64_t rows, columns;  // of the pass, padded

  Plan(const InbatchSoftmax& call, bool backward) {
    const Device device = CurrentDevice();
    tiles = device.hopper && call.dim <= 256 && !(call.exact && call.dtype == DType::kFloat32);
    dim = call.dim <= 64 ? 64 : call.dim <= 128 ? 128 : call.dim <= 256 ? 256 : 512;
    rows = PaddedRows(backward ? call.candidates : call.batch);
    columns = PaddedRows(backward ? call.batch : call.candidates);
    const int64_t row_tiles = rows / kRowTile;
    const int64_t slots = tiles ? device.multiprocessors : 4 * device.multiprocessors;
    const int64_t most = std::max<int64_t>(1, std::min<int64_t>(32, columns / kRowTile));
    double best = 0.0;
    splits = 1;
    for (int s = 1; s <= most; ++s) {
      const int64_t blocks = row_tiles * s, waves = (blocks + slots - 1) / slots;
      // A part costs its start and end beside its columns: about as much as two tiles.
      const double tiles_a_part = static_cast<double>(columns / kRowTile) / s;
      const double share = static_cast<double>(blocks) / (waves * slots) * tiles_a_part / (tiles_a_part + 2.0);
      if (share > best * 1.05) best = share, splits = s;
    }
  }
};

// Hands out parts of the workspace, or only counts them.
class Workspace {
 public:
  explicit Workspace(void* base) : base_(static_cast<char*>(base)) {}
  template <typename T>
  T* Take(int64_t count) {
    T* const part = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 255) / 256 * 256;
    return part;
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

struct Parts {
  PrepareCall prepare{};
  PassCall pass{};
  float* scale_parts = nullptr;
  int64_t bytes = 0;
};

// The call's pieces in its workspace; null pointers where there is none yet.
Parts Arrange(const InbatchSoftmax& call, const InbatchSoftmaxGradients* grads, const Plan& plan, void* workspace) {
  Workspace space(workspace);
  Parts parts;
  PrepareCall& prepare = parts.prepare;
  prepare.queries = call.queries;
  prepare.positives = call.positives;
  prepare.keys = call.keys;
  prepare.positive_ids = call.positive_ids;
  prepare.candidate_ids = call.candidate_ids;
  prepare.positive_log_q = call.positive_log_q;
  prepare.candidate_log_q = call.candidate_log_q;
  prepare.scale = call.scale;
  prepare.batch = call.batch;
  prepare.candidates = call.candidates;
  prepare.dim = static_cast<int>(call.dim);
  prepare.padded_dim = plan.dim;
  prepare.tiles = plan.tiles;
  prepare.scalars = space.Take<SoftmaxScalars>(1);
  const int64_t batch = PaddedRows(call.batch), candidates = PaddedRows(call.candidates);
  if (plan.tiles) {
    prepare.packed_queries = space.Take<__half>(batch * plan.dim);
    prepare.packed_keys = space.Take<__half>(candidates * plan.dim);
  } else if (call.dtype != DType::kFloat32) {
    prepare.packed_queries = space.Take<float>(call.batch * call.dim);
    prepare.packed_keys = space.Take<float>(call.candidates * call.dim);
  }
  prepare.query_info = space.Take<SideInfo>(batch);
  prepare.key_info = space.Take<SideInfo>(candidates);

  const bool backward = grads != nullptr;
  const void* const queries = prepare.packed_queries ? prepare.packed_queries : call.queries;
  const void* const keys = prepare.packed_keys ? prepare.packed_keys : call.keys;
  PassCall& pass = parts.pass;
  pass.rows = backward ? keys : queries;
  pass.columns = backward ? queries : keys;
  pass.row_info = backward ? prepare.key_info : prepare.query_info;
  pass.column_info = backward ? prepare.query_info : prepare.key_info;
  pass.row_ids = backward ? call.candidate_ids : call.positive_ids;
  pass.column_ids = backward ? call.positive_ids : call.candidate_ids;
  pass.scalars = prepare.scalars;
  pass.scale = call.scale;
  pass.num_rows = backward ? call.candidates : call.batch;
  pass.num_columns = backward ? call.batch : call.candidates;
  pass.dim = plan.dim;
  pass.row_stride = static_cast<int>(call.dim);
  pass.splits = plan.splits;
  const int64_t places = plan.splits * plan.rows;
  pass.sum = space.Take<float>(places);
  pass.reference = space.Take<float>(places);
  if (backward) {
    prepare.log_sum = grads->log_sum;
    prepare.log_sum_grad = pass.log_sum_grad = grads->log_sum_grad;
    parts.scale_parts = space.Take<float>((call.batch + kFinishWarps - 1) / kFinishWarps);
  } else {
    int32_t* const rank = space.Take<int32_t>(places);  // counted in any case: bytes are asked for before there is one
    if (call.rank) pass.rank = rank;
  }
  if (!backward && call.mean && plan.splits == 1 && plan.rows == call.batch && plan.dim == call.dim) {
    pass.total = call.mean;  // of the same shape: finished in place
  } else if (backward || call.mean) {
    pass.total = space.Take<float>(places * plan.dim);
  }
  parts.bytes = space.used();
  return parts;
}

unsigned BlocksOf(int64_t count, int64_t each) { return static_cast<unsigned>((count + each - 1) / each); }

void Prepare(const InbatchSoftmax& call, const Plan& plan, const PrepareCall& prepare, bool backward,
             cudaStream_t stream) {
  CheckCuda(cudaMemsetAsync(prepare.scalars, 0, sizeof(SoftmaxScalars), stream), "cudaMemsetAsync");
  const int64_t packs = std::max(call.batch, call.candidates) * (plan.tiles ? call.dim / 4 + 1 : 1);
  const unsigned scans = std::min<unsigned>(BlocksOf(packs, 2 * kPrepareThreads), 2048);
  const int64_t groups = PaddedRows(call.batch) + PaddedRows(call.candidates);
  const unsigned packers = BlocksOf(groups * std::min(plan.dim / 8, 32), kPrepareThreads);
  DispatchDType(call.dtype, [&](auto t) {
    using T = decltype(t);
    softmax_scan_kernel<T><<<scans, kPrepareThreads, 0, stream>>>(prepare);
    CheckLaunch("softmax_scan_kernel");
    if (backward) {
      softmax_pack_kernel<T, true><<<packers, kPrepareThreads, 0, stream>>>(prepare);
    } else {
      softmax_pack_kernel<T, false><<<packers, kPrepareThreads, 0, stream>>>(prepare);
    }
    CheckLaunch("softmax_pack_kernel");
  });
}

void RunPass(Pass pass, const Plan& plan, const PassCall& call, cudaStream_t stream) {
#ifdef MERLIN_WITH_HOPPER
  if (plan.tiles) return RunTilePass(pass, call, stream);
#endif
  RunFloatPass(pass, call, stream);
}

}  // namespace

int64_t InbatchSoftmaxForwardBytes(const InbatchSoftmax& call) {
  CheckInbatchSoftmax(call);
  return Arrange(call, nullptr, Plan(call, false), nullptr).bytes;
}

int64_t InbatchSoftmaxBackwardBytes(const InbatchSoftmax& call) {
  CheckInbatchSoftmax(call);
  const InbatchSoftmaxGradients none{};
  return Arrange(call, &none, Plan(call, true), nullptr).bytes;
}

void InbatchSoftmaxForwardCuda(const InbatchSoftmax& call, void* workspace, void* stream_pointer) {
  CheckInbatchSoftmax(call);
  if (call.batch == 0) return;
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_pointer);
  const Plan plan(call, false);
  CheckAligned(call.mean, "mean must begin at a multiple of 16 bytes on CUDA");
  CheckAligned(workspace, "workspace must begin at a multiple of 16 bytes on CUDA");
  const Parts parts = Arrange(call, nullptr, plan, workspace);
  Prepare(call, plan, parts.prepare, false, stream);
  RunPass(call.mean ? Pass::kForward : Pass::kLoss, plan, parts.pass, stream);
  DispatchDType(call.dtype, [&](auto t) {
    softmax_finish_forward_kernel<decltype(t)>
        <<<BlocksOf(call.batch, kFinishWarps), kFinishThreads, 0, stream>>>(parts.pass, call, plan.tiles);
    CheckLaunch("softmax_finish_forward_kernel");
  });
}

void InbatchSoftmaxBackwardCuda(const InbatchSoftmax& call, const InbatchSoftmaxGradients& grads, void* workspace,
                                void* stream_pointer) {
  CheckInbatchSoftmax(call);
  const cudaStream_t stream = static_cast<cudaStream_t>(stream_pointer);
  if (call.batch == 0) {
    CheckCuda(cudaMemsetAsync(grads.scale, 0, sizeof(float), stream), "cudaMemsetAsync");
    if (call.candidates == 0) return;
    const int64_t bytes = call.candidates * call.dim * SizeOf(call.dtype);
    CheckCuda(cudaMemsetAsync(grads.keys, 0, bytes, stream), "cudaMemsetAsync");
    if (grads.candidate_log_q) {
      CheckCuda(cudaMemsetAsync(grads.candidate_log_q, 0, call.candidates * 4, stream), "cudaMemsetAsync");
    }
    return;
  }
  const Plan plan(call, true);
  CheckAligned(workspace, "workspace must begin at a multiple of 16 bytes on CUDA");
  const Parts parts = Arrange(call, &grads, plan, workspace);
  const unsigned query_blocks = BlocksOf(call.batch, kFinishWarps);
  if (call.candidates > 0) {
    Prepare(call, plan, parts.prepare, true, stream);
    RunPass(Pass::kBackward, plan, parts.pass, stream);
  }
  DispatchDType(call.dtype, [&](auto t) {
    using T = decltype(t);
    if (call.candidates > 0) {
      softmax_finish_keys_kernel<T><<<BlocksOf(call.candidates, kFinishWarps), kFinishThreads, 0, stream>>>(
          parts.pass, static_cast<T*>(grads.keys), grads.candidate_log_q, static_cast<int>(call.dim), plan.tiles);
      CheckLaunch("softmax_finish_keys_kernel");
    }
    softmax_finish_queries_kernel<T><<<query_blocks, kFinishThreads, 0, stream>>>(call, grads, parts.scale_parts);
    CheckLaunch("softmax_finish_queries_kernel");
  });
  softmax_finish_scale_kernel<<<1, 1024, 0, stream>>>(parts.scale_parts, query_blocks, grads.scale);
  CheckLaunch("softmax_finish_scale_kernel");
}

}  // namespace merlin
