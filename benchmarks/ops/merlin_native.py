"""Ours without TensorFlow: the Python module of the kernels on NumPy arrays, or on PyTorch's on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.environment import num_threads
from benchmarks.harness import Provider
from benchmarks.ops.embedding_bag_problem import TABLE_SCALE, numpy_dtype


class MerlinNative(Provider):
    """``merlin_models._native.module()``, writing into arrays that are made once, outside of the timing."""

    name = "merlin_native"
    runtime = "torch"
    requires = ("merlin_models._C",)

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        return "the fused update is not built yet" if mode == "update" else ""

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return problem.table_bytes

    def setup(self, problem: Any, device: str, mode: str, optimizer: str) -> None:
        from merlin_models import _native

        self._native = _native.module()
        self._xp: _Arrays = _TorchArrays(problem) if device == "cuda" else _NumpyArrays(problem)
        n = len(problem.rows)
        self._tables = [self._xp.table(t) for t in range(n)]
        self._sets = [
            (
                [self._xp.array(bags.values) for bags in bags_of_set],
                [self._xp.array(bags.row_splits) for bags in bags_of_set],
            )
            for bags_of_set in problem.sets
        ]
        self._fixed = ([None] * n, list(range(n)), [problem.combiner] * n, [None] * n)
        self._outputs = [self._xp.poisoned(problem.batch, dim) for dim in problem.dims]
        if mode != "full":
            return
        self._grads = [
            [self._xp.floats(np.ascontiguousarray(grad)) for grad in problem.grads_of(g)]
            for g in range(problem.num_grads)
        ]
        room = [
            max(min(rows, len(bags_of_set[t].values)) for bags_of_set in problem.sets)
            for t, rows in enumerate(problem.rows)
        ]
        self._unique_ids = [self._xp.array(np.full(r, -1, np.int64)) for r in room]
        self._rows = [self._xp.poisoned(r, dim) for r, dim in zip(room, problem.dims, strict=True)]
        sizes = [
            self._native.embedding_bag_grad_workspace(self._tables, *self._sets[i], *self._fixed)
            for i in range(problem.num_sets)
        ]
        self._workspace = self._xp.array(np.empty(max(sizes), np.uint8)) if max(sizes) else None

    def forward(self, i: int) -> list[Any]:
        self._native.embedding_bag_forward(
            self._tables, *self._sets[i], *self._fixed, self._outputs, **self._xp.keywords()
        )
        return self._outputs

    def full(self, i: int, g: int) -> list[int]:
        self.forward(i)
        return self._native.embedding_bag_grad(
            self._tables,
            *self._sets[i],
            *self._fixed,
            self._grads[g],
            self._unique_ids,
            self._rows,
            workspace=self._workspace,
            **self._xp.keywords(),
        )

    def outputs(self, outputs: list[Any]) -> list[np.ndarray]:
        return [self._xp.to_numpy(output) for output in outputs]

    def gradients(self, counts: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [
            (self._xp.to_numpy(ids[:count], np.int64), self._xp.to_numpy(rows[:count]))
            for ids, rows, count in zip(self._unique_ids, self._rows, counts, strict=True)
        ]

    def read_rows(self, t: int, ids: np.ndarray) -> np.ndarray:
        return self._xp.to_numpy(self._tables[t][self._xp.array(ids)])


class MerlinNativeGraph(MerlinNative):
    """The same launches replayed as a CUDA graph: without it, small cases measure the exchange of 80 arrays by DLPack."""

    name = "merlin_native_graph"

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        if device != "cuda":
            return "CUDA graphs need a GPU"
        return "" if mode == "forward" else "the gradient reads back its number of rows, which a graph cannot hold"

    def setup(self, problem: Any, device: str, mode: str, optimizer: str) -> None:
        import torch

        super().setup(problem, device, mode, optimizer)
        super().forward(0)
        torch.cuda.synchronize()
        self._graphs = []
        for i in range(problem.num_sets):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                super().forward(i)
            self._graphs.append(graph)

    def forward(self, i: int) -> list[Any]:
        self._graphs[i].replay()
        return self._outputs


class _NumpyArrays:
    """Arrays in host memory."""

    def __init__(self, problem: Any) -> None:
        self._problem = problem
        self._dtype = numpy_dtype(problem.dtype)
        self._threads = num_threads()

    def table(self, t: int) -> np.ndarray:
        return self._problem.host_table(t)

    def array(self, array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array)

    def floats(self, array: np.ndarray) -> np.ndarray:
        return array.astype(self._dtype)

    def poisoned(self, rows: int, dim: int) -> np.ndarray:
        return np.full((rows, dim), np.nan, self._dtype)

    def to_numpy(self, array: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
        return array.astype(dtype)

    def keywords(self) -> dict[str, int]:
        return {"num_threads": self._threads}


class _TorchArrays:
    """Arrays on a GPU, made by PyTorch and passed by DLPack, on PyTorch's stream."""

    def __init__(self, problem: Any) -> None:
        import torch

        torch.manual_seed(5)
        self._torch, self._problem = torch, problem
        self._dtype = getattr(torch, problem.dtype)

    def table(self, t: int) -> Any:
        shape = (self._problem.rows[t], self._problem.dims[t])
        return self._torch.empty(shape, dtype=self._dtype, device="cuda").uniform_(-TABLE_SCALE, TABLE_SCALE)

    def array(self, array: np.ndarray) -> Any:
        return self._torch.from_numpy(np.ascontiguousarray(array)).cuda()

    def floats(self, array: np.ndarray) -> Any:
        return self.array(array).to(self._dtype)

    def poisoned(self, rows: int, dim: int) -> Any:
        return self._torch.full((rows, dim), np.nan, dtype=self._dtype, device="cuda")

    def to_numpy(self, array: Any, dtype: Any = np.float32) -> np.ndarray:
        return array.float().cpu().numpy().astype(dtype) if array.is_floating_point() else array.cpu().numpy()

    def keywords(self) -> dict[str, int]:
        return {"stream": self._torch.cuda.current_stream().cuda_stream}


_Arrays = _NumpyArrays | _TorchArrays
