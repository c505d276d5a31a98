"""examples/dlrm_criteo.py: on generated logs, on logs as text through NVTabular, and on the real sample."""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest

from merlin_models.datasets import criteo

pytest.importorskip("rich", reason="needs rich: the examples' output")

import dlrm_criteo


def run(output, *arguments, models=tuple(dlrm_criteo.MODELS)):
    arguments = [*arguments, "--models", *models]
    results = dlrm_criteo.run(dlrm_criteo.parse_arguments(["--output", str(output), "--epochs", "1", *arguments]))
    assert json.loads((output / "results.json").read_text()) == results
    assert list(results["valid"]) == ["click rate", *(dlrm_criteo.MODELS[name] for name in models)]
    assert results["valid"]["click rate"]["AUC"] == 0.5
    assert all(np.isfinite(list(row.values())).all() for row in results["valid"].values())
    return results["valid"]


def write_logs(path, rows, seed):
    """Generated logs as Criteo has them: text with whole numbers and hexadecimal ids, some of them missing."""
    rng = np.random.default_rng(seed)
    batch = criteo.criteo_batch(rows, criteo.mlperf_cardinalities(max_rows=50), seed=seed)
    columns = [batch[criteo.LABEL][:, 0].astype(str)]
    columns += [np.floor(10 * batch[name][:, 0]).astype(int).astype(str) for name in criteo.CONTINUOUS]
    columns += [np.vectorize("{:08x}".format)(batch[name][:, 0]) for name in criteo.CATEGORICAL]
    lines = np.column_stack(columns)
    lines[:, 1:][rng.random((rows, len(columns) - 1)) < 0.02] = ""
    path.write_text("\n".join("\t".join(line) for line in lines) + "\n")


def test_generated_logs(tmp_path, capsys):
    """Needs no NVTabular."""
    comparison = run(tmp_path / "new" / "folder", "--synthetic", "20000", "--batch-size", "256")
    for name in ("DLRM", "DCN-v2"):
        assert comparison[name]["AUC"] > 0.6
        assert comparison[name]["log-loss"] < comparison["click rate"]["log-loss"] - 0.01
    printed = capsys.readouterr().out
    assert "18,000 rows to train on" in printed
    assert "2,000 valid rows" in printed
    output = tmp_path / "new" / "folder"
    data = dlrm_criteo.Splits(output / "data" / "train", output / "data" / "valid")
    loader = dlrm_criteo.make_loader(data.valid, data.schema, 2000, generated=True)
    features, labels = next(iter(loader))
    assert features["I1"].numpy().min() >= 0  # logarithms of 1 + x
    np.testing.assert_array_equal(labels[:, 0], dlrm_criteo.labels_of(data.valid))
    chances = keras.models.load_model(output / "dlrm.keras").predict(loader, verbose=0)[:, 0]
    area = dlrm_criteo.auc(labels[:, 0].numpy(), chances)
    assert area == pytest.approx(comparison["DLRM"]["AUC"], abs=1e-6)


def test_logs_as_text(tmp_path):
    pytest.importorskip("nvtabular", reason="needs nvtabular: the preparation of logs")
    logs = tmp_path / "logs"
    logs.mkdir()
    for day, rows in enumerate((4000, 500, 500)):
        write_logs(logs / f"day_{day}", rows, seed=day)
    arguments = ["--data", str(logs), "--num-days", "2", "--batch-size", "128", "--embedding-dim", "8"]
    comparison = run(tmp_path / "output", *arguments, models=["dlrm"])
    assert comparison["DLRM"]["AUC"] > 0.55
    schema = dlrm_criteo.Schema.load(tmp_path / "output" / "data" / "train")
    assert schema["C1"].cardinality > 10
    assert len(dlrm_criteo.labels_of(tmp_path / "output" / "data" / "valid")) == 500


def test_the_sample(tmp_path):
    pytest.importorskip("nvtabular", reason="needs nvtabular: the preparation of logs")
    try:
        dlrm_criteo.find_sample()
    except FileNotFoundError as error:
        pytest.skip(f"real data: {error}")
    run(tmp_path, models=["dlrm"])
    assert len(dlrm_criteo.labels_of(tmp_path / "data" / "valid")) == 500


def test_where_the_sample_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(dlrm_criteo, "__file__", str(tmp_path / "project" / "examples" / "dlrm_criteo.py"))
    monkeypatch.setenv("MERLIN_DATA_DIR", str(tmp_path / "data"))
    with pytest.raises(FileNotFoundError, match=r"day_head_1000.tsv must be in one of .*; --data and --synthetic"):
        dlrm_criteo.find_sample()
    for folder in ("shared/data/criteo-1tb-1k", "data/criteo-1tb-1k", "data"):  # each goes before the one above
        file = tmp_path / folder / "day_head_1000.tsv"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
        assert dlrm_criteo.find_sample() == file


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--epochs", "0"], "--epochs must be at least 1. Received: 0."),
        (["--synthetic", "1"], "--synthetic must be at least 2. Received: 1."),
        (["--num-days", "2"], "--num-days is for --data. Received: 2 without it."),
        (["--data", "x", "--synthetic", "9"], "not allowed with argument --data"),
    ],
)
def test_arguments_are_checked(arguments, message, capsys):
    with pytest.raises(SystemExit):
        dlrm_criteo.parse_arguments(arguments)
    assert message in capsys.readouterr().err
