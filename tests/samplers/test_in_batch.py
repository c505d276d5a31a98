"""The interface of samplers, and InBatchSampler."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import merlin_models.tf as ml
from merlin_models.samplers import Candidates, ItemSampler, as_sampler

IDS = np.array([7, 2**33 + 1, 7])


def embeddings(rng, items=3, dim=4):
    return ops.convert_to_tensor(rng.normal(size=(items, dim)).astype(np.float32))


@pytest.mark.parametrize("ids", [IDS, IDS[:, None], np.array([1, 2, 1], np.int32)], ids=["(3,)", "(3, 1)", "int32"])
def test_the_batch_itself(rng, ids):
    batch = embeddings(rng)
    candidates = ml.InBatchSampler()(batch, ids)
    assert isinstance(candidates, Candidates)
    np.testing.assert_array_equal(candidates.embeddings, batch)
    np.testing.assert_array_equal(candidates.ids, ids.reshape(-1))
    assert keras.backend.standardize_dtype(candidates.ids.dtype) == "int64"
    assert candidates.log_q is None


def test_empty_batch():
    candidates = ml.InBatchSampler()(np.zeros((0, 4), np.float32), np.zeros((0,), np.int64))
    assert tuple(candidates.embeddings.shape) == (0, 4)
    assert tuple(candidates.ids.shape) == (0,)


def test_log_q_is_learned_in_training_only(rng):
    sampler = ml.InBatchSampler(ml.StreamingItemFrequency(1000))
    for _ in range(5):
        candidates = sampler(embeddings(rng), IDS, training=True)
    np.testing.assert_allclose(candidates.log_q, np.log([2, 1, 2]), rtol=1e-6)
    before = int(sampler.item_frequency.step)
    np.testing.assert_allclose(sampler(embeddings(rng), IDS).log_q, candidates.log_q)
    assert int(sampler.item_frequency.step) == before


def test_symbolic():
    output = ml.InBatchSampler()(keras.Input((4,)), keras.Input((), dtype="int32"))
    assert (output.embeddings.shape, output.ids.shape, output.ids.dtype) == ((None, 4), (None,), "int64")


def test_registry_and_config():
    assert isinstance(as_sampler("in-batch"), ml.InBatchSampler)
    assert isinstance(as_sampler(ml.InBatchSampler), ml.InBatchSampler)
    sampler = ml.InBatchSampler(ml.StreamingItemFrequency(10, 0.5, 2))
    assert as_sampler(sampler) is sampler
    again = ml.InBatchSampler.from_config(sampler.get_config())
    assert again.item_frequency.get_config() == sampler.item_frequency.get_config()
    with pytest.raises(KeyError, match=r"A sampler must be one of .*'in-batch'.* Received: 'batch'"):
        as_sampler("batch")
    with pytest.raises(TypeError, match="A sampler must be an ItemSampler, its class or its name"):
        as_sampler(keras.layers.Dense(1))


def test_wrong_arguments(rng):
    sampler = ml.InBatchSampler()
    with pytest.raises(ValueError, match=r"of one batch size. Received: \(3, 4\) and \(2,\)"):
        sampler(embeddings(rng), IDS[:2])
    with pytest.raises(ValueError, match=r"ids must have the shape \(items,\) or \(items, 1\). Received: \(1, 3\)"):
        sampler(embeddings(rng), IDS[None])
    with pytest.raises(TypeError, match=r"ids must be integers. Received dtype: float32"):
        sampler(embeddings(rng), np.ones(3, np.float32))
    with pytest.raises(NotImplementedError, match=r"ItemSampler must define sample_for\(\)"):
        ItemSampler()(embeddings(rng), IDS)
