"""Two towers' cases, inputs and first weights, shaped like MovieLens 1M, and their first loss in NumPy."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import Any

import numpy as np

from benchmarks.harness import NotEqual, Provider

QUERY = {"userId": 6_041, "gender": 4, "age": 9, "occupation": 23, "zipcode": 3_440}  # rows of the tables
ITEM = {"movieId": 3_707, "genres": 21}
LONGEST = 6  # of the lists of genres
TEMPERATURE, LEARNING_RATE = 0.1, 0.001
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}  # of the first loss, relative; float32 may be TF32 on a GPU
STEPS_TO_A_CHANGE = {"float32": 1, "bfloat16": 32}  # at most: a bfloat16 sum of a large batch moves in large steps


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    batch: int
    groups: tuple[str, ...]
    dim: int = 64
    layers: tuple[int, ...] = (128, 64)
    dtype: str = "float32"  # of the layers' arithmetic; tables are float32
    ids: str = "zipf"

    def build(self) -> TwoTowerProblem:
        return TwoTowerProblem(self)


class TwoTowerProblem:
    """Inputs and first weights, the same for every provider.

    Attributes:
        features: name -> (batch, 1) int64, genres (batch, LONGEST) with 0 for none.
        tables: name -> (rows, dim).
        towers: "query" and "item" -> kernels; biases are zeros. Features are concatenated in the order of their names.
    """

    num_sets = 1
    num_grads = 1

    def __init__(self, case: Case):
        self.case, self.batch = case, case.batch
        rng = np.random.default_rng(0)

        def draw(rows: int) -> np.ndarray:
            return np.minimum(rng.zipf(1.2, (case.batch, 1)), rows - 1)

        rows = {**QUERY, **ITEM}
        self.features = {name: draw(count) for name, count in rows.items() if name != "genres"}
        lengths = rng.integers(1, LONGEST + 1, (case.batch, 1))
        genres = rng.integers(1, ITEM["genres"], (case.batch, LONGEST))
        self.features["genres"] = np.where(np.arange(LONGEST) < lengths, genres, 0)
        self.tables = {name: rng.normal(0, 0.05, (count, case.dim)).astype(np.float32) for name, count in rows.items()}
        self.towers = {}
        for tower, names in (("query", QUERY), ("item", ITEM)):
            sizes = (len(names) * case.dim, *case.layers)
            self.towers[tower] = [
                rng.normal(0, (2 / (a + b)) ** 0.5, (a, b)).astype(np.float32) for a, b in itertools.pairwise(sizes)
            ]

    def config(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self.case), "rows": {**QUERY, **ITEM}}

    def vectors(self, tower: str) -> np.ndarray:
        """The normalized output of a tower, (batch, dim) float64."""
        pooled = []
        for name in sorted(QUERY if tower == "query" else ITEM):
            ids = self.features[name]
            rows = self.tables[name][ids].astype(np.float64)
            present = (ids > 0) if name == "genres" else np.ones_like(ids, bool)
            pooled.append((rows * present[..., None]).sum(1) / np.maximum(present.sum(1, keepdims=True), 1))
        outputs = np.concatenate(pooled, axis=1)
        for kernel in self.towers[tower]:
            outputs = np.maximum(outputs @ kernel, 0)
        return outputs / np.maximum(np.linalg.norm(outputs, axis=1, keepdims=True), 1e-6)

    @functools.cached_property
    def loss(self) -> float:
        """The sum of the rows' softmax cross-entropy before the first step."""
        scores = self.vectors("query") @ self.vectors("item").T / TEMPERATURE
        ids, own = self.features["movieId"][:, 0], np.diag(scores)
        negatives = np.where(ids[:, None] == ids, -np.inf, scores)
        return float((np.logaddexp(own, np.logaddexp.reduce(negatives, axis=1)) - own).sum())


def check(provider: Provider, problem: TwoTowerProblem, mode: str, optimizer: str) -> float:
    """The relative error of the loss before the first step.

    Raises:
        NotEqual: if it is larger than the tolerance, or the first steps that change the loss do not lower it.
    """
    before = after = provider.loss_of_step()
    for _ in range(STEPS_TO_A_CHANGE[problem.case.dtype]):
        after = provider.loss_of_step()
        if after != before:
            break
    error = abs(before - problem.loss) / problem.loss
    if not error <= TOLERANCE[problem.case.dtype]:
        raise NotEqual(f"the loss is {before}, that of the reference {problem.loss}")
    if not after < before:
        raise NotEqual(f"steps must lower the loss: it was {before}, then {after}")
    return error
