"""inbatch_softmax's cases and inputs, and what makes a provider's result right."""

from __future__ import annotations

import dataclasses
from typing import Any

import ml_dtypes
import numpy as np

from benchmarks.harness import NotEqual, Provider

ITEM_BYTES = {"float32": 4, "bfloat16": 2}
BLOCK = 2048  # rows that differ; larger batches repeat them
TEMPERATURE = 0.05
TOLERANCE = {"float32": 1e-2, "bfloat16": 5e-2}  # of the largest value; float32: TF32 is allowed


@dataclasses.dataclass(frozen=True)
class Case:
    """Attributes: plain: without log_q, and no candidate is masked. candidates: 0 for as many as queries, else more."""

    name: str
    batch: int
    dim: int
    dtype: str = "float32"
    plain: bool = False
    candidates: int = 0
    groups: tuple[str, ...] = ()
    ids: str = ""

    def build(self) -> InbatchSoftmaxProblem:
        return InbatchSoftmaxProblem(self)


class InbatchSoftmaxProblem:
    """Queries near their candidates, all of length 1; candidates' ids and log_q. The loss is a mean.

    Rows repeat after the first ``block``, with their ids, so that the answer for all is known from a small one.
    """

    num_sets = 1
    num_grads = 1

    def __init__(self, case: Case):
        self.case = case
        self.batch, self.dim, self.dtype, self.plain = case.batch, case.dim, case.dtype, case.plain
        self.candidates_count = case.candidates or case.batch
        self.block = min(BLOCK, case.batch)
        if case.batch % self.block:
            raise ValueError(f"batch must be at most {BLOCK}, or a multiple of it. Received: {case.batch}")
        if self.candidates_count < case.batch or self.candidates_count % self.block:
            raise ValueError(f"candidates must be a multiple of the batch. Received: {case.candidates}")
        rng = np.random.default_rng(0)
        candidates = rng.normal(size=(self.block, case.dim))
        queries = candidates + rng.normal(size=candidates.shape)
        self._queries, self._candidates = self._unit(queries), self._unit(candidates)
        # Of a larger catalogue: few in a block are equal, but each comes again in the next.
        self._ids = rng.integers(0, 8 * self.block, self.block)
        self._log_q = np.zeros(self.block) if case.plain else rng.uniform(-12.0, -4.0, self.block)

    def _unit(self, array: np.ndarray) -> np.ndarray:
        element = ml_dtypes.bfloat16 if self.dtype == "bfloat16" else self.dtype
        return (array / np.linalg.norm(array, axis=1, keepdims=True)).astype(element).astype(np.float32)

    def queries(self) -> np.ndarray:
        """(batch, dim), float32 numbers of the case's dtype."""
        return np.resize(self._queries, (self.batch, self.dim))

    def candidates(self) -> np.ndarray:
        """(candidates, dim), query i's positive at i."""
        return np.resize(self._candidates, (self.candidates_count, self.dim))

    def ids(self) -> np.ndarray:
        """(candidates,); all different if nothing is to be masked."""
        count = self.candidates_count
        return np.arange(count) if self.plain else np.resize(self._ids, count)

    def log_q(self) -> np.ndarray:
        """(candidates,)."""
        return np.resize(self._log_q, self.candidates_count).astype(np.float32)

    def expected(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of the first ``block`` rows in float64: the loss, and the gradients of queries and candidates."""
        q, k = self._queries.astype(np.float64), self._candidates.astype(np.float64)
        scores = q @ k.T / TEMPERATURE - self._log_q.astype(np.float32)
        positive = np.diag(scores)

        def weights(repeats: int) -> np.ndarray:
            w = repeats * np.exp(scores - scores.max())
            if not self.plain:
                w[self._ids[:, np.newaxis] == self._ids] = 0.0
                np.fill_diagonal(w, np.exp(positive - scores.max()))
            return w

        # A query meets each candidate of the block as often as candidates repeat, a candidate each query likewise.
        of_queries, of_candidates = (weights(n // self.block) for n in (self.candidates_count, self.batch))
        total = of_queries.sum(axis=1)
        loss = np.log(total) + scores.max() - positive
        errors, others = (
            (w / total[:, np.newaxis] - np.eye(self.block)) / TEMPERATURE / self.batch
            for w in (of_queries, of_candidates)
        )
        return loss, errors @ k, others.T @ q

    def config(self) -> dict[str, Any]:
        return {
            **dataclasses.asdict(self.case),
            "temperature": TEMPERATURE,
            "flops_of_a_product": 2 * self.batch * self.candidates_count * self.dim,
        }


def check(provider: Provider, problem: InbatchSoftmaxProblem, mode: str, optimizer: str) -> float:
    """The largest error of the first rows' losses, or of the gradients of queries and candidates, relative to the largest
    value.

    Raises:
        NotEqual: if it is larger than the dtype's tolerance.
    """
    loss, *gradients = problem.expected()
    if mode == "forward":
        pairs = [(provider.outputs(provider.forward(0)), np.asarray(loss))]
    else:
        pairs = list(zip(provider.gradients(provider.full(0, 0)), gradients, strict=True))
    worst = 0.0
    for actual, expected in pairs:
        actual = actual[: problem.block] if np.ndim(actual) else actual
        wanted = expected if np.ndim(actual) else expected.mean()
        worst = max(worst, float(np.abs(actual - wanted).max() / np.abs(wanted).max()))
    if not worst <= TOLERANCE[problem.dtype]:
        raise NotEqual(f"error {worst:.1e}, {TOLERANCE[problem.dtype]:.0e} is allowed")
    return worst
