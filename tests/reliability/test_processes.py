"""Loaders and schemas that go to other processes, as those of spawn do, and copies within one."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from reliability_data import SCHEMA, loader, table

KINDS = ("table", "frame", "file", "dataset")


def source(kind, folder):
    if kind in ("table", "frame"):
        return table() if kind == "table" else table().to_pandas()
    path = str(folder / "rows.parquet")
    pq.write_table(table(), path, row_group_size=50)
    return path if kind == "file" else pyarrow.dataset.dataset(path)


def items(data):
    return np.concatenate([features["item"].numpy()[:, 0] for features, _ in data]).tolist()


@pytest.mark.parametrize("again", [lambda x: pickle.loads(pickle.dumps(x)), copy.copy, copy.deepcopy])
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_goes_on_with_the_same_orders(tmp_path, kind, again):
    data = loader(source(kind, tmp_path), seed=5)
    orders = [items(data) for _ in range(2)]
    fresh = again(loader(source(kind, tmp_path), seed=5))
    assert [items(fresh) for _ in range(2)] == orders
    assert items(again(data)) == items(data)
    data.peek()
    assert items(again(data)) == items(data)


@pytest.mark.parametrize("again", [lambda x: pickle.loads(pickle.dumps(x)), copy.copy, copy.deepcopy])
def test_a_copy_of_a_loader_that_is_being_read(tmp_path, again):
    data = loader(source("file", tmp_path), seed=5)
    data.on_epoch_begin()
    first = data[0][0]["item"].numpy()
    other = again(data)
    assert len(items(other)) == len(items(data)) == 256
    np.testing.assert_array_equal(data[0][0]["item"].numpy(), first)
    other.map(lambda features, labels: (features, labels))
    assert (data.is_mapped, other.is_mapped) == (False, True)


def test_another_process(tmp_path, run_python):
    data = loader(source("file", tmp_path), seed=5)
    (tmp_path / "pickled").write_bytes(pickle.dumps((data, SCHEMA)))
    printed = run_python("""
import pickle
data, schema = pickle.load(open("pickled", "rb"))
print(schema.column_names)
print([int(row) for features, _ in data for row in features["item"].numpy()[:, 0]])
""").stdout.splitlines()
    assert printed[-2:] == [str(SCHEMA.column_names), str(items(data))]
