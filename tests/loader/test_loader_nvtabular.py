"""Data sets that NVTabular wrote or holds."""

from __future__ import annotations

import pytest
from loader_data import numbered_table, rows_of, write_numbered

from merlin_models.loader.parquet import FileSource, TableSource, open_source
from merlin_models.loader.tensorflow import KerasSequenceLoader

merlin_io = pytest.importorskip("merlin.io", reason="needs merlin-core")
pytestmark = pytest.mark.filterwarnings("ignore")


def test_dataset_of_files_is_read_from_the_files(tmp_path):
    dataset = merlin_io.Dataset(write_numbered(tmp_path), engine="parquet")
    assert isinstance(open_source(dataset), FileSource)
    loader = KerasSequenceLoader(dataset, 16, label_names=["y"], shuffle=False)
    assert rows_of(loader) == list(range(120))


def test_dataset_of_a_frame_is_computed():
    dataset = merlin_io.Dataset(numbered_table(0, 30).to_pandas())
    assert isinstance(open_source(dataset), TableSource)
    assert rows_of(KerasSequenceLoader(dataset, 16, shuffle=False)) == list(range(30))


def test_transformed_dataset(tmp_path):
    nvt = pytest.importorskip("nvtabular", reason="needs nvtabular")
    features = ["row", "bag"] >> nvt.ops.Categorify(out_path=str(tmp_path))
    workflow = nvt.Workflow(features + nvt.ColumnSelector(["y"]))
    dataset = merlin_io.Dataset(write_numbered(tmp_path), engine="parquet")
    transformed = workflow.fit_transform(dataset)
    held = list(KerasSequenceLoader(transformed, 32, label_names=["y"], shuffle=False))
    transformed.to_parquet(str(tmp_path / "out"))
    written = list(KerasSequenceLoader(tmp_path / "out", 32, label_names=["y"], shuffle=False))
    assert rows_of(held) == rows_of(written)
    assert len(set(rows_of(held))) == 120
    for (left, _), (right, _) in zip(held, written, strict=True):
        assert left["bag"].to_list() == right["bag"].to_list()
        assert [len(bag) for bag in left["bag"].to_list()] == right["bag"].row_lengths().numpy().tolist()
