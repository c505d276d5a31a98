"""Columns of rows as NumPy arrays, with what wrappers require of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from merlin_models._ids import as_int64
from merlin_models.loader.parquet import open_source
from merlin_models.schema import Schema, Tags


def read_columns(data: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Some columns of rows.

    Args:
        data: a dictionary of columns, (rows,) or (rows, 1) each; or whatever a loader reads: a ``pandas.DataFrame``, paths of
            Parquet files, a ``pyarrow.Table``, a ``Dataset``.
        names: of the columns.

    Returns:
        Numbers (rows,) by name, in the order of ``names``.

    Raises:
        TypeError: if ``data`` is none of these.
        ValueError: if a column is missing, holds lists or something else than numbers, or is of another length.
    """
    columns = _of_mapping(data, names) if isinstance(data, Mapping) else _of_source(data, names)
    for name, column in columns.items():
        if column.ndim != 1 or column.dtype.kind not in "biuf":
            raise ValueError(
                f"Column '{name}' must hold one number a row. Received: shape {column.shape} of dtype {column.dtype}."
            )
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"Columns must have one length. Received: {lengths}.")
    return columns


def _of_mapping(data: Mapping[str, Any], names: Sequence[str]) -> dict[str, np.ndarray]:
    _require(names, list(data))
    columns = {name: np.asarray(data[name]) for name in names}
    return {name: column[:, 0] if column.shape[1:] == (1,) else column for name, column in columns.items()}


def _of_source(data: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    source = open_source(data)
    _require(names, source.schema.names)
    source.check(names)
    pieces = [source.read(piece, names) for piece in range(len(source.rows))]
    table = (
        pa.concat_tables(pieces) if pieces else pa.schema([source.schema.field(name) for name in names]).empty_table()
    )
    return {name: table.column(name).to_numpy() for name in names}


def _require(names: Sequence[str], available: Sequence[str]) -> None:
    missing = [name for name in names if name not in available]
    if missing:
        raise ValueError(f"data must have the columns {list(names)}. Received: {list(available)}, without {missing}.")


def require_schema(schema: Any) -> Schema:
    """The schema; TypeError for anything else."""
    if not isinstance(schema, Schema):
        raise TypeError(f"schema must be a merlin_models.schema.Schema. Received: {type(schema).__name__}.")
    return schema


def targets_of(schema: Schema, target_columns: str | Sequence[str] | None) -> list[str]:
    """The names that were given, or else those tagged TARGET.

    Raises:
        ValueError: if a name is not in the schema.
    """
    if target_columns is None:
        return schema.select_by_tag(Tags.TARGET).column_names
    names = [target_columns] if isinstance(target_columns, str) else list(target_columns)
    unknown = [name for name in names if name not in schema]
    if unknown:
        raise ValueError(f"Targets must be columns of the schema, {schema.column_names}. Received: {unknown}.")
    return names


def require_ids(name: str, ids: np.ndarray) -> np.ndarray:
    """int64 ids; ValueError unless they are integers of at least 0 and less than 2**63."""
    if ids.dtype.kind not in "iu" or (ids.size and ids.min() < 0):
        raise ValueError(
            f"Column '{name}' must hold integer ids of at least 0. Received: dtype {ids.dtype}, "
            f"smallest {ids.min() if ids.size else None}."
        )
    return as_int64(f"Column '{name}'", ids)
