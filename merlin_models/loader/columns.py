"""Columns as NumPy arrays: one value a row, or lists as values and row splits (CSR)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from merlin_models._ids import as_int64


@dataclass(frozen=True)
class Column:
    """One column of some rows.

    Args:
        values: without `row_splits` an array (rows,) or (rows, length); with them the lists' values end to
            end.
        row_splits: int64 (rows + 1,), starting at 0; list i is `values[row_splits[i]:row_splits[i + 1]]`.
    """

    values: np.ndarray
    row_splits: np.ndarray | None = None

    @property
    def num_rows(self) -> int:
        return len(self.values) if self.row_splits is None else len(self.row_splits) - 1

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + (0 if self.row_splits is None else self.row_splits.nbytes)

    def take(self, rows: np.ndarray) -> Column:
        """The rows at the positions `rows`, all of them from 0 to `num_rows` - 1, in that order, as a copy."""
        # "clip" spares NumPy the check of each position, which takes as long as the copy.
        if self.row_splits is None:
            return Column(self.values.take(rows, axis=0, mode="clip"))
        starts = self.row_splits.take(rows, mode="clip")
        lengths = self.row_splits.take(rows + 1, mode="clip")
        lengths -= starts
        splits = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(lengths, out=splits[1:])
        starts -= splits[:-1]
        positions = np.repeat(starts, lengths)
        positions += np.arange(splits[-1])
        return Column(self.values.take(positions, mode="clip"), splits)

    def cut(self, start: int, stop: int) -> Column:
        """The rows from `start` up to `stop`; the values are a view."""
        if self.row_splits is None:
            return Column(self.values[start:stop])
        splits = self.row_splits[start : stop + 1]
        return Column(self.values[splits[0] : splits[-1]], splits - splits[0])

    def copy(self) -> Column:
        return Column(self.values.copy(), None if self.row_splits is None else self.row_splits.copy())

    def longest(self) -> int:
        """Length of the longest list, 0 without rows."""
        return int(np.diff(self.row_splits).max()) if self.num_rows else 0

    def as_vectors(self, name: str, size: int) -> Column:
        """Lists of one length as an array (rows, size); ValueError, with the column's name, for a list of another."""
        lengths = np.diff(self.row_splits)
        if (lengths != size).any():
            raise ValueError(
                f"Lists of column '{name}', which is tagged embedding, must have the {size} numbers of its shape. "
                f"Received: a list of {lengths[lengths != size][0]}."
            )
        return Column(self.values.reshape(-1, size))

    def padded(self, length: int) -> Column:
        """Lists as an array (rows, length), filled up with 0 on the right; no list may be longer."""
        lengths = np.diff(self.row_splits)
        values = np.zeros((len(lengths), length), self.values.dtype)
        values[np.arange(length) < lengths[:, None]] = self.values
        return Column(values)


def concat(parts: list[Column]) -> Column:
    """The rows of all `parts`, one part after the other."""
    if len(parts) == 1:
        return parts[0]
    values = np.concatenate([part.values for part in parts])
    if parts[0].row_splits is None:
        return Column(values)
    counts = np.cumsum([0] + [part.row_splits[-1] for part in parts[:-1]])
    splits = [part.row_splits[1:] + count for part, count in zip(parts, counts, strict=True)]
    return Column(values, np.concatenate([np.zeros(1, np.int64), *splits]))


def is_list(arrow_type: pa.DataType) -> bool:
    return pa.types.is_list(arrow_type) or pa.types.is_large_list(arrow_type) or pa.types.is_fixed_size_list(arrow_type)


def is_empty_list(arrow_type: pa.DataType) -> bool:
    """Whether lists have no type of values, which Arrow gives them where all of them are empty."""
    return is_list(arrow_type) and pa.types.is_null(arrow_type.value_type)


def numpy_dtype(
    name: str, arrow_type: pa.DataType, as_float: bool = False, if_empty: np.dtype | None = None
) -> np.dtype:
    """The dtype in which the column arrives: its own, but float32 for float64 and for `as_float`.

    Args:
        name: of the column, for errors.
        arrow_type: of the column.
        as_float: whether it arrives as float32 in any case.
        if_empty: the dtype of a column whose lists are all empty, where it is known.

    Raises:
        ValueError: the type has no place in a tensor (strings, dictionaries, timestamps, nested lists), or nothing says
            what empty lists are.
    """
    leaf = arrow_type.value_type if is_list(arrow_type) else arrow_type
    if is_empty_list(arrow_type):
        if if_empty is None:
            raise ValueError(
                f"Column '{name}' must have a dtype in the schema, or be in cat_names or cont_names, where all of its "
                f"lists are empty. Received: Arrow type {arrow_type}."
            )
        leaf = pa.from_numpy_dtype(if_empty)
    if pa.types.is_integer(leaf) or pa.types.is_boolean(leaf):
        return np.dtype(np.float32) if as_float else np.dtype(leaf.to_pandas_dtype())
    if pa.types.is_floating(leaf):
        keep_half = pa.types.is_float16(leaf) and not as_float
        return np.dtype(np.float16 if keep_half else np.float32)
    raise ValueError(
        f"Column '{name}' must hold integers, floats or booleans, or lists of them: encode strings and "
        f"categories first (nvtabular.ops.Categorify). Received: Arrow type {arrow_type}."
    )


def ids_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype in which ids arrive, as lookups take int32 and int64 alone: the smaller one that holds all values of `dtype`.

    uint64 has none: it arrives as int64, and :func:`from_arrow` refuses ids beyond it.
    """
    if dtype in (np.int32, np.int64):
        return dtype
    return np.dtype(np.int32 if dtype.kind == "b" or dtype.itemsize < 4 else np.int64)


def from_arrow(name: str, array: pa.Array, dtype: np.dtype) -> Column:
    """Turns an Arrow array into a column, without a copy where the dtype stays.

    Raises:
        ValueError: the column holds nulls, or uint64 beyond the int64 that `dtype` is.
    """
    if array.null_count:
        raise ValueError(f"Column '{name}' must not hold nulls. Received: {array.null_count} of {len(array)}.")
    if not is_list(array.type):
        return Column(_primitive(name, array, dtype))
    if pa.types.is_fixed_size_list(array.type):
        leaves = array.flatten()
        splits = np.arange(len(array) + 1, dtype=np.int64) * array.type.list_size
    else:
        offsets = array.offsets.to_numpy().astype(np.int64)
        leaves = array.values.slice(offsets[0], offsets[-1] - offsets[0])
        splits = offsets - offsets[0]
    if leaves.null_count:
        raise ValueError(
            f"Lists of column '{name}' must not hold nulls. Received: {leaves.null_count} of {len(leaves)} values."
        )
    return Column(_primitive(name, leaves, dtype), splits)


def _primitive(name: str, array: pa.Array, dtype: np.dtype) -> np.ndarray:
    values = array.to_numpy(zero_copy_only=False)
    return as_int64(f"Ids of column '{name}'", values) if dtype == np.int64 else values.astype(dtype, copy=False)
