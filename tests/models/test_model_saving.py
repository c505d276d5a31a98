"""Models survive files: .keras, weights, and configs."""

from __future__ import annotations

import json
import zipfile

import keras
import numpy as np
import pytest
from model_data import SCHEMA, ratings, small_model

import merlin_models.tf as ml


def trained(model):
    features, targets = ratings(128)
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(features, targets, verbose=0)
    return model


def plain(model):
    """The config as a file holds it: lists for tuples."""
    return json.loads(json.dumps(model.get_config()))


def branched():
    body = ml.InputBlock(SCHEMA).connect_branch(
        ml.MLPBlock([8], dropout=0.1, normalization="batch_norm"), ml.MLPBlock([4, 4]), aggregation="concat"
    )
    return body.connect(ml.BinaryClassificationTask("rating_b", task_block=ml.MLPBlock([3])))


def residual():
    return (
        ml.InputBlock(SCHEMA, aggregation="concat")
        .connect(ml.MLPBlock([8]))
        .connect_with_residual(ml.MLPBlock([8]), activation="relu")
        .connect(ml.BinaryClassificationTask("rating_b", loss=keras.losses.BinaryFocalCrossentropy(gamma=1.0)))
    )


@pytest.mark.parametrize("make", [small_model, branched, residual])
def test_keras_file(make, tmp_path):
    model, (features, targets) = trained(make()), ratings(64, seed=8)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again) is ml.Model
    assert plain(again) == plain(model)
    np.testing.assert_array_equal(again.predict(features, verbose=0), model.predict(features, verbose=0))
    arguments = {"verbose": 0, "return_dict": True}
    assert again.evaluate(features, targets, **arguments) == model.evaluate(features, targets, **arguments)


def test_training_goes_on_where_it_stopped(tmp_path):
    model, (features, targets) = trained(small_model()), ratings(64, seed=8)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert int(again.optimizer.iterations) == int(model.optimizer.iterations) > 0
    for each in (model, again):
        each.fit(features, targets, shuffle=False, verbose=0)
    np.testing.assert_allclose(again.predict(features, verbose=0), model.predict(features, verbose=0), rtol=1e-5)


def test_compile_arguments_are_saved(tmp_path):
    model, (features, targets) = small_model(), ratings(64)
    model.compile(
        "sgd",
        loss=keras.losses.BinaryCrossentropy(label_smoothing=0.3),
        metrics={"rating_b": [keras.metrics.AUC(name="area")]},
    )
    model.fit(features, targets, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(again.optimizer.inner_optimizer, keras.optimizers.SGD)
    logs = again.evaluate(features, targets, verbose=0, return_dict=True)
    assert logs == pytest.approx(model.evaluate(features, targets, verbose=0, return_dict=True))
    assert "rating_b/binary_classification_task/area" in logs


def test_weights_file(tmp_path):
    model, (features, _) = trained(small_model()), ratings(64)
    model.save_weights(tmp_path / "model.weights.h5")
    again = small_model()
    assert not np.array_equal(again.predict(features, verbose=0), model.predict(features, verbose=0))
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(again.predict(features, verbose=0), model.predict(features, verbose=0))


def test_model_without_a_schema_and_uncompiled(tmp_path):
    model = ml.Model(ml.MLPBlock([3]), ml.RegressionTask("y"))
    features = {"b": np.ones((4, 2)), "a": np.ones((4, 1))}
    expected = model(features)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(features), expected)


def test_shared_layers_stay_shared(tmp_path):
    shared = ml.MLPBlock([4])
    body = ml.InputBlock(SCHEMA, aggregation="concat").connect_branch(
        {"a": shared, "b": shared}, aggregation="element-wise-sum"
    )
    model = body.connect(ml.BinaryClassificationTask("rating_b"))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again[0][1]["a"] is again[0][1]["b"]
    features, _ = ratings(16)
    np.testing.assert_array_equal(again.predict(features, verbose=0), model.predict(features, verbose=0))


def shared(config):
    """The classes of objects that a file takes for one and the same."""
    if isinstance(config, dict):
        found = [config["class_name"]] if "shared_object_id" in config else []
        return found + [name for value in config.values() for name in shared(value)]
    return [name for value in config for name in shared(value)] if isinstance(config, list) else []


def test_file_of_a_loaded_model(tmp_path):
    model = trained(branched())
    features, _ = ratings(16)
    for _ in range(2):
        model.save(tmp_path / "model.keras")
        with zipfile.ZipFile(tmp_path / "model.keras") as file:
            assert set(shared(json.loads(file.read("config.json")))) == {"DTypePolicy"}
        again = keras.models.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(again.predict(features, verbose=0), model.predict(features, verbose=0))
        model = again


def test_config_round_trip():
    model = branched()
    again = ml.Model.from_config(model.get_config())
    assert again.get_config() == model.get_config()
    assert again.built
    assert [weight.shape for weight in again.weights] == [weight.shape for weight in model.weights]


def test_mixed_precision_policy_is_saved(tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small_model()
    finally:
        keras.config.set_dtype_policy("float32")
    features, _ = ratings(16)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert again[1].compute_dtype == "bfloat16"
    np.testing.assert_array_equal(again.predict(features, verbose=0), model.predict(features, verbose=0))
