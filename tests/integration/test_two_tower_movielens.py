"""The two-tower example on the twin, as a user would start it, and on the ratings that it is about."""

from __future__ import annotations

import json

import keras
import numpy as np
import pandas as pd
import pytest

import merlin_models.tf as ml
from merlin_models.schema import Schema

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


def test_real_ratings_beat_popularity(movielens_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MERLIN_DATA_DIR", str(movielens_folder))
    arguments = ["--output", str(tmp_path), "--epochs", "6", "--validate"]
    measured = example.run(example.parse_arguments(arguments))["valid"]
    for name, value in measured[POPULARITY].items():
        assert measured[TOWERS][name] > 1.4 * value
        assert measured[ALS][name] > 1.4 * value  # the baseline is none to be ashamed of either


def test_split_by_time():
    ratings = pd.DataFrame(
        {"userId": [1] * 10 + [2] * 5, "movieId": range(15), "timestamp": [*range(10, 0, -1), *range(5)]}
    )
    parts = example.split_by_time(ratings.assign(rating=np.arange(15) % 5 + 1.0))
    assert parts["test"][["userId", "movieId"]].to_numpy().tolist() == [[1, 1], [1, 0], [2, 14]]
    assert (parts["likes"]["rating"] >= 4).all()
    assert len(parts["train"]) == 12


def test_likes_before_leave_the_target_out(monkeypatch):
    monkeypatch.setattr(example, "LENGTH", 2)
    likes = pd.DataFrame({"userId": [3, 3, 5, 3, 3], "movieId": [7, 8, 7, 9, 4]})
    histories, latest = example.likes_before(likes)
    assert histories == [[], [7], [], [7, 8], [8, 9]]
    assert latest == {3: [9, 4], 5: [7]}
    assert latest[6] == []  # who liked nothing yet


def test_the_history_is_read(twin_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("MERLIN_DATA_DIR", str(twin_folder))
    parts = example.split_by_time(example.movielens.read_ratings())
    data = example.movielens.prepare(parts, tmp_path)
    likes = data.frame("likes")
    model = example.make_model(Schema().from_proto_text(str(data.schema_path)), likes["movieId"].to_numpy())
    histories = [np.array([[3, 0, 0]]), np.array([[3, 4, 5]]), np.array([[5, 4, 3, 0]])]
    one, other, same = (model[0]["query"]({"userId": np.array([3]), "history": each}) for each in histories)
    assert np.abs(one - other).max() > 1e-3
    np.testing.assert_allclose(other, same, atol=1e-6)


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
