"""Generated click logs: their shape, that they can be repeated, and that there is something to learn."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import merlin_models.tf as ml
from merlin_models.datasets import criteo
from merlin_models.datasets.criteo.clicks import click_law
from merlin_models.loader.tensorflow import KerasSequenceLoader
from merlin_models.schema import Schema, Tags

SMALL = criteo.mlperf_cardinalities(max_rows=50)


def tables(data):
    return [pq.read_table(folder / "part_0.parquet") for folder in data]


def auc(labels, scores):
    labels, scores = np.ravel(labels) > 0, np.ravel(scores)
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores)] = np.arange(len(scores))
    return (ranks[labels].sum() - labels.sum() * (labels.sum() - 1) / 2) / (labels.sum() * (~labels).sum())


def test_mlperf_sizes():
    sizes = criteo.mlperf_cardinalities()
    assert (len(sizes), len(criteo.MLPERF_HOTS)) == (26, 26)
    assert (sum(sizes), max(sizes), sum(criteo.MLPERF_HOTS)) == (204_184_588, 40_000_000, 214)
    assert criteo.mlperf_cardinalities(max_rows=10) == tuple(min(size, 10) for size in sizes)
    with pytest.raises(ValueError, match=r"max_rows must be an integer of at least 2. Received: 1"):
        criteo.mlperf_cardinalities(max_rows=1)


def test_files(tmp_path):
    data = criteo.synthetic_criteo(
        1000, tmp_path / "new", cardinalities=SMALL, hots=criteo.MLPERF_HOTS, valid_fraction=0.2, row_group_rows=300
    )
    train, valid = tables(data)
    assert (train.num_rows, valid.num_rows) == (800, 200)
    footer = pq.read_metadata(data.train / "part_0.parquet")
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [300, 300, 200]
    assert train.column_names == list(criteo.COLUMNS)
    assert train.schema.field("label").type == pa.int8()
    assert train.schema.field("I1").type == pa.float32()
    assert train.schema.field("C6").type == pa.int32()
    for name, size, hot in zip(criteo.CATEGORICAL, SMALL, criteo.MLPERF_HOTS, strict=True):
        ids = train[name].combine_chunks()
        if hot > 1:
            assert set(ids.value_lengths().to_pylist()) == {hot}
            ids = ids.flatten()
        assert ids.to_numpy().min() >= 1
        assert ids.to_numpy().max() < size


def test_schema_is_that_of_the_files(tmp_path):
    data = criteo.synthetic_criteo(100, tmp_path, cardinalities=SMALL, hots=criteo.MLPERF_HOTS, id_dtype="int64")
    expected = criteo.criteo_schema(SMALL, criteo.MLPERF_HOTS, "int64")
    assert Schema.load(data.train) == Schema.load(data.valid) == data.schema == expected
    assert data.schema.select_by_tag(Tags.TARGET).column_names == ["label"]
    assert data.schema.select_by_tag(Tags.BINARY_CLASSIFICATION).column_names == ["label"]
    assert data.schema.select_by_tag(Tags.CONTINUOUS).column_names == list(criteo.CONTINUOUS)
    assert data.schema.select_by_tag(Tags.CATEGORICAL).column_names == list(criteo.CATEGORICAL)
    assert data.schema.categorical_cardinalities() == dict(zip(criteo.CATEGORICAL, SMALL, strict=True))
    assert data.schema["C1"].is_list
    assert not data.schema["C1"].is_ragged
    train = tables(data)[0]
    assert train.schema.field("C6").type == pa.int64()
    for column in data.schema:
        leaf = train.schema.field(column.name).type
        assert column.dtype == (leaf.value_type if column.is_list else leaf).to_pandas_dtype()


def test_seeds(tmp_path):
    def make(name, **changes):
        return tables(criteo.synthetic_criteo(500, tmp_path / name, cardinalities=SMALL, row_group_rows=200, **changes))

    first, again, other = make("a"), make("b"), make("c", seed=1)
    assert all(one.equals(two) for one, two in zip(first, again, strict=True))
    assert not first[0].equals(other[0])
    distinct = {tuple(part["I1"].to_pylist()[:3]) for part in (*first, *other)}
    distinct |= {tuple(first[0]["I1"].to_pylist()[start : start + 3]) for start in (200, 400)}
    assert len(distinct) == 6


def test_wider_ids_are_the_same_ids(tmp_path):
    narrow, wide = (
        tables(criteo.synthetic_criteo(100, tmp_path / dtype, cardinalities=SMALL, id_dtype=dtype))[0]
        for dtype in ("int32", "int64")
    )
    assert narrow.to_pydict() == wide.to_pydict()


def test_same_call_finds_the_files(tmp_path):
    data = criteo.synthetic_criteo(100, tmp_path, cardinalities=SMALL)
    written = (data.train / "part_0.parquet").stat().st_mtime_ns
    assert criteo.synthetic_criteo(100, tmp_path, cardinalities=SMALL) == data
    assert (data.train / "part_0.parquet").stat().st_mtime_ns == written
    with pytest.raises(FileExistsError, match=r"overwrite must be True. Received: other values of rows, seed"):
        criteo.synthetic_criteo(200, tmp_path, cardinalities=SMALL, seed=1)
    criteo.synthetic_criteo(200, tmp_path, cardinalities=SMALL, overwrite=True)
    assert tables(data)[0].num_rows == 180


def test_batch():
    batch = criteo.criteo_batch(7, SMALL, criteo.MLPERF_HOTS, id_dtype="int64")
    assert list(batch) == list(criteo.COLUMNS)
    assert (batch["label"].shape, batch["label"].dtype) == ((7, 1), np.int8)
    assert (batch["I13"].shape, batch["I13"].dtype) == ((7, 1), np.float32)
    assert (batch["C21"].shape, batch["C21"].dtype) == ((7, 100), np.int64)
    again = criteo.criteo_batch(7, SMALL, criteo.MLPERF_HOTS, id_dtype="int64")
    other = criteo.criteo_batch(7, SMALL, criteo.MLPERF_HOTS, id_dtype="int64", seed=1)
    assert all(np.array_equal(batch[name], again[name]) for name in batch)
    assert not np.array_equal(batch["I1"], other["I1"])
    assert {values.dtype.name for name, values in criteo.criteo_batch(3, SMALL).items() if name[0] == "C"} == {"int32"}


@pytest.mark.parametrize("skew", [0.0, 0.8, 1.0, 1.2])
def test_ids_follow_zipf(skew):
    ids = np.concatenate([criteo.criteo_batch(20_000, SMALL, seed=seed, skew=skew)["C1"] for seed in range(5)])
    counts = np.sort(np.bincount(ids[:, 0], minlength=50)[1:])[::-1]
    edges = np.arange(1, 51, dtype=float)
    mass = np.log(edges) if skew == 1 else edges ** (1 - skew) / (1 - skew)
    expected = np.diff(mass) / (mass[-1] - mass[0])
    np.testing.assert_allclose(counts / len(ids), expected, atol=0.005)


def test_numbers_are_log_normal():
    logs = np.log(criteo.criteo_batch(20_000, SMALL)["I5"])
    assert abs(logs.mean()) < 0.03
    assert abs(logs.std() - 1) < 0.03


@pytest.mark.parametrize("click_rate", [0.03, 0.25, 0.5])
@pytest.mark.parametrize("hots", [None, criteo.MLPERF_HOTS])
def test_click_rate(click_rate, hots):
    labels = criteo.criteo_batch(20_000, SMALL, hots, click_rate=click_rate)["label"]
    assert abs(labels.mean() - click_rate) < 0.015


@pytest.mark.parametrize("rows", [2, 1000, None])
@pytest.mark.parametrize("hots", [None, criteo.MLPERF_HOTS])
def test_labels_depend_on_features(rows, hots):
    """Chances that the law itself gives tell clicks from the rest, and each part of it is needed."""
    sizes = criteo.mlperf_cardinalities(rows)
    law = click_law(sizes, tuple(hots or [1] * 26), 1.05, 0.25)
    batch = criteo.criteo_batch(8000, sizes, hots)
    best = auc(batch["label"], law.chances(batch))
    assert best > (0.68 if rows == 2 else 0.8)
    for columns in (criteo.CONTINUOUS, criteo.CATEGORICAL) if rows != 2 else ():
        mixed = {**batch, **{name: np.roll(batch[name], 1, axis=0) for name in columns}}
        assert auc(batch["label"], law.chances(mixed)) < best - 0.03


def test_law_is_one_for_all_seeds_and_calls():
    arguments = (SMALL, tuple([1] * 26), 1.05, 0.25)
    batch = criteo.criteo_batch(100, SMALL, seed=9)
    first = click_law(*arguments).chances(batch)
    click_law.cache_clear()
    np.testing.assert_array_equal(click_law(*arguments).chances(batch), first)


def test_a_model_learns(tmp_path):
    """A small DLRM, trained on one seed, tells clicks of another."""
    data = criteo.synthetic_criteo(20_000, tmp_path, cardinalities=SMALL)
    model = ml.DLRMModel(data.schema, embedding_dim=8, bottom_block=ml.MLPBlock([16, 8]), top_block=ml.MLPBlock([16]))
    model.compile(optimizer="adam")
    model.fit(KerasSequenceLoader(str(data.train), 256, schema=data.schema, seed=1), epochs=3, verbose=0)
    fresh = criteo.criteo_batch(4000, SMALL, seed=1)
    labels = fresh.pop("label")
    assert auc(labels, model.predict(fresh, batch_size=1000, verbose=0)) > 0.65


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": 1}, r"rows must be an integer of at least 2. Received: 1"),
        ({"rows": 3}, r"valid_fraction must leave a row to both parts. Received: 0.1 of 3 rows"),
        ({"valid_fraction": 0}, r"valid_fraction must be above 0 and below 1. Received: 0"),
        ({"cardinalities": [5]}, r"cardinalities must have 26 values, for C1 to C26. Received: 1 values"),
        ({"cardinalities": [1] * 26}, r"cardinalities\[0\] must be an integer of at least 2. Received: 1"),
        ({"cardinalities": [2**31 + 1] * 26}, r"cardinalities must be at most 2 \*\* 31. Received: 2147483649"),
        ({"hots": [1] * 25}, r"hots must have 26 values, for C1 to C26. Received: 25 values"),
        ({"hots": [0] * 26}, r"hots\[0\] must be an integer of at least 1. Received: 0"),
        ({"seed": -1}, r"seed must be an integer of at least 0. Received: -1"),
        ({"skew": -0.5}, r"skew must be a number that is not negative. Received: -0.5"),
        ({"click_rate": 1.0}, r"click_rate must be above 0 and below 1. Received: 1.0"),
        ({"id_dtype": "uint8"}, r"id_dtype must be 'int32' or 'int64'. Received: 'uint8'"),
        ({"row_group_rows": 0}, r"row_group_rows must be an integer of at least 1. Received: 0"),
    ],
)
def test_unfit_arguments(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        criteo.synthetic_criteo(**{"rows": 100, "path": tmp_path / "new", **arguments})
    assert not (tmp_path / "new").exists()
