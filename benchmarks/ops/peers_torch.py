"""PyTorch: one ``F.embedding_bag`` a table, sparse gradients, ``torch.optim``."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import environment
from benchmarks.harness import Provider
from benchmarks.ops.embedding_bag_problem import (
    ADAGRAD_START,
    BETA1,
    BETA2,
    BLOCK_ROWS,
    EPSILON,
    LEARNING_RATE,
    TABLE_SCALE,
)


def fill(torch: Any, table: Any, block: np.ndarray) -> None:
    """Fills a torch table: on a GPU with uniform numbers, on a CPU with a random block again and again."""
    if table.is_cuda:
        table.uniform_(-TABLE_SCALE, TABLE_SCALE)
        return
    source = torch.from_numpy(block).to(table.dtype)
    for start in range(0, len(table), BLOCK_ROWS):
        table[start : start + BLOCK_ROWS] = source[: len(table) - start]


def to_numpy(tensor: Any) -> np.ndarray:
    """A float32 NumPy copy of a torch tensor."""
    return tensor.detach().float().cpu().numpy().copy()


def optimizer_state_factor(optimizer: str) -> int:
    """How many times the size of a float32 table the optimizer's state has."""
    return {"adagrad": 1, "adam": 2}.get(optimizer, 0)


class TorchEmbeddingBag(Provider):
    name = "torch"
    runtime = "torch"
    requires = ("torch",)

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        return "torch.optim has no row-wise Adagrad" if optimizer == "rowwise_adagrad" else ""

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return problem.table_bytes * (1 + optimizer_state_factor(optimizer))

    def setup(self, problem: Any, device: str, mode: str, optimizer: str) -> None:
        import torch

        self._torch = torch
        torch.manual_seed(1)
        if device == "cpu":
            torch.set_num_threads(environment.num_threads())
        dtype = getattr(torch, problem.dtype)
        self._combiner = problem.combiner
        self._tables = []
        for t, (rows, dim) in enumerate(zip(problem.rows, problem.dims, strict=True)):
            table = torch.empty(rows, dim, dtype=dtype, device=device)
            fill(torch, table, problem.table_block(t))
            self._tables.append(table.requires_grad_(mode != "forward"))
        self._sets = [
            [tuple(torch.from_numpy(array).to(device) for array in bags) for bags in bags_of_set]
            for bags_of_set in problem.sets
        ]
        if mode != "forward":
            self._grads = [
                [torch.from_numpy(np.ascontiguousarray(grad)).to(device, dtype) for grad in problem.grads_of(g)]
                for g in range(problem.num_grads)
            ]
        if mode == "update":
            self._optimizer = self._make_optimizer(optimizer)

    def _make_optimizer(self, optimizer: str) -> Any:
        optim = self._torch.optim
        if optimizer == "sgd":
            return optim.SGD(self._tables, lr=LEARNING_RATE)
        if optimizer == "adagrad":
            return optim.Adagrad(self._tables, lr=LEARNING_RATE, initial_accumulator_value=ADAGRAD_START, eps=EPSILON)
        return optim.SparseAdam(self._tables, lr=LEARNING_RATE, betas=(BETA1, BETA2), eps=EPSILON)

    def forward(self, i: int) -> list[Any]:
        bag = self._torch.nn.functional.embedding_bag
        return [
            bag(values, table, splits, mode=self._combiner, sparse=True, include_last_offset=True)
            for (values, splits), table in zip(self._sets[i], self._tables, strict=True)
        ]

    def forget(self) -> None:
        for table in self._tables:
            table.grad = None

    def full(self, i: int, g: int) -> list[Any]:
        self.forget()
        self._torch.autograd.backward(self.forward(i), self._grads[g])
        return [table.grad for table in self._tables]

    def update(self, i: int, g: int) -> None:
        self.full(i, g)
        self._optimizer.step()

    def outputs(self, outputs: list[Any]) -> list[np.ndarray]:
        return [to_numpy(output) for output in outputs]

    def gradients(self, grads: list[Any]) -> list[tuple[np.ndarray, np.ndarray]]:
        return [(grad._indices()[0].cpu().numpy(), to_numpy(grad._values())) for grad in grads]

    def read_rows(self, t: int, ids: np.ndarray) -> np.ndarray:
        return to_numpy(self._tables[t][self._torch.from_numpy(ids).to(self._tables[t].device)])


class TorchCompile(TorchEmbeddingBag):
    """The lookups of all tables by ``torch.compile``."""

    name = "torch_compile"

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        return "" if mode == "forward" else "torch.compile leaves gradients of sparse tables to eager kernels"

    def setup(self, problem: Any, device: str, mode: str, optimizer: str) -> None:
        super().setup(problem, device, mode, optimizer)
        self._torch._dynamo.reset()
        self._compiled = self._torch.compile(super().forward)

    def forward(self, i: int) -> list[Any]:
        with self._torch.no_grad():
            return self._compiled(i)


class TorchGraph(TorchEmbeddingBag):
    """The same launches replayed as one CUDA graph: without it, many tables measure the launches."""

    name = "torch_graph"

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        if device != "cuda":
            return "CUDA graphs need a GPU"
        return "" if mode == "forward" else "the optimizers for sparse gradients cannot be captured"

    def setup(self, problem: Any, device: str, mode: str, optimizer: str) -> None:
        super().setup(problem, device, mode, optimizer)
        torch = self._torch
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream), torch.no_grad():
            super().forward(0)
        stream.synchronize()
        self._graphs = []
        for i in range(problem.num_sets):
            graph = torch.cuda.CUDAGraph()
            with torch.no_grad(), torch.cuda.graph(graph):
                outputs = super().forward(i)
            self._graphs.append((graph, outputs))

    def held_bytes(self) -> int:
        return sum(output.nbytes for output in self._graphs[0][1])

    def forward(self, i: int) -> list[Any]:
        graph, outputs = self._graphs[i]
        graph.replay()
        return outputs
