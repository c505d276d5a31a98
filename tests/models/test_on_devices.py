"""One model of each family on a GPU as on a CPU, from the same weights: trained, used, saved and loaded."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import retrieval_data
import tensorflow as tf
from model_data import SCHEMA, ratings

import merlin_models.tf as ml

FEATURES = SCHEMA.remove_by_name("rating_b")
CONTINUOUS = ml.Schema([*FEATURES, ml.ColumnSchema.create_continuous("age")])
OPTIONS = {"embedding_options": ml.EmbeddingOptions(embedding_dim_default=8)}


def rated():
    features, _ = ratings(256)
    targets = (features["userId"][:, 0] % 3 == 0).astype(np.int64)
    age = np.random.default_rng(1).normal(size=(256, 1)).astype(np.float32)
    return {**features, "age": age}, {"click": targets, "rating": np.linspace(1, 5, 256, dtype=np.float32)}


def clicked():
    features, targets = rated()
    return features, targets["click"]


def dlrm():
    towers = {"bottom_block": ml.MLPBlock([16, 8]), "top_block": ml.MLPBlock([16])}
    return ml.DLRMModel(CONTINUOUS, **towers, **OPTIONS, prediction_tasks=ml.BinaryClassificationTask("click"))


def dcn():
    task = ml.BinaryClassificationTask("click")
    return ml.DCNModel(CONTINUOUS, depth=2, deep_block=ml.MLPBlock([16]), **OPTIONS, prediction_tasks=task)


def two_towers():
    query = ml.MLPBlock([16], activation="linear")
    return ml.TwoTowerModel(retrieval_data.SCHEMA, query_tower=query, logits_temperature=0.1, **OPTIONS)


def experts():
    tasks = ml.BinaryOutput("click"), ml.RegressionOutput("rating")
    both = ml.ParallelPredictionBlock(*tasks, task_blocks=ml.MLPBlock([4]))
    return ml.Model(ml.InputBlock(CONTINUOUS, **OPTIONS), ml.MMOEBlock(both, ml.MLPBlock([8]), 3), both)


FAMILIES = {
    "dlrm": (dlrm, clicked),
    "dcn": (dcn, clicked),
    "two_towers": (two_towers, lambda: (retrieval_data.interactions(256), None)),
    "experts": (experts, rated),
}


def trained(make, features, targets, weights=None):
    """A model after five epochs from the given weights or its own, these, its losses and its predictions."""
    keras.utils.set_random_seed(4)
    model = make()
    model({name: value[:8] for name, value in features.items()})
    if weights is not None:
        model.set_weights(weights)
    weights = model.get_weights()
    model.compile(keras.optimizers.Adagrad(0.1))
    losses = model.fit(features, targets, batch_size=64, epochs=5, shuffle=False, verbose=0).history["loss"]
    return model, weights, losses, predicted(model, features)


def predicted(model, features):
    return np.concatenate(keras.tree.flatten(model.predict(features, batch_size=64, verbose=0)), axis=1)


@pytest.mark.parametrize("device", [pytest.param("gpu", marks=pytest.mark.gpu)])  # on a CPU others try these models
@pytest.mark.parametrize("family", FAMILIES)
def test_trains_as_on_a_cpu(tmp_path, on_device, family):
    """Adagrad's steps hold no difference that rounding makes large: a GPU only adds in another order."""
    make, data = FAMILIES[family]
    features, targets = data()
    with tf.device("/cpu:0"):
        _, weights, expected_losses, expected = trained(make, features, targets)
    model, _, losses, predictions = trained(make, features, targets, weights)
    assert {variable.value.device[-5:-2] for variable in model.trainable_variables} == {on_device.upper()}
    assert losses[-1] < 0.97 * losses[0]
    tolerance = 0 if on_device == "cpu" else 1e-4
    np.testing.assert_allclose(losses, expected_losses, rtol=tolerance)
    np.testing.assert_allclose(predictions, expected, rtol=tolerance, atol=tolerance)

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(predicted(again, features), predictions, rtol=tolerance, atol=tolerance)
    assert len(again.optimizer.variables) == len(model.optimizer.variables)
    for one, other in zip(again.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy(), err_msg=one.path)
