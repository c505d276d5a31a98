"""The examples' baselines and measures, against numbers worked out by hand and against Keras."""

from __future__ import annotations

import baselines
import keras
import numpy as np
import pytest


@pytest.mark.parametrize(
    ("labels", "scores", "expected"),
    [
        ([0, 1], [0.1, 0.9], 1.0),
        ([0, 1], [0.9, 0.1], 0.0),
        ([0, 1, 1, 0], [0.5, 0.5, 0.5, 0.5], 0.5),
        ([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], 0.75),  # of 4 pairs only (0.4, 0.35) is in the wrong order
        ([0, 1, 1], [0.3, 0.3, 0.6], 0.75),  # one pair ties, one is right
    ],
)
def test_auc_by_hand(labels, scores, expected):
    assert baselines.auc(np.array(labels), np.array(scores)) == expected


def test_auc_needs_both_labels():
    with pytest.raises(ValueError, match=r"both 0 and 1. Received: 2 positive of 2"):
        baselines.auc(np.ones(2), np.ones(2))


def test_measures_are_those_of_keras(rng):
    labels = rng.integers(0, 2, 500)
    chances = np.clip(rng.random(500) * 0.6 + labels * 0.3, 0, 1).astype("float32")
    area = keras.metrics.AUC(num_thresholds=5000)
    area.update_state(labels, chances)
    assert baselines.auc(labels, chances) == pytest.approx(float(area.result()), abs=1e-4)
    entropy = keras.losses.BinaryCrossentropy()(labels.astype("float32"), chances)
    assert baselines.log_loss(labels, chances) == pytest.approx(float(entropy), rel=1e-5)


def test_log_loss_by_hand():
    assert baselines.log_loss(np.array([1, 0]), np.array([0.5, 0.75])) == pytest.approx((np.log(2) + np.log(4)) / 2)
    assert baselines.log_loss(np.array([1]), np.array([0.0])) == pytest.approx(np.log(1e7))


def test_biases_are_at_the_minimum(rng):
    users, items = rng.integers(0, 8, 400), rng.integers(0, 15, 400)
    labels = (rng.random(400) < 1 / (1 + np.exp(-(users - 4) / 2))).astype(int)
    model = baselines.fit_biases(users, items, labels, 9, 16, l2=1.0)
    error = model.predict(users, items) - labels
    assert abs(error.sum()) < 0.05
    np.testing.assert_allclose(np.bincount(users, error, 9) + model.user, 0, atol=0.05)
    np.testing.assert_allclose(np.bincount(items, error, 16) + model.item, 0, atol=0.05)
    assert model.user[8] == 0
    assert model.item[15] == 0
    assert np.corrcoef(model.user[:8], np.arange(8))[0, 1] > 0.95


def test_biases_need_a_penalty():
    with pytest.raises(ValueError, match=r"l2 must be positive. Received: 0"):
        baselines.fit_biases(np.zeros(1, int), np.zeros(1, int), np.ones(1), 1, 1, l2=0)
