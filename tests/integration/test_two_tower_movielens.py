"""The two-tower example on the twin, as a user would start it, and on the ratings that it is about."""

from __future__ import annotations

import json

import keras
import numpy as np
import pandas as pd
import pytest

import merlin_models.tf as ml

pytest.importorskip("nvtabular", reason="needs nvtabular: the examples' data preparation")
pytest.importorskip("rich", reason="needs rich: the examples' output")
pytest.importorskip("implicit", reason="needs implicit: the example's baseline")

import two_tower_movielens as example

ALS, POPULARITY, TOWERS = "matrix factorization (ALS)", "popularity", "two towers"


def test_on_the_twin(twin_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MERLIN_DATA_DIR", str(twin_folder))
    arguments = ["--output", str(tmp_path / "output"), "--epochs", "2", "--batch-size", "256"]
    results = example.run(example.parse_arguments(arguments))
    assert json.loads((tmp_path / "output" / "results.json").read_text()) == results
    assert list(results["test"]) == [POPULARITY, ALS, TOWERS]
    assert all(0 < value < 1 for row in results["test"].values() for value in row.values())
    assert len(set(results["recommended"])) == 10
    assert isinstance(keras.models.load_model(tmp_path / "output" / "recommender.keras"), ml.TopKEncoder)
    assert "Recall@10" in capsys.readouterr().out


def test_split_by_time():
    ratings = pd.DataFrame(
        {"userId": [1] * 10 + [2] * 5, "movieId": range(15), "timestamp": [*range(10, 0, -1), *range(5)]}
    )
    parts = example.split_by_time(ratings.assign(rating=np.arange(15) % 5 + 1.0))
    assert parts["test"][["userId", "movieId"]].to_numpy().tolist() == [[1, 1], [1, 0], [2, 14]]
    assert (parts["likes"]["rating"] >= 4).all()
    assert len(parts["train"]) == 12


def test_measures_by_hand():
    found = np.array([[5, 6, *range(20, 28)], [7, 8, *range(20, 28)]])
    relevant = [np.array([6, 9]), np.array([2, 2, 7])]  # 2 is what train does not have
    result = example.measures(found, relevant)
    discounts = 1 / np.log2(np.arange(2, 12))
    assert result["Recall@10"] == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert result["NDCG@10"] == pytest.approx(
        (discounts[1] / discounts[:2].sum() + discounts[0] / discounts[:3].sum()) / 2
    )


@pytest.mark.parametrize("arguments", [["--epochs", "0"], ["--batch-size", "-1"]])
def test_arguments_are_checked(arguments, capsys):
    with pytest.raises(SystemExit):
        example.parse_arguments(arguments)
    assert f"{arguments[0]} must be at least 1. Received: {arguments[1]}." in capsys.readouterr().err
