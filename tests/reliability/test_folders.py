"""A folder that takes another one's place: links, several writers at once, a failure in between, remote stores."""

from __future__ import annotations

import errno
import os
import pathlib
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
from reliability_data import SCHEMA, small_model

import merlin_models.tf as ml
from merlin_models import _files
from merlin_models._files import replacing_folder


def write(path, text):
    with replacing_folder(path) as new:
        new.mkdir()
        (new / "text").write_text(text)
        (new / "again").write_text(text)


def read(path):
    return (path / "text").read_text()


def in_two_steps(one, other):
    raise NotImplementedError


@pytest.fixture(params=[True, False], ids=["exchanged", "renamed twice"])
def exchanges(request, monkeypatch):
    if not request.param:
        monkeypatch.setattr(_files, "_exchange", in_two_steps)
    return request.param


def test_a_symbolic_link_stays_one(tmp_path, exchanges):
    write(tmp_path / "v1", "first")
    (tmp_path / "current").symlink_to("v1")
    write(tmp_path / "current", "second")
    assert (tmp_path / "current").is_symlink()
    assert read(tmp_path / "v1") == "second"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["current", "v1"]


def test_several_writers_at_once(tmp_path, exchanges):
    path, errors = tmp_path / "model", []

    def many(name):
        try:
            for number in range(60):
                write(path, f"{name} {number}")
        except OSError as error:
            errors.append(error)

    writers = [threading.Thread(target=many, args=(name,)) for name in "abc"]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        if exchanges and path.exists():
            os.stat(path)  # at any time from then on
    for writer in writers:
        writer.join()
    assert not errors
    assert read(path).endswith(" 59")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_failure_at_the_end_changes_nothing(tmp_path, exchanges, monkeypatch):
    write(tmp_path / "model", "first")
    rename = pathlib.Path.rename

    def fails(path, target):
        if exchanges or (target.name == "model" and not path.name.endswith(".old")):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, target)

    if exchanges:
        monkeypatch.setattr(_files, "_exchange", fails)
    else:
        monkeypatch.setattr(pathlib.Path, "rename", fails)
    with pytest.raises(OSError, match="Input/output error"):
        write(tmp_path / "model", "second")
    assert read(tmp_path / "model") == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_another_writer_between_two_renames(tmp_path, monkeypatch):
    monkeypatch.setattr(_files, "_exchange", in_two_steps)
    write(tmp_path / "model", "first")
    rename, others = pathlib.Path.rename, iter(["in between"])

    def interrupted(path, target):
        if target.name == "model":
            for text in others:
                target.mkdir()
                (target / "text").write_text(text)
        return rename(path, target)

    monkeypatch.setattr(pathlib.Path, "rename", interrupted)
    write(tmp_path / "model", "second")
    assert read(tmp_path / "model") == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_an_export_to_a_remote_store(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    schema = ml.Schema([ml.ColumnSchema.create_categorical("id", 9)])
    model, features = ml.Model(ml.InputBlock(schema), ml.BinaryClassificationTask("y")), {"id": np.arange(9)}
    address = "ram://exports/1"  # TensorFlow's own file system in memory stands for others
    for _ in range(2):
        model.export(address, portable=True, verbose=False)
    loaded = tf.saved_model.load(address)
    np.testing.assert_allclose(loaded.serve(features), model.predict(features, verbose=0), rtol=1e-5)
    with tf.io.gfile.GFile("ram://exports/other/notes.txt", "w") as file:
        file.write("mine")
    for taken in ("ram://exports/other", "ram://exports/other/notes.txt"):
        with pytest.raises(FileExistsError, match="filepath must be a new folder or one of a SavedModel"):
            model.export(taken, verbose=False)
    model.save("ram://exports/model.keras")
    again = ml.Model.load("ram://exports/model.keras")
    np.testing.assert_array_equal(again.predict(features, verbose=0), model.predict(features, verbose=0))
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize(
    "call",
    [
        lambda: small_model().save("gs://bucket/model"),
        lambda: ml.Model.load("gs://bucket/model"),
        lambda: SCHEMA.save("gs://bucket/schema"),
        lambda: ml.Schema.load("gs://bucket/schema"),
    ],
)
def test_addresses_where_folders_are_local(monkeypatch, tmp_path, call):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"must be a path of this machine\. Received: 'gs://bucket/"):
        call()
    assert not os.listdir(tmp_path)


def test_what_is_no_model_of_ours_is_named(tmp_path):
    keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    with pytest.raises(TypeError, match=r"Received: a Sequential in .*other\.keras"):
        ml.Model.load(tmp_path / "other.keras")
