"""The columns of Criteo's click logs, their schema, and the table sizes of MLPerf."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from merlin_models.loader.sizes import require_integer
from merlin_models.schema import ColumnSchema, Schema, Tags
from merlin_models.schema.column import Domain

LABEL = "label"
CONTINUOUS = tuple(f"I{number}" for number in range(1, 14))
CATEGORICAL = tuple(f"C{number}" for number in range(1, 27))
COLUMNS = (LABEL, *CONTINUOUS, *CATEGORICAL)  # as they stand in a line of the logs

# Rows of the 26 tables, and ids a row, of the multi-hot DLRM benchmark: MLPerf Training 3.0, recommendation.
_MLPERF_ROWS = (
    *(40_000_000, 39_060, 17_295, 7_424, 20_265, 3, 7_122, 1_543, 63, 40_000_000, 3_067_956, 405_282, 10),
    *(2_209, 11_938, 155, 4, 976, 14, 40_000_000, 40_000_000, 40_000_000, 590_152, 12_973, 108, 36),
)
MLPERF_HOTS = (3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1)


def mlperf_cardinalities(max_rows: int | None = None) -> tuple[int, ...]:
    """Rows of the 26 embedding tables in MLPerf's DLRM benchmark on Criteo 1TB.

    Args:
        max_rows: larger tables get as many rows; at least 2. None: the sizes as they are, 40,000,000 at most and
            204,184,588 in all.

    Returns:
        26 integers, in the order of :data:`CATEGORICAL`.

    Raises:
        ValueError: if max_rows is below 2.

    Example:
        >>> from merlin_models.datasets import criteo
        >>> criteo.mlperf_cardinalities(max_rows=1000)[:6]
        (1000, 1000, 1000, 1000, 1000, 3)
    """
    if max_rows is None:
        return _MLPERF_ROWS
    limit = require_integer("max_rows", max_rows, 2)
    return tuple(min(rows, limit) for rows in _MLPERF_ROWS)


def criteo_schema(
    cardinalities: Sequence[int], hots: Sequence[int] | None = None, id_dtype: str | np.dtype = "int32"
) -> Schema:
    """The schema of encoded data: ids below the cardinalities, float32 numbers, and the label.

    Args:
        cardinalities: 26 sizes of tables.
        hots: 26 numbers of ids a row; columns with more than one are lists. None: one everywhere.
        id_dtype: "int32" or "int64".

    Returns:
        The label, tagged TARGET and BINARY_CLASSIFICATION, then I1 to I13, then C1 to C26.

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> from merlin_models.datasets import criteo
        >>> schema = criteo.criteo_schema(criteo.mlperf_cardinalities(max_rows=1000), criteo.MLPERF_HOTS)
        >>> schema["C1"].cardinality, schema["C1"].is_list, schema["I1"].is_list
        (1000, True, False)
    """
    cardinalities, hots = check_sizes(cardinalities, hots)
    dtype = check_id_dtype(id_dtype)
    label = ColumnSchema(LABEL, dtype=np.int8, tags=(Tags.TARGET, Tags.BINARY_CLASSIFICATION))
    numbers = [ColumnSchema.create_continuous(name) for name in CONTINUOUS]
    ids = [
        ColumnSchema(
            name,
            dtype=dtype,
            tags=(Tags.CATEGORICAL,) if hot == 1 else (Tags.CATEGORICAL, Tags.LIST),
            int_domain=Domain(0, rows - 1, name, is_categorical=True),
            value_count=None if hot == 1 else (hot, hot),
        )
        for name, rows, hot in zip(CATEGORICAL, cardinalities, hots, strict=True)
    ]
    return Schema([label, *numbers, *ids])


def check_sizes(cardinalities: Sequence[int], hots: Sequence[int] | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Both as tuples of 26 integers: cardinalities from 2 to 2 ** 31, hots at least 1, and 1 where None.

    Raises:
        ValueError: if they are not that.
    """
    cardinalities = _check("cardinalities", cardinalities, 2)
    if max(cardinalities) > 2**31:
        raise ValueError(f"cardinalities must be at most 2 ** 31. Received: {max(cardinalities)}.")
    return cardinalities, _check("hots", [1] * len(CATEGORICAL) if hots is None else hots, 1)


def check_id_dtype(id_dtype: str | np.dtype) -> np.dtype:
    """int32 or int64; ValueError for another."""
    if str(id_dtype) not in ("int32", "int64"):
        raise ValueError(f"id_dtype must be 'int32' or 'int64'. Received: {id_dtype!r}.")
    return np.dtype(id_dtype)


def _check(name: str, values: Sequence[int], least: int) -> tuple[int, ...]:
    if len(values) != len(CATEGORICAL):
        raise ValueError(f"{name} must have {len(CATEGORICAL)} values, for C1 to C26. Received: {len(values)} values.")
    return tuple(require_integer(f"{name}[{position}]", value, least) for position, value in enumerate(values))
