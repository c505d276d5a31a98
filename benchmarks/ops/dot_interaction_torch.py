"""dot_interaction on torch's arrays: our kernels, and torch's bmm with an index."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import environment
from benchmarks.harness import Provider
from benchmarks.ops.dot_interaction_problem import CHECKED, ITEM_BYTES
from benchmarks.ops.peers_torch import to_numpy


class TorchProvider(Provider):
    """Holds the vectors and the upstream gradient as torch tensors; or, where they are looked up, tables and ids."""

    runtime = "torch"
    requires: tuple[str, ...] = ("torch",)

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        tables = (problem.features - 1) * problem.rows * problem.dim * ITEM_BYTES[problem.dtype]
        return tables + 4 * problem.batch * problem.features * (problem.dim + problem.features) * 4

    def setup(self, problem: Any, device: str, mode: str, optimizer: str) -> None:
        import torch

        self._torch, self._mode, self._problem = torch, mode, problem
        if device == "cpu":
            torch.set_num_threads(environment.num_threads())
        torch.backends.cuda.matmul.allow_tf32 = True
        dtype = getattr(torch, problem.dtype)
        self._x = torch.from_numpy(problem.vectors).to(device, dtype).repeat(problem.repeats, 1, 1)
        self._grad = torch.from_numpy(problem.grad).to(device, dtype).repeat(problem.repeats, 1)
        if problem.rows:
            table = torch.from_numpy(problem.tables()).to(device, dtype)
            self._tables = [table.clone() for _ in range(problem.features - 1)]
            self._ids = [torch.from_numpy(ids).to(device) for ids in problem.ids]
            self._x = self._x[:, 0].contiguous()
        self.prepare(problem)

    def prepare(self, problem: Any) -> None:
        pass

    def outputs(self, output: Any) -> np.ndarray:
        return to_numpy(output[:CHECKED])

    gradients = outputs


class MerlinNative(TorchProvider):
    """The kernels alone, through the Python module, the fused one for lookups; TF32 for float32 on a GPU, as the peers."""

    name = "merlin_native"
    requires = ("torch", "merlin_models._C")
    tf32 = True

    def prepare(self, problem: Any) -> None:
        import merlin_models._C as native

        self._native = native
        self._output, self._x_grad = self._torch.empty_like(self._grad), self._torch.empty_like(self._x)
        self._pooled_grad = self._vectors = None
        if problem.rows:
            n = problem.features - 1
            shape = (problem.batch, n * problem.dim)
            if self._mode == "full":
                self._pooled_grad = self._x.new_empty(shape)
            if not self._x.is_cuda or (self._mode == "full" and problem.case.hotness > 1):
                self._vectors = self._x.new_empty(shape)
            bags = {"tables": self._tables, "ids": self._ids, "table_of_feature": list(range(n))}
            self._bags = {**bags, "combiners": ["sum"] * n, "padding_ids": [None] * n}

    def held_bytes(self) -> int:
        of_full = [self._x_grad] if self._mode == "full" else []
        arrays = [self._output, *of_full, self._pooled_grad, self._vectors]
        return sum(array.nbytes for array in arrays if array is not None)

    def where(self) -> dict[str, int]:
        """The threads, and the stream that PyTorch uses now: another one while a graph is captured."""
        stream = {"stream": self._torch.cuda.current_stream().cuda_stream} if self._x.is_cuda else {}
        return {"num_threads": environment.num_threads(), **stream}

    def launch(self) -> Any:
        options = {"tf32": self.tf32, **self.where()}
        if self._problem.rows:
            arrays = {"output": self._output, "first": self._x, "vectors": self._vectors}
            self._native.lookup_interaction_forward(**self._bags, **arrays, **options)
        else:
            self._native.dot_interaction_forward([self._x], self._output, **options)
        return self._output

    def launch_with_gradient(self) -> Any:
        options = {"tf32": self.tf32, **self.where()}
        self.launch()
        if self._problem.rows:
            arrays = {"first": self._x, "grad": self._grad, "vectors": self._vectors}
            grads = {"pooled_grad": self._pooled_grad, "first_grad": self._x_grad}
            self._native.lookup_interaction_grad(**self._bags, **arrays, **grads, **options)
            return self._x_grad, self._pooled_grad
        self._native.dot_interaction_grad([self._x], self._grad, [self._x_grad], **options)
        return self._x_grad

    def forward(self, i: int) -> Any:
        return self.launch()

    def full(self, i: int, g: int) -> Any:
        return self.launch_with_gradient()

    def gradients(self, results: Any) -> np.ndarray:
        if not self._problem.rows:
            return self.outputs(results)
        first, pooled = (self.outputs(result) for result in results)
        shape = (-1, self._problem.features, self._problem.dim)
        return np.concatenate([first, pooled], axis=1).reshape(shape)


class MerlinNativeTwoOps(MerlinNative):
    """One op that looks up and one that multiplies."""

    name = "merlin_native_two_ops"

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        return super().unsupported(case, device, mode, optimizer) if case.rows else "there is nothing to look up"

    def prepare(self, problem: Any) -> None:
        super().prepare(problem)
        n = problem.features - 1
        self._vectors = self._x.new_empty((problem.batch, n * problem.dim))
        self._lookup = {**self._bags, "row_splits": [None] * n, "weights": [None] * n, "outputs": [self._vectors]}
        shape = (problem.batch, n, problem.dim)
        self._features = [self._x, self._vectors.view(shape)]
        if self._mode == "full":
            self._grads = [self._x_grad, self._pooled_grad.view(shape)]

    def launch(self) -> Any:
        where = self.where()
        self._native.embedding_bag_forward(**self._lookup, **where)
        self._native.dot_interaction_forward(self._features, self._output, tf32=self.tf32, **where)
        return self._output

    def launch_with_gradient(self) -> Any:
        self.launch()
        self._native.dot_interaction_grad(self._features, self._grad, self._grads, tf32=self.tf32, **self.where())
        return self._x_grad, self._pooled_grad


class _Replayed(MerlinNative):
    """The same launches replayed as a CUDA graph: without it, small cases measure the exchange of arrays by DLPack."""

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        return super().unsupported(case, device, mode, optimizer) if device == "cuda" else "CUDA graphs need a GPU"

    def prepare(self, problem: Any) -> None:
        super().prepare(problem)
        self._results = self._run()
        self._torch.cuda.synchronize()
        self._graph = self._torch.cuda.CUDAGraph()
        with self._torch.cuda.graph(self._graph):
            self._run()

    def _run(self) -> Any:
        return self.launch_with_gradient() if self._mode == "full" else self.launch()

    def forward(self, i: int) -> Any:
        self._graph.replay()
        return self._output

    def full(self, i: int, g: int) -> Any:
        self._graph.replay()
        return self._results


class MerlinNativeGraph(_Replayed):
    """The kernels alone, as a CUDA graph."""

    name = "merlin_native_graph"


class MerlinNativeTwoOpsGraph(_Replayed, MerlinNativeTwoOps):
    """One op that looks up and one that multiplies, as a CUDA graph."""

    name = "merlin_native_two_ops_graph"


class MerlinNativeFloat32(MerlinNative):
    """With the accuracy of float32."""

    name = "merlin_native_float32"
    tf32 = False

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        if case.dtype != "float32" or device == "cpu":
            return "only float32 on a GPU has two precisions"
        return super().unsupported(case, device, mode, optimizer)


class TorchBmm(TorchProvider):
    """``bmm`` and an index; lookups by ``embedding_bag``, a table each."""

    name = "torch"

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        return "the tables' gradient is not measured here" if case.rows and mode == "full" else ""

    def prepare(self, problem: Any) -> None:
        rows, columns = np.tril_indices(problem.features, -1)
        self._rows, self._columns = (self._torch.from_numpy(i).to(self._x.device) for i in (rows, columns))
        self._x.requires_grad_(self._mode == "full")
        self._function = self.compiled(self._products)

    def compiled(self, function: Any) -> Any:
        return function

    def _products(self, x: Any) -> Any:
        if self._problem.rows:
            lookup = self._torch.nn.functional.embedding_bag
            pooled = [lookup(ids, table, mode="sum") for ids, table in zip(self._ids, self._tables, strict=True)]
            x = self._torch.stack([x, *pooled], dim=1)
        return self._torch.bmm(x, x.transpose(1, 2))[:, self._rows, self._columns]

    def forget(self) -> None:
        self._x.grad = None

    def forward(self, i: int) -> Any:
        return self._function(self._x)

    def full(self, i: int, g: int) -> Any:
        self._x.grad = None
        self._function(self._x).backward(self._grad)
        return self._x.grad


class TorchCompile(TorchBmm):
    """The same, by ``torch.compile``."""

    name = "torch_compile"

    def compiled(self, function: Any) -> Any:
        self._torch._dynamo.reset()
        return self._torch.compile(function)
