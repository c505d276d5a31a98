"""Contrastive outputs: how many candidates a row has, false negatives, the correction for popular items."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import merlin_models.tf as ml
from merlin_models.tasks import TaskStep, computing_loss

ITEM = ml.Schema([ml.ColumnSchema.create_categorical("item_id", 99, tags=[ml.Tags.ITEM_ID])])
BATCH, DIM = 50, 4


def loss_of(task, inputs, ids, training=True):
    task.build({name: (None, DIM) for name in inputs})
    with computing_loss():
        outputs = task(inputs)
    return float(task.compute_loss(TaskStep({"item_id": ids}, ITEM, None, outputs, None, training), task.loss, (), ()))


def popular():
    """20 ids of 60 to 99, with vectors of zeros."""
    vectors = keras.layers.Embedding(100, DIM, embeddings_initializer="zeros")
    return ml.PopularityBasedSampler(99, min_id=60, max_num_samples=20, seed=1, item_encoder=vectors)


@pytest.mark.parametrize(
    ("samplers", "candidates"),
    [
        (lambda: "in-batch", BATCH),  # the older library's row has its own item twice, 51, one of them at -655
        (lambda: popular(), 1 + 20),
        (lambda: ["in-batch", popular()], BATCH + 20),
    ],
    ids=["in-batch", "popularity", "both"],
)
def test_number_of_candidates(samplers, candidates):
    """Of equal scores the loss is the logarithm of their number."""
    inputs = {name: np.zeros((BATCH, DIM), np.float32) for name in ("query", "candidate")}
    task = ml.ContrastiveOutput(negative_samplers=samplers())
    assert loss_of(task, inputs, np.arange(BATCH)) == pytest.approx(np.log(candidates), rel=1e-5)


def test_false_negatives_do_not_count_at_any_temperature(rng):
    """Two items in turn: half of the batch is a row's own item, whose scores of -655 would show at a temperature of 100."""
    inputs = {name: rng.normal(size=(BATCH, DIM)).astype(np.float32) for name in ("query", "candidate")}
    ids = np.arange(BATCH) % 2
    for temperature in (1.0, 100.0):
        scores = inputs["query"].astype(np.float64) @ inputs["candidate"].T / temperature
        own = np.diag(scores)
        others = np.where(ids[:, None] == ids, -np.inf, scores)
        expected = np.mean(np.log(np.exp(own) + np.exp(others).sum(axis=1)) - own)
        task = ml.ContrastiveOutput(logits_temperature=temperature)
        assert loss_of(task, inputs, ids) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "bpr"])
def test_false_negatives_count_where_one_asks_for_it(rng, loss):
    inputs = {name: rng.normal(size=(BATCH, DIM)).astype(np.float32) for name in ("query", "candidate")}
    ids = np.arange(BATCH) % 2
    count = ml.ContrastiveOutput(loss=loss, downscore_false_negatives=False)
    assert count.get_config()["downscore_false_negatives"] is False
    again = type(count).from_config(count.get_config())
    expected = loss_of(ml.ContrastiveOutput(loss=loss), inputs, np.arange(BATCH))  # as if all items were others
    assert loss_of(count, inputs, ids) == pytest.approx(expected, rel=1e-6)
    assert loss_of(again, inputs, ids) == pytest.approx(expected, rel=1e-6)
    assert loss_of(ml.ContrastiveOutput(loss=loss), inputs, ids) != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("loss", ["categorical_crossentropy", "bpr"])
def test_false_negatives_among_drawn_items(loss):
    """The only drawn item is the rows' own, with an equal score."""
    inputs = {name: np.zeros((BATCH, DIM), np.float32) for name in ("query", "candidate")}
    vectors = keras.layers.Embedding(100, DIM, embeddings_initializer="zeros")
    sampler = ml.PopularityBasedSampler(99, min_id=99, max_num_samples=1, seed=1, item_encoder=vectors)
    ids = np.full(BATCH, 99)
    assert loss_of(ml.ContrastiveOutput(negative_samplers=sampler, loss=loss), inputs, ids) == pytest.approx(
        0, abs=1e-6
    )
    task = ml.ContrastiveOutput(negative_samplers=sampler, loss=loss, downscore_false_negatives=False)
    assert loss_of(task, inputs, ids) == pytest.approx(np.log(2), rel=1e-5)
    with pytest.raises(TypeError, match=r"downscore_false_negatives must be a bool\. Received: 'no'"):
        ml.ContrastiveOutput(downscore_false_negatives="no")
    with pytest.raises(ValueError, match="must be True where all rows are candidates"):
        ml.ContrastiveOutput(ITEM, negative_samplers=None, downscore_false_negatives=False)


def test_only_the_positive_is_scored_outside_of_training(rng):
    inputs = {name: rng.normal(size=(3, DIM)).astype(np.float32) for name in ("query", "candidate")}
    task = ml.ContrastiveOutput()
    np.testing.assert_allclose(task(inputs), (inputs["query"] * inputs["candidate"]).sum(1, keepdims=True), rtol=1e-5)


def test_in_batch_correction_for_popular_items(rng):
    """What the older library's ``logq_sampling_correction=True`` could not do with in-batch negatives."""
    frequencies = rng.random(100) + 0.1
    inputs = {name: rng.normal(size=(BATCH, DIM)).astype(np.float32) for name in ("query", "candidate")}
    ids = rng.permutation(100)[:BATCH]
    task = ml.ContrastiveOutput(logq_sampling_correction=ml.PopularityLogitsCorrection(frequencies))
    scores = inputs["query"].astype(np.float64) @ inputs["candidate"].T - np.log(frequencies[ids])
    expected = np.mean(np.log(np.exp(scores).sum(axis=1)) - np.diag(scores))
    assert loss_of(task, inputs, ids) == pytest.approx(expected, rel=1e-5)
