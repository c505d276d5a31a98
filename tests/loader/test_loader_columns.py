"""CSR columns: by hand, from all Arrow list types, and against plain Python."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merlin_models.loader import columns
from merlin_models.loader.columns import Column, concat, from_arrow

INT64 = np.dtype(np.int64)


def lists(*rows) -> Column:
    return from_arrow("c", pa.array(list(rows), pa.list_(pa.int64())), INT64)


def to_python(column: Column) -> list:
    if column.row_splits is None:
        return column.values.tolist()
    return [
        column.values[low:high].tolist()
        for low, high in zip(column.row_splits[:-1], column.row_splits[1:], strict=True)
    ]


def test_lists_by_hand():
    column = lists([7, 8], [], [9])
    assert column.values.tolist() == [7, 8, 9]
    assert column.row_splits.tolist() == [0, 2, 2, 3]
    assert column.row_splits.dtype == np.int64
    assert column.num_rows == 3
    assert column.longest() == 2
    assert column.nbytes == 7 * 8
    assert to_python(column.take(np.array([2, 0, 0]))) == [[9], [7, 8], [7, 8]]
    assert to_python(column.cut(1, 3)) == [[], [9]]
    assert column.padded(3).values.tolist() == [[7, 8, 0], [0, 0, 0], [9, 0, 0]]


def test_lists_without_rows():
    column = lists()
    assert column.row_splits.tolist() == [0]
    assert column.num_rows == column.longest() == 0
    assert column.padded(2).values.shape == (0, 2)
    assert column.take(np.array([], np.int64)).row_splits.tolist() == [0]


def test_concat_by_hand():
    joined = concat([lists([1], []), lists(), lists([2, 3])])
    assert to_python(joined) == [[1], [], [2, 3]]
    assert concat([Column(np.array([1])), Column(np.array([2, 3]))]).values.tolist() == [1, 2, 3]


@pytest.mark.parametrize("make", [pa.list_, pa.large_list, lambda leaf: pa.list_(leaf, 2)])
@pytest.mark.parametrize("leaf", [pa.int32(), pa.int64(), pa.float32(), pa.uint8()])
def test_arrow_list_types_and_slices(make, leaf):
    rows = [[1, 2], [3, 4], [5, 6], [7, 8]]
    array = pa.array(rows, make(leaf))
    dtype = columns.numpy_dtype("c", array.type)
    assert dtype == leaf.to_pandas_dtype()
    assert to_python(from_arrow("c", array, dtype)) == rows
    assert to_python(from_arrow("c", array.slice(1, 2), dtype)) == rows[1:3]
    assert from_arrow("c", array, dtype).values.dtype == dtype


def test_sliced_array_ignores_nulls_outside():
    array = pa.array([None, [1, None], [2, 3]], pa.list_(pa.int64()))
    assert to_python(from_arrow("c", array.slice(2), INT64)) == [[2, 3]]


def test_floats_become_float32():
    assert columns.numpy_dtype("c", pa.float64()) == np.float32
    assert columns.numpy_dtype("c", pa.list_(pa.float64())) == np.float32
    assert columns.numpy_dtype("c", pa.int64(), as_float=True) == np.float32
    assert columns.numpy_dtype("c", pa.float16()) == np.float16
    assert columns.numpy_dtype("c", pa.bool_()) == np.bool_
    assert from_arrow("c", pa.array([0.5, 1.5]), np.dtype(np.float32)).values.dtype == np.float32


@pytest.mark.parametrize(
    ("given", "arrives"),
    [
        *((dtype, np.int32) for dtype in (bool, np.int8, np.int16, np.int32, np.uint8, np.uint16)),
        *((dtype, np.int64) for dtype in (np.int64, np.uint32, np.uint64)),
    ],
)
def test_ids_arrive_in_a_type_that_has_room(given, arrives):
    assert columns.ids_dtype(np.dtype(given)) == arrives
    edges = [False, True] if given is bool else [np.iinfo(given).min, min(np.iinfo(given).max, 2**63 - 1)]
    for array in (pa.array(np.array(edges, given)), pa.array([edges], pa.list_(pa.from_numpy_dtype(given)))):
        values = from_arrow("c", array, np.dtype(arrives)).values
        assert (values.dtype, values.tolist()) == (arrives, edges)


def test_ids_of_32_and_64_bits_are_not_copied():
    for dtype in (np.int32, np.int64):
        given = np.arange(5, dtype=dtype)
        assert np.shares_memory(from_arrow("c", pa.array(given), columns.ids_dtype(given.dtype)).values, given)


@pytest.mark.parametrize("array", [pa.array([1, 2**63], pa.uint64()), pa.array([[], [2**63]], pa.list_(pa.uint64()))])
def test_ids_beyond_64_bits_with_a_sign(array):
    with pytest.raises(ValueError, match=r"Ids of column 'c' must be less than 2\*\*63. Received: 9223372036854775808"):
        from_arrow("c", array, INT64)
    assert from_arrow("c", array, np.dtype(np.uint64)).values.max() == 2**63


@pytest.mark.parametrize("make", [pa.list_, pa.large_list, lambda leaf: pa.list_(leaf, 0)])
def test_lists_that_are_all_empty(make):
    array = pa.array([[], []], make(pa.null()))
    assert columns.is_empty_list(array.type)
    with pytest.raises(ValueError, match=r"Column 'c' must have a dtype in the schema.*Received: Arrow type .*null"):
        columns.numpy_dtype("c", array.type)
    for dtype, arrives in ((np.int32, np.int32), (np.int64, np.int64), (np.float64, np.float32)):
        assert columns.numpy_dtype("c", array.type, if_empty=np.dtype(dtype)) == arrives
        column = from_arrow("c", array, np.dtype(arrives))
        assert (column.values.dtype, column.row_splits.tolist()) == (arrives, [0, 0, 0])
    with pytest.raises(ValueError, match="must hold integers"):
        columns.numpy_dtype("c", pa.null(), if_empty=INT64)
    with pytest.raises(ValueError, match=r"Lists of column 'c' must not hold nulls. Received: 1 of 1"):
        from_arrow("c", pa.array([[None], []]), INT64)


@pytest.mark.parametrize(
    "arrow_type",
    [
        pa.string(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.timestamp("s"),
        pa.decimal128(5, 2),
        pa.null(),
        pa.list_(pa.string()),
        pa.list_(pa.list_(pa.int64())),
        pa.struct([("a", pa.int64())]),
    ],
)
def test_unfit_types(arrow_type):
    with pytest.raises(ValueError, match=r"Column 'title' must hold integers.*Categorify.*Received: Arrow type"):
        columns.numpy_dtype("title", arrow_type)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (pa.array([1, None]), r"Column 'c' must not hold nulls. Received: 1 of 2"),
        (pa.array([[1], None]), r"Column 'c' must not hold nulls. Received: 1 of 2"),
        (pa.array([[1, None, 2]]), r"Lists of column 'c' must not hold nulls. Received: 1 of 3 values"),
        (pa.array([[1, None]], pa.list_(pa.int64(), 2)), r"Lists of column 'c' must not hold nulls"),
    ],
)
def test_nulls(array, message):
    with pytest.raises(ValueError, match=message):
        from_arrow("c", array, INT64)


rows_strategy = st.lists(st.lists(st.integers(-(2**40), 2**40), max_size=5), max_size=12)


@settings(max_examples=150, deadline=None)
@given(rows=rows_strategy, data=st.data())
def test_take_cut_concat_pad_like_plain_python(rows, data):
    column = lists(*rows)
    assert to_python(column) == rows
    order = data.draw(st.permutations(range(len(rows))))
    assert to_python(column.take(np.array(order, np.int64))) == [rows[i] for i in order]
    low = data.draw(st.integers(0, len(rows)))
    high = data.draw(st.integers(low, len(rows)))
    assert to_python(column.cut(low, high)) == rows[low:high]
    assert to_python(column.copy()) == rows
    assert to_python(concat([column.cut(0, low), column.cut(low, len(rows))])) == rows
    length = max([1, *map(len, rows)])
    assert column.padded(length).values.tolist() == [row + [0] * (length - len(row)) for row in rows]
