"""Ours without TensorFlow: the Python module of the kernels on NumPy arrays, or on PyTorch's on a GPU."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from benchmarks.clocks import TorchClock
from benchmarks.environment import num_threads
from benchmarks.harness import Provider
from benchmarks.ops.inbatch_softmax_problem import TEMPERATURE, InbatchSoftmaxProblem


class MerlinNative(Provider):
    """The kernels alone; TF32 for float32 on a GPU, as the peers. Ranks and the temperature's gradient come with it."""

    name = "merlin_native"
    runtime = "torch"
    requires: tuple[str, ...] = ("merlin_models._C",)
    tf32 = True

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return 14 * problem.candidates_count * problem.dim * 4 + (1 << 24)

    def setup(self, problem: InbatchSoftmaxProblem, device: str, mode: str, optimizer: str) -> None:
        from merlin_models import _native

        self._native, self._problem, self._mode = _native.module(), problem, mode
        self._xp: _Arrays = _TorchArrays(problem.dtype) if device == "cuda" else _NumpyArrays(problem.dtype)
        batch, count, dim = problem.batch, problem.candidates_count, problem.dim
        candidates, ids = self._xp.vectors(problem.candidates()), self._xp.array(problem.ids())
        self._inputs = {
            "queries": self._xp.vectors(problem.queries()),
            "positives": candidates[:batch],
            "candidates": candidates,
            "scale": self._xp.array(np.array([1.0 / TEMPERATURE], np.float32)),
            "positive_ids": ids[:batch],
            "candidate_ids": ids,
        }
        if not problem.plain:
            log_q = self._xp.array(problem.log_q())
            self._inputs |= {"positive_log_q": log_q[:batch], "candidate_log_q": log_q}
        full = np.full(batch, 1.0 / batch, np.float32)
        self._upstream = {"log_sum_grad": self._xp.array(full), "positive_score_grad": self._xp.array(-full)}
        self._options = {"tf32": self.tf32}
        self._bytes = self._native.inbatch_softmax_workspaces(
            batch, count, dim, problem.dtype, with_mean=mode == "full", **self._options
        )

    def _call(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Arrays are made anew, so that what they take is seen; PyTorch keeps and hands out their memory."""
        batch, count, dim, xp = self._problem.batch, self._problem.candidates_count, self._problem.dim, self._xp
        saved = {name: xp.empty(batch) for name in ("log_sum", "positive_score")}
        if self._mode == "full":
            saved["mean"] = xp.empty((batch, dim))
            saved |= self._sums()
        outputs = {**saved, "loss": xp.empty(batch), "rank": xp.empty(batch, "int64")}
        self._native.inbatch_softmax_forward(**self._inputs, **outputs, **self._options, **xp.keywords(self._bytes[0]))
        grads: dict[str, Any] = {}
        if self._mode == "full":
            rows = {"queries": batch, "positives": batch, "candidates": count}
            grads = {f"{name}_grad": xp.empty((n, dim), xp.dtype) for name, n in rows.items()}
            grads["scale_grad"] = xp.empty(1)
            if not self._problem.plain:
                grads |= {"positive_log_q_grad": xp.empty(batch), "candidate_log_q_grad": xp.empty(count)}
            self._native.inbatch_softmax_grad(
                **self._inputs, **saved, **self._upstream, **grads, **self._options, **xp.keywords(self._bytes[1])
            )
        return outputs, grads

    def _sums(self) -> dict[str, Any]:
        """What the forward pass on a CPU sums up for the gradient of a mean."""
        problem, xp = self._problem, self._xp
        count = problem.candidates_count
        if xp.on_gpu or not self._native.inbatch_softmax_sums_candidates(problem.batch, count):
            return {}
        weights = {} if problem.plain else {"candidate_weights": xp.empty(count)}
        return {"candidate_sums": xp.empty((count, problem.dim)), **weights}

    def forward(self, i: int) -> Any:
        return self._call()

    def full(self, i: int, g: int) -> Any:
        return self._call()

    def outputs(self, results: Any) -> np.ndarray:
        return self._xp.to_numpy(results[0]["loss"])

    def gradients(self, results: Any) -> list[np.ndarray]:
        queries, positives, candidates = (
            self._xp.to_numpy(results[1][f"{name}_grad"]) for name in ("queries", "positives", "candidates")
        )
        candidates = candidates.copy()
        candidates[: len(positives)] += positives
        return [queries, candidates]


class MerlinNativeFloat32(MerlinNative):
    """With the accuracy of float32."""

    name = "merlin_native_float32"
    tf32 = False

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        return "" if case.dtype == "float32" and device == "cuda" else "only float32 on a GPU has two precisions"


class MerlinNativeGraph(MerlinNative):
    """The same launches replayed as a CUDA graph: without it, small cases measure the exchange of arrays by DLPack."""

    name = "merlin_native_graph"

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        return "" if device == "cuda" else "CUDA graphs need a GPU"

    def setup(self, problem: InbatchSoftmaxProblem, device: str, mode: str, optimizer: str) -> None:
        import torch

        super().setup(problem, device, mode, optimizer)
        super()._call()
        torch.cuda.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        self._held = TorchClock().peak_extra_bytes(self._capture)

    def _capture(self) -> None:
        import torch

        with torch.cuda.graph(self._graph):
            self._results = super()._call()

    def held_bytes(self) -> int:
        return self._held

    def _call(self) -> tuple[dict[str, Any], dict[str, Any]]:
        self._graph.replay()
        return self._results


class _NumpyArrays:
    """Arrays in host memory."""

    on_gpu = False

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def _numpy_dtype(self, dtype: str) -> Any:
        return ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype

    def vectors(self, array: np.ndarray) -> np.ndarray:
        return array.astype(self._numpy_dtype(self.dtype))

    def array(self, array: np.ndarray) -> np.ndarray:
        return array

    def empty(self, shape: Any, dtype: str = "float32") -> np.ndarray:
        return np.empty(shape, self._numpy_dtype(dtype))

    def to_numpy(self, array: np.ndarray) -> np.ndarray:
        return array.astype(np.float32)

    def keywords(self, workspace_bytes: int) -> dict[str, Any]:
        return {"num_threads": num_threads()}


class _TorchArrays:
    """Arrays on a GPU, made by PyTorch and passed by DLPack, on PyTorch's stream."""

    on_gpu = True

    def __init__(self, dtype: str) -> None:
        import torch

        self._torch, self.dtype = torch, dtype

    def vectors(self, array: np.ndarray) -> Any:
        return self.array(array).to(getattr(self._torch, self.dtype))

    def array(self, array: np.ndarray) -> Any:
        return self._torch.from_numpy(array).cuda()

    def empty(self, shape: Any, dtype: str = "float32") -> Any:
        return self._torch.empty(shape, dtype=getattr(self._torch, dtype), device="cuda")

    def to_numpy(self, array: Any) -> np.ndarray:
        return array.float().cpu().numpy()

    def keywords(self, workspace_bytes: int) -> dict[str, Any]:
        return {
            "workspace": self.empty(workspace_bytes, "uint8"),
            "stream": self._torch.cuda.current_stream().cuda_stream,
        }


_Arrays = _NumpyArrays | _TorchArrays
