"""dot_interaction's cases and inputs, and what makes a provider's result right."""

from __future__ import annotations

import dataclasses
from typing import Any

import ml_dtypes
import numpy as np

from benchmarks.harness import NotEqual, Provider

ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
CHECKED = 16  # samples
TOLERANCE = {"float32": 3e-3, "float16": 4e-3, "bfloat16": 2e-2}  # of the largest value; float32: TF32 is allowed


@dataclasses.dataclass(frozen=True)
class Case:
    """Attributes: rows: of each table where vectors are looked up, by hotness ids a feature; 0 for given vectors."""

    name: str
    batch: int
    features: int
    dim: int
    dtype: str = "float32"
    rows: int = 0
    groups: tuple[str, ...] = ()
    ids: str = ""
    hotness: int = 1

    def build(self) -> DotInteractionProblem:
        return DotInteractionProblem(self)


class DotInteractionProblem:
    """Random inputs: vectors, or tables and ids; the upstream gradient.

    Attributes:
        vectors: (block, features, dim), float32 numbers of the case's dtype. Providers repeat them on their device.
        grad: (block, pairs), likewise.
        repeats: how often, to make up the batch.
        ids: (features - 1, batch, hotness) int64, where vectors are looked up.
    """

    num_sets = 1
    num_grads = 1

    def __init__(self, case: Case):
        self.case = case
        self.batch, self.features, self.dim, self.dtype, self.rows = (
            case.batch,
            case.features,
            case.dim,
            case.dtype,
            case.rows,
        )
        self.pairs = case.features * (case.features - 1) // 2
        rng = np.random.default_rng(0)
        block = min(case.batch, 1024)
        if case.batch % block:
            raise ValueError(f"batch must be at most 1024 or a multiple of it. Received: {case.batch}")
        self.repeats = case.batch // block
        self.vectors = self._rounded(rng.normal(size=(block, case.features, case.dim)) * case.dim**-0.25)
        self.grad = self._rounded(rng.normal(size=(block, self.pairs)))
        if case.rows:
            self.ids = rng.integers(0, case.rows, (case.features - 1, case.batch, case.hotness))

    def _rounded(self, array: np.ndarray) -> np.ndarray:
        element = ml_dtypes.bfloat16 if self.dtype == "bfloat16" else self.dtype
        return array.astype(element).astype(np.float32)

    def tables(self) -> np.ndarray:
        """(rows, dim) numbers, the same for every table."""
        return np.resize(self.vectors.reshape(-1, self.dim), (self.rows, self.dim))

    def config(self) -> dict[str, Any]:
        return dataclasses.asdict(self.case)


def check(provider: Provider, problem: DotInteractionProblem, mode: str, optimizer: str) -> float:
    """The largest error of the first samples' products and gradients, relative to the largest value.

    Raises:
        NotEqual: if it is larger than the dtype's tolerance.
    """
    x = problem.vectors[:CHECKED].astype(np.float64)
    if problem.rows:
        x[:, 1:] = problem.tables().astype(np.float64)[problem.ids[:, :CHECKED]].sum(2).swapaxes(0, 1)
    rows, columns = np.tril_indices(problem.features, -1)
    square = np.einsum("bfd,bgd->bfg", x, x)
    results = [(provider.outputs(provider.forward(0)), square[:, rows, columns])]
    if mode == "full":
        grads = np.zeros_like(square)
        grads[:, rows, columns] = problem.grad[:CHECKED]
        results.append((provider.gradients(provider.full(0, 0)), (grads + grads.transpose(0, 2, 1)) @ x))
    worst = 0.0
    for actual, expected in results:
        worst = max(worst, float(np.abs(actual - expected).max() / np.abs(expected).max()))
    if not worst <= TOLERANCE[problem.dtype]:
        raise NotEqual(f"error {worst:.1e}, {TOLERANCE[problem.dtype]:.0e} is allowed")
    return worst
