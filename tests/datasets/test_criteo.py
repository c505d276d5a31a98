"""Criteo's text files: read, converted, and encoded by NVTabular."""

from __future__ import annotations

import doctest
import gzip
import importlib
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from criteo_data import line, sample_places, write_twin

import merlin_models.tf as ml
from merlin_models.datasets import criteo, workflows
from merlin_models.loader.tensorflow import KerasSequenceLoader
from merlin_models.schema import Schema, Tags

MISSING, RARE = 1, 2


@pytest.fixture
def sample():
    for place in sample_places():
        if place.is_file():
            return place
    pytest.skip(f"real data: none of {', '.join(map(str, sample_places()))}; set MERLIN_DATA_DIR to its folder")


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """Three days of generated text, one of them compressed."""
    folder = tmp_path_factory.mktemp("days")
    for day in (2, 9, 10):
        write_twin(folder / f"day_{day}", 400, seed=day)
    text = (folder / "day_9").read_bytes()
    (folder / "day_9").unlink()
    (folder / "day_9.gz").write_bytes(gzip.compress(text))
    (folder / "README.md").write_text("not data")
    return folder


@pytest.fixture(scope="module")
def prepared(days, tmp_path_factory):
    pytest.importorskip("nvtabular", reason="needs nvtabular: the preparation of data")
    return criteo.get_criteo(days, tmp_path_factory.mktemp("out"), frequency_threshold=5)


def read(path):
    """All rows as a frame of nullable integers."""
    table = pa.Table.from_batches(criteo.read_text(path))
    return pd.DataFrame({name: pd.array(table[name].to_pylist(), "Int64") for name in table.column_names})


def write(path, *lines, end="\n"):
    path.write_text("\n".join(lines) + end, encoding="utf-8", errors="surrogateescape")
    return path


def frames(folder):
    return pd.concat([pd.read_parquet(file) for file in sorted(folder.glob("*.parquet"))], ignore_index=True)


# ---- reading ----


@pytest.mark.parametrize("module", ["columns", "text", "synthetic"])
def test_docstring_examples_run(module):
    results = doctest.testmod(importlib.import_module(f"merlin_models.datasets.criteo.{module}"))
    assert results.attempted
    assert not results.failed


def test_columns():
    assert criteo.COLUMNS[:3] == ("label", "I1", "I2")
    assert criteo.COLUMNS[13:15] == ("I13", "C1")
    assert (len(criteo.COLUMNS), criteo.COLUMNS[-1]) == (40, "C26")


@pytest.mark.parametrize("end", ["\n", "", "\r\n", "\n\n"])
def test_values_by_hand(tmp_path, end):
    path = write(
        tmp_path / "day_0",
        line("1", [5, -1], ["ffffffff", "0000000a", "A"]),
        "",
        line("0", ["", 23159456], ["", "8a0b74cc"]),
        end=end,
    )
    batch = next(criteo.read_text(path))
    assert batch.schema.names == list(criteo.COLUMNS)
    columns = batch.to_pydict()
    assert columns["label"] == [1, 0]
    assert columns["I1"] == [5, None]
    assert columns["I2"] == [-1, 23159456]
    assert columns["C1"] == [0xFFFFFFFF, None]
    assert columns["C2"] == [10, 0x8A0B74CC]
    assert columns["C3"] == [10, None]
    assert columns["C26"] == [None, None]


def test_quotes_are_not_special(tmp_path):
    path = write(tmp_path / "a.tsv", line(ids=['"1']), line())
    with pytest.raises(ValueError, match=r"C1 in row 1 of .*Received: '\"1'"):
        list(criteo.read_text(path))


def test_small_blocks_give_the_same_rows(tmp_path):
    path = write_twin(tmp_path / "day_0", 100, seed=1)
    batches = list(criteo.read_text(path, block_bytes=2000))
    assert len(batches) > 5
    pd.testing.assert_frame_equal(
        pd.concat([batch.to_pandas() for batch in batches], ignore_index=True),
        next(criteo.read_text(path)).to_pandas(),
    )
    expected = [text.split("\t") for text in path.read_text().splitlines()]
    rows = zip(*[batch for batch in next(criteo.read_text(path)).to_pydict().values()], strict=True)
    for row, texts in zip(rows, expected, strict=True):
        numbers = [int(text) if text else None for text in texts[:14]]
        ids = [int(text, 16) if text else None for text in texts[14:]]
        assert list(row) == numbers + ids


def test_gzip_gives_the_same_rows(tmp_path):
    path = write_twin(tmp_path / "day_0", 50, seed=2)
    zipped = tmp_path / "day_1.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    assert list(criteo.read_text(zipped)) == list(criteo.read_text(path))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (line(width=39), r"day_0' must have 40 values a line, separated by tabs.*Received: 39 in row 3\."),
        (line() + "\t", r"must have 40 values a line.*Received: 41 in row 3\."),
        (line().replace("\t", ","), r"must have 40 values a line.*Received: 1 in row 3\."),
        ("\t".join(criteo.COLUMNS), r"must be in Criteo's format. Received: column label: Row #3.*'label'"),
        (line(numbers=["", "", "1.5"]), r"must be in Criteo's format. Received: column I3: Row #3.*'1.5'"),
        (line(numbers=[10**30]), r"column I1: Row #3"),
        (line("2"), r"label in row 3 of '.*day_0' must be 0 or 1. Received: 2\."),
        (line(""), r"label in row 3 of '.*day_0' must be 0 or 1. Received: None\."),
        (line(ids=["", "xyz"]), r"C2 in row 3 of '.*day_0' must be a hexadecimal number.*Received: 'xyz'\."),
        (line(ids=["123456789"]), r"C1 in row 3 .* of at most 8 digits, or empty. Received: '123456789'\."),
        (line(ids=["é"]), r"C1 in row 3 .* must be a hexadecimal number"),
        (line(ids=["\udcff"]), r"must be in Criteo's format. Received: column C1: Row #3.*UTF8"),
    ],
)
@pytest.mark.parametrize("block_bytes", [200, 1 << 20])
def test_malformed_lines(tmp_path, bad, message, block_bytes):
    path = write(tmp_path / "day_0", line(), line(ids=["ff"]), bad, line())
    with pytest.raises(ValueError, match=message):
        list(criteo.read_text(path, block_bytes))


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_empty_file(tmp_path, text):
    (tmp_path / "day_0").write_text(text)
    with pytest.raises(ValueError, match=r"day_0' must have at least one row. Received: an empty file"):
        list(criteo.read_text(tmp_path / "day_0"))


@pytest.mark.parametrize(
    "content", [b"plain text", gzip.compress(line().encode() * 100, mtime=0)[:-40]], ids=["plain", "cut"]
)
def test_broken_gzip(tmp_path, content):
    (tmp_path / "day_0.gz").write_bytes(content)
    with pytest.raises(ValueError, match=r"day_0.gz' must be complete and compressed by gzip. Received: "):
        list(criteo.read_text(tmp_path / "day_0.gz"))


def test_files_of_a_folder(days, tmp_path):
    assert [file.name for file in criteo.find_text(days)] == ["day_2", "day_9.gz", "day_10"]
    assert [file.name for file in criteo.find_text(days / "README.md")] == ["README.md"]
    assert [file.name for file in criteo.find_text([days / "day_10", str(days / "day_2")])] == ["day_10", "day_2"]
    with pytest.raises(FileNotFoundError, match=r"path must have files called day_<number> or \*.tsv"):
        criteo.find_text(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"path must be a file or a folder. Received: '.*nowhere'"):
        criteo.find_text(tmp_path / "nowhere")
    write(tmp_path / "day_0", line())
    (tmp_path / "day_0.gz").write_bytes(gzip.compress(line().encode()))
    with pytest.raises(ValueError, match=r"path must have each file once.*Received twice: \['.*day_0'\]"):
        criteo.find_text(tmp_path)


def test_text_to_parquet_streams_row_groups(days, tmp_path):
    files = criteo.text_to_parquet(days, tmp_path / "raw", row_group_rows=150)
    assert [file.name for file in files] == ["day_2.parquet", "day_9.parquet", "day_10.parquet"]
    footer = pq.read_metadata(files[0])
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == [150, 150, 100]
    for file, text in zip(files, criteo.find_text(days), strict=True):
        assert pq.read_table(file).to_pydict() == next(criteo.read_text(text)).to_pydict()


def test_text_to_parquet_needs_different_names(tmp_path):
    paths = [write_twin(tmp_path / folder / "day_0", 2, seed=1) for folder in ("a", "b")]
    with pytest.raises(ValueError, match=r"paths must be files of different names. Received: \['day_0', 'day_0'\]"):
        criteo.text_to_parquet(paths, tmp_path / "raw")


# ---- encoding ----


def test_days_are_split_in_time(prepared, days):
    train, valid = prepared
    expected = [read(file) for file in criteo.find_text(days)]
    np.testing.assert_array_equal(frames(train)["label"], pd.concat(expected[:2])["label"])
    np.testing.assert_array_equal(frames(valid)["label"], expected[2]["label"])


def test_ids_are_of_train_alone_and_by_frequency(prepared, days):
    train, valid = prepared
    raw = [read(file) for file in criteo.find_text(days)]
    for name in ("C1", "C26"):
        before, encoded = pd.concat(raw[:2], ignore_index=True)[name], frames(train)[name]
        counts = before.value_counts()
        assert (counts < 5).any()
        assert (encoded[before.isna()] == MISSING).all()
        assert (encoded[before.map(counts).fillna(9).astype(int) < 5] == RARE).all()
        known = before.notna() & (before.map(counts).fillna(0).astype(int) >= 5)
        names = dict(zip(before[known], encoded[known], strict=True))
        assert sorted(names.values()) == list(range(3, 3 + (counts >= 5).sum()))
        ranks = sorted(names, key=names.get)
        assert (counts[ranks].diff().dropna() <= 0).all()
        expected = [MISSING if pd.isna(value) else names.get(value, RARE) for value in raw[2][name]]
        np.testing.assert_array_equal(frames(valid)[name], expected)


def test_numbers_are_logs_with_mean_0_and_deviation_1_in_train(prepared, days):
    train, valid = prepared
    raw = [read(file) for file in criteo.find_text(days)]

    def logs(column):
        return np.log1p(np.maximum(column.fillna(0).to_numpy(float), 0))

    for name in ("I1", "I13"):
        fitted = logs(pd.concat(raw[:2])[name])
        for folder, column in ((train, fitted), (valid, logs(raw[2][name]))):
            expected = (column - fitted.mean()) / fitted.std(ddof=1)
            np.testing.assert_allclose(frames(folder)[name], expected, rtol=1e-3, atol=1e-4)


def test_schema(prepared):
    for folder in prepared:
        schema = Schema.load(folder)
        assert schema.column_names == list(criteo.COLUMNS)
        assert schema.select_by_tag(Tags.CATEGORICAL).column_names == list(criteo.CATEGORICAL)
        assert schema.select_by_tag(Tags.CONTINUOUS).column_names == list(criteo.CONTINUOUS)
        assert schema.select_by_tag(Tags.TARGET).column_names == ["label"]
        assert schema.select_by_tag(Tags.BINARY_CLASSIFICATION).column_names == ["label"]
        assert {schema[name].dtype.name for name in criteo.CATEGORICAL} == {"int32"}
    train = frames(prepared.train)
    for name in criteo.CATEGORICAL:
        assert prepared.schema[name].cardinality == train[name].max() + 1
    assert {str(train[name].dtype) for name in criteo.CATEGORICAL} == {"int32"}
    assert {str(train[name].dtype) for name in criteo.CONTINUOUS} == {"float32"}


def test_loader_and_model_take_it(prepared):
    schema = prepared.schema
    loader = KerasSequenceLoader(str(prepared.train), 64, schema=schema, seed=1)
    model = ml.DLRMModel(schema, embedding_dim=8, bottom_block=ml.MLPBlock([8]), top_block=ml.MLPBlock([8]))
    model.compile(optimizer="adam")
    losses = model.fit(loader, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert losses[1] < losses[0]


def test_same_call_finds_the_result(days, tmp_path, monkeypatch):
    pytest.importorskip("nvtabular", reason="needs nvtabular: the preparation of data")
    arguments = {"num_days": 2, "valid_num_days": 1, "frequency_threshold": 0, "id_dtype": "int64"}
    data = criteo.get_criteo(days, tmp_path / "out", **arguments)
    assert (len(frames(data.train)), len(frames(data.valid))) == (400, 400)
    assert frames(data.train)["C1"].dtype == np.int64
    written = (data.train / "schema.pbtxt").stat().st_mtime_ns
    assert criteo.get_criteo(days, tmp_path / "out", **arguments) == data
    assert (data.train / "schema.pbtxt").stat().st_mtime_ns == written
    with pytest.raises(
        FileExistsError, match=r"overwrite must be True. Received: other values of frequency_threshold\."
    ):
        criteo.get_criteo(days, tmp_path / "out", **{**arguments, "frequency_threshold": 1})
    criteo.get_criteo(days, tmp_path / "out", **{**arguments, "frequency_threshold": 400}, overwrite=True)
    assert frames(data.train)["C1"].max() == RARE


def test_one_file_is_split_by_rows(tmp_path):
    pytest.importorskip("nvtabular", reason="needs nvtabular: the preparation of data")
    path = write_twin(tmp_path / "train.txt", 100, seed=4)
    train, valid = criteo.get_criteo(path, valid_fraction=0.25, frequency_threshold=2)
    assert train == tmp_path.resolve() / "prepared" / "train"
    labels = read(path)["label"].tolist()
    assert frames(train)["label"].tolist() == labels[:75]
    assert frames(valid)["label"].tolist() == labels[75:]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_days": 4}, r"num_days must be at most the number of files, 3. Received: 4"),
        ({"num_days": 0}, r"num_days must be an integer of at least 1. Received: 0"),
        ({"valid_num_days": 3}, r"valid_num_days must be less than the 3 files. Received: 3"),
        ({"num_days": 1, "valid_fraction": 1.0}, r"valid_fraction must be above 0 and below 1. Received: 1.0"),
        ({"frequency_threshold": -1}, r"frequency_threshold must be an integer of at least 0. Received: -1"),
        ({"id_dtype": "int16"}, r"id_dtype must be 'int32' or 'int64'. Received: 'int16'"),
    ],
)
def test_unfit_arguments(days, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        criteo.get_criteo(days, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_too_few_rows_to_split(tmp_path):
    pytest.importorskip("nvtabular", reason="needs nvtabular: the preparation of data")
    path = write(tmp_path / "day_0", line(), line())
    with pytest.raises(ValueError, match=r"valid_fraction must leave a row to both parts. Received: 0.1 of 2 rows"):
        criteo.get_criteo(path, tmp_path / "out")


def test_folder_of_others_is_left_alone(days, tmp_path):
    pytest.importorskip("nvtabular", reason="needs nvtabular: the preparation of data")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine").write_text("kept")
    with pytest.raises(FileExistsError, match=r"must not have .* of other origin. Received: \['train'\]"):
        criteo.get_criteo(days, tmp_path, overwrite=True)
    assert (tmp_path / "train" / "mine").read_text() == "kept"


def test_column_without_ids(tmp_path):
    pytest.importorskip("nvtabular", reason="needs nvtabular: the preparation of data")
    lines = [line(ids=["ff", "", *["a"] * 24])] * 9 + [line(ids=["ff"] * 26)]
    with pytest.raises(
        ValueError, match=r"C1 to C26 must have a value in some row of train. Received: none in \['C2'\]"
    ):
        criteo.get_criteo(write(tmp_path / "day_0", *lines), tmp_path / "out")


def test_stopped_run_is_done_again(tmp_path):
    pytest.importorskip("nvtabular", reason="needs nvtabular: the preparation of data")
    lines = [line(ids=["ff"] * 26)] * 10
    path = write(tmp_path / "day_0", *lines, "nonsense")
    with pytest.raises(ValueError, match="must have 40 values a line"):
        criteo.get_criteo(path, tmp_path / "out")
    write(path, *lines)
    assert len(frames(criteo.get_criteo(path, tmp_path / "out").train)) == 9


def test_without_nvtabular(days, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvtabular", None)
    with pytest.raises(ImportError, match="nvtabular must be installed to encode data"):
        criteo.get_criteo(days, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(ImportError, match="nvtabular must be installed"):
        workflows.import_nvtabular()


# ---- the real sample ----


def test_real_rows(sample):
    rows = read(sample)
    assert rows.shape == (1000, 40)
    assert rows["label"].sum() == 21
    assert rows["I1"].isna().sum() == 225
    assert rows["I8"].min() == -1
    assert (rows.loc[0, "I1"], rows.loc[0, "C1"], rows.loc[0, "C26"]) == (5, 0x62770D79, 0xED10571D)


def test_real_rows_are_encoded(sample, tmp_path):
    pytest.importorskip("nvtabular", reason="needs nvtabular: the preparation of data")
    data = criteo.get_criteo(sample, tmp_path, frequency_threshold=3)
    train, valid = frames(data.train), frames(data.valid)
    assert (len(train), len(valid)) == (900, 100)
    raw = read(sample)
    for name in criteo.CATEGORICAL:
        counts = raw[name][:900].value_counts()
        assert data.schema[name].cardinality == 3 + (counts >= 3).sum()
        assert (train[name] == MISSING).sum() == raw[name][:900].isna().sum()
    np.testing.assert_allclose(train[list(criteo.CONTINUOUS)].mean(), 0, atol=1e-3)
    np.testing.assert_allclose(train[list(criteo.CONTINUOUS)].std(), 1, atol=1e-3)
