"""All kinds of input deliver the same rows; what can't be read says why."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pa_dataset
import pyarrow.parquet as pq
import pytest
from loader_data import numbered_table, rows_of, small_table, write_numbered

from merlin_models.loader import parquet
from merlin_models.loader.tensorflow import KerasSequenceLoader


def load(data, **kwargs):
    return KerasSequenceLoader(data, 16, label_names=["y"], shuffle=False, **kwargs)


@pytest.mark.parametrize("kind", ["folder", "glob", "list", "tuple", "paths", "dataset"])
def test_files(tmp_path, kind):
    paths = write_numbered(tmp_path)
    data = {
        "folder": tmp_path,
        "glob": str(tmp_path / "part_*.parquet"),
        "list": paths,
        "tuple": tuple(paths),
        "paths": [Path(path) for path in paths],
        "dataset": pa_dataset.dataset(paths),
    }[kind]
    loader = load(data)
    assert (len(loader), loader.num_rows) == (8, 120)
    assert rows_of(loader) == list(range(120))


def test_one_file(tmp_path):
    assert rows_of(load(write_numbered(tmp_path)[1])) == list(range(40, 80))


@pytest.mark.parametrize("kind", ["table", "chunked", "pandas", "dataset"])
def test_memory(kind, monkeypatch):
    monkeypatch.setattr(parquet, "TABLE_PIECE_ROWS", 7)
    table = numbered_table(0, 50)
    data = {
        "table": table,
        "chunked": pa.concat_tables([table.slice(0, 20), table.slice(20)]),
        "pandas": table.to_pandas(),
        "dataset": pa_dataset.dataset(table),
    }[kind]
    batches = list(load(data))
    assert rows_of(batches) == list(range(50))
    bags = [bag for features, _ in batches for bag in features["bag"].to_list()]
    assert bags == [[row] * (row % 4) for row in range(50)]


def test_folder_is_searched_in_depth_and_hidden_files_are_left_out(tmp_path):
    (tmp_path / "deep").mkdir()
    write_numbered(tmp_path / "deep", files=1)
    pq.write_table(numbered_table(900, 910), tmp_path / "_hidden.parquet")
    (tmp_path / "_metadata").write_bytes(b"not read")
    assert rows_of(load(tmp_path)) == list(range(40))


def test_length_comes_from_the_footers(tmp_path, monkeypatch):
    paths = write_numbered(tmp_path)
    monkeypatch.setattr(parquet.FileSource, "read", lambda *_: pytest.fail("rows were read"))
    assert len(load(paths)) == 8


def test_reader_kwargs_reach_the_reader(tmp_path, monkeypatch):
    paths = write_numbered(tmp_path)
    seen = []
    real = pq.ParquetFile

    def spy(path, **kwargs):
        seen.append(kwargs["memory_map"])
        return real(path, **kwargs)

    monkeypatch.setattr(parquet.pq, "ParquetFile", spy)
    assert rows_of(load(paths, reader_kwargs={"memory_map": True})) == list(range(120))
    assert len(seen) > 3
    assert all(seen)


def test_reader_kwargs_need_files():
    with pytest.raises(ValueError, match="reader_kwargs must be None where no files are read"):
        load(numbered_table(0, 3), reader_kwargs={"memory_map": True})


def test_empty_files_are_skipped(tmp_path):
    pq.write_table(pa.table({"row": pa.array([], pa.int32())}), tmp_path / "a.parquet")
    pq.write_table(numbered_table(0, 5), tmp_path / "b.parquet")
    pq.write_table(numbered_table(0, 0), tmp_path / "c.parquet")
    assert rows_of(load(tmp_path)) == list(range(5))


def test_only_empty_files(tmp_path):
    schema = numbered_table(0, 1).schema
    pq.write_table(schema.empty_table(), tmp_path / "a.parquet")
    loader = load(tmp_path)
    assert (len(loader), loader.num_rows, list(loader)) == (0, 0, [])
    with pytest.raises(ValueError, match="at least one batch"):
        loader.peek()


def test_files_must_agree_in_types(tmp_path):
    pq.write_table(pa.table({"row": pa.array([1], pa.int64())}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"row": pa.array([1], pa.int32())}), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"Column 'row' must have one type.*int64 in.*a.parquet.*int32 in.*b.parq"):
        KerasSequenceLoader(tmp_path, 2)


def test_files_must_have_the_column(tmp_path):
    pq.write_table(small_table(), tmp_path / "a.parquet")
    pq.write_table(small_table().drop_columns("item"), tmp_path / "b.parquet")
    with pytest.raises(ValueError, match=r"Column 'item' must have one type.*no such column in.*b.parquet"):
        KerasSequenceLoader(tmp_path, 2, cat_names=["item"])


def test_not_parquet(tmp_path):
    (tmp_path / "a.parquet").write_text("user,item\n1,2\n")
    with pytest.raises(ValueError, match=r"a.parquet' must be a Parquet file. Received"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["missing.parquet", "*.parquet", "."])
def test_no_files(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=r"paths_or_dataset must be a Parquet file.*Received"):
        load(str(tmp_path / name))


def test_empty_list_of_paths():
    with pytest.raises(ValueError, match="paths_or_dataset must name at least one Parquet file"):
        load([])


@pytest.mark.parametrize("data", [None, 5, {"row": [1]}, [1, 2]])
def test_unknown_kinds(data):
    with pytest.raises(TypeError, match=r"paths_or_dataset must be a path.*Received: builtins"):
        load(data)


def test_filtered_dataset(tmp_path):
    dataset = pa_dataset.dataset(write_numbered(tmp_path)).filter(pa_dataset.field("row") < 5)
    with pytest.raises(ValueError, match=r"paths_or_dataset must be a pyarrow data set without filter"):
        load(dataset)


def test_partitioned_dataset_gives_its_columns(tmp_path):
    for day in (1, 2):
        (tmp_path / f"day={day}").mkdir()
        pq.write_table(numbered_table(day * 10, day * 10 + 5), tmp_path / f"day={day}" / "a.parquet")
    loader = load(pa_dataset.dataset(tmp_path, partitioning="hive"))
    assert rows_of(list(loader), "day") == [1] * 5 + [2] * 5


def test_missing_values_of_a_frame():
    with pytest.raises(ValueError, match=r"Column 'age' must not hold nulls. Received: 1 of 2"):
        list(KerasSequenceLoader(pd.DataFrame({"age": [1.0, None]}), 2, cont_names=["age"]))


def test_column_sizes_skip_other_nested_columns(tmp_path):
    table = pa.table({"s": [{"a": 1, "b": 2}] * 4, "m": [[1, 2]] * 4, "x": [1, 2, 3, 4]})
    pq.write_table(table, tmp_path / "a.parquet")
    source = parquet.open_source(tmp_path)
    assert source.nbytes(0, ["m"]) == 8 * (8 + 4)
    assert source.nbytes(0, ["x"]) == 8 * (4 + 4)
