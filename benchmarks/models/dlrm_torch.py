"""DLRM in PyTorch: ``EmbeddingBag``, ``bmm``, Adagrad; the layers compiled."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import environment
from benchmarks.harness import Provider
from benchmarks.models.dlrm_problem import ADAGRAD_START, EPSILON, LEARNING_RATE, DLRMProblem, Layers


class TorchSparse(Provider):
    """Tables with sparse gradients, and an Adagrad of their own; everything behind the lookups by torch.compile."""

    name = "torch"
    runtime = "torch"
    requires = ("torch",)
    sparse = True

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return (2 if self.sparse else 4) * 4 * problem.case.dim * sum(problem.rows)

    def setup(self, problem: DLRMProblem, device: str, mode: str, optimizer: str) -> None:
        import torch

        self._torch = torch
        if device == "cpu":
            torch.set_num_threads(environment.num_threads())
        torch.set_float32_matmul_precision("high")  # TF32 on a GPU, as TensorFlow does by default
        nn, dim = torch.nn, problem.case.dim
        block = torch.from_numpy(problem.block).to(device)
        bags = []
        for rows in problem.rows:
            table = block.repeat(-(-rows // len(block)), 1)[:rows].clone()
            bags.append(nn.EmbeddingBag(rows, dim, mode="sum", sparse=self.sparse, device=device, _weight=table))
        bottom, top = _sequence(torch, problem.bottom, device, False), _sequence(torch, problem.top, device, True)
        rows, columns = torch.tril_indices(27, 27, -1, device=device)
        bf16 = problem.case.dtype == "bfloat16"

        def interact(dense: Any, pooled: list[Any], labels: Any) -> Any:
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                low = bottom(dense)
                vectors = torch.stack([low, *(each.to(low.dtype) for each in pooled)], dim=1)
                products = torch.bmm(vectors, vectors.transpose(1, 2))[:, rows, columns]
                logits = top(torch.cat([low, products], dim=1))
            return nn.functional.binary_cross_entropy_with_logits(logits.float(), labels)

        compiled = torch.compile(interact)
        options = {"lr": LEARNING_RATE, "initial_accumulator_value": ADAGRAD_START, "eps": EPSILON}
        of_tables = torch.optim.Adagrad([bag.weight for bag in bags], foreach=not self.sparse, **options)
        of_layers = torch.optim.Adagrad([*bottom.parameters(), *top.parameters()], foreach=True, **options)
        dense = torch.from_numpy(problem.dense).to(device)
        ids = [torch.from_numpy(each).to(device) for each in problem.ids]
        labels = torch.from_numpy(problem.labels).to(device)

        def forget() -> None:
            of_tables.zero_grad(set_to_none=True)
            of_layers.zero_grad(set_to_none=True)

        def step() -> Any:
            forget()
            loss = compiled(dense, [bag(each) for bag, each in zip(bags, ids, strict=True)], labels)
            loss.backward()
            of_tables.step()
            of_layers.step()
            return loss.detach()

        self._step, self._forget = step, forget

    def forget(self) -> None:
        self._forget()

    def update(self, i: int, g: int) -> Any:
        return self._step()

    def loss_of_step(self) -> float:
        """Takes a step."""
        return float(self._step())


class TorchDense(TorchSparse):
    """Tables with dense gradients."""

    name = "torch_dense"
    sparse = False
    notes = "visits every row at each step"


def _sequence(torch: Any, layers: Layers, device: str, last: bool) -> Any:
    modules: list[Any] = []
    for i, (kernel, bias) in enumerate(layers):
        linear = torch.nn.Linear(*kernel.shape, device=device)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel.T)))
            linear.bias.copy_(torch.from_numpy(bias))
        modules.append(linear)
        if not (last and i == len(layers) - 1):
            modules.append(torch.nn.ReLU())
    return torch.nn.Sequential(*modules)
