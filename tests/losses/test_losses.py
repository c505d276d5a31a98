"""Pairwise losses against plain float64 formulas, at the limits, masked and weighted; the registry."""

from __future__ import annotations

import math

import keras
import numpy as np
import pytest
from keras import ops

import merlin_models.tf as ml
from merlin_models.losses import loss_registry

NAMES = ["bpr", "bpr-max", "top1", "top1_v2", "top1-max", "logistic", "hinge"]
names = pytest.mark.parametrize("name", NAMES)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def reference(name, positive, negatives, valid=None):
    """The losses of a row, one a negative."""
    valid = [True] * len(negatives) if valid is None else valid
    exponentials = [math.exp(s) if v else 0.0 for s, v in zip(negatives, valid, strict=True)]
    rows = []
    for s, e, v in zip(negatives, exponentials, valid, strict=True):
        d, top1 = positive - s, sigmoid(s - positive) + sigmoid(s**2)
        w = e / sum(exponentials)
        formulas = {
            "bpr": lambda d=d: -math.log(sigmoid(d)),
            "bpr-max": lambda d=d, s=s, w=w: -math.log(sigmoid(d) * w) + s**2 * w,
            "top1": lambda top1=top1: top1,
            "top1_v2": lambda top1=top1: top1 - sigmoid(positive**2) / sum(valid),
            "top1-max": lambda top1=top1, w=w: top1 * w,
            "logistic": lambda d=d: math.log(1 + math.exp(-d)),
            "hinge": lambda d=d: max(0.0, 1 - d),
        }
        rows.append(formulas[name]() if v else 0.0)
    return rows


def problem(rng, batch=30, candidates=8):
    logits = rng.normal(size=(batch, candidates)).astype(np.float32) * 2
    places = rng.integers(0, candidates, batch)
    return logits, places, np.eye(candidates)[places]


def unreduced(name, **options):
    return type(loss_registry.parse(name))(reduction=None, **options)


@names
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_against_the_reference(rng, name, dtype):
    logits, places, targets = problem(rng)
    logits = ops.cast(logits, dtype)
    plain = ops.convert_to_numpy(ops.cast(logits, "float32")).astype(np.float64)
    expected = [
        reference(name, row[place], np.delete(row, place).tolist()) for row, place in zip(plain, places, strict=True)
    ]
    losses = unreduced(name)(targets, logits)
    assert losses.shape == (30, 7)
    np.testing.assert_allclose(losses, expected, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(loss_registry.parse(name)(targets, logits), np.mean(expected), rtol=1e-5)
    weights = rng.random(30).astype(np.float32)
    np.testing.assert_allclose(unreduced(name)(targets, logits, weights), losses * weights[:, None], rtol=1e-5)


@names
def test_masked_negatives_and_rows_without_a_positive(rng, name):
    logits, places, targets = problem(rng)
    targets[20:] = 0
    mask = rng.random((30, 7)) < 0.7
    mask[0] = False
    wide = np.stack([np.insert(row, place, rng.random() < 0.5) for row, place in zip(mask, places, strict=True)])
    expected = [
        reference(name, row[place], np.delete(row, place).tolist(), valid) if valid.any() else [0] * 7
        for row, place, valid in zip(logits.astype(np.float64), places, mask, strict=True)
    ]
    for given in (mask, wide):
        losses = ops.convert_to_numpy(unreduced(name)(targets, logits, valid_negatives_mask=given))
        np.testing.assert_allclose(losses[:20], expected[:20], rtol=2e-5, atol=1e-6)
        np.testing.assert_array_equal(losses[20:], np.zeros((10, 7)))
        np.testing.assert_array_equal(losses[~mask], 0)
    assert (np.asarray(unreduced(name)(targets[20:], logits[20:])) == 0).all()


@names
def test_no_overflow_and_useful_gradients_at_the_limits(name):
    tensorflow = pytest.importorskip("tensorflow")
    logits = tensorflow.constant([[-200.0, 200.0, 0.0], [200.0, -200.0, 0.0], [-1e4, 1e4, -1e4], [0.0, 0.0, -np.inf]])
    mask = [[True, True]] * 3 + [[True, False]]
    with tensorflow.GradientTape() as tape:
        tape.watch(logits)
        losses = unreduced(name)([[1.0, 0.0, 0.0]] * 4, logits, valid_negatives_mask=np.array(mask))
    gradient = tape.gradient(losses, logits).numpy()
    assert np.isfinite(losses).all()
    assert np.isfinite(gradient).all()
    if name in ("bpr", "logistic"):
        np.testing.assert_allclose(losses[0], [400, 200])  # log(sigmoid(-400)) is log(0) by itself
        np.testing.assert_allclose(gradient[0], [-2, 1, 1])


def test_regularization_of_bpr_max(rng):
    logits, _, targets = problem(rng)
    with_it, without = (unreduced("bpr-max", reg_lambda=each)(targets, logits) for each in (2.0, 0.0))
    once = unreduced("bpr-max")(targets, logits)
    np.testing.assert_allclose(with_it - once, once - without, rtol=1e-3, atol=1e-5)


def test_several_positives():
    targets, logits = np.array([[1.0, 1, 0], [1, 0, 0]]), np.zeros((2, 3))
    with pytest.raises(ValueError, match="The batch contains more examples with more than one positive item"):
        ml.losses.BPRLoss()(targets, logits)
    compiled = pytest.importorskip("tensorflow").function(unreduced("bpr"))
    losses = compiled(targets, logits)
    assert np.isnan(losses[0]).all()
    np.testing.assert_allclose(losses[1], np.log(2), rtol=1e-6)


@pytest.mark.parametrize("name", [*NAMES, "ce", "categorical_crossentropy", "mse", "bce", "binary_crossentropy"])
def test_registry(rng, name):
    logits, _, targets = problem(rng)
    loss = loss_registry.parse(name)
    assert float(loss(targets, logits)) > 0
    assert loss_registry.parse(loss) is loss
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(again) is type(loss)
    assert float(again(targets, logits)) == float(loss(targets, logits))


def test_losses_on_logits(rng):
    logits, places, targets = problem(rng)
    log_softmax = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
    expected = -log_softmax[np.arange(30), places].mean()
    for name in ("sce", "sparse_categorical_crossentropy"):
        assert float(loss_registry.parse(name)(places, logits)) == pytest.approx(expected, rel=1e-5)
    assert float(loss_registry.parse("ce")(targets, logits)) == pytest.approx(expected, rel=1e-5)
    pointwise = np.mean(np.log1p(np.exp(logits)) - targets * logits)
    assert float(loss_registry.parse("bce")(targets, logits)) == pytest.approx(pointwise, rel=1e-5)


def test_config_round_trip():
    loss = ml.losses.BPRmaxLoss(reg_lambda=0.5, reduction="sum", name="mine")
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()


def test_in_a_model(rng):
    logits, _, targets = problem(rng, 64)
    model = keras.Sequential([keras.layers.Dense(8)])
    model.compile(keras.optimizers.SGD(1.0), ml.losses.BPRLoss())
    before, *_, after = model.fit(logits, targets, epochs=5, verbose=0).history["loss"]
    assert after < before


def test_wrong_arguments(rng):
    logits, _, targets = problem(rng)
    with pytest.raises(KeyError, match=r"A loss must be one of .*'bpr'.* Received: 'brp'"):
        loss_registry.parse("brp")
    with pytest.raises(TypeError, match="A loss must be a Keras loss, its class or its name"):
        loss_registry.parse(None)
    with pytest.raises(ValueError, match=r"one shape \(batch, candidates\). Received: \(30,\) and \(30, 8\)"):
        ml.losses.BPRLoss()(targets[:, 0], logits)
    with pytest.raises(ValueError, match=r"valid_negatives_mask must have .* Received: \(30, 6\) with 8 candidates"):
        ml.losses.BPRLoss()(targets, logits, valid_negatives_mask=np.ones((30, 6)))
