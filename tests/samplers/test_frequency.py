"""StreamingItemFrequency: against counts, in a graph, saved, with collisions."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import merlin_models.tf as ml

BIG = 2**33 + 1


def estimate(layer, ids):
    return np.exp(ops.convert_to_numpy(layer(np.asarray(ids))))


def test_by_hand():
    layer = ml.StreamingItemFrequency(1000, learning_rate=0.25)
    for step in range(1, 9):
        layer(np.array([[BIG], [5]] if step % 2 == 0 else [[BIG], [BIG]]), training=True)
    np.testing.assert_allclose(estimate(layer, [BIG, 5]), [1.5, 0.5], rtol=0.05)
    assert estimate(layer, [[[77]]]).shape == (1, 1, 1)
    np.testing.assert_allclose(estimate(layer, [77]), 1 / 9)  # never seen in 8 steps


def test_the_mean_forgets_at_the_learning_rate():
    layer = ml.StreamingItemFrequency(10, learning_rate=0.5)
    gap = 0.0
    for sighting, newest in enumerate([4, 2, 6, 6], start=1):
        for _ in range(newest - 1):
            layer(np.zeros(0, np.int64), training=True)
        layer(np.array([3]), training=True)
        gap += max(0.5, 1 / sighting) * (newest - gap)
    np.testing.assert_allclose(estimate(layer, [3]), 1 / gap, rtol=1e-6)


@pytest.mark.parametrize("num_hashes", [1, 2])
def test_against_the_true_rates(rng, num_hashes):
    layer = ml.StreamingItemFrequency(50_000, num_hashes=num_hashes)
    inputs = keras.Input((), dtype="int64")
    model = keras.Model(inputs, layer(inputs))  # runs it in a graph
    model.compile(loss="mse")
    items = 2000
    probabilities = 1 / np.arange(1, items + 1)
    probabilities /= probabilities.sum()
    batches = rng.choice(items, (400, 256), p=probabilities) * 1_000_003 + BIG
    model.fit(batches.reshape(-1), np.zeros(batches.size), batch_size=256, shuffle=False, verbose=0)
    assert int(layer.step) == 400
    ids = np.arange(items)
    errors = np.log(estimate(layer, ids * 1_000_003 + BIG)) - np.log(256 * probabilities)
    assert np.abs(errors[:30]).max() < 0.3
    assert abs(np.median(errors[:500])) < 0.1


def test_more_hash_functions_suffer_less_from_collisions(rng):
    ids = np.arange(3000)
    errors = []
    for num_hashes in (1, 3):
        layer = ml.StreamingItemFrequency(1500, num_hashes=num_hashes)
        for _ in range(20):
            layer(rng.permutation(ids)[:1000], training=True)
        errors.append(np.mean(np.log(estimate(layer, ids)) - np.log(1 / 3)))
    assert 0 < errors[1] < errors[0] - 0.1


@pytest.mark.parametrize("stride", [1, 1024, 2**31 + 1])
def test_buckets_are_filled_evenly(stride):
    layer = ml.StreamingItemFrequency(100, num_hashes=4)
    places = ops.convert_to_numpy(layer._places(ops.arange(20_000, dtype="int64") * stride - 10_000))
    for index, each in enumerate(places):
        counts = np.bincount(each - 100 * index, minlength=100)
        assert len(counts) == 100
        assert counts.min() > 120
        assert counts.max() < 280


def test_saved_with_a_model(tmp_path, rng):
    inputs = keras.Input((), dtype="int64")
    model = keras.Model(inputs, ml.StreamingItemFrequency(64, 0.1, 2)(inputs))
    for _ in range(5):
        model(rng.integers(0, 50, 16), training=True)
    assert not model.trainable_variables
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    ids = rng.integers(0, 50, 16)
    np.testing.assert_array_equal(again(ids), model(ids))
    np.testing.assert_array_equal(again(ids, training=True), model(ids, training=True))


def test_wrong_arguments():
    with pytest.raises(TypeError, match=r"ids must be integers. Received dtype: float32"):
        ml.StreamingItemFrequency()(np.ones(3, np.float32))
    with pytest.raises(ValueError, match=r"num_buckets must be at least 1. Received: 0"):
        ml.StreamingItemFrequency(0)
    with pytest.raises(ValueError, match=r"learning_rate must be in \(0, 1\]. Received: 0"):
        ml.StreamingItemFrequency(learning_rate=0)
    with pytest.raises(ValueError, match=r"num_hashes must be in \[1, 4\]. Received: 5"):
        ml.StreamingItemFrequency(num_hashes=5)
