"""Hypothesis: whatever a Parquet table holds, each row arrives once, with the values that pyarrow reads."""

from __future__ import annotations

import itertools
import tempfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reliability_data import outcome

from merlin_models.loader.tensorflow import KerasSequenceLoader

SCALARS = [
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    *(pa.bool_(), pa.float16(), pa.float32(), pa.float64()),
]
FIXED = 3


def numpy_type(leaf):
    """In which a column arrives: float64 becomes float32."""
    return np.dtype(np.float32) if leaf == pa.float64() else np.dtype(leaf.to_pandas_dtype())


def drawn_values(leaf, count, rng):
    kind = numpy_type(leaf)
    if kind.kind == "b":
        return rng.integers(0, 2, count).astype(bool)
    if kind.kind == "f":
        special = rng.choice([np.nan, np.inf, -np.inf, -0.0, 6e4], count)
        return np.where(rng.random(count) < 0.1, special, rng.normal(size=count)).astype(leaf.to_pandas_dtype())
    limits = np.iinfo(kind)
    return rng.integers(limits.min, limits.max, count, dtype=kind, endpoint=True)


def drawn_column(data, rows, rng, name):
    leaf = data.draw(st.sampled_from(SCALARS), label=f"{name} leaf")
    form = data.draw(st.sampled_from(["scalar", "list", "large_list", "fixed"]), label=f"{name} form")
    nulls = data.draw(st.sampled_from([False, False, False, True]), label=f"{name} nulls") and rows > 0
    if form == "scalar":
        values = drawn_values(leaf, rows, rng)
        mask = rng.random(rows) < 0.2 if nulls else np.zeros(rows, bool)
        return pa.array(values, leaf, mask=mask), bool(mask.any())
    lengths = np.full(rows, FIXED) if form == "fixed" else rng.integers(0, 5, rows)
    splits = np.concatenate([[0], np.cumsum(lengths)])
    mask = rng.random(splits[-1]) < 0.1 if nulls else np.zeros(splits[-1], bool)
    values = pa.array(drawn_values(leaf, splits[-1], rng), leaf, mask=mask)
    if form == "fixed":
        return pa.FixedSizeListArray.from_arrays(values, FIXED), bool(mask.any())
    if form == "large_list":
        return pa.LargeListArray.from_arrays(pa.array(splits, pa.int64()), values), bool(mask.any())
    return pa.ListArray.from_arrays(pa.array(splits, pa.int32()), values), bool(mask.any())


def rows_of(batches, name):
    """The rows of a column as NumPy arrays."""
    rows = []
    for features in batches:
        tensor = features[name]
        if hasattr(tensor, "row_splits"):
            splits = tensor.row_splits.numpy()
            rows += [tensor.values.numpy()[a:b] for a, b in itertools.pairwise(splits)]
        else:
            rows += list(tensor.numpy())
    return rows


def check(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1), label="seed"))
    rows = data.draw(st.integers(0, 60), label="rows")
    columns = {"row": pa.array(np.arange(rows))}
    with_nulls = []
    for number in range(data.draw(st.integers(1, 4), label="columns")):
        columns[f"c{number}"], has_nulls = drawn_column(data, rows, rng, f"c{number}")
        with_nulls += [f"c{number}"] * has_nulls
    table = pa.table(columns)
    cuts = sorted(data.draw(st.lists(st.integers(0, rows), max_size=3), label="files"))
    shuffle, drop_last = data.draw(st.booleans(), label="shuffle"), data.draw(st.booleans(), label="drop_last")
    batch_size = data.draw(st.integers(1, 25), label="batch_size")
    with tempfile.TemporaryDirectory() as folder:
        for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, rows], strict=True)):
            pq.write_table(
                table.slice(start, stop - start),
                f"{folder}/{number}.parquet",
                row_group_size=data.draw(st.integers(1, 30), label="row group"),
                compression=data.draw(st.sampled_from(["none", "snappy", "zstd"]), label="compression"),
                use_dictionary=data.draw(st.booleans(), label="dictionary"),
                write_page_checksum=data.draw(st.booleans(), label="checksums"),
                data_page_size=data.draw(st.sampled_from([64, 2**20]), label="page"),
            )
        loader = KerasSequenceLoader(
            folder,
            batch_size,
            shuffle=shuffle,
            seed=7,
            drop_last=drop_last,
            buffer_size=data.draw(st.sampled_from([1, 500, 10**6]), label="buffer_size"),
            parts_per_chunk=data.draw(st.integers(1, 3), label="parts_per_chunk"),
        )
        wanted = rows // batch_size * batch_size if drop_last else rows
        assert loader.num_rows == wanted
        by_index = data.draw(st.booleans(), label="by index")
        batches, error = outcome(
            lambda: [loader[i] for i in range(len(loader))] if by_index else list(loader), ValueError
        )
    if error is not None:
        assert any(f"'{name}' must not hold nulls" in str(error) for name in with_nulls), error
        return
    assert not with_nulls or drop_last
    order = [int(row[0]) for row in rows_of(batches, "row")]
    assert len(order) == wanted
    assert len(set(order)) == wanted
    assert shuffle or order == list(range(wanted))
    for name in table.column_names:
        column = table.column(name).combine_chunks()
        dtype = numpy_type(getattr(column.type, "value_type", column.type))
        for row, found in zip(order, rows_of(batches, name), strict=True):
            assert found.dtype == dtype
            if column[row].is_valid:
                expected = column[row].values if hasattr(column.type, "value_type") else column[row : row + 1]
                np.testing.assert_array_equal(found, np.asarray(expected.to_numpy(zero_copy_only=False), dtype))


@pytest.mark.parametrize("examples", [25, pytest.param(1500, marks=pytest.mark.slow)])
def test_any_table(examples):
    options = settings(
        max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
    )
    options(given(st.data())(check))()
