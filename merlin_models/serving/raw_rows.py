"""Raw rows as the frame that a workflow takes: every value of its column's kind, and one that its dtype can hold."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

_INTEGERS, _FLOATS = (int, np.integer), (float, np.floating)
_NULLS = {type(None), type(pd.NA)}
_KINDS = {  # of a raw column's dtype: what its values are called, and their types
    "i": ("integers", _INTEGERS),
    "u": ("integers", _INTEGERS),
    "f": ("numbers", (*_INTEGERS, *_FLOATS)),
    "b": ("booleans", (bool, np.bool_)),
    "O": ("strings", (str,)),
}
_STRINGS = ("unknown", "string", "str", "object")  # as NVTabular calls them
_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON's escapes can make halves of pairs, which no file of categories has
_WIDEST = 200  # letters of a value that an error repeats
_LONGEST = 256  # bits of an integer that an error repeats: Python has no digits for those of more than 14,000


def raw_columns_of(schema: Any) -> dict[str, tuple[np.dtype, bool]]:
    """Name -> (NumPy dtype, whether a row has a list) of a workflow's input schema. Strings have dtype object.

    Raises:
        ValueError: if a column is of another kind than integers, numbers, booleans or strings.
    """
    columns = {}
    for name, column in schema.column_schemas.items():
        dtype = np.dtype(object if column.dtype.name in _STRINGS else column.dtype.to_numpy)
        if dtype.kind not in _KINDS:
            raise ValueError(
                f"Raw columns must be of integers, numbers, booleans or strings. Received: '{name}' of {dtype.name}"
            )
        columns[name] = (dtype, bool(column.is_list))
    return columns


def takes_nulls(dtype: np.dtype) -> bool:
    """Whether a raw column may have nulls: pandas has them among numbers, which integers with nulls are too, and objects."""
    return dtype.kind in "fO"


def range_of(dtype: np.dtype) -> tuple[Any, Any] | None:
    """The least and the largest finite number of a dtype, as Python has them; None for booleans and strings."""
    if dtype.kind in "iu":
        return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    return (float(np.finfo(dtype).min), float(np.finfo(dtype).max)) if dtype.kind == "f" else None


def frame_of(raw_columns: Mapping[str, tuple[np.dtype, bool]], rows: Any) -> pd.DataFrame:
    """The raw columns of a data frame, of a dictionary column -> values, or of a list of dictionaries.

    Raises:
        ValueError: if a column is missing or of another length than the others, or a value is none of its column.
    """
    if isinstance(rows, Sequence):
        missing = sorted({name for row in rows for name in raw_columns if name not in row})
        rows = {} if missing else {name: [row[name] for row in rows] for name in raw_columns}
    else:
        missing = sorted(set(raw_columns) - set(rows))
    if missing:
        raise ValueError(f"Rows must have the columns {list(raw_columns)}. Received none of: {missing}")
    columns = {name: _column(name, *kind, list(rows[name])) for name, kind in raw_columns.items()}
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"Columns must be of one length. Received: {lengths}")
    return pd.DataFrame(columns)


def _column(name: str, dtype: np.dtype, is_list: bool, values: list[Any]) -> pd.Series:
    if not is_list:
        values = _checked(name, dtype, values)
        return pd.Series(np.asarray(values, dtype) if values else np.zeros(0, dtype))
    wrong = [value for value in values if isinstance(value, str) or not hasattr(value, "__len__")]
    if wrong:
        raise ValueError(f"Column '{name}' must have a list in each row. Received: {_shown(wrong[0])}")
    items = [item for value in values for item in value]
    checked = _checked(name, dtype, items)
    if checked is not items:
        checked = iter(checked)
        values = [list(itertools.islice(checked, len(value))) for value in values]
    return pd.Series(values if dtype.kind == "O" else [np.asarray(value, dtype) for value in values], dtype=object)


def _checked(name: str, dtype: np.dtype, items: list[Any]) -> list[Any]:
    """The items, or a list of them with None, or NaN among numbers, for nulls.

    By hand: NumPy before 2 takes integers modulo the range, and large numbers for inf. Asks types once, as items may be many.
    """
    what, allowed = _KINDS[dtype.kind]
    checked, types = items, set(map(type, items))
    if takes_nulls(dtype) and types & _NULLS:
        null = np.nan if dtype.kind == "f" else None
        checked = [null if item is None or item is pd.NA else item for item in items]
        items = [item for item in checked if item is not None]
    if dtype.kind == "O" and any(issubclass(each, _FLOATS) for each in types):
        items = [item for item in items if not isinstance(item, _FLOATS) or item == item]
    types = set(map(type, items))
    wrong = {each for each in types if not issubclass(each, allowed) or (issubclass(each, bool) and dtype.kind != "b")}
    if wrong:
        first = next(item for item in items if type(item) in wrong)
        raise ValueError(f"Column '{name}' must have {what}. Received: {_shown(first)}")
    if dtype.kind == "O" and _SURROGATE.search("".join(items)):
        first = next(item for item in items if _SURROGATE.search(item))
        raise ValueError(f"Column '{name}' must have strings that UTF-8 can encode. Received: {_shown(first)}")
    if dtype.kind in "iuf" and not _within(items, dtype):
        least, largest = range_of(dtype)
        first = next(item for item in items if not _within([item], dtype))
        raise ValueError(
            f"Column '{name}' must have numbers of {dtype.name}, from {least} to {largest}. Received: {_shown(first)}"
        )
    return checked


def _within(items: list[Any], dtype: np.dtype) -> bool:
    """Whether all numbers are in a dtype's range, NaN and inf in that of floats."""
    least, largest = range_of(dtype)
    integers = [int(item) for item in items if isinstance(item, _INTEGERS)]  # Python compares those of any size
    if integers and not least <= min(integers) <= max(integers) <= largest:
        return False
    floats = np.array([np.float64(0), *(item for item in items if isinstance(item, _FLOATS))])  # of 64 bits or more
    return not ((np.abs(floats) > largest) & ~np.isinf(floats)).any()


def _shown(item: Any) -> str:
    if isinstance(item, int) and item.bit_length() > _LONGEST:
        return f"an integer of {item.bit_length()} bits"
    shown = repr(item.item() if isinstance(item, np.generic) else item)
    return shown if len(shown) <= _WIDEST else f"{shown[:_WIDEST]}..."
