"""inbatch_softmax's peers in PyTorch: scores in memory, eager and compiled; attention; losses for language models."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import environment
from benchmarks.harness import Provider
from benchmarks.ops.inbatch_softmax_problem import TEMPERATURE, InbatchSoftmaxProblem
from benchmarks.ops.peers_torch import to_numpy

LARGEST = 65_536  # of a batch whose scores fit


class TorchProvider(Provider):
    """Holds the inputs as torch tensors; a subclass computes ``losses(queries, candidates)``, or their mean."""

    runtime = "torch"
    requires: tuple[str, ...] = ("torch",)
    on_cpu = False

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        if device == "cpu" and not self.on_cpu:
            return "measured on GPUs only"
        return f"its scores of more than {LARGEST} queries do not fit" if case.batch > LARGEST else ""

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return 6 * problem.batch * problem.candidates_count * 4

    def setup(self, problem: InbatchSoftmaxProblem, device: str, mode: str, optimizer: str) -> None:
        import torch

        self._torch, self._problem = torch, problem
        if device == "cpu":
            torch.set_num_threads(environment.num_threads())
        torch.backends.cuda.matmul.allow_tf32 = True
        dtype = getattr(torch, problem.dtype)
        arrays = (problem.queries(), problem.candidates())
        self._vectors = [torch.from_numpy(array).to(device, dtype).requires_grad_(mode == "full") for array in arrays]
        self._ids = torch.from_numpy(problem.ids()).to(device)
        self._log_q = torch.from_numpy(problem.log_q()).to(device)
        self._labels = torch.arange(problem.batch, device=device)
        self._columns = torch.arange(problem.candidates_count, device=device)
        self.prepare()

    def prepare(self) -> None:
        self._function = self.losses

    def losses(self, queries: Any, candidates: Any) -> Any:
        raise NotImplementedError

    def forward(self, i: int) -> Any:
        with self._torch.no_grad():
            return self._function(*self._vectors)

    def forget(self) -> None:
        for vectors in self._vectors:
            vectors.grad = None

    def full(self, i: int, g: int) -> Any:
        self.forget()
        self._function(*self._vectors).mean().backward()
        return [vectors.grad for vectors in self._vectors]

    def outputs(self, losses: Any) -> np.ndarray:
        return to_numpy(losses)

    def gradients(self, grads: Any) -> list[np.ndarray]:
        return [to_numpy(grad) for grad in grads]


class TorchMatmul(TorchProvider):
    """``cross_entropy`` of a product, masked."""

    name = "torch"
    on_cpu = True

    def losses(self, queries: Any, candidates: Any) -> Any:
        scores = (queries @ candidates.T).float() / TEMPERATURE
        if not self._problem.plain:
            rows = self._ids[: self._problem.batch, None]
            hits = (rows == self._ids) & (self._labels[:, None] != self._columns)
            scores = (scores - self._log_q).masked_fill(hits, float("-inf"))
        return self._torch.nn.functional.cross_entropy(scores, self._labels, reduction="none")


class TorchCompile(TorchMatmul):
    """The same, by ``torch.compile``."""

    name = "torch_compile"

    def prepare(self) -> None:
        self._torch._dynamo.reset()
        self._function = self._torch.compile(self.losses)


class FlexAttention(TorchProvider):
    """FlexAttention's log-sum-exp, differentiated, with a score_mod of log_q and mask; its values are not wanted."""

    name = "torch_flex_attention"

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return 16 * problem.candidates_count * problem.dim * 4

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        return "measured on GPUs only" if device == "cpu" else ""

    def prepare(self) -> None:
        from torch.nn.attention.flex_attention import flex_attention

        torch = self._torch
        torch._dynamo.reset()
        ids, log_q, plain = self._ids, self._log_q, self._problem.plain
        values = torch.zeros(
            (1, 1, self._problem.candidates_count, 16), dtype=self._vectors[0].dtype, device=ids.device
        )

        def score_mod(score, batch, head, row, column):
            hit = (ids[row] == ids[column]) & (row != column)
            return torch.where(hit, float("-inf"), score - log_q[column])

        def losses(queries, candidates):
            nothing, log_sum = flex_attention(
                queries[None, None],
                candidates[None, None],
                values,
                score_mod=None if plain else score_mod,
                scale=1.0 / TEMPERATURE,
                return_lse=True,
            )
            rows = len(queries)
            positive = (queries.float() * candidates[:rows].float()).sum(-1) / TEMPERATURE
            # Its backward pass wants a gradient of the values' mean, too: zeros.
            return log_sum[0, 0] - (positive if plain else positive - log_q[:rows]) + 0.0 * nothing[0, 0, :, 0].float()

        self._function = torch.compile(losses)


class CutCrossEntropy(TorchProvider):
    """``cut_cross_entropy.linear_cross_entropy`` without its filter; it has no mask."""

    name = "cut_cross_entropy"
    requires = ("torch", "cut_cross_entropy")
    has_float32_gradient = False

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        if device == "cpu":
            return "measured on GPUs only"
        if mode == "full" and case.dtype == "float32" and not self.has_float32_gradient:
            return "its gradient takes 2-byte vectors alone"
        return "" if case.plain else "has no log_q and no mask: see the plain cases"

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return 16 * problem.candidates_count * problem.dim * 4

    def losses(self, queries: Any, candidates: Any) -> Any:
        from cut_cross_entropy import linear_cross_entropy

        return linear_cross_entropy(
            queries / TEMPERATURE, candidates, self._labels, reduction="none", filter_eps=None, impl="cce"
        )


class Liger(CutCrossEntropy):
    """``LigerFusedLinearCrossEntropyLoss``, whose gradient is made in the forward pass."""

    name = "liger"
    requires = ("torch", "liger_kernel")
    has_float32_gradient = True

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        if mode == "forward":
            return "makes the gradient in the forward pass: see full"
        return super().unsupported(case, device, mode, optimizer)

    def prepare(self) -> None:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        self._loss = LigerFusedLinearCrossEntropyLoss(reduction="mean")
        self._function = self.losses

    def losses(self, queries: Any, candidates: Any) -> Any:
        return self._loss(candidates, queries / TEMPERATURE, self._labels)
