"""PopularityBasedSampler and FrequencyBasedSampler: what they draw, and log_q beside what they drew."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from keras import ops

import merlin_models.tf as ml
from merlin_models.samplers.catalogue import draws_until

FREQUENCIES = np.array([40, 1, 0, 20, 10, 5, 3, 3, 2, 1])


def occurrences(sampler, samples, items):
    """The mean number of times that each id is in a sample."""
    tensorflow = pytest.importorskip("tensorflow")
    every = tensorflow.function(
        lambda: tensorflow.map_fn(
            lambda _: sampler.sample_ids()[0], tensorflow.range(samples), fn_output_signature="int64"
        )
    )
    drawn = every().numpy().reshape(-1)
    assert drawn.dtype == np.int64
    return np.bincount(drawn, minlength=items) / samples


def test_log_uniform_probabilities():
    sampler = ml.PopularityBasedSampler(max_id=12, min_id=3, max_num_samples=4, unique=False)
    places = np.arange(10)
    expected = (np.log(places + 2) - np.log(places + 1)) / np.log(11)
    np.testing.assert_allclose(sampler.probability_of(ops.arange(10, dtype="int64")), expected, rtol=1e-6)
    assert expected.sum() == pytest.approx(1)
    np.testing.assert_allclose(sampler.log_q(places + 3), np.log(4 * expected), rtol=1e-5)
    np.testing.assert_allclose(sampler.log_q([[0], [13], [2**33]]), np.log(4 * expected[-1]), rtol=1e-5)


def test_draws_until():
    rng = np.random.default_rng(0)
    p = rng.random(200)
    p /= p.sum()
    for number in (1, 20, 150, 199):
        assert (1 - np.exp(-p * draws_until(p, number))).sum() == pytest.approx(number, rel=1e-5)
    assert draws_until(np.array([0.5, 0.5, 0]), 2) == math.inf


@pytest.mark.parametrize("unique", [True, False])
@pytest.mark.parametrize("number", [1, 5, 8])
def test_log_q_is_what_is_drawn(unique, number):
    popular = ml.PopularityBasedSampler(11, min_id=2, max_num_samples=number, seed=3, unique=unique)
    frequent = ml.FrequencyBasedSampler(FREQUENCIES, max_num_samples=number, seed=3, unique=unique)
    for sampler, items in ((popular, 12), (frequent, 10)):
        counted = occurrences(sampler, 3000, items)
        ids = np.flatnonzero(counted)
        # Every id that can be drawn is, the last one too.
        possible = np.arange(2, 12) if sampler is popular else np.flatnonzero(FREQUENCIES)
        np.testing.assert_array_equal(ids, possible)
        np.testing.assert_allclose(np.exp(sampler.log_q(ids)), counted[ids], atol=0.03 if not unique else 0.06)


@pytest.mark.parametrize("power", [0.0, 0.5])
def test_power_of_frequencies(power):
    sampler = ml.FrequencyBasedSampler(FREQUENCIES, power=power, max_num_samples=50, seed=1, unique=False, min_id=1)
    expected = np.where(FREQUENCIES > 0, np.maximum(FREQUENCIES, 1) ** power, 0.0)
    counted = occurrences(sampler, 300, 11)
    np.testing.assert_allclose(counted[1:] / 50, expected / expected.sum(), atol=0.015)


@pytest.mark.parametrize(
    "make", [ml.PopularityBasedSampler, lambda top, **more: ml.FrequencyBasedSampler(top + 1, **more)]
)
def test_unique_samples_of_a_large_catalogue(make):
    sampler = make(199_999, max_num_samples=1000, seed=5)
    ids, log_q = sampler.sample_ids()
    assert len(set(ids.numpy().tolist())) == 1000
    assert ids.numpy().min() >= 0
    assert ids.numpy().max() < 200_000
    assert not np.array_equal(ids, sampler.sample_ids()[0])
    np.testing.assert_array_equal(make(199_999, max_num_samples=1000, seed=5).sample_ids()[0], ids)
    total = np.exp(ops.convert_to_numpy(sampler.log_q(np.arange(200_000))).astype(np.float64)).sum()
    assert total == pytest.approx(1000, rel=1e-3)
    assert log_q.shape == (1000,)


def test_all_ids_at_once():
    sampler = ml.PopularityBasedSampler(max_id=9, max_num_samples=10, seed=1)
    ids, log_q = sampler.sample_ids()
    assert sorted(ids.numpy().tolist()) == list(range(10))
    np.testing.assert_array_equal(log_q, np.zeros(10))


def test_candidates_are_embedded_with_gradient(rng):
    tensorflow = pytest.importorskip("tensorflow")
    table = keras.layers.Embedding(50, 4)
    sampler = ml.PopularityBasedSampler(max_id=49, max_num_samples=7, seed=1, item_encoder=table)
    with tensorflow.GradientTape() as tape:
        candidates = sampler(np.zeros((3, 4), np.float32), np.array([1, 2, 3]), training=True)
        loss = ops.sum(candidates.embeddings)
    np.testing.assert_array_equal(candidates.embeddings, table(candidates.ids))
    np.testing.assert_array_equal(candidates.log_q, sampler.log_q(candidates.ids))
    gradient = tape.gradient(loss, table.trainable_variables[0])
    assert set(gradient.indices.numpy().tolist()) == set(candidates.ids.numpy().tolist())


@pytest.mark.parametrize("unique", [True, False])
def test_saved_with_a_model(rng, tmp_path, unique):
    options = {"max_num_samples": 4, "seed": 2, "unique": unique}
    inputs, ids = keras.Input((6,)), keras.Input((), dtype="int64")
    popular, frequent = keras.layers.Embedding(10, 6), keras.layers.Embedding(10, 6)
    popular = ml.PopularityBasedSampler(max_id=9, item_encoder=popular, **options)(inputs, ids)
    frequent = ml.FrequencyBasedSampler(FREQUENCIES, item_encoder=frequent, **options)(inputs, ids)
    model = keras.Model([inputs, ids], [popular.ids, popular.log_q, frequent.ids, frequent.log_q, frequent.embeddings])
    batch = [np.zeros((1, 6), np.float32), np.array([1])]
    first = model(batch)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for one, other in zip(first, again(batch), strict=True):  # a loaded model draws from the seed again
        np.testing.assert_array_equal(one, other)


def test_config_round_trip():
    for sampler in (
        ml.PopularityBasedSampler(9, 2, 5, seed=3, unique=False, item_encoder=keras.layers.Embedding(10, 2)),
        ml.FrequencyBasedSampler(FREQUENCIES, power=0.5, min_id=4, max_num_samples=3),
    ):
        again = type(sampler).from_config(sampler.get_config())
        assert again.get_config() == sampler.get_config()


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"Number of items to sample `100` must be at most .* `50`, with unique=True"):
        ml.PopularityBasedSampler(max_id=49)
    assert ml.PopularityBasedSampler(max_id=49, unique=False).sample_ids()[0].shape == (100,)
    with pytest.raises(ValueError, match=r"Number of items to sample `10` must be at most .* `9`, with unique=True"):
        ml.FrequencyBasedSampler(FREQUENCIES, max_num_samples=10)
    with pytest.raises(ValueError, match=r"min_id must be in \[0, max_id\]. Received: 5 with max_id=4"):
        ml.PopularityBasedSampler(4, min_id=5)
    with pytest.raises(ValueError, match=r"max_num_samples must be at least 1. Received: 0"):
        ml.PopularityBasedSampler(4, max_num_samples=0)
    with pytest.raises(ValueError, match=r"item_encoder must be given, or set, before the sampler is called"):
        ml.PopularityBasedSampler(4, max_num_samples=2)(np.zeros((1, 2), np.float32), np.array([1]))
