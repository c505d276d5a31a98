// inbatch_softmax for Python without TensorFlow: NumPy arrays, or DLPack arrays on a CPU or a GPU. Outputs are the
// caller's.
#include <pybind11/pybind11.h>

#include <memory>
#include <vector>

#include "common/arrays.h"
#include "common/check.h"
#include "inbatch_softmax/inbatch_softmax.h"
#ifdef MERLIN_WITH_CUDA
#include "inbatch_softmax/inbatch_softmax_cuda.h"
#endif

namespace merlin {
namespace {

namespace py = pybind11;

using Shape = std::vector<int64_t>;

std::string TextOf(const Shape& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += Concat(i ? ", " : "", shape[i]);
  return text + ")";
}

// A call, and the arrays that it points into.
class PythonSoftmax {
 public:
  PythonSoftmax(const py::object& queries, const py::object& positives, const py::object& candidates,
                const py::object& scale, const py::object& positive_ids, const py::object& candidate_ids,
                const py::object& positive_log_q, const py::object& candidate_log_q, const py::object& query_weights,
                bool tf32) {
    const Array& q = Keep(queries, "queries");
    q.RequireRank(2);
    call.dtype = q.FloatDType();
    call.batch = q.shape()[0];
    call.dim = q.shape()[1];
    call.exact = !tf32;
    CheckInbatchSoftmax(call);
    call.queries = q.data();
    const Array& keys = Keep(candidates, "candidates");
    keys.RequireRank(2);
    call.candidates = keys.shape()[0];
    call.keys = Data(keys, q.dtype(), {call.candidates, call.dim});
    call.positives = Get(positives, "positives", q.dtype(), {call.batch, call.dim});
    call.scale = static_cast<const float*>(Get(scale, "scale", "float32", {1}));
    call.positive_ids = static_cast<const int64_t*>(Get(positive_ids, "positive_ids", "int64", {call.batch}));
    call.candidate_ids = static_cast<const int64_t*>(Get(candidate_ids, "candidate_ids", "int64", {call.candidates}));
    call.positive_log_q = Optional<float>(positive_log_q, "positive_log_q", "float32", {call.batch});
    call.candidate_log_q = Optional<float>(candidate_log_q, "candidate_log_q", "float32", {call.candidates});
    call.query_weights = Optional<float>(query_weights, "query_weights", "float32", {call.batch});
  }

  // The data of an array that must have a dtype and a shape.
  void* Get(const py::object& object, const std::string& name, const std::string& dtype, const Shape& shape,
            Access access = Access::kRead) {
    return Data(Keep(object, name, access), dtype, shape);
  }

  float* Floats(const py::object& object, const std::string& name, const Shape& shape, Access access) {
    return static_cast<float*>(Get(object, name, "float32", shape, access));
  }

  // Null for None.
  template <typename T>
  T* Optional(const py::object& object, const std::string& name, const std::string& dtype, const Shape& shape,
              Access access = Access::kRead) {
    return object.is_none() ? nullptr : static_cast<T*>(Get(object, name, dtype, shape, access));
  }

#ifdef MERLIN_WITH_CUDA
  void* Workspace(const py::object& object, int64_t bytes) {
    const Array& space = Keep(object, "workspace", Access::kWrite);
    space.RequireDType("uint8");
    Check(space.size() >= bytes, "workspace must have ", bytes, " bytes. Received: ", space.size());
    return space.data();
  }
#endif

  bool on_cuda() const { return arrays_[0]->on_cuda(); }
  std::string dtype() const { return arrays_[0]->dtype(); }

  InbatchSoftmax call{};

 private:
  static void* Data(const Array& array, const std::string& dtype, const Shape& shape) {
    array.RequireDType(dtype);
    Check(array.shape() == shape, array.name(), " must have shape ", TextOf(shape),
          ". Received: ", TextOf(array.shape()));
    return array.data();
  }

  const Array& Keep(const py::object& object, const std::string& name, Access access = Access::kRead) {
    arrays_.push_back(std::make_unique<Array>(object, name, access));
    Check(arrays_.back()->on_cuda() == on_cuda(), name, " must lie on the same device as queries");
    return *arrays_.back();
  }

  std::vector<std::unique_ptr<Array>> arrays_;
};

py::tuple Workspaces(int64_t batch, int64_t candidates, int64_t dim, const std::string& dtype, bool with_mean,
                     bool tf32) {
  InbatchSoftmax call{};
  call.batch = batch;
  call.candidates = candidates;
  call.dim = dim;
  call.exact = !tf32;
  Check(dtype == "float32" || dtype == "float16" || dtype == "bfloat16",
        "dtype must be float32, float16 or bfloat16. Received: ", dtype);
  call.dtype = dtype == "float32" ? DType::kFloat32 : dtype == "float16" ? DType::kFloat16 : DType::kBFloat16;
  CheckInbatchSoftmax(call);
  int64_t forward = 0, backward = 0;
#ifdef MERLIN_WITH_CUDA
  float mean = 0.0f;  // only asked for whether it is there
  call.mean = with_mean ? &mean : nullptr;
  forward = InbatchSoftmaxForwardBytes(call);
  backward = InbatchSoftmaxBackwardBytes(call);
#else
  static_cast<void>(with_mean);
#endif
  return py::make_tuple(forward, backward);
}

void Forward(const py::object& queries, const py::object& positives, const py::object& candidates,
             const py::object& scale, const py::object& positive_ids, const py::object& candidate_ids,
             const py::object& loss, const py::object& log_sum, const py::object& positive_score,
             const py::object& rank, const py::object& mean, const py::object& positive_log_q,
             const py::object& candidate_log_q, const py::object& query_weights, const py::object& candidate_sums,
             const py::object& candidate_weights, bool tf32, [[maybe_unused]] const py::object& workspace,
             [[maybe_unused]] uintptr_t stream, int num_threads) {
  PythonSoftmax python(queries, positives, candidates, scale, positive_ids, candidate_ids, positive_log_q,
                       candidate_log_q, query_weights, tf32);
  InbatchSoftmax& call = python.call;
  call.loss = python.Floats(loss, "loss", {call.batch}, Access::kWrite);
  call.log_sum = python.Floats(log_sum, "log_sum", {call.batch}, Access::kWrite);
  call.positive_score = python.Floats(positive_score, "positive_score", {call.batch}, Access::kWrite);
  call.rank = python.Optional<int64_t>(rank, "rank", "int64", {call.batch}, Access::kWrite);
  call.mean = python.Optional<float>(mean, "mean", "float32", {call.batch, call.dim}, Access::kWrite);
  call.candidate_sums =
      python.Optional<float>(candidate_sums, "candidate_sums", "float32", {call.candidates, call.dim}, Access::kWrite);
  call.candidate_weights =
      python.Optional<float>(candidate_weights, "candidate_weights", "float32", {call.candidates}, Access::kWrite);
  Check(call.candidate_sums || !call.candidate_weights, "candidate_weights must be None where candidate_sums are");
  Check(!python.on_cuda() || !call.candidate_sums, "candidate_sums must be None on a GPU");
  if (!python.on_cuda()) {
    py::gil_scoped_release release;
    StdThreads threads(num_threads);
    InbatchSoftmaxForward(call, threads);
    return;
  }
#ifdef MERLIN_WITH_CUDA
  void* const space = python.Workspace(workspace, InbatchSoftmaxForwardBytes(call));
  py::gil_scoped_release release;
  InbatchSoftmaxForwardCuda(call, space, reinterpret_cast<void*>(stream));
#else
  NoCudaKernels();
#endif
}

void Grad(const py::object& queries, const py::object& positives, const py::object& candidates, const py::object& scale,
          const py::object& positive_ids, const py::object& candidate_ids, const py::object& log_sum,
          const py::object& positive_score, const py::object& mean, const py::object& log_sum_grad,
          const py::object& positive_score_grad, const py::object& queries_grad, const py::object& positives_grad,
          const py::object& candidates_grad, const py::object& scale_grad, const py::object& positive_log_q_grad,
          const py::object& candidate_log_q_grad, const py::object& positive_log_q, const py::object& candidate_log_q,
          const py::object& query_weights, const py::object& candidate_sums, const py::object& candidate_weights,
          bool tf32, [[maybe_unused]] const py::object& workspace, [[maybe_unused]] uintptr_t stream, int num_threads) {
  PythonSoftmax python(queries, positives, candidates, scale, positive_ids, candidate_ids, positive_log_q,
                       candidate_log_q, query_weights, tf32);
  const InbatchSoftmax& call = python.call;
  const Shape rows{call.batch}, matrix{call.batch, call.dim};
  InbatchSoftmaxGradients grads{};
  grads.log_sum = python.Floats(log_sum, "log_sum", rows, Access::kRead);
  grads.positive_score = python.Floats(positive_score, "positive_score", rows, Access::kRead);
  grads.mean = python.Floats(mean, "mean", matrix, Access::kRead);
  grads.log_sum_grad = python.Floats(log_sum_grad, "log_sum_grad", rows, Access::kRead);
  grads.positive_score_grad = python.Floats(positive_score_grad, "positive_score_grad", rows, Access::kRead);
  grads.queries = python.Get(queries_grad, "queries_grad", python.dtype(), matrix, Access::kWrite);
  grads.positives = python.Get(positives_grad, "positives_grad", python.dtype(), matrix, Access::kWrite);
  grads.keys =
      python.Get(candidates_grad, "candidates_grad", python.dtype(), {call.candidates, call.dim}, Access::kWrite);
  grads.scale = python.Floats(scale_grad, "scale_grad", {1}, Access::kWrite);
  grads.positive_log_q =
      python.Optional<float>(positive_log_q_grad, "positive_log_q_grad", "float32", rows, Access::kWrite);
  grads.candidate_log_q = python.Optional<float>(candidate_log_q_grad, "candidate_log_q_grad", "float32",
                                                 {call.candidates}, Access::kWrite);
  grads.candidate_sums =
      python.Optional<float>(candidate_sums, "candidate_sums", "float32", {call.candidates, call.dim});
  grads.candidate_weights =
      python.Optional<float>(candidate_weights, "candidate_weights", "float32", {call.candidates});
  if (!python.on_cuda()) {
    py::gil_scoped_release release;
    StdThreads threads(num_threads);
    InbatchSoftmaxBackward(call, grads, threads);
    return;
  }
#ifdef MERLIN_WITH_CUDA
  void* const space = python.Workspace(workspace, InbatchSoftmaxBackwardBytes(call));
  py::gil_scoped_release release;
  InbatchSoftmaxBackwardCuda(call, grads, space, reinterpret_cast<void*>(stream));
#else
  NoCudaKernels();
#endif
}

}  // namespace

void BindInbatchSoftmax(py::module_& module) {
  module.def("inbatch_softmax_workspaces", &Workspaces, py::arg("batch"), py::arg("candidates"), py::arg("dim"),
             py::arg("dtype"), py::arg("with_mean") = true, py::arg("tf32") = false,
             "Bytes of device memory that inbatch_softmax_forward and _grad need as `workspace` on a GPU.");
  module.def(
      "inbatch_softmax_forward", &Forward, py::arg("queries"), py::arg("positives"), py::arg("candidates"),
      py::arg("scale"), py::arg("positive_ids"), py::arg("candidate_ids"), py::arg("loss"), py::arg("log_sum"),
      py::arg("positive_score"), py::arg("rank") = py::none(), py::arg("mean") = py::none(),
      py::arg("positive_log_q") = py::none(), py::arg("candidate_log_q") = py::none(),
      py::arg("query_weights") = py::none(), py::arg("candidate_sums") = py::none(),
      py::arg("candidate_weights") = py::none(), py::arg("tf32") = false, py::arg("workspace") = py::none(),
      py::arg("stream") = 0, py::arg("num_threads") = 0,
      "Writes each query's loss, log-sum-exp and positive's score, and unless None its positive's rank, and the "
      "mean that the gradient needs. scale: (1,), 1 / temperature. On a CPU candidate_sums (candidates, dim) and "
      "candidate_weights (candidates,) are what the gradient of candidates and of their log_q is computed from, "
      "where log_sum_grad is in proportion to query_weights (batch,), ones if None; see "
      "inbatch_softmax_sums_candidates.");
  module.def("inbatch_softmax_sums_candidates", &InbatchSoftmaxSumsCandidates, py::arg("batch"), py::arg("candidates"),
             "Whether inbatch_softmax_forward on a CPU has room to write candidate_sums.");
  module.def("inbatch_softmax_grad", &Grad, py::arg("queries"), py::arg("positives"), py::arg("candidates"),
             py::arg("scale"), py::arg("positive_ids"), py::arg("candidate_ids"), py::arg("log_sum"),
             py::arg("positive_score"), py::arg("mean"), py::arg("log_sum_grad"), py::arg("positive_score_grad"),
             py::arg("queries_grad"), py::arg("positives_grad"), py::arg("candidates_grad"), py::arg("scale_grad"),
             py::arg("positive_log_q_grad") = py::none(), py::arg("candidate_log_q_grad") = py::none(),
             py::arg("positive_log_q") = py::none(), py::arg("candidate_log_q") = py::none(),
             py::arg("query_weights") = py::none(), py::arg("candidate_sums") = py::none(),
             py::arg("candidate_weights") = py::none(), py::arg("tf32") = false, py::arg("workspace") = py::none(),
             py::arg("stream") = 0, py::arg("num_threads") = 0,
             "Writes the gradients, from those of log_sum and positive_score (of the loss: g and -g) and from what the "
             "forward pass wrote. With candidate_sums, and log_sum_grad in proportion to query_weights, scores are not "
             "computed again.");
}

}  // namespace merlin
