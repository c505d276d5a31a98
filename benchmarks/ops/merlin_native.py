"""Ours without TensorFlow: the Python module of the kernels on NumPy arrays, or on PyTorch's on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.environment import num_threads
from benchmarks.harness import Provider
from benchmarks.ops.embedding_bag_problem import (
    ADAGRAD_START,
    BETA1,
    BETA2,
    EPSILON,
    LEARNING_RATE,
    TABLE_SCALE,
    aligned_empty,
    numpy_dtype,
)
from benchmarks.ops.peers_torch import optimizer_state_factor


class MerlinNative(Provider):
    """``merlin_models._native.module()``, writing into arrays that are made once, outside of the timing."""

    name = "merlin_native"
    runtime = "torch"
    requires = ("merlin_models._C",)
    dense = False  # ids as (batch, hot) blocks instead of values and row_splits

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        return "bags differ in length" if self.dense and (case.ragged or case.ids == "movielens") else ""

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return problem.table_bytes * (1 + optimizer_state_factor(optimizer))

    def setup(self, problem: Any, device: str, mode: str, optimizer: str) -> None:
        from merlin_models import _native

        self._native = _native.module()
        self._xp = self.make_arrays(problem, device)
        n = len(problem.rows)
        self._tables = [self._xp.table(t) for t in range(n)]
        self._sets = [self._inputs(problem, bags_of_set) for bags_of_set in problem.sets]
        self._fixed = ([None] * n, list(range(n)), [problem.combiner] * n, [None] * n)
        self._outputs = [self._xp.poisoned(problem.batch, dim) for dim in problem.dims]
        self._held = list(self._outputs)
        if mode == "forward":
            return
        self._grads = [
            [self._xp.floats(np.ascontiguousarray(grad)) for grad in problem.grads_of(g)]
            for g in range(problem.num_grads)
        ]
        if mode == "update":
            self._make_updates(problem, optimizer)
            return
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
        self._held += [*self._unique_ids, *self._rows, *([self._workspace] if max(sizes) else [])]

    def held_bytes(self) -> int:
        return sum(array.nbytes for array in self._held)

    def make_arrays(self, problem: Any, device: str) -> _Arrays:
        """What tables, inputs and outputs are made by."""
        return _TorchArrays(problem) if device == "cuda" else _NumpyArrays(problem)

    def _inputs(self, problem: Any, bags_of_set: list[Any]) -> tuple[list[Any], list[Any]]:
        if self.dense:
            return [self._xp.array(bags.values.reshape(problem.batch, -1)) for bags in bags_of_set], [None] * len(
                bags_of_set
            )
        ids = [self._xp.array(bags.values) for bags in bags_of_set]
        return ids, [self._xp.array(bags.row_splits) for bags in bags_of_set]

    def _make_updates(self, problem: Any, optimizer: str) -> None:
        shapes = list(zip(problem.rows, problem.dims, strict=True))
        start = 0.0 if optimizer == "adam" else ADAGRAD_START
        if optimizer == "rowwise_adagrad":
            slots = [[self._xp.filled((rows,), start)] for rows, _ in shapes]
        else:
            count = {"sgd": 0, "adagrad": 1, "adam": 2}[optimizer]
            slots = [[self._xp.filled(shape, start) for _ in range(count)] for shape in shapes]
        rule = {"name": optimizer, "epsilon": EPSILON, "beta_1": BETA1, "beta_2": BETA2}
        self._updates = {
            (i, g): self._native.EmbeddingBagUpdate(
                self._tables, slots, *self._sets[i], *self._fixed, self._grads[g], rule
            )
            for i in range(problem.num_sets)
            for g in range(problem.num_grads)
        }
        size = max(update.workspace_bytes for update in self._updates.values())
        self._workspace = self._xp.array(np.empty(size, np.uint8)) if size else None
        self._held += [self._workspace] if size else []
        self._steps = 0

    def update(self, i: int, g: int) -> None:
        self.forward(i)
        self._step(i, g, self._steps)
        self._steps += 1

    def _step(self, i: int, g: int, step: int) -> None:
        self._updates[i, g].step(LEARNING_RATE, step, workspace=self._workspace, **self._xp.keywords())

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
    """The same launches replayed as a CUDA graph: without it, small cases measure the exchange of 80 arrays by DLPack.

    A graph of an update holds its step's number: 0 for the first upstream gradient, 1 for the others.
    """

    name = "merlin_native_graph"

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        if device != "cuda":
            return "CUDA graphs need a GPU"
        if mode == "full":
            return "the gradient reads back its number of rows, which a graph cannot hold"
        return super().unsupported(case, device, mode, optimizer)

    def setup(self, problem: Any, device: str, mode: str, optimizer: str) -> None:
        import torch

        super().setup(problem, device, mode, optimizer)
        super().forward(0)
        torch.cuda.synchronize()
        self._graphs = {}
        for i in range(problem.num_sets):
            for g in range(problem.num_grads if mode == "update" else 1):
                graph = self._graphs[i, g] = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    super().forward(i)
                    if mode == "update":
                        self._step(i, g, min(g, 1))

    def forward(self, i: int) -> list[Any]:
        self._graphs[i, 0].replay()
        return self._outputs

    def update(self, i: int, g: int) -> None:
        self._graphs[i, g].replay()


class MerlinNativeDense(MerlinNative):
    """With ids as (batch, hot) blocks, where bags have one length."""

    name = "merlin_native_dense"
    dense = True


class MerlinNativeDenseGraph(MerlinNativeGraph):
    """The same, replayed as a CUDA graph."""

    name = "merlin_native_dense_graph"
    dense = True


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
        return self.filled((rows, dim), np.nan, self._dtype)

    def filled(self, shape: tuple[int, ...], value: float, dtype: Any = np.float32) -> np.ndarray:
        filled = aligned_empty(shape, dtype)
        filled[...] = value
        return filled

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

    def filled(self, shape: tuple[int, ...], value: float) -> Any:
        return self._torch.full(shape, value, dtype=self._torch.float32, device="cuda")

    def to_numpy(self, array: Any, dtype: Any = np.float32) -> np.ndarray:
        return array.float().cpu().numpy().astype(dtype) if array.is_floating_point() else array.cpu().numpy()

    def keywords(self) -> dict[str, int]:
        return {"stream": self._torch.cuda.current_stream().cuda_stream}


_Arrays = _NumpyArrays | _TorchArrays
