"""CachedCrossBatchSampler and CachedUniformSampler beside plain lists and dictionaries."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import merlin_models.tf as ml

BIG = 2**33 + 1
kinds = pytest.mark.parametrize("kind", [ml.CachedCrossBatchSampler, ml.CachedUniformSampler])
orders = pytest.mark.parametrize("ignore_last", [True, False])


def batches(rng, number=8, size=5, ids=12, dim=3):
    for _ in range(number):
        yield rng.normal(size=(size, dim)).astype(np.float32), rng.integers(0, ids, size) + BIG


def cross_batch(cache, embeddings, ids, capacity):
    return [*cache, *zip(ids.tolist(), embeddings, strict=True)][-capacity:]


def uniform(cache, embeddings, ids, capacity):
    known = dict(cache)
    known.update(zip(ids.tolist(), embeddings, strict=True))  # a known key keeps its place
    return list(known.items())[-capacity:]


@pytest.mark.parametrize(
    ("kind", "expect"), [(ml.CachedCrossBatchSampler, cross_batch), (ml.CachedUniformSampler, uniform)]
)
@orders
@pytest.mark.parametrize("capacity", [1, 4, 8, 100])
def test_against_plain_python(rng, kind, expect, ignore_last, capacity):
    sampler, cache = kind(capacity, ignore_last_batch_on_sample=ignore_last), []
    for embeddings, ids in batches(rng):
        after = expect(cache, embeddings, ids, capacity)
        seen = cache if ignore_last else after
        candidates = sampler(embeddings, ids, training=True)
        assert candidates.ids.numpy().tolist() == [each for each, _ in seen]
        np.testing.assert_array_equal(candidates.embeddings, np.array([v for _, v in seen]).reshape(-1, 3))
        assert candidates.log_q is None
        cache = after
    sampler(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), training=True)
    assert sampler.sample().ids.numpy().tolist() == [each for each, _ in cache]


def test_defaults():
    assert ml.CachedCrossBatchSampler(3).ignore_last_batch_on_sample
    assert not ml.CachedUniformSampler(3).ignore_last_batch_on_sample


@kinds
def test_only_training_fills_the_cache(rng, kind):
    sampler = kind(10)
    for training in (False, None):
        embeddings, ids = next(batches(rng))
        assert sampler(embeddings, ids, training=training).ids.shape == (0,)
    sampler(embeddings, ids, training=True)
    assert int(ops.shape(sampler(embeddings, ids).ids)[0]) == len(set(ids) if "Uniform" in kind.__name__ else ids)


class Scores(keras.Model):
    """A tower whose loss has cached negatives; counts them."""

    def __init__(self, sampler, **kwargs):
        super().__init__(**kwargs)
        self.tower, self.sampler = keras.layers.Embedding(60, 4), sampler

    def call(self, ids, training=None):
        embeddings = self.tower(ids)
        candidates = self.sampler(embeddings, ids, training=training)
        scores = ops.matmul(embeddings, ops.transpose(candidates.embeddings))
        self.add_loss(ops.sum(scores))
        count = ops.cast(ops.shape(candidates.ids)[0], "float32")
        return ops.broadcast_to(count, (ops.shape(ids)[0], 1)) + 0 * embeddings[:, :1]

    def get_config(self):
        return {"sampler": keras.saving.serialize_keras_object(self.sampler)}

    @classmethod
    def from_config(cls, config):
        return cls(**keras.saving.deserialize_keras_object(config))

    def build_from_config(self, config):
        self(np.zeros(1, np.int64))


@kinds
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_in_fit_and_in_a_file(rng, kind, policy, tmp_path):
    model = Scores(kind(20, dtype=policy))
    model.compile("sgd", "mse")
    ids = rng.permutation(60)
    model.fit(ids, np.zeros((60, 1)), batch_size=8, shuffle=False, verbose=0)
    cached = model.sampler.sample()
    assert cached.ids.numpy().tolist() == ids[-20:].tolist()
    assert keras.backend.standardize_dtype(cached.embeddings.dtype) == policy.removeprefix("mixed_")
    assert not model.sampler.trainable_variables
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras", custom_objects={"Scores": Scores})
    np.testing.assert_array_equal(again.predict(ids, verbose=0), np.full((60, 1), 20))
    np.testing.assert_array_equal(again.sampler.sample().embeddings, cached.embeddings)


@kinds
def test_no_gradient(rng, kind):
    tensorflow = pytest.importorskip("tensorflow")
    sampler = kind(10, ignore_last_batch_on_sample=False)
    values, ids = next(batches(rng))
    with tensorflow.GradientTape() as tape:
        embeddings = tensorflow.constant(values)
        tape.watch(embeddings)
        loss = ops.sum(sampler(embeddings, ids, training=True).embeddings)
    assert tape.gradient(loss, embeddings) is None


@kinds
def test_symbolic(kind):
    output = kind(5)(keras.Input((4,)), keras.Input((1,), dtype="int64"), training=True)
    assert (output.embeddings.shape[-1], output.ids.dtype) == (4, "int64")


@kinds
def test_config_and_wrong_arguments(rng, kind):
    sampler = kind(5, ignore_last_batch_on_sample=True, dtype="mixed_float16")
    assert kind.from_config(sampler.get_config()).get_config() == sampler.get_config()
    with pytest.raises(ValueError, match=r"capacity must be at least 1. Received: 0"):
        kind(0)
    embeddings, ids = next(batches(rng))
    for use in (sampler.sample, lambda: sampler.add(embeddings, ids)):
        with pytest.raises(RuntimeError, match=f"The layer was not built yet: call {kind.__name__} on a batch first"):
            use()
