"""The first model of the seed tutorial, in its three ways, on generated data."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from model_data import LOGS, METRICS, SCHEMA, ratings, with_ragged_genres

import merlin_models.tf as ml

schema = SCHEMA.remove_by_name(["rating_b"])


def listed():
    return ml.Model(ml.InputBlock(schema), ml.MLPBlock([64, 32]), ml.BinaryClassificationTask("rating_b"))


def connected():
    return ml.InputBlock(schema).connect(ml.MLPBlock([64, 32]), ml.BinaryClassificationTask("rating_b"))


def branched():
    body = ml.InputBlock(schema).connect_branch(ml.MLPBlock([256, 64]), ml.MLPBlock([128, 64]), aggregation="concat")
    return body.connect(ml.BinaryClassificationTask("rating_b"))


def dataset(genres):
    features, targets = ratings()
    features = with_ragged_genres(features) if genres == "ragged" else features
    return tf.data.Dataset.from_tensor_slices((features, targets)).batch(64)


@pytest.mark.parametrize("genres", ["dense", "ragged"])
@pytest.mark.parametrize("make", [listed, connected, branched])
def test_train_and_evaluate(make, genres):
    keras.utils.set_random_seed(1)
    model = make()
    assert isinstance(model, ml.Model)
    model.compile(optimizer="adam", run_eagerly=False)
    assert model.jit_compile is False
    losses = model.fit(dataset(genres), epochs=6, verbose=0)
    assert losses.epoch == [0, 1, 2, 3, 4, 5]
    assert losses.history["loss"][-1] < 0.9 * losses.history["loss"][0]
    assert set(losses.history) == LOGS
    model.reset_metrics()
    logs = model.evaluate(dataset(genres), return_dict=True, verbose=0)
    assert set(logs) == LOGS
    assert logs["total_loss"] == logs["loss"]
    assert logs["regularization_loss"] == 0
    assert logs["rating_b/binary_classification_task/auc"] > 0.8
    assert all(0 <= logs[name] <= 1 for name in METRICS)


def test_widths():
    first = listed()
    assert first[1][0].kernel.shape == (192, 64)
    assert first.count_params() == (41 + 31 + 9) * 64 + 193 * 64 - 64 + 64 + 64 * 32 + 32 + 33
    body = branched()[0]
    assert body.compute_output_shape({name: (None, 1) for name in schema.column_names}) == (None, 128)


def test_dense_and_ragged_genres_are_the_same():
    features, _ = ratings(32)
    model = listed()
    np.testing.assert_allclose(model(features), model(with_ragged_genres(features)), rtol=1e-6)


def test_all_tables_are_one_layer():
    layers = [layer for layer in listed()._flatten_layers() if isinstance(layer, ml.EmbeddingBagCollection)]
    assert len(layers) == 1
    assert sorted(layers[0].tables) == ["genres", "movieId", "userId"]
