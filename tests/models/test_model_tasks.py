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


def conversions():
    """Clicks, and conversions of clicked rows: 1 of 2."""
    features, click = ratings(64)
    return features, {"click": click, "conversion": click * (np.arange(64) % 2)}


CONVERSION = "conversion/binary_classification_task"


def with_rule(**rule):
    weight = ml.ColumnBasedSampleWeight(**rule)
    both = ml.BinaryClassificationTask("click"), ml.BinaryClassificationTask("conversion", sample_weight=weight)
    return ml.Model(ml.InputBlock(schema), ml.MLPBlock([8]), *both)


def cross_entropies(model, features, targets):
    predicted = model(features)[CONVERSION].numpy()[:, 0]
    truth = targets["conversion"]
    return -(truth * np.log(predicted) + (1 - truth) * np.log(1 - predicted))


@pytest.mark.parametrize("form", ["dictionary", "sequence", "feature"])
def test_conditional_task_space(form):
    features, targets = conversions()
    model = with_rule(weight_column_name="click")
    model.compile("adam", metrics=[], weighted_metrics={"conversion": ["binary_accuracy"]})
    weight = targets["click"]
    if form == "feature":  # before a target of that name
        weight = np.arange(64) % 2
        features = {**features, "click": weight[:, None]}
    expected = np.mean(cross_entropies(model, features, targets) * weight)
    given = tuple(targets.values()) if form == "sequence" else targets
    logs = model.evaluate(features, given, verbose=0, return_dict=True)
    assert logs[f"{CONVERSION}/loss"] == pytest.approx(expected, rel=1e-4)
    predicted = model(features)[CONVERSION].numpy()[:, 0] > 0.5
    right = (predicted == targets["conversion"])[weight == 1]
    assert logs[f"{CONVERSION}/binary_accuracy"] == pytest.approx(np.mean(right), rel=1e-5)


def test_class_weights_times_given_weights():
    features, targets = conversions()
    model = with_rule(binary_class_weights=(0.5, 4.0))
    model.compile("adam")
    given = np.linspace(0, 1, 64, dtype=np.float32)
    weights = np.where(targets["conversion"], 4.0, 0.5) * given
    expected = np.mean(cross_entropies(model, features, targets) * weights)
    for sample_weight in (given, given[:, None], {"click": given, "conversion": given}):
        logs = model.evaluate(features, targets, sample_weight=sample_weight, verbose=0, return_dict=True)
        assert logs[f"{CONVERSION}/loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "mixture",
    [
        lambda outputs: ml.MMOEBlock(outputs, ml.MLPBlock([8]), 3),
        lambda outputs: ml.PLEBlock(2, outputs, ml.MLPBlock([8]), 2, 1, gate_block=ml.MLPBlock([4])),
    ],
)
def test_experts_train(mixture):
    features, targets = conversions()
    both = ml.ParallelPredictionBlock(*(ml.BinaryOutput(name) for name in targets), task_blocks=ml.MLPBlock([4]))
    model = ml.Model(ml.InputBlock(schema), mixture(both), both)
    assert len(model.blocks) == 3
    model.compile(keras.optimizers.Adam(0.02))
    history = model.fit(features, targets, epochs=15, verbose=0).history
    assert history["loss"][-1] < 0.7 * history["loss"][0]


def test_saving_of_all_of_it(tmp_path):
    features, targets = conversions()
    item = SCHEMA["movieId"]
    table = ml.EmbeddingTable(8, item)
    body = ml.ParallelBlock({"item": table, "rest": ml.InputBlock(schema.remove_by_name("movieId"))}, is_input=True)
    weight = ml.ColumnBasedSampleWeight("click", (0.0, 2.0))
    both = ml.ParallelPredictionBlock(
        ml.BinaryOutput("conversion", post=weight),
        ml.CategoricalOutput(table, target="next", logits_temperature=2.0),
        task_weights={"conversion": 3.0},
        task_blocks={"next": ml.MLPBlock([8])},
    )
    model = body.connect(ml.PLEBlock(2, both, ml.MLPBlock([8]))).connect(both)
    model.compile("adam", loss_weights={"next": 0.5})
    targets = {"click": targets["click"], "conversion": targets["conversion"], "next": features["movieId"]}
    model.fit(features, targets, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    expected = model.evaluate(features, targets, verbose=0, return_dict=True)
    logs = again.evaluate(features, targets, verbose=0, return_dict=True)
    assert logs == pytest.approx(expected, rel=1e-5)
    assert logs["loss"] == pytest.approx(
        3 * logs["conversion/binary_output/loss"] + 0.5 * logs["next/categorical_output/loss"], rel=1e-5
    )
    assert "next/categorical_output/recall_at_10" in logs
    tied = again.select_by_name(again.prediction_tasks[1].head.name).table
    assert tied is again[0].layers[0]["item"]
    assert len(again.weights) == len(model.weights)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    features, targets = conversions()
    keras.config.set_dtype_policy(policy)
    try:
        both = ml.ParallelPredictionBlock(
            *(ml.BinaryOutput(name) for name in targets), bias_block=ml.MLPBlock([4], filter="bias")
        )
        mixture = ml.MMOEBlock(both, ml.MLPBlock([8]), 2)
        body = ml.InputBlock(schema, aggregation="concat")
        with_bias = ml.ParallelBlock({"experts": mixture, "bias": ml.MLPBlock([4])})
        model = ml.Model(body, with_bias, both)
        model.compile("adam")
        history = model.fit(features, targets, verbose=0).history
        predictions = model.predict(features, verbose=0)
    finally:
        keras.config.set_dtype_policy("float32")
    assert np.isfinite(history["loss"][0])
    assert {value.dtype.name for value in predictions.values()} == {"float32"}
