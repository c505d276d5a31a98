"""Which columns a loader delivers and how: resolves names, schema and the arguments for lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from merlin_models.loader import columns

_NUMBERS = frozenset(np.dtype(code).name for code in "?bhilBHILefd")


@dataclass(frozen=True)
class ColumnPlan:
    """How one column arrives.

    Args:
        name: column name.
        dtype: NumPy dtype of its tensor.
        is_list: whether a row holds a list.
        limit: longest list allowed, or None.
        dense: whether lists are padded to `limit`.
        size: of each list, where they are vectors, which come as (rows, size); else None.
    """

    name: str
    dtype: np.dtype
    is_list: bool
    limit: int | None
    dense: bool
    size: int | None = None

    def convert(self, chunked: pa.ChunkedArray) -> columns.Column:
        """Arrow -> NumPy, with nulls and the length of lists checked."""
        parts = [columns.from_arrow(self.name, array, self.dtype) for array in chunked.chunks]
        if not parts:
            parts = [columns.from_arrow(self.name, pa.array([], chunked.type), self.dtype)]
        column = columns.concat(parts)
        if self.limit is not None and column.longest() > self.limit:
            raise ValueError(
                f"Lists of column '{self.name}' must not be longer than sparse_max['{self.name}'] = "
                f"{self.limit}. Received: a list of {column.longest()}."
            )
        return column if self.size is None else column.as_vectors(self.name, self.size)


@dataclass(frozen=True)
class Selection:
    """Names by role, and the plans of all columns that are read."""

    cat_names: tuple[str, ...]
    cont_names: tuple[str, ...]
    feature_names: tuple[str, ...]
    label_names: tuple[str, ...]
    plans: tuple[ColumnPlan, ...]


def select_columns(
    available: pa.Schema,
    label_names: Sequence[str] | None,
    feature_columns: Sequence[Any] | None,
    cat_names: Sequence[str] | None,
    cont_names: Sequence[str] | None,
    schema: Any | None,
    sparse_names: Sequence[str] | None,
    sparse_max: Mapping[str, int] | None,
    sparse_as_dense: bool,
) -> Selection:
    """Resolves the loader's arguments of the same names against the columns that exist.

    Raises:
        ValueError: an unknown, repeated or unfit column, or arguments that contradict each other.
    """
    if feature_columns is not None and (cat_names is not None or cont_names is not None):
        raise ValueError(
            "feature_columns must not be given together with cat_names or cont_names. "
            f"Received: feature_columns={feature_columns}, cat_names={cat_names}, cont_names={cont_names}."
        )
    tagged = _by_tags(schema)
    labels = _names("label_names", tagged["target"] if label_names is None else label_names)
    cats, conts, others = (), (), ()
    if feature_columns is not None:
        others = _names("feature_columns", _names_of_feature_columns(feature_columns))
    elif schema is None and cat_names is None and cont_names is None:
        others = tuple(name for name in available.names if name not in labels)
    else:
        cats = _names("cat_names", tagged["categorical"] if cat_names is None else cat_names)
        conts = _names("cont_names", tagged["continuous"] if cont_names is None else cont_names)
        others = tuple(name for name in tagged["embedding"] if name not in labels + cats + conts)
        if schema is not None:
            cats = cats if cat_names is not None else tuple(name for name in cats if name not in labels)
            conts = conts if cont_names is not None else tuple(name for name in conts if name not in labels)
    features = cats + conts + others
    _require_unique(features + labels, available)
    _require_known("cat_names, cont_names, feature_columns", features, available)
    _require_known("label_names", labels, available)
    if len(set(features)) != len(features):
        raise ValueError(f"cat_names and cont_names must not share a column. Received: {cats} and {conts}.")
    if not features:
        raise ValueError(f"cat_names or cont_names must name a feature. Received: none of {available.names}.")
    wanted = features + tuple(name for name in labels if name not in features)
    types = {name: available.field(name).type for name in wanted}
    if_empty = {
        name: _dtype_if_empty(name, cats, conts, schema) for name in wanted if columns.is_empty_list(types[name])
    }
    dtypes = {name: columns.numpy_dtype(name, types[name], name in conts, if_empty.get(name)) for name in wanted}
    for name in cats:
        if dtypes[name].kind not in "iub":
            raise ValueError(f"Columns in cat_names must hold integers. Received: '{name}' of type {types[name]}.")
        dtypes[name] = columns.ids_dtype(dtypes[name])
    limits, dense = _list_arguments(types, sparse_names, sparse_max, sparse_as_dense)
    sizes = {name: _size_of_vectors(types[name], schema[name]) for name in others if name in tagged["embedding"]}
    plans = tuple(
        ColumnPlan(
            name,
            dtypes[name],
            columns.is_list(types[name]),
            limits.get(name),
            name in dense,
            None if name in limits else sizes.get(name),
        )
        for name in wanted
    )
    return Selection(cats, conts, features, labels, plans)


def _dtype_if_empty(name: str, cats: tuple[str, ...], conts: tuple[str, ...], schema: Any | None) -> np.dtype | None:
    """What a column is of which Arrow knows nothing, since all of its lists are empty; None if nothing says it."""
    if name in conts:
        return np.dtype(np.float32)
    dtype = schema[name].dtype if schema is not None and name in schema.column_names else None
    named = getattr(dtype, "name", None)  # NumPy's dtypes have names, and merlin-core's the same
    if named in _NUMBERS and (name not in cats or np.dtype(named).kind in "iub"):
        return np.dtype(named)
    return np.dtype(np.int64) if name in cats else None


def _size_of_vectors(arrow_type: pa.DataType, column: Any) -> int | None:
    """The length of a column's vectors, of its shape or else of the data's type; None where neither says it."""
    if not columns.is_list(arrow_type):
        return None
    shape = getattr(column, "shape", None) or ()  # merlin-core's shapes are no tuples
    if isinstance(shape, tuple) and len(shape) == 1:
        return shape[0]
    return arrow_type.list_size if pa.types.is_fixed_size_list(arrow_type) else None


def _list_arguments(
    types: dict[str, pa.DataType],
    sparse_names: Sequence[str] | None,
    sparse_max: Mapping[str, int] | None,
    sparse_as_dense: bool,
) -> tuple[dict[str, int], frozenset[str]]:
    """Checks the three arguments; returns the limits and the columns to be padded."""
    limits = dict(sparse_max or {})
    names = _names("sparse_names", limits if sparse_names is None else sparse_names)
    for name in names:
        if name not in types:
            raise ValueError(f"sparse_names must be among the loaded columns {list(types)}. Received: '{name}'.")
        if not columns.is_list(types[name]):
            raise ValueError(f"sparse_names must name list columns. Received: '{name}' of Arrow type {types[name]}.")
    for name, limit in limits.items():
        if name not in names:
            raise ValueError(f"sparse_max must only have columns of sparse_names. Received: '{name}'.")
        if isinstance(limit, bool) or not isinstance(limit, (int, np.integer)) or limit < 1:
            raise ValueError(f"sparse_max['{name}'] must be a positive integer. Received: {limit!r}.")
    if not sparse_as_dense:
        return limits, frozenset()
    if not names:
        raise ValueError("sparse_names must name the columns that sparse_as_dense=True pads. Received: none.")
    missing = [name for name in names if name not in limits]
    if missing:
        raise ValueError(
            f"sparse_max must have a length for each column of sparse_names when sparse_as_dense=True. "
            f"Received: none for {missing}."
        )
    return {name: int(limit) for name, limit in limits.items()}, frozenset(names)


def _by_tags(schema: Any | None) -> dict[str, list[str]]:
    if schema is None:
        return {"target": [], "categorical": [], "continuous": [], "embedding": []}
    if not hasattr(schema, "select_by_tag"):
        raise ValueError(f"schema must be a merlin_models.schema.Schema. Received: {type(schema).__name__}.")
    from merlin_models.schema import Tags

    return {
        "target": list(schema.select_by_tag(Tags.TARGET).column_names),
        "categorical": list(schema.select_by_tag(Tags.CATEGORICAL).column_names),
        "continuous": list(schema.select_by_tag(Tags.CONTINUOUS).column_names),
        "embedding": list(schema.select_by_tag(Tags.EMBEDDING).column_names),
    }


def _names_of_feature_columns(feature_columns: Sequence[Any]) -> list[str]:
    """Names among strings and `tf.feature_column` objects (anything with `parse_example_spec`)."""
    names: list[str] = []
    for column in feature_columns:
        if isinstance(column, str):
            names.append(column)
        elif hasattr(column, "parse_example_spec"):
            names.extend(name for name in column.parse_example_spec if name not in names)
        else:
            raise ValueError(
                "feature_columns must hold column names or tf.feature_column objects. "
                f"Received: {type(column).__name__}."
            )
    return names


def _names(argument: str, names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise ValueError(f"{argument} must be a list of column names. Received: the string '{names}'.")
    names = tuple(names)
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{argument} must be a list of column names. Received: {names}.")
    if len(set(names)) != len(names):
        raise ValueError(f"{argument} must name each column once. Received: {list(names)}.")
    return names


def _require_unique(names: Iterable[str], available: pa.Schema) -> None:
    repeated = sorted({name for name in names if available.names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"Columns that are read must have unique names. Received twice: {repeated} of {available.names}."
        )


def _require_known(argument: str, names: Iterable[str], available: pa.Schema) -> None:
    unknown = [name for name in names if name not in available.names]
    if unknown:
        raise ValueError(f"{argument} must be among the columns {available.names}. Received: {unknown}.")
