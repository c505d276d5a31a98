"""StochasticSwapNoise."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import merlin_models.tf as ml


def padded(rng, rows=200, length=20):
    ids = rng.integers(1, 50, (rows, length))
    return ids * (np.arange(length) < rng.integers(0, length + 1, (rows, 1)))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float32])
def test_padding_stays_and_values_come_from_the_batch(rng, dtype):
    ids = padded(rng).astype(dtype)
    out = np.asarray(ml.StochasticSwapNoise(replacement_prob=0.3, seed=1)(ids, training=True))
    assert out.dtype == dtype
    np.testing.assert_array_equal(out == 0, ids == 0)
    assert set(np.unique(out)) <= set(np.unique(ids))
    # A replaced value is another one with probability 48/49.
    assert np.mean(out[ids != 0] != ids[ids != 0]) == pytest.approx(0.3 * 48 / 49, abs=0.03)


def test_values_are_drawn_with_equal_chances(rng):
    ids = np.repeat(np.arange(1, 5), [1000, 2000, 3000, 4000])
    out = np.asarray(ml.StochasticSwapNoise(replacement_prob=1.0, seed=1)(rng.permutation(ids), training=True))
    assert np.bincount(out)[1:] / 10000 == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.02)


def test_ragged_as_padded(rng):
    ids = padded(rng)
    ragged = tf.RaggedTensor.from_tensor(tf.constant(ids), padding=0)
    out = ml.StochasticSwapNoise(replacement_prob=0.5, seed=1)({"seen": ragged}, training=True)["seen"]
    np.testing.assert_array_equal(out.row_splits, ragged.row_splits)
    assert 0.4 < np.mean(out.values.numpy() != ragged.values.numpy()) < 0.6
    assert set(out.values.numpy()) <= set(ragged.values.numpy())


def test_another_padding(rng):
    ids = np.array([[-1, 4, 4], [0, -1, -1]])
    out = np.asarray(ml.StochasticSwapNoise(pad_token=-1, replacement_prob=1.0)(ids, training=True))
    np.testing.assert_array_equal(out == -1, ids == -1)


def test_training_only_and_only_the_columns_of_the_schema(rng):
    inputs = {"a": padded(rng), "b": padded(rng)}
    noise = ml.StochasticSwapNoise(ml.Schema(["a"]), replacement_prob=1.0)
    for training in (None, False):
        for name, value in noise(inputs, training=training).items():
            np.testing.assert_array_equal(value, inputs[name])
    out = noise(inputs, training=True)
    assert not np.array_equal(out["a"], inputs["a"])
    np.testing.assert_array_equal(out["b"], inputs["b"])


@pytest.mark.parametrize("ids", [np.zeros((0, 3), np.int64), np.zeros((2, 3), np.int64), np.zeros((0,), np.int64)])
def test_nothing_to_swap(ids):
    np.testing.assert_array_equal(ml.StochasticSwapNoise(replacement_prob=1.0)(ids, training=True), ids)


def test_seeds_and_config(rng):
    ids = padded(rng)
    noise = ml.StochasticSwapNoise(ml.Schema(["a"]), pad_token=2, replacement_prob=0.5, seed=3)
    again = ml.StochasticSwapNoise.from_config(noise.get_config())
    assert again.get_config() == noise.get_config()
    first = noise({"a": ids}, training=True)["a"]
    np.testing.assert_array_equal(first, again({"a": ids}, training=True)["a"])
    assert not np.array_equal(first, noise({"a": ids}, training=True)["a"])  # each call draws anew
    shared = keras.random.SeedGenerator(3)
    of_generator = ml.StochasticSwapNoise(pad_token=2, replacement_prob=0.5, seed=shared)
    np.testing.assert_array_equal(first, of_generator(ids, training=True))


def test_in_a_graph_it_draws_anew_at_each_call(rng):
    noise, ids = ml.StochasticSwapNoise(replacement_prob=0.5, seed=3), tf.constant(padded(rng))
    step = tf.function(lambda x: noise(x, training=True))
    assert not np.array_equal(step(ids), step(ids))


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"replacement_prob must be in \[0, 1\]. Received: 1.5"):
        ml.StochasticSwapNoise(replacement_prob=1.5)
    with pytest.raises(TypeError, match=r"schema must be a Schema or None. Received: list"):
        ml.StochasticSwapNoise(["a"])
    with pytest.raises(ValueError, match=r"'a' must be a dense or ragged tensor. Received: SparseTensor"):
        ml.StochasticSwapNoise()({"a": tf.sparse.from_dense([[1, 2]])}, training=True)
