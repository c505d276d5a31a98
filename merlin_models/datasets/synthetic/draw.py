"""Values of one column, drawn by what its schema says."""

from __future__ import annotations

import numpy as np

from merlin_models.loader.columns import Column
from merlin_models.schema import ColumnSchema, Tags

LONGEST = 10  # of lists whose length the schema leaves open
YEAR = (1_577_836_800, 1_609_459_200)  # of times, in seconds: 2020
_INTS_WITHOUT_DOMAIN = 2**31 - 1


def list_lengths(column: ColumnSchema) -> tuple[int, int]:
    """The shortest and the longest list of a column, both included."""
    if column.shape:
        return column.shape[0], column.shape[0]
    shortest, longest = column.value_count or (0, 0)
    if not longest:
        shortest = shortest or 1
        longest = max(shortest, LONGEST)
    return shortest, longest


class Lengths:
    """How many values each row has, column by column; columns tagged SEQUENCE have one length in a row.

    Args:
        rng: the generator.
        num_rows: rows.
    """

    def __init__(self, rng: np.random.Generator, num_rows: int):
        self._rng = rng
        self._num_rows = num_rows
        self.of_sequences: np.ndarray | None = None

    def of(self, column: ColumnSchema) -> int | np.ndarray:
        """The number of rows for a scalar column, or for a list int64 row splits (rows + 1,)."""
        if not column.is_list:
            return self._num_rows
        if column.has_tag(Tags.SEQUENCE) and self.of_sequences is not None:
            return self.of_sequences
        shortest, longest = list_lengths(column)
        splits = np.zeros(self._num_rows + 1, np.int64)
        np.cumsum(self._rng.integers(shortest, longest + 1, self._num_rows), out=splits[1:])
        if column.has_tag(Tags.SEQUENCE):
            self.of_sequences = splits
        return splits


def draw_values(rng: np.random.Generator, column: ColumnSchema, rows: int | np.ndarray) -> Column:
    """Values of a column.

    Args:
        rng: the generator.
        column: its domain, dtype and tags decide.
        rows: a number of rows with one value each, or the row splits of lists.
    """
    if isinstance(rows, np.ndarray):
        return Column(_draw(rng, column, int(rows[-1])), rows)
    return Column(_draw(rng, column, rows))


def _draw(rng: np.random.Generator, column: ColumnSchema, count: int) -> np.ndarray:
    dtype = np.dtype(np.float32 if column.dtype is None else column.dtype)
    if dtype.kind in "OSU":
        return np.array([f"{column.name}_{number}" for number in _ids(rng, 1, 1000, count)], object)
    domain = column.int_domain or column.float_domain
    if column.has_tag(Tags.TARGET, Tags.BINARY_CLASSIFICATION) and not column.has_tag(Tags.REGRESSION):
        high = 1 if domain is None or column.has_tag(Tags.BINARY_CLASSIFICATION) else max(1, int(domain.max))
        return rng.integers(0, high + 1, count).astype(dtype)
    if domain is None and column.has_tag(Tags.TIME):
        return rng.integers(*YEAR, count).astype(dtype)
    if dtype.kind == "f" or column.float_domain is not None:
        low, high = (0, 1) if domain is None else (domain.min, domain.max)
        return (low + (high - low) * rng.random(count)).astype(dtype)
    if column.has_tag(Tags.CONTINUOUS, Tags.REGRESSION):
        low, high = (0, 100) if domain is None else (int(domain.min), int(domain.max))
        return rng.integers(low, high + 1, count).astype(dtype)
    if domain is None:
        return _ids(rng, 1, min(_INTS_WITHOUT_DOMAIN, np.iinfo(dtype).max), count).astype(dtype)
    return _ids(rng, max(1, int(domain.min)), max(1, int(domain.max)), count).astype(dtype)


def _ids(rng: np.random.Generator, low: int, high: int, count: int) -> np.ndarray:
    return np.clip(rng.lognormal(3.0, 1.0, count), low, high).astype(np.int64)
