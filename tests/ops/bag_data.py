"""Random bags and tables for tests of embedding_bag, and the comparison with the reference."""

from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np

from merlin_models.ops import embedding_bag_reference

NUMPY_DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
DIMS = (1, 4, 7, 16, 33, 64, 100, 128, 256, 1024)  # of one part and of several, in vectors and with odd ends
# Relative to the largest value: one rounding of the stored type, and float32 sums.
TOLERANCE = {"float32": 2e-6, "float16": 1e-3, "bfloat16": 8e-3}


@dataclasses.dataclass
class BagCase:
    """Tables and features in NumPy, CSR; `dense` marks features given as a padded block instead."""

    tables: list[np.ndarray]
    values: list[np.ndarray]
    row_splits: list[np.ndarray]
    weights: list[np.ndarray | None]
    padding_ids: list[int | None]
    table_of_feature: list[int]
    combiners: list[str]
    dense: list[bool]

    @property
    def dims(self) -> list[int]:
        return [self.tables[t].shape[1] for t in self.table_of_feature]

    def reference(self, grads=None):
        features = list(zip(self.values, self.row_splits, self.weights, self.padding_ids, strict=True))
        return embedding_bag_reference(self.tables, features, self.table_of_feature, self.combiners, grads)

    def dense_ids(self, f: int) -> np.ndarray:
        bags = len(self.row_splits[f]) - 1
        return self.values[f].reshape(bags, len(self.values[f]) // bags if bags else 1)


def random_case(
    rng: np.random.Generator,
    shapes: list[tuple[int, int]],
    table_of_feature: list[int],
    num_bags: int = 33,
    max_ids: int = 9,
    dtype: str = "float32",
    ids_dtype: type = np.int64,
    combiners: tuple[str, ...] = ("sum", "mean", "sqrtn", "max"),
    weighted: bool = True,
    padding: bool = True,
    same_bags: bool = True,
) -> BagCase:
    tables = [rng.normal(size=shape).astype(NUMPY_DTYPES[dtype]) for shape in shapes]
    case = BagCase(tables, [], [], [], [], list(table_of_feature), [], [])
    for f, t in enumerate(table_of_feature):
        combiner = combiners[f % len(combiners)]
        bags = num_bags if same_bags else num_bags + f
        dense = f % 3 == 2
        lengths = np.full(bags, max_ids // 2) if dense else rng.integers(0, max_ids + 1, bags)
        splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        values = rng.integers(0, shapes[t][0], splits[-1]).astype(ids_dtype)
        case.values.append(values)
        case.row_splits.append(splits)
        has_weights = weighted and combiner != "max" and f % 2 == 0
        case.weights.append(rng.uniform(0.5, 1.5, splits[-1]).astype(np.float32) if has_weights else None)
        case.padding_ids.append(0 if padding and f % 2 == 1 else None)
        case.combiners.append(combiner)
        case.dense.append(dense)
    return case


def assert_close(actual: np.ndarray, expected: np.ndarray, dtype: str, what: str, scale: float = 1.0) -> None:
    """Largest error relative to the largest expected value; NaN fails."""
    actual = np.asarray(actual).astype(np.float64)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, expected {expected.shape}"
    if expected.size == 0:
        return
    error = np.abs(actual - expected).max() / max(1.0, np.abs(expected).max())
    assert error <= TOLERANCE[dtype] * scale, f"{what}: error {error:.2e} above {TOLERANCE[dtype] * scale:.2e}"
