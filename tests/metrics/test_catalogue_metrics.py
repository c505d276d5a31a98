"""NoveltyAt, PopularityBiasAt, ItemCoverageAt and LogLossMetric."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import merlin_models.tf as ml

FREQUENCIES = [1, 1, 2, 4, 0]
IDS = np.array([[2, 3, 4], [3, 0, 1]])


def test_novelty_and_popularity_by_hand():
    novelty, bias = ml.NoveltyAt(FREQUENCIES, k=2), ml.PopularityBiasAt(FREQUENCIES, k=2)
    for metric in (novelty, bias):
        metric.update_state(IDS[:1])
        metric.update_state(IDS[1:], sample_weight=[3.0])
    assert (novelty.name, bias.name) == ("novelty_at_2", "popularity_bias_at_2")
    p = np.array(FREQUENCIES) / 8
    rows = np.array([[p[2], p[3]], [p[3], p[0]]])
    assert float(novelty.result()) == pytest.approx(np.average(-np.log(rows).mean(axis=1), weights=[1, 3]))
    assert float(bias.result()) == pytest.approx(np.average(rows.mean(axis=1), weights=[1, 3]))
    bias.reset_state()
    bias.update_candidate_probs([0.1, 0.2, 0.3, 0.4, 0.0], is_prob_distribution=True)
    bias.update_state(IDS)
    assert float(bias.result()) == pytest.approx((0.3 + 0.4 + 0.4 + 0.1) / 4)


def test_never_seen_items_are_novel_but_finite():
    metric = ml.NoveltyAt(FREQUENCIES, k=1)
    metric.update_state(np.array([[4]], np.int32))
    assert float(metric.result()) == pytest.approx(-np.log(1e-16), rel=1e-5)


def test_coverage():
    metric = ml.ItemCoverageAt(8, k=2)
    metric.update_state(IDS)
    metric.update_state(IDS[:, ::-1], sample_weight=[0, 1])  # 1 and 0 count, 4 does not
    metric.update_state(IDS[:0])
    assert float(metric.result()) == len({2, 3, 0, 1}) / 8
    metric.reset_state()
    assert float(metric.result()) == 0


def test_config_round_trip():
    for metric in (
        ml.NoveltyAt(FREQUENCIES, k=2),
        ml.PopularityBiasAt(FREQUENCIES),
        ml.ItemCoverageAt(5),
        ml.LogLossMetric(),
    ):
        again = keras.metrics.deserialize(keras.metrics.serialize(metric))
        assert type(again) is type(metric)
        assert again.get_config() == metric.get_config()
    again = ml.NoveltyAt.from_config(ml.NoveltyAt(FREQUENCIES, k=2).get_config())
    again.update_state(IDS)
    assert float(again.result()) > 0


def test_log_loss(rng):
    labels, probabilities = rng.integers(0, 2, 50), rng.random(50)
    metric = ml.LogLossMetric()
    metric.update_state(labels[:, None], probabilities[:, None])
    expected = -np.mean(labels * np.log(probabilities) + (1 - labels) * np.log(1 - probabilities))
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)
    assert metric.name == "logloss"


def test_wrong_arguments():
    with pytest.raises(ValueError, match="item_freq_probs must have rank 1"):
        ml.NoveltyAt([[1.0]])
    with pytest.raises(ValueError, match=r"item_freq_probs must sum to 1. Received sum: 8"):
        ml.NoveltyAt(FREQUENCIES, is_prob_distribution=True)
    with pytest.raises(ValueError, match=r"k must be at least 1. Received: 0"):
        ml.PopularityBiasAt(FREQUENCIES, k=0)
    with pytest.raises(
        ValueError, match=r"predicted_ids must have the shape \(batch, at least 10\). Received: \(2, 3\)"
    ):
        ml.NoveltyAt(FREQUENCIES).update_state(IDS)
    with pytest.raises(ValueError, match=r"k and num_unique_items must be at least 1. Received: 10 and 0"):
        ml.ItemCoverageAt(0)
