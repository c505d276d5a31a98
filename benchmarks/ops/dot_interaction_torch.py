"""dot_interaction on torch's arrays: our kernels, and torch's bmm with an index."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import environment
from benchmarks.harness import Provider
from benchmarks.ops.dot_interaction_problem import CHECKED
from benchmarks.ops.peers_torch import to_numpy


class TorchProvider(Provider):
    """Holds the vectors and the upstream gradient as torch tensors."""

    runtime = "torch"
    requires: tuple[str, ...] = ("torch",)

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        return "looks nothing up" if case.rows else ""

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return 4 * problem.batch * problem.features * (problem.dim + problem.features) * 4

    def setup(self, problem: Any, device: str, mode: str, optimizer: str) -> None:
        import torch

        self._torch, self._mode = torch, mode
        if device == "cpu":
            torch.set_num_threads(environment.num_threads())
        torch.backends.cuda.matmul.allow_tf32 = True
        dtype = getattr(torch, problem.dtype)
        self._x = torch.from_numpy(problem.vectors).to(device, dtype).repeat(problem.repeats, 1, 1)
        self._grad = torch.from_numpy(problem.grad).to(device, dtype).repeat(problem.repeats, 1)
        self.prepare(problem)

    def prepare(self, problem: Any) -> None:
        pass

    def outputs(self, output: Any) -> np.ndarray:
        return to_numpy(output[:CHECKED])

    gradients = outputs


class MerlinNative(TorchProvider):
    """The kernels alone, through the Python module; TF32 for float32 on a GPU, as the peers."""

    name = "merlin_native"
    requires = ("torch", "merlin_models._C")
    tf32 = True

    def prepare(self, problem: Any) -> None:
        import merlin_models._C as native

        self._native = native
        self._output, self._x_grad = self._torch.empty_like(self._grad), self._torch.empty_like(self._x)
        self._options = {"tf32": self.tf32, "num_threads": environment.num_threads()}
        if self._x.is_cuda:
            self._options["stream"] = self._torch.cuda.current_stream().cuda_stream

    def held_bytes(self) -> int:
        return self._output.nbytes + (self._x_grad.nbytes if self._mode == "full" else 0)

    def forward(self, i: int) -> Any:
        self._native.dot_interaction_forward([self._x], self._output, **self._options)
        return self._output

    def full(self, i: int, g: int) -> Any:
        self.forward(i)
        self._native.dot_interaction_grad([self._x], self._grad, [self._x_grad], **self._options)
        return self._x_grad


class MerlinNativeFloat32(MerlinNative):
    """With the accuracy of float32."""

    name = "merlin_native_float32"
    tf32 = False

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        if case.dtype != "float32" or device == "cpu":
            return "only float32 on a GPU has two precisions"
        return super().unsupported(case, device, mode, optimizer)


class TorchBmm(TorchProvider):
    """``bmm`` and an index."""

    name = "torch"

    def prepare(self, problem: Any) -> None:
        rows, columns = np.tril_indices(problem.features, -1)
        self._rows, self._columns = (self._torch.from_numpy(i).to(self._x.device) for i in (rows, columns))
        self._x.requires_grad_(self._mode == "full")
        self._function = self.compiled(self._products)

    def compiled(self, function: Any) -> Any:
        return function

    def _products(self, x: Any) -> Any:
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
