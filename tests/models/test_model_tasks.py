"""Models with several tasks."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from model_data import SCHEMA, ratings

import merlin_models.tf as ml

CLICK, RATING = "click/binary_classification_task", "rating/regression_task"
schema = SCHEMA.remove_by_name("rating_b")


def tasks():
    return ml.BinaryClassificationTask("click"), ml.RegressionTask("rating")


def listed():
    return ml.Model(ml.InputBlock(schema), ml.MLPBlock([8]), *tasks())


def branched():
    return ml.InputBlock(schema).connect(ml.MLPBlock([8])).connect_branch(*tasks())


def data(rows=64):
    features, click = ratings(rows)
    return features, click, np.linspace(1, 5, rows, dtype=np.float32)


@pytest.mark.parametrize("make", [listed, branched])
def test_train(make):
    features, click, rating = data()
    model = make()
    assert isinstance(model, ml.Model)
    model.compile("adam")
    history = model.fit(features, {"click": click, "rating": rating}, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert {f"{CLICK}/loss", f"{RATING}/loss", f"{CLICK}/auc", f"{RATING}/root_mean_squared_error"} <= set(history)
    predictions = model.predict(features, verbose=0)
    assert {name: value.shape for name, value in predictions.items()} == {CLICK: (64, 1), RATING: (64, 1)}


def test_loss_is_the_weighted_sum():
    features, click, rating = data()
    model = listed()
    model.compile("adam", loss_weights={"click": 0.25, RATING: 2.0})
    logs = model.evaluate(features, (click, rating), verbose=0, return_dict=True)
    assert logs["loss"] == pytest.approx(0.25 * logs[f"{CLICK}/loss"] + 2 * logs[f"{RATING}/loss"], rel=1e-5)
    predicted = model.predict(features, verbose=0)[RATING][:, 0]
    assert logs[f"{RATING}/loss"] == pytest.approx(np.mean((predicted - rating) ** 2), rel=1e-5)


def test_targets_by_order_target_or_task():
    features, click, rating = data()
    model = listed()
    model.compile("adam")
    expected = model.evaluate(features, (click, rating), verbose=0, return_dict=True)
    for targets in ({"rating": rating, "click": click}, {RATING: rating, CLICK: click}):
        assert model.evaluate(features, targets, verbose=0, return_dict=True) == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"Targets must be one for each task, .* Received: 1"):
        model.evaluate(features, click, verbose=0)


def test_sample_weights_for_a_task():
    features, click, rating = data()
    model = listed()
    model.compile("adam")
    plain = model.evaluate(features, (click, rating), verbose=0, return_dict=True)
    zeros = np.zeros(64, np.float32)
    logs = model.evaluate(
        features,
        {"click": click, "rating": rating},
        sample_weight={"click": zeros, "rating": zeros + 1},
        verbose=0,
        return_dict=True,
    )
    assert logs[f"{CLICK}/loss"] == 0
    assert logs["loss"] == pytest.approx(plain[f"{RATING}/loss"], rel=1e-5)


def test_losses_and_metrics_by_task():
    features, click, rating = data()
    model = listed()
    model.compile("adam", loss={"rating": "mae"}, metrics={"click": ["auc"]})
    logs = model.evaluate(features, (click, rating), verbose=0, return_dict=True)
    predicted = model.predict(features, verbose=0)[RATING][:, 0]
    assert logs[f"{RATING}/loss"] == pytest.approx(np.mean(np.abs(predicted - rating)), rel=1e-5)
    assert {name for name in logs if name.startswith("click")} == {f"{CLICK}/loss", f"{CLICK}/auc"}
    assert f"{RATING}/root_mean_squared_error" in logs


def test_saving(tmp_path):
    features, click, rating = data()
    model = branched()
    model.compile("adam", loss_weights={"click": 0.5})
    model.fit(features, (click, rating), verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    expected = model.evaluate(features, (click, rating), verbose=0, return_dict=True)
    assert again.evaluate(features, (click, rating), verbose=0, return_dict=True) == pytest.approx(expected)


def test_branches_of_tasks_take_no_aggregation():
    with pytest.raises(ValueError, match="post, aggregation and add_rest"):
        ml.InputBlock(schema).connect_branch(*tasks(), aggregation="concat")
