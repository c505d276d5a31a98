"""Files that are empty, cut off or changed: an error that names the file, never a crash and never other numbers."""

from __future__ import annotations

import re

import keras
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reliability_data import SCHEMA, loader, outcome, rows, small_model, table

import merlin_models.tf as ml
from merlin_models.loader.dataset import Dataset
from merlin_models.loader.tensorflow import KerasSequenceLoader
from merlin_models.schema import Schema


def numbers_of(data):
    """All that a loader delivers."""
    parts = []
    for features, labels in data:
        parts += [features["item"].numpy(), features["bag"].values.numpy(), features["age"].numpy(), labels.numpy()]
    return np.concatenate([part.ravel() for part in parts])


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.parquet"
    pq.write_table(table(1000), path, row_group_size=100, write_page_checksum=True)
    return path


@pytest.mark.parametrize(
    "change", ["empty", "four bytes", "a half", "without its last byte", "text", "without its head"]
)
def test_parquet_that_is_cut_off(good, change):
    raw = good.read_bytes()
    bad = good.with_name("bad.parquet")
    bad.write_bytes(
        {
            "empty": b"",
            "four bytes": raw[:4],
            "a half": raw[: len(raw) // 2],
            "without its last byte": raw[:-1],
            "text": b"item,bag,age,y\n" * 1000,
            "without its head": raw[len(raw) // 2 :],
        }[change]
    )
    with pytest.raises(ValueError, match=re.escape(str(bad))):
        numbers_of(loader([good, bad], shuffle=False))


def flipped(raw, rng, last):
    """The bytes with one that is another, before position ``last``."""
    changed = bytearray(raw)
    changed[int(rng.integers(4, last))] ^= int(rng.integers(1, 256))
    return bytes(changed)


def footer_of(raw):
    return len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")


@pytest.mark.parametrize("count", [40, pytest.param(1500, marks=pytest.mark.slow)])
def test_a_changed_byte_of_a_file_with_checksums(good, rng, count):
    """The pages of data: an error, or a byte that does not matter."""
    raw = good.read_bytes()
    expected, bad, found = numbers_of(loader(good, shuffle=False)), good.with_name("bad.parquet"), 0
    for _ in range(count):
        bad.write_bytes(flipped(raw, rng, footer_of(raw)))
        numbers, error = outcome(lambda: numbers_of(loader(bad, shuffle=False)), ValueError)
        if error is None:
            np.testing.assert_array_equal(numbers, expected)
        else:
            assert str(bad) in str(error), error
            found += 1
    assert found > count // 2


@pytest.mark.parametrize("checksums", [True, False])
@pytest.mark.parametrize("count", [20, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_changed_byte_anywhere(good, rng, checksums, count):
    """Without checksums, and in the footer, a change may go unnoticed: but there is no crash and no other error."""
    pq.write_table(table(1000), good, row_group_size=100, write_page_checksum=checksums)
    raw, bad = good.read_bytes(), good.with_name("bad.parquet")
    for _ in range(count):
        bad.write_bytes(flipped(raw, rng, len(raw)))
        _, error = outcome(lambda: numbers_of(loader(bad, shuffle=False)), ValueError, MemoryError, KeyError)
        # A column of another name is missed by this test, not by the loader.
        assert not isinstance(error, KeyError) or error.args[0] in ("item", "bag", "age")


def test_files_that_change_after_the_loader_was_made(good):
    raw = good.read_bytes()
    data = loader(good, shuffle=False)
    good.write_bytes(raw[: len(raw) // 2])
    message = re.escape(f"of '{good}' must be whole, and the file the one that it was when the loader was made")
    with pytest.raises(ValueError, match=rf"Row group \d+ {message}"):
        numbers_of(data)
    model = small_model()
    with pytest.raises(Exception, match=message):
        model.fit(loader_of_changed(good, raw), shuffle=False, verbose=0)
    good.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(str(good))):
        numbers_of(data)
    good.write_bytes(raw)
    assert numbers_of(data).size  # the same loader


def loader_of_changed(path, raw):
    path.write_bytes(raw)
    data = loader(path, shuffle=False)
    path.write_bytes(raw[: len(raw) // 2])
    return data


def test_checksums_can_be_left_out_and_data_sets_write_them(tmp_path):
    folder = Dataset(table(200).drop_columns(["y"]), SCHEMA.remove_by_name("y")).to_parquet(tmp_path / "data")
    file = folder / "part_0.parquet"
    raw, column = file.read_bytes(), pq.read_metadata(file).row_group(0).column(0)
    place = column.data_page_offset + column.total_compressed_size // 2
    file.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
    with pytest.raises(ValueError, match=r"Row group 0 of .*part_0.parquet' must be whole.*(CRC|checksum)"):
        list(KerasSequenceLoader(file, 50, shuffle=False))
    unchecked = KerasSequenceLoader(file, 50, shuffle=False, reader_kwargs={"page_checksum_verification": False})
    _, error = outcome(lambda: list(unchecked), ValueError)
    assert "CRC" not in str(error)


SCHEMAS = {
    "empty": b"",
    "blank": b" \n\n",
    "cut off": b'feature {\n  name: "a"\n  type:',
    "bytes": b"\xff\xfe\x00\x01",
    "a list": b"[1, 2]",
    "a number": b'{"feature": 3}',
    "a name": b'{"feature": ["a"]}',
    "an annotation": b'{"feature": [{"name": "a", "annotation": 7}]}',
    "metadata": b'{"feature": [{"name": "a", "annotation": {"extraMetadata": 5}}]}',
    "metadata list": b'{"feature": [{"name": "a", "annotation": {"extraMetadata": [5]}}]}',
    "twice": b'{"feature": [{"name": "a"}, {"name": "a"}]}',
}


@pytest.mark.parametrize("what", SCHEMAS)
def test_schema_files(tmp_path, what):
    """Each as text and as JSON: the error names the file."""
    path = tmp_path / "schema.pbtxt"
    path.write_bytes(SCHEMAS[what])
    for read in (Schema.from_proto_text, Schema.from_json, Schema.load):
        with pytest.raises(ValueError, match=re.escape(str(path))):
            read(path)
    pq.write_table(pa.table({"a": [1]}), tmp_path / "part.parquet")
    with pytest.raises(ValueError, match=re.escape(str(path))):
        KerasSequenceLoader(tmp_path, 1)


@pytest.mark.parametrize("count", [100, pytest.param(5000, marks=pytest.mark.slow)])
def test_changed_schemas(tmp_path, rng, count):
    path = tmp_path / "schema.pbtxt"
    for kind, text in {"text": SCHEMA.to_proto_text(), "json": SCHEMA.to_json()}.items():
        read = Schema.from_proto_text if kind == "text" else Schema.from_json
        raw = text.encode()
        for number in range(count):
            cut = int(rng.integers(0, len(raw)))
            path.write_bytes(flipped(raw, rng, len(raw)) if number % 2 else raw[:cut])
            schema, error = outcome(lambda: read(path), ValueError)  # noqa: B023
            assert str(path) in str(error) if schema is None else len(schema) <= len(SCHEMA)


@pytest.mark.parametrize("change", ["empty", "a half", "without its last byte", "text", "a changed byte"])
def test_model_files(tmp_path, change):
    model = small_model()
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    before = model.get_weights()
    for name in ("model.keras", "model.weights.h5"):
        path = tmp_path / name
        raw = path.read_bytes()
        middle = raw.index(np.array(before[0]).tobytes()[:64])
        path.write_bytes(
            {
                "empty": b"",
                "a half": raw[: len(raw) // 2],
                "without its last byte": raw[:-1],
                "text": b"no model " * 1000,
                "a changed byte": raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :],
            }[change]
        )
        if name == "model.keras":
            with pytest.raises(ValueError, match=re.escape(str(path))):
                ml.Model.load(path)
        elif change != "a changed byte":  # HDF5 has no checksums
            with pytest.raises(OSError, match="Unable to"):
                model.load_weights(path)
            for now, then in zip(model.get_weights(), before, strict=True):
                np.testing.assert_array_equal(now, then)
    with pytest.raises(FileNotFoundError, match=r"no '.*nowhere'"):
        ml.Model.load(tmp_path / "nowhere")


def test_model_files_that_are_good(tmp_path):
    model, (features, _) = small_model(), rows()
    expected = model.predict(features, verbose=0)
    for name in ("model.keras", "folder"):
        model.save(tmp_path / name)
        np.testing.assert_array_equal(ml.Model.load(tmp_path / name).predict(features, verbose=0), expected)
    assert isinstance(keras.models.load_model(tmp_path / "model.keras"), ml.Model)
