"""Generated click logs in Criteo's shape: as Parquet files of any size, or a batch in memory."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from merlin_models.datasets import folders
from merlin_models.datasets.criteo.clicks import ClickLaw, click_law
from merlin_models.datasets.criteo.columns import (
    CATEGORICAL,
    check_id_dtype,
    check_sizes,
    criteo_schema,
    mlperf_cardinalities,
)
from merlin_models.datasets.folders import Splits
from merlin_models.loader.sizes import require_integer

_PARTS = ("train", "valid")
_IN_MEMORY = 2  # a third stream of random numbers beside those of the parts
ROW_GROUP_ROWS = 65_536


def synthetic_criteo(
    rows: int,
    path: str | os.PathLike,
    *,
    cardinalities: Sequence[int] | None = None,
    hots: Sequence[int] | None = None,
    seed: int = 0,
    skew: float = 1.05,
    click_rate: float = 0.25,
    valid_fraction: float = 0.1,
    id_dtype: str = "int32",
    row_group_rows: int = ROW_GROUP_ROWS,
    overwrite: bool = False,
) -> Splits:
    """Writes generated click logs, a row group at a time, that a model can learn from.

    Ids are skewed as in real logs (bounded Zipf), numbers are log-normal. Clicks are drawn from chances that depend on
    all features: on each id by itself, on pairs of columns, and on the numbers. That dependence is one for all seeds,
    so another seed makes a fresh test set. No two row groups share random numbers.

    Args:
        rows: in both parts together.
        path: a folder, is made where it is missing. It gets train/ and valid/, each with one Parquet file and
            schema.pbtxt. The same arguments again find what is there.
        cardinalities: 26 sizes of tables, 2 to 2 ** 31; ids are from 1 to size - 1, and 0 is for padding. None:
            ``mlperf_cardinalities(max_rows=100_000)``.
        hots: 26 numbers of ids a row, e.g. :data:`MLPERF_HOTS`; columns with more than one are lists. None: one
            everywhere.
        seed: of the rows, not negative.
        skew: exponent of the ids' law, not negative; 0: all ids are as frequent.
        click_rate: share of clicks, up to chance; above 0 and below 1.
        valid_fraction: share of the rows in valid; above 0 and below 1.
        id_dtype: "int32" or "int64".
        row_group_rows: rows of a row group, the least that is in memory at once.
        overwrite: whether to replace what other arguments left in ``path``.

    Returns:
        The folders: ``train, valid = synthetic_criteo(...)``; the schema is ``.schema``.

    Raises:
        FileExistsError: if ``path`` has other data.
        ValueError: if an argument is unfit.

    Example:
        >>> import tempfile
        >>> import pyarrow.parquet as pq
        >>> from merlin_models.datasets import criteo
        >>> sizes = criteo.mlperf_cardinalities(max_rows=100)
        >>> data = criteo.synthetic_criteo(1000, tempfile.mkdtemp(), cardinalities=sizes)
        >>> data.schema["C1"].cardinality, pq.read_metadata(data.train / "part_0.parquet").num_rows
        (100, 900)
    """
    rows = require_integer("rows", rows, 2)
    valid_rows = round(rows * folders.check_fraction(valid_fraction))
    if not 0 < valid_rows < rows:
        raise ValueError(f"valid_fraction must leave a row to both parts. Received: {valid_fraction} of {rows} rows.")
    if cardinalities is None:
        cardinalities = mlperf_cardinalities(max_rows=100_000)
    cardinalities, hots, law = _law(cardinalities, hots, skew, click_rate)
    schema = criteo_schema(cardinalities, hots, id_dtype)
    seed = require_integer("seed", seed, 0)
    row_group_rows = require_integer("row_group_rows", row_group_rows, 1)
    options: dict[str, Any] = {
        "data": "synthetic_criteo",
        "rows": rows,
        "cardinalities": cardinalities,
        "hots": hots,
        "seed": seed,
        "skew": float(skew),
        "click_rate": float(click_rate),
        "valid_fraction": float(valid_fraction),
        "id_dtype": str(id_dtype),
        "row_group_rows": row_group_rows,
    }
    folder = pathlib.Path(path)
    if folders.claim(folder, options, _PARTS, overwrite):
        for stream, (part, count) in enumerate(zip(_PARTS, (rows - valid_rows, valid_rows), strict=True)):
            (folder / part).mkdir()
            _write(law, folder / part / "part_0.parquet", count, row_group_rows, [seed, stream], np.dtype(id_dtype))
            schema.save(folder / part)
        folders.finish(folder, options, _PARTS)
    return folders.splits_of(folder)


def criteo_batch(
    batch_size: int,
    cardinalities: Sequence[int],
    hots: Sequence[int] | None = None,
    seed: int = 0,
    *,
    skew: float = 1.05,
    click_rate: float = 0.25,
    id_dtype: str = "int32",
) -> dict[str, np.ndarray]:
    """Generated rows in memory, as :func:`synthetic_criteo` writes them.

    Args:
        batch_size: rows.
        cardinalities, hots, seed, skew, click_rate, id_dtype: as there.

    Returns:
        label, int8 (batch_size, 1); I1 to I13, float32 (batch_size, 1); C1 to C26, ids (batch_size, hot).

    Raises:
        ValueError: if an argument is unfit.

    Example:
        >>> from merlin_models.datasets import criteo
        >>> batch = criteo.criteo_batch(4, criteo.mlperf_cardinalities(max_rows=100), criteo.MLPERF_HOTS)
        >>> labels = batch.pop("label")
        >>> labels.shape, batch["I1"].shape, batch["C1"].shape, str(batch["C1"].dtype)
        ((4, 1), (4, 1), (4, 3), 'int32')
    """
    batch_size = require_integer("batch_size", batch_size, 1)
    dtype = check_id_dtype(id_dtype)
    _, _, law = _law(cardinalities, hots, skew, click_rate)
    rng = np.random.default_rng([require_integer("seed", seed, 0), _IN_MEMORY])
    batch = law.batch(rng, batch_size)
    return {name: values.astype(dtype, copy=False) if name in CATEGORICAL else values for name, values in batch.items()}


def _law(
    cardinalities: Sequence[int], hots: Sequence[int] | None, skew: float, click_rate: float
) -> tuple[tuple[int, ...], tuple[int, ...], ClickLaw]:
    cardinalities, hots = check_sizes(cardinalities, hots)
    if not 0 <= skew < float("inf"):
        raise ValueError(f"skew must be a number that is not negative. Received: {skew!r}.")
    if not 0 < click_rate < 1:
        raise ValueError(f"click_rate must be above 0 and below 1. Received: {click_rate!r}.")
    return cardinalities, hots, click_law(cardinalities, hots, float(skew), float(click_rate))


def _write(
    law: ClickLaw, path: pathlib.Path, rows: int, row_group_rows: int, seeds: list[int], id_dtype: np.dtype
) -> None:
    writer = None
    try:
        for group, start in enumerate(range(0, rows, row_group_rows)):
            rng = np.random.default_rng([*seeds, group])
            batch = law.batch(rng, min(row_group_rows, rows - start))
            table = pa.table({name: _to_arrow(name, values, id_dtype) for name, values in batch.items()})
            writer = writer or pq.ParquetWriter(path, table.schema)
            writer.write_table(table)
    finally:
        if writer is not None:
            writer.close()


def _to_arrow(name: str, values: np.ndarray, id_dtype: np.dtype) -> pa.Array:
    if name in CATEGORICAL:
        values = values.astype(id_dtype, copy=False)
    rows, hot = values.shape
    flat = pa.array(values.reshape(-1))
    return flat if hot == 1 else pa.ListArray.from_arrays(pa.array(np.arange(rows + 1, dtype=np.int32) * hot), flat)
