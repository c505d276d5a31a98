"""A full disk while something is written: an error, and what was there before is still there."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import resource
import shutil
import subprocess

import keras
import numpy as np
import pytest
from reliability_data import SCHEMA, assert_same_state, rows, small_model

import merlin_models.tf as ml
from merlin_models._files import replacing
from merlin_models.layers.embedding_files import write_parquet

TOO_MUCH = (errno.EFBIG, errno.ENOSPC)


@contextlib.contextmanager
def no_file_larger_than(limit):
    """What a full disk does to writes, without a disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def encoder():
    keras.utils.set_random_seed(1)
    return ml.Encoder(SCHEMA.remove_by_name("y"), ml.MLPBlock([8]))


SAVES = {
    "file": lambda folder: small_model(dim=64).save(folder / "model.keras"),
    "weights": lambda folder: small_model(dim=64).save_weights(folder / "model.weights.h5"),
    "folder": lambda folder: small_model(dim=64).save(folder / "model"),
    "encoder": lambda folder: encoder().save(folder / "model.keras"),
    "schema": lambda folder: ml.Schema([f"column_{i}" for i in range(1000)]).save(folder),
    "table": lambda folder: write_parquet(np.random.default_rng(0).normal(size=(1000, 16)), folder / "table.parquet"),
}


@pytest.mark.parametrize("what", SAVES)
@pytest.mark.parametrize("limit", [1000, *(pytest.param(limit, marks=pytest.mark.slow) for limit in (0, 10_000))])
def test_the_old_file_survives(tmp_path, what, limit):
    SAVES[what](tmp_path)
    before = contents(tmp_path)
    with no_file_larger_than(limit), pytest.raises(OSError, match="File too large") as error:
        SAVES[what](tmp_path)
    assert error.value.errno in TOO_MUCH
    del error
    gc.collect()  # HDF5 ended the process here
    assert contents(tmp_path) == before
    SAVES[what](tmp_path)
    assert set(contents(tmp_path)) == set(before)


def test_without_an_old_file_nothing_is_left(tmp_path):
    model = small_model(dim=64)
    for save in (model.save, model.save_weights):
        with no_file_larger_than(10_000), pytest.raises(OSError, match="File too large"):
            save(tmp_path / ("model.keras" if save == model.save else "model.weights.h5"))
    assert not contents(tmp_path)


@pytest.mark.parametrize("weights_only", [False, True])
def test_training_with_checkpoints(tmp_path, weights_only):
    model, (features, targets) = small_model(dim=64), rows()
    path = tmp_path / ("model.weights.h5" if weights_only else "model.keras")
    checkpoint = keras.callbacks.ModelCheckpoint(path, save_weights_only=weights_only)
    model.fit(features, targets, verbose=0, callbacks=[checkpoint])
    before, expected = path.read_bytes(), model.predict(features, verbose=0)
    with no_file_larger_than(10_000), pytest.raises(OSError, match="File too large"):
        model.fit(features, targets, verbose=0, callbacks=[checkpoint])
    assert path.read_bytes() == before
    again = small_model(dim=64) if weights_only else keras.models.load_model(path)
    if weights_only:
        again.load_weights(path)
    np.testing.assert_array_equal(again.predict(features, verbose=0), expected)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = shutil.which("mount")
    done = command and subprocess.run(
        [command, "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True, text=True
    )
    if not done or done.returncode:
        pytest.skip("mounting a small disk needs root; the tests with a limit on files' sizes run everywhere")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("known", [True, False], ids=["room is known", "room is not known"])
@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5"])
def test_a_disk_that_is_full(small_disk, monkeypatch, name, known):
    def save(model):
        (model.save if name.endswith(".keras") else model.save_weights)(small_disk / name)

    save(small_model())
    before = contents(small_disk)
    if not known:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 0))
    with pytest.raises(OSError, match="must have room for" if known else "No space left") as error:
        save(small_model(dim=2048))
    assert error.value.errno == errno.ENOSPC
    assert contents(small_disk) == before


@pytest.mark.slow
def test_the_process_goes_on_and_ends_well(tmp_path, run_python):
    """With HDF5's own writer it ended with a segmentation fault."""
    done = run_python(
        f"""
import sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from test_full_disk import no_file_larger_than
from reliability_data import small_model
model = small_model(dim=64)
for limit in (0, 1000, 2000, 5000, 10_000):
    try:
        with no_file_larger_than(limit):
            model.save_weights("model.weights.h5")
    except OSError as error:
        print(error.errno)
"""
    )
    assert done.stdout.split() == [str(errno.EFBIG)] * 5
    assert "Traceback" not in done.stderr


def test_replacing(tmp_path):
    path = tmp_path / "file.txt"
    for text in ("old", "new"):
        with replacing(path) as part:
            part.write_text(text)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text
    path.chmod(0o640)
    link = tmp_path / "link.txt"
    link.symlink_to(path)

    def write(text, fail=False):
        with replacing(link) as part:
            part.write_text(text)
            if fail:
                raise KeyError("wrong")

    write("through the link")
    assert link.is_symlink()
    assert path.read_text() == "through the link"
    assert path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(KeyError):
        write("never seen", fail=True)
    assert path.read_text() == "through the link"
    assert sorted(os.listdir(tmp_path)) == ["file.txt", "link.txt"]
    with pytest.raises(IsADirectoryError), replacing(tmp_path):
        pass
    with pytest.raises(OSError, match=r"must have room for 1(,000){10} bytes") as error, replacing(path, 10**30):
        pass
    assert error.value.errno == errno.ENOSPC


def test_a_loaded_file_is_the_saved_model(tmp_path):
    model, (features, targets) = small_model(dropout=0.2), rows()
    model.fit(features, targets, verbose=0)
    model.save(tmp_path / "model.keras")
    assert_same_state(keras.models.load_model(tmp_path / "model.keras"), model)
    model.save_weights(tmp_path / "model.weights.h5")
    again = small_model(dropout=0.2, seed=4)
    again.optimizer.build(again.trainable_variables)
    again.load_weights(tmp_path / "model.weights.h5")
    assert_same_state(again, model)
    without = small_model(seed=5)  # has no random generator: takes the weights alone
    without.optimizer.build(without.trainable_variables)
    without.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(without.predict(features, verbose=0), model.predict(features, verbose=0))
