"""Keras' layers on ragged sequences inside blocks."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import merlin_models.tf as ml
from merlin_models.blocks.ragged_layers import run_layer

LENGTHS = [3, 0, 1]


def ragged(rng, dim=4):
    return tf.RaggedTensor.from_row_lengths(rng.normal(size=(4, dim)).astype(np.float32), LENGTHS)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.layers.Dense(3, activation="relu"),
        lambda: keras.layers.LayerNormalization(),
        lambda: keras.layers.Activation("tanh"),
        lambda: keras.layers.BatchNormalization(),
    ],
)
def test_layers_on_positions(make, rng):
    layer, x = make(), ragged(rng)
    out = run_layer(layer, x)
    assert out.row_splits is x.row_splits
    np.testing.assert_allclose(out.values, layer(x.values[None])[0], rtol=1e-6)


def test_statistics_are_over_what_is_no_padding(rng):
    layer, x = keras.layers.BatchNormalization(momentum=0.0), ragged(rng)
    ml.SequentialBlock([layer])(x, training=True)
    np.testing.assert_allclose(layer.moving_mean, x.values.numpy().mean(axis=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda **options: keras.layers.LSTM(5, **options),
        lambda **options: keras.layers.GRU(5, **options),
        lambda **options: keras.layers.Bidirectional(keras.layers.LSTM(5, **options)),
    ],
)
def test_recurrent_layers(make, rng):
    x = ragged(rng)
    layer = make(return_sequences=True)
    block = ml.SequentialBlock([layer])
    out = block(x)
    np.testing.assert_array_equal(out.row_splits, x.row_splits)
    for row, length in enumerate(LENGTHS):
        if length:
            alone = layer(tf.constant(x[row].numpy()[None]))[0]
            np.testing.assert_allclose(out[row], alone, rtol=1e-4, atol=1e-6)
    last = ml.SequentialBlock([make()])(x)
    assert isinstance(last, tf.Tensor)
    assert last.shape[0] == 3


def test_ragged_and_masked_sequences_give_the_same(rng):
    schema = ml.Schema([ml.ColumnSchema.create_categorical("seen", 9, value_count=(0, 0))])
    body = ml.InputBlock(schema, seq=True).connect(
        keras.layers.Bidirectional(keras.layers.GRU(4, return_sequences=True)),
        keras.layers.Dropout(0.5),
        ml.MLPBlock([3], normalization=keras.layers.LayerNormalization()),
        keras.layers.LSTM(2),
    )
    ids = np.array([[1, 2, 3], [4, 0, 0]])
    padded = body({"seen": ids})
    np.testing.assert_allclose(
        body({"seen": tf.RaggedTensor.from_tensor(ids, padding=0)}), padded, rtol=1e-4, atol=1e-6
    )
    assert padded.shape == (2, 2)


def test_side_by_side_and_residual(rng):
    x = ragged(rng)
    out = ml.ParallelBlock({"a": keras.layers.Dense(2), "b": keras.layers.GRU(3, return_sequences=True)})(x)
    together = ml.ConcatFeatures()(out)
    assert together.shape.as_list() == [3, None, 5]
    dense = keras.layers.Dense(4)
    np.testing.assert_allclose(ml.ResidualBlock(dense)(x).values, x.values + dense(x.values[None])[0], rtol=1e-6)


def test_in_a_graph(rng):
    block = ml.SequentialBlock([keras.layers.LSTM(5, return_sequences=True), keras.layers.Dense(2)])
    x = ragged(rng)
    step = tf.function(lambda x: block(x, training=True))
    np.testing.assert_allclose(step(x).values, block(x).values, rtol=1e-5, atol=1e-6)
