"""Inputs of embedding_bag's cases, a step's maths in float64, and the check that providers must pass.

The tables belong to the provider, made where it wants them: the check reads the rows that it needs through
the provider, computes in float64 what must come out, and compares. Bags and rows are sampled, so a table of
20 GB takes no second copy.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from benchmarks.harness import NotEqual, Provider
from benchmarks.ids import BagArrays, make_bags, movielens_bags

LEARNING_RATE = 0.01
ADAGRAD_START = 0.1
EPSILON = 1e-7
BETA1, BETA2 = 0.9, 0.999
OPTIMIZERS = ("sgd", "adagrad", "rowwise_adagrad", "adam")
ITEM_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
FORWARD_TOLERANCE = {"float32": 2e-5, "float16": 3e-3, "bfloat16": 2e-2}
UPDATE_TOLERANCE = {"float32": 1e-3, "float16": 3e-2, "bfloat16": 2e-1}
BLOCK_ROWS = 65_521  # host tables repeat a random block of so many rows
TABLE_SCALE = 0.05
SAMPLED_BAGS = 256
SAMPLED_ROWS = 512
HOTTEST_ROWS = 2


@dataclasses.dataclass(frozen=True)
class Case:
    """One feature a table. ``hots``: ids a bag, or the middle of 0..2*hot where ``ragged``."""

    name: str
    rows: tuple[int, ...]
    dims: tuple[int, ...]
    hots: tuple[int, ...]
    batch: int
    ids: str = "uniform"
    dtype: str = "float32"
    ragged: bool = False
    combiner: str = "sum"
    groups: tuple[str, ...] = ()

    def build(self) -> EmbeddingBagProblem:
        """The case with its inputs drawn; the last one is kept for the next mode."""
        return _build(self)


class EmbeddingBagProblem:
    """A case with its ids and upstream gradients drawn.

    Attributes:
        rows, dims: of each table; table t is read by feature t.
        sets: for each input set, for each feature its bags.
        hots: ids a bag of each feature, or None where bags differ in length.
    """

    num_sets = 4
    num_grads = 2

    def __init__(self, case: Case, seed: int = 20261123) -> None:
        rng = np.random.default_rng(seed)
        self.case, self.batch, self.dims = case, case.batch, list(case.dims)
        self.dtype, self.combiner = case.dtype, case.combiner
        if case.ids == "movielens":
            self.rows, self.sets = movielens_bags(rng, case.batch, self.num_sets)
        else:
            self.rows = list(case.rows)
            self.sets = [
                [
                    make_bags(rng, case.ids, rows, case.batch, hot, case.ragged)
                    for rows, hot in zip(case.rows, case.hots, strict=True)
                ]
                for _ in range(self.num_sets)
            ]
        self.hots = None if case.ragged or case.ids == "movielens" else list(case.hots)
        self._seed = seed

    @property
    def table_bytes(self) -> int:
        return sum(r * d for r, d in zip(self.rows, self.dims, strict=True)) * ITEM_BYTES[self.dtype]

    @functools.cached_property
    def unique_rows(self) -> list[int]:
        """Rows of each table that input set 0 touches."""
        counts = []
        for rows, bags in zip(self.rows, self.sets[0], strict=True):
            touched = np.zeros(rows, bool)
            touched[bags.values] = True
            counts.append(int(np.count_nonzero(touched)))
        return counts

    @functools.cached_property
    def grads(self) -> list[np.ndarray]:
        """Upstream gradients, float32 (batch, sum of dims): multiples of 1/8, so exact in every dtype."""
        rng = np.random.default_rng(self._seed + 1)
        width = sum(self.dims)
        made = []
        for _ in range(self.num_grads):
            block = rng.integers(-16, 17, (min(self.batch, 4099), width)).astype(np.float32) / 8
            made.append(np.tile(block, (-(-self.batch // len(block)), 1))[: self.batch])
        return made

    def grads_of(self, g: int) -> list[np.ndarray]:
        """Upstream gradient ``g`` as one (batch, dim) array a feature, columns of one array."""
        return np.split(self.grads[g], np.cumsum(self.dims)[:-1], axis=1)

    @functools.cached_property
    def samples(self) -> list[np.ndarray]:
        """Of each table the rows that a gradient or an update is checked on."""
        return [_sample(bags) for bags in self.sets[0]]

    @functools.cached_property
    def untouched(self) -> list[np.ndarray]:
        """Of each table some rows that input set 0 does not name."""
        return [_untouched(bags, rows) for bags, rows in zip(self.sets[0], self.rows, strict=True)]

    @functools.cache  # noqa: B019 - one problem is kept at a time
    def sampled_gradients(self, g: int, power: int = 1) -> list[np.ndarray]:
        """Of each table :func:`summed_gradient` of its ``samples`` for upstream gradient ``g``."""
        inputs = zip(self.sets[0], self.grads_of(g), self.samples, strict=True)
        return [summed_gradient(bags, grad, self.combiner, sample, power) for bags, grad, sample in inputs]

    def table_block(self, t: int) -> np.ndarray:
        """float32 block of random rows that a table on the host is filled with, again and again."""
        rng = np.random.default_rng(self._seed + 100 + t)
        block = rng.standard_normal((min(BLOCK_ROWS, self.rows[t]), self.dims[t]), np.float32)
        return block * np.float32(TABLE_SCALE)

    def host_table(self, t: int, share: float = 1.0) -> np.ndarray:
        """A NumPy table of the case's dtype (bfloat16 by ml_dtypes), or the first ``share`` of its rows."""
        table = aligned_empty((max(1, int(self.rows[t] * share)), self.dims[t]), numpy_dtype(self.dtype))
        block = self.table_block(t).astype(table.dtype)
        for start in range(0, len(table), len(block)):
            table[start : start + len(block)] = block[: len(table) - start]
        return table

    def config(self) -> dict[str, Any]:
        case = dataclasses.asdict(self.case)
        num_ids = [len(bags.values) for bags in self.sets[0]]
        case.update(rows=self.rows, num_ids=sum(num_ids), unique_rows=sum(self.unique_rows), ids_dtype="int64")
        case.update(input_sets=self.num_sets, learning_rate=LEARNING_RATE)
        del case["groups"]
        return case


@functools.lru_cache(maxsize=1)
def _build(case: Case) -> EmbeddingBagProblem:
    return EmbeddingBagProblem(case)


def numpy_dtype(name: str) -> np.dtype:
    """The NumPy dtype of a table dtype."""
    if name == "bfloat16":
        import ml_dtypes

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An array that starts with a cache line, as PyTorch's and TensorFlow's do; NumPy's own start 16 bytes behind."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.empty(count + 63, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + count].view(dtype).reshape(shape)


def pool(rows: np.ndarray, bags: BagArrays, combiner: str) -> np.ndarray:
    """Pools rows of all ids of some bags: float64 (bags, dim)."""
    lengths = np.diff(bags.row_splits)
    pooled = np.zeros((len(lengths), rows.shape[1]))
    np.add.at(pooled, np.repeat(np.arange(len(lengths)), lengths), rows.astype(np.float64))
    return pooled / np.maximum(lengths, 1)[:, None] if combiner == "mean" else pooled


def summed_gradient(bags: BagArrays, grad: np.ndarray, combiner: str, sample: np.ndarray, power: int = 1) -> np.ndarray:
    """Gradient of the rows ``sample`` (ascending ids): float64 (len(sample), dim).

    With ``power`` 2 the sum of the squares that single ids contribute, which is not the square of their sum.
    """
    lengths = np.diff(bags.row_splits)
    bag_of_id = np.repeat(np.arange(len(lengths)), lengths)
    place = np.minimum(np.searchsorted(sample, bags.values), len(sample) - 1)
    hit = np.flatnonzero(sample[place] == bags.values)
    hit = hit[np.argsort(place[hit], kind="stable")]
    parts = grad[bag_of_id[hit]]
    if combiner == "mean":
        parts = parts.astype(np.float64) / lengths[bag_of_id[hit]][:, None]
    summed = np.zeros((len(sample), grad.shape[1]))
    found, starts = np.unique(place[hit], return_index=True)
    if len(found):
        summed[found] = np.add.reduceat(parts**power, starts, axis=0, dtype=np.float64)
    return summed


def updated_rows(
    rows: np.ndarray, gradients: list[np.ndarray], optimizer: str, squares: list[np.ndarray] | None = None
) -> np.ndarray:
    """Rows after a step for each gradient, in float64; ``squares`` where they are not the gradients' own."""
    rows = rows.astype(np.float64)
    state = np.full_like(rows, ADAGRAD_START)
    row_state = np.full((len(rows), 1), ADAGRAD_START)
    first, second = np.zeros_like(rows), np.zeros_like(rows)
    squares = [g * g for g in gradients] if squares is None else squares
    for step, (g, square) in enumerate(zip(gradients, squares, strict=True), start=1):
        if optimizer == "sgd":
            change = g
        elif optimizer == "adagrad":
            state += square
            change = g / (np.sqrt(state) + EPSILON)
        elif optimizer == "rowwise_adagrad":
            row_state += square.mean(axis=1, keepdims=True)
            change = g / (np.sqrt(row_state) + EPSILON)
        else:
            first += (1 - BETA1) * (g - first)
            second += (1 - BETA2) * (square - second)
            change = (first / (1 - BETA1**step)) / (np.sqrt(second / (1 - BETA2**step)) + EPSILON)
        rows = rows - LEARNING_RATE * change
    return rows


def check(provider: Provider, problem: EmbeddingBagProblem, mode: str, optimizer: str) -> float:
    """Compares a provider with the float64 reference on sampled bags and rows.

    Args:
        provider: set up, not yet used.
        problem: its inputs.
        mode: "forward", "full" (also the gradient rows and which rows there are) or "update" (two steps).
        optimizer: for "update".

    Returns:
        The largest relative error met.

    Raises:
        NotEqual: if a value is not finite or the error is above the tolerance of the dtype.
    """
    error = _check_forward(provider, problem) if mode == "forward" else 0.0
    if mode == "full":
        error = _check_gradients(provider, problem)
    elif mode == "update":
        error = _check_update(provider, problem, optimizer)
    return error


def _check_forward(provider: Any, problem: EmbeddingBagProblem) -> float:
    worst = 0.0
    for i in (0, problem.num_sets - 1):
        outputs = provider.outputs(provider.forward(i))
        for t, bags in enumerate(problem.sets[i]):
            expected_shape = (problem.batch, problem.dims[t])
            if outputs[t].shape != expected_shape:
                raise NotEqual(f"output {t} must have shape {expected_shape}, it has {outputs[t].shape}")
            if not np.isfinite(outputs[t]).all():
                raise NotEqual(f"output {t} has values that are not finite")
            sample = np.unique(np.linspace(0, problem.batch - 1, SAMPLED_BAGS).astype(int))
            lengths = np.diff(bags.row_splits)[sample]
            parts = [bags.values[bags.row_splits[b] : bags.row_splits[b + 1]] for b in sample]
            few = BagArrays(np.concatenate(parts), np.concatenate([[0], np.cumsum(lengths)]))
            if len(few.values) == 0:
                continue
            expected = pool(provider.read_rows(t, few.values), few, problem.combiner)
            got = outputs[t][sample].astype(np.float64)
            worst = max(worst, _relative(got, expected, FORWARD_TOLERANCE[problem.dtype], f"output {t}"))
    return worst


def _check_gradients(provider: Any, problem: EmbeddingBagProblem) -> float:
    worst = 0.0
    gradients = provider.gradients(provider.full(0, 0))
    for t, bags in enumerate(problem.sets[0]):
        ids, rows = gradients[t]
        touched = np.unique(bags.values)
        if not np.array_equal(np.unique(ids), touched):
            raise NotEqual(f"the gradient of table {t} must have the {len(touched)} rows that the ids name")
        sample, expected = problem.samples[t], problem.sampled_gradients(0)[t]
        got = summed_gradient(BagArrays(ids, np.arange(len(ids) + 1)), rows, "sum", sample)
        worst = max(worst, _relative(got, expected, UPDATE_TOLERANCE[problem.dtype], f"gradient of table {t}"))
    return worst


def _check_update(provider: Any, problem: EmbeddingBagProblem, optimizer: str) -> float:
    samples, others = problem.samples, problem.untouched
    before = [provider.read_rows(t, sample) for t, sample in enumerate(samples)]
    others_before = [provider.read_rows(t, other) for t, other in enumerate(others)]
    for g in (0, 1):
        provider.update(0, g)
    worst = 0.0
    for t, sample in enumerate(samples):
        gradients = [problem.sampled_gradients(g)[t] for g in (0, 1)]
        squares = None
        if provider.squares_ids_apart:
            squares = [problem.sampled_gradients(g, power=2)[t] for g in (0, 1)]
        expected = updated_rows(before[t], gradients, optimizer, squares) - before[t]
        got = provider.read_rows(t, sample).astype(np.float64) - before[t]
        worst = max(worst, _relative(got, expected, UPDATE_TOLERANCE[problem.dtype], f"update of table {t}"))
        if not np.array_equal(provider.read_rows(t, others[t]), others_before[t]):
            raise NotEqual(f"rows of table {t} that no id names must not change")
    return worst


def _sample(bags: BagArrays) -> np.ndarray:
    """Ascending ids of a feature: some spread over all, and those that come most often."""
    ids, counts = np.unique(bags.values, return_counts=True)
    spread = ids[np.linspace(0, len(ids) - 1, min(len(ids), SAMPLED_ROWS)).astype(int)]
    return np.union1d(spread, ids[np.argsort(counts)[-HOTTEST_ROWS:]])


def _untouched(bags: BagArrays, rows: int) -> np.ndarray:
    candidates = np.unique(np.linspace(0, rows - 1, min(rows, 4 * SAMPLED_ROWS)).astype(np.int64))
    return np.setdiff1d(candidates, bags.values)[:SAMPLED_ROWS]


def _relative(got: np.ndarray, expected: np.ndarray, tolerance: float, what: str) -> float:
    """The relative error of all together; of each row it must be within ten times the tolerance."""
    norms = np.linalg.norm(expected, axis=1)
    if not norms.any():
        raise NotEqual(f"the reference of {what} is zero: nothing would be checked")
    differences = np.linalg.norm(got - expected, axis=1)
    error = float(np.linalg.norm(differences) / np.linalg.norm(norms))
    row_error = float(np.max(differences / np.maximum(norms, 1e-2 * np.median(norms[norms > 0]))))
    if not (error <= tolerance and row_error <= 10 * tolerance):
        raise NotEqual(
            f"{what} differs from the float64 reference by {error:.2e} (worst row {row_error:.2e}); "
            f"allowed are {tolerance:.0e} and {10 * tolerance:.0e}"
        )
    return error
