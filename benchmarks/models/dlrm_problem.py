"""DLRM's cases, inputs and first weights, and a training step in NumPy that providers are checked against."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np

from benchmarks.harness import NotEqual, Provider
from merlin_models.datasets import criteo

BOTTOM, TOP, DIM = (512, 256, 128), (1024, 1024, 512, 256), 128  # MLPerf's; the last layer has one unit
SMALL_BOTTOM, SMALL_TOP, SMALL_DIM = (16, 8), (16,), 8
LEARNING_RATE, ADAGRAD_START, EPSILON = 0.005, 0.1, 1e-7
TOLERANCE = {"float32": 2e-3, "bfloat16": 3e-2}  # of the losses before and after a step, relative

Layers = list[tuple[np.ndarray, np.ndarray]]  # kernel (inputs, units), bias
_LOSSES: dict[Case, tuple[float, float]] = {}  # they do not depend on a case's dtype


@dataclasses.dataclass(frozen=True)
class Case:
    """Attributes: max_rows: of each of MLPerf's 26 tables. hot: "one" id a feature, or MLPerf's "multi"."""

    name: str
    batch: int
    max_rows: int
    hot: str
    dtype: str  # of the layers' arithmetic; tables are float32
    groups: tuple[str, ...] = ()
    ids: str = "zipf"

    @property
    def small(self) -> bool:
        return "smoke" in self.groups

    @property
    def dim(self) -> int:
        return SMALL_DIM if self.small else DIM

    @property
    def bottom(self) -> tuple[int, ...]:
        return SMALL_BOTTOM if self.small else BOTTOM

    @property
    def top(self) -> tuple[int, ...]:
        return SMALL_TOP if self.small else TOP

    def build(self) -> DLRMProblem:
        return DLRMProblem(self)


class DLRMProblem:
    """Inputs and first weights, the same for every provider.

    Attributes:
        dense: (batch, 13) float32.
        ids: for each of 26 features (batch, hotness) int64 (TensorFlow keeps int32 on the host), Zipf's; they are pooled by
            their sum.
        labels: (batch, 1) float32.
        block: (4099, dim), random rows; a table is this again and again, cut to its length. Providers repeat it on their
            device.
        bottom, top: kernels and biases; top's first kernel is for [bottom's output, pairs (i, j) of vectors, j < i].
    """

    num_sets = 1
    num_grads = 1

    def __init__(self, case: Case):
        self.case, self.batch = case, case.batch
        self.rows = criteo.mlperf_cardinalities(max_rows=case.max_rows)
        self.hots = criteo.MLPERF_HOTS if case.hot == "multi" else (1,) * 26
        batch = criteo.criteo_batch(case.batch, self.rows, hots=self.hots, seed=0)
        columns = sorted(batch, key=lambda name: (name[0], int(name[1:]) if name[1:].isdigit() else 0))
        self.dense = np.concatenate([batch[name] for name in columns if name[0] == "I"], axis=1).astype(np.float32)
        self.dense = np.log1p(self.dense)
        self.ids = [batch[name].astype(np.int64) for name in columns if name[0] == "C"]
        self.labels = batch["label"].astype(np.float32)
        self.distinct_ids = sum(len(np.unique(ids)) for ids in self.ids)
        rng = np.random.default_rng(1)
        self.bottom = _layers(rng, (13, *case.bottom))
        self.pairs = 27 * 26 // 2
        self.top = _layers(rng, (case.dim + self.pairs, *case.top, 1))
        self.block = rng.uniform(-0.05, 0.05, (4_099, case.dim)).astype(np.float32)

    def rows_of(self, ids: np.ndarray) -> np.ndarray:
        """(..., dim): the rows of any table."""
        return self.block[ids % len(self.block)]

    def config(self) -> dict[str, Any]:
        sizes = [(13, *self.case.bottom), (self.case.dim + self.pairs, *self.case.top, 1)]
        layers = sum(a * b for size in sizes for a, b in itertools.pairwise(size))
        flops = 6 * self.batch * (layers + 27 * 27 * self.case.dim)
        return {**dataclasses.asdict(self.case), "rows": self.rows, "distinct_ids": self.distinct_ids, "flops": flops}

    @property
    def losses(self) -> tuple[float, float]:
        """Mean binary cross-entropy of the first weights, and of those after one step of Adagrad; float32."""
        key = dataclasses.replace(self.case, name="", dtype="")
        if key not in _LOSSES:
            _LOSSES[key] = _two_losses(self)
        return _LOSSES[key]


def _layers(rng: np.random.Generator, sizes: tuple[int, ...]) -> Layers:
    return [
        (rng.normal(0, (2 / (a + b)) ** 0.5, (a, b)).astype(np.float32), np.zeros(b, np.float32))
        for a, b in itertools.pairwise(sizes)
    ]


def upper_rows(dim: int) -> np.ndarray:
    """The rows of top's first kernel in the order (0, 1), (0, 2), ..., (1, 2), ... of pairs."""
    rows, columns = np.triu_indices(27, 1)
    return np.concatenate([np.arange(dim), dim + columns * (columns - 1) // 2 + rows])


def _forward(layers: Layers, x: np.ndarray, last: bool) -> list[np.ndarray]:
    """The layers' inputs and the last one's output; ReLU after each, but not after the ``last`` of the model."""
    outputs = [x]
    for i, (kernel, bias) in enumerate(layers):
        y = outputs[-1] @ kernel + bias
        outputs.append(y if last and i == len(layers) - 1 else np.maximum(y, 0))
    return outputs


def _backward(layers: Layers, outputs: list[np.ndarray], grad: np.ndarray, last: bool) -> tuple[Layers, np.ndarray]:
    grads = []
    for i in reversed(range(len(layers))):
        if not (last and i == len(layers) - 1):
            grad = grad * (outputs[i + 1] > 0)
        grads.append((outputs[i].T @ grad, grad.sum(0)))
        grad = grad @ layers[i][0].T
    return grads[::-1], grad


def predictions(problem: DLRMProblem) -> np.ndarray:
    """The probabilities (batch, 1) that the first weights give."""
    pooled = [problem.rows_of(ids).sum(axis=1) for ids in problem.ids]
    rows, columns = np.tril_indices(27, -1)
    low = _forward(problem.bottom, problem.dense, last=False)[-1]
    vectors = np.stack([low, *pooled], axis=1)
    products = (vectors @ vectors.transpose(0, 2, 1))[:, rows, columns]
    logits = _forward(problem.top, np.concatenate([low, products], axis=1), last=True)[-1].astype(np.float64)
    return 1 / (1 + np.exp(-logits))


def _two_losses(problem: DLRMProblem) -> tuple[float, float]:
    pooled = [problem.rows_of(ids).sum(axis=1) for ids in problem.ids]
    rows, columns = np.tril_indices(27, -1)
    bottom, top = problem.bottom, problem.top

    def forward() -> tuple[list[np.ndarray], np.ndarray, list[np.ndarray], float]:
        low = _forward(bottom, problem.dense, last=False)
        vectors = np.stack([low[-1], *pooled], axis=1)
        products = (vectors @ vectors.transpose(0, 2, 1))[:, rows, columns]
        high = _forward(top, np.concatenate([low[-1], products], axis=1), last=True)
        logits = high[-1].astype(np.float64)
        return low, vectors, high, float(np.mean(np.logaddexp(0, logits) - problem.labels * logits))

    low, vectors, high, before = forward()
    grad = ((1 / (1 + np.exp(-high[-1])) - problem.labels) / problem.batch).astype(np.float32)
    top_grads, grad = _backward(top, high, grad, last=True)
    square = np.zeros((problem.batch, 27, 27), np.float32)
    square[:, rows, columns] = grad[:, problem.case.dim :]
    of_vectors = (square + square.transpose(0, 2, 1)) @ vectors
    bottom_grads, _ = _backward(bottom, low, grad[:, : problem.case.dim] + of_vectors[:, 0], last=False)

    def step(weight: np.ndarray, grad: np.ndarray) -> np.ndarray:
        return weight - LEARNING_RATE * grad / np.sqrt(ADAGRAD_START + grad * grad)

    bottom = [(step(k, dk), step(b, db)) for (k, b), (dk, db) in zip(bottom, bottom_grads, strict=True)]
    top = [(step(k, dk), step(b, db)) for (k, b), (dk, db) in zip(top, top_grads, strict=True)]
    for i, ids in enumerate(problem.ids):
        unique, place, counts = np.unique(ids, return_inverse=True, return_counts=True)
        order = np.argsort(place, axis=None)
        starts = np.cumsum(counts) - counts
        summed = np.add.reduceat(of_vectors[order // ids.shape[1], i + 1], starts, axis=0)
        new = step(problem.rows_of(unique), summed)
        pooled[i] = new[place.reshape(ids.shape)].sum(axis=1)
    return before, forward()[-1]


def check(provider: Provider, problem: DLRMProblem, mode: str, optimizer: str) -> float:
    """The error of the losses before and after the first step, relative to the losses; what they fell by must agree too.

    Raises:
        NotEqual: if it is larger than the dtype's tolerance, or the step moved the loss by something else.
    """
    before, after = problem.losses
    losses = [provider.loss_of_step() for _ in range(2)]
    error = max(abs(losses[0] - before) / before, abs(losses[1] - after) / after)
    tolerance = TOLERANCE[problem.case.dtype]
    if not error <= tolerance:
        raise NotEqual(f"losses are {losses}, those of the reference {[before, after]}")
    fall, expected = losses[0] - losses[1], before - after
    if not abs(fall - expected) <= 0.25 * abs(expected) + tolerance / 10:
        raise NotEqual(f"the loss fell by {fall:.4g} in a step, the reference's by {expected:.4g}")
    return error
