"""Ranking metrics: by hand, against a plain reference, ties, ranks, weights, files."""

from __future__ import annotations

import math
import random

import keras
import numpy as np
import pytest
from keras import ops
from metric_data import COUNTS, GOLDEN, RELEVANCE, SCORES, SORTED, reference

import merlin_models.tf as ml
from merlin_models import metrics

FUNCTIONS = {
    "recall": metrics.recall_at,
    "precision": metrics.precision_at,
    "map": metrics.average_precision_at,
    "mrr": metrics.mrr_at,
    "ndcg": metrics.ndcg_at,
}
CLASSES = {
    "recall": ml.RecallAt,
    "precision": ml.PrecisionAt,
    "map": ml.AvgPrecisionAt,
    "mrr": ml.MRRAt,
    "ndcg": ml.NDCGAt,
}
BEST = 1 + 1 / math.log2(3)  # the DCG of two relevant items on places 1 and 2
BY_HAND = {
    "recall": [1, 1 / 2, 0],
    "precision": [2 / 4, 1 / 4, 0],
    "map": [(1 / 2 + 2 / 4) / 2, (1 / 4) / 2, 0],
    "mrr": [1 / 2, 1 / 4, 0],
    "ndcg": [(1 / math.log2(3) + 1 / math.log2(5)) / BEST, 1 / math.log2(5) / BEST, 0],
}
kinds = pytest.mark.parametrize("kind", list(CLASSES))


@kinds
def test_functions_by_hand(kind):
    function = FUNCTIONS[kind]
    np.testing.assert_allclose(function(RELEVANCE, SCORES, k=4), BY_HAND[kind], rtol=1e-6)
    np.testing.assert_allclose(function(SORTED, k=4), BY_HAND[kind], rtol=1e-6)
    np.testing.assert_allclose(function(SORTED[:, :4], None, COUNTS, k=4), BY_HAND[kind], rtol=1e-6)


def test_dcg_by_hand():
    expected = [1 / math.log2(3) + 1 / math.log2(5), 1 / math.log2(5), 0]
    np.testing.assert_allclose(metrics.dcg_at(RELEVANCE, SCORES, k=4), expected, rtol=1e-6)


@kinds
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_classes_have_the_golden_values(kind, dtype):
    metric = CLASSES[kind](4)
    metric.update_state(ops.cast(RELEVANCE, "int64"), ops.cast(SCORES, dtype))
    assert float(metric.result()) == pytest.approx(GOLDEN[kind], rel=1e-6)
    sorted_one = CLASSES[kind](k=4, pre_sorted=True)
    sorted_one.update_state(SORTED, label_relevant_counts=COUNTS)
    assert float(sorted_one.result()) == pytest.approx(GOLDEN[kind], rel=1e-6)


@kinds
@pytest.mark.parametrize("candidates", [1, 2, 31, 33, 129])
def test_against_the_reference(kind, candidates, rng):
    grades = rng.integers(0, 4, (20, candidates)) * (rng.random((20, candidates)) < 0.3)
    scores = rng.permuted(np.tile(np.arange(candidates), (20, 1)), axis=1).astype(np.float32)
    k = min(10, candidates)
    weights = rng.random(20)
    rows = [reference(kind, *row, k) for row in zip(grades, scores, strict=True)]
    np.testing.assert_allclose(FUNCTIONS[kind](grades, scores, k=k), rows, rtol=1e-5, atol=1e-6)
    metric = CLASSES[kind](k)
    for part in (slice(0, 7), slice(7, 7), slice(7, 20)):
        metric.update_state(grades[part], scores[part], sample_weight=weights[part])
    assert float(metric.result()) == pytest.approx(np.average(rows, weights=weights), rel=1e-5, abs=1e-6)


@kinds
def test_from_ranks_is_from_scores(kind, rng):
    scores = rng.normal(size=(64, 50)).astype(np.float32)
    positives = rng.integers(0, 50, 64)
    weights = rng.random(64)
    rank = (scores > scores[np.arange(64), positives][:, None]).sum(axis=1)
    np.testing.assert_array_equal(metrics.positive_rank(positives, scores), rank)
    results = []
    for options in ({}, {"labels_onehot": True}):
        metric = CLASSES[kind](top_ks=[1, 5, 20], **options)
        metric.update_state(positives if options else np.eye(50)[positives], scores, sample_weight=weights)
        results.append({name: float(value) for name, value in metric.result().items()})
    metric.reset_state()
    metric.update_state_from_rank(rank.astype(np.int64), weights)
    results.append({name: float(value) for name, value in metric.result().items()})
    assert results[0] == pytest.approx(results[1], rel=1e-5)
    assert results[0] == pytest.approx(results[2], rel=1e-5)


def test_ranks_by_hand():
    metric = ml.TopKMetricsAggregator(
        ml.RecallAt(2), ml.MRRAt(2), ml.NDCGAt(2), ml.PrecisionAt(2), ml.AvgPrecisionAt(2)
    )
    metric.update_state_from_rank(np.array([0, 1, 2, -1]))  # the last positive is not in the ranking
    values = {name: float(value) for name, value in metric.result().items()}
    assert values == pytest.approx(
        {
            "recall_at_2": 2 / 4,
            "mrr_at_2": 1.5 / 4,
            "ndcg_at_2": (1 + 1 / math.log2(3)) / 4,
            "precision_at_2": (0.5 + 0.5) / 4,
            "map_at_2": 1.5 / 4,
        }
    )


def test_ties_are_broken_evenly():
    # 12 candidates on three levels: 2 above, 5 equal (among them the relevant one), 5 below.
    scores = np.array([[1.0, 9, 5, 5, 1, 5, 9, 5, 1, 5, 1, 1]], np.float32).repeat(6000, axis=0)
    relevance = np.zeros_like(scores)
    relevance[:, 7] = 1
    for k, expected in ((1, 0), (2, 0), (3, 1 / 5), (4, 2 / 5), (6, 4 / 5), (7, 1), (12, 1)):
        assert float(ops.mean(metrics.recall_at(relevance, scores, k=k))) == pytest.approx(expected, abs=0.025)
    mean_rank = np.mean(metrics.positive_rank(np.full(6000, 7), scores, seed=3))
    assert mean_rank == pytest.approx(2 + (0 + 1 + 2 + 3 + 4) / 5, abs=0.08)
    every = [float(ops.mean(metrics.mrr_at(np.eye(4)[[place] * 4000], np.ones((4000, 4)), k=4))) for place in range(4)]
    assert every == pytest.approx([(1 + 1 / 2 + 1 / 3 + 1 / 4) / 4] * 4, abs=0.02)


def test_equal_scores_of_any_size_are_told_from_close_ones():
    close = np.array([[1e6, np.nextafter(np.float32(1e6), np.float32(2e6)), 0]], np.float32)
    for seed in range(5):
        assert float(metrics.mrr_at([[0, 1, 0]], close, k=1, seed=seed)[0]) == 1


@kinds
def test_seeds_repeat_and_leave_global_state_alone(kind, rng):
    labels, scores = rng.integers(0, 2, (50, 30)), rng.integers(0, 3, (50, 30)).astype(np.float32)
    keras.utils.set_random_seed(1)
    expected = random.random(), np.random.random(), float(keras.random.uniform(()))
    keras.utils.set_random_seed(1)
    first, second = CLASSES[kind](5, seed=44), CLASSES[kind](5, seed=44)
    for _ in range(2):
        for metric in (first, second):
            metric.update_state(labels, scores)
    before = float(first.result())
    assert before == float(second.result())
    first.reset_state()
    for _ in range(2):
        first.update_state(labels, scores)
    assert float(first.result()) == before
    other = CLASSES[kind](5, seed=45)
    other.update_state(labels, scores)
    assert float(other.result()) != before
    assert (random.random(), np.random.random(), float(keras.random.uniform(()))) == expected


def test_sequences_and_weights_that_mask():
    labels, scores = np.stack([RELEVANCE, RELEVANCE]), np.stack([SCORES, SCORES])
    metric = ml.RecallAt(4)
    metric.update_state(labels, scores)
    assert float(metric.result()) == 0.5
    metric.reset_state()
    metric.update_state(labels, scores, sample_weight=[[0, 1, 0], [1, 0, 0]])
    assert float(metric.result()) == (0.5 + 1) / 2
    metric.reset_state()
    metric.update_state(labels, scores, sample_weight=[0, 1])
    assert float(metric.result()) == 0.5
    metric.reset_state()
    metric.update_state(RELEVANCE, SCORES, sample_weight=[[2], [0], [0]])
    assert float(metric.result()) == 1


def test_names_and_results():
    assert [each(10).name for each in CLASSES.values()] == [f"{kind}_at_10" for kind in CLASSES]
    assert ml.RecallAt().k == 10
    ndcg, recall, average_precision = ml.ranking_metrics([10, 20])
    assert ndcg.result_names == ["ndcg_at_10", "ndcg_at_20"]
    assert [recall.name, average_precision.name] == ["recall_at", "map_at"]
    assert {name: float(value) for name, value in recall.result().items()} == {"recall_at_10": 0, "recall_at_20": 0}
    assert float(ml.RecallAt(3).result()) == 0


def test_aggregator_sorts_once_and_agrees(rng):
    (aggregator,) = ml.TopKMetricsAggregator.default_metrics([4, 2])
    aggregator.update_state(RELEVANCE, SCORES)
    values = {name: float(value) for name, value in aggregator.result().items()}
    assert list(values) == [f"{kind}_at_{k}" for k in (4, 2) for kind in ("recall", "mrr", "ndcg", "map", "precision")]
    for kind, expected in GOLDEN.items():
        assert values[f"{kind}_at_4"] == pytest.approx(expected, rel=1e-6)
        alone = CLASSES[kind](2)
        alone.update_state(RELEVANCE, SCORES)
        assert values[f"{kind}_at_2"] == float(alone.result())
    aggregator.reset_state()
    assert not any(float(value) for value in aggregator.result().values())


def test_config_round_trip():
    for metric in (
        ml.RecallAt(top_ks=[3, 4], seed=7),
        ml.NDCGAt(3, pre_sorted=True),
        ml.MRRAt(labels_onehot=True, name="first"),
        *ml.TopKMetricsAggregator.default_metrics([3, 4], seed=2),
    ):
        again = keras.metrics.deserialize(keras.metrics.serialize(metric))
        assert type(again) is type(metric)
        assert again.get_config() == metric.get_config()


def test_in_a_keras_model(rng):
    features, targets = rng.normal(size=(40, 6)).astype(np.float32), np.eye(8)[rng.integers(0, 8, 40)]
    model = keras.Sequential([keras.layers.Dense(8)])
    logits = ops.convert_to_numpy(model(features))
    model.compile(loss="mse", metrics=[ml.RecallAt(3), *ml.ranking_metrics([2])])
    logs = model.evaluate(features, targets, batch_size=16, verbose=0, return_dict=True)
    assert logs["recall_at_3"] == pytest.approx(float(ops.mean(metrics.recall_at(targets, logits, k=3))))
    assert logs["ndcg_at_2"] == pytest.approx(float(ops.mean(metrics.ndcg_at(targets, logits, k=2))), rel=1e-5)


def test_names_in_a_task():
    given = [
        ml.RecallAt(10),
        ml.RecallAt(5),
        ml.MRRAt,
        *ml.ranking_metrics([3]),
        ml.TopKMetricsAggregator(ml.NDCGAt(7)),
    ]
    created = ml.RegressionTask("item", metrics=given).create_metrics()
    names = [name for metric in created for name in getattr(metric, "result_names", metric.result())]
    expected = ["recall_at_10", "recall_at_5", "mrr_at_10", "ndcg_at_3", "recall_at_3", "map_at_3", "ndcg_at_7"]
    assert names == [f"item/regression_task/{name}" for name in expected]


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"y_true must have at least k = 6 candidates. Received shape: \(3, 5\)"):
        ml.RecallAt(6).update_state(RELEVANCE, SCORES)
    with pytest.raises(ValueError, match=r"y_true and y_pred must have one shape. Received: \(3, 5\) and \(3, 4\)"):
        ml.RecallAt(3).update_state(RELEVANCE, SCORES[:, :4])
    with pytest.raises(ValueError, match="label_relevant_counts must be given"):
        ml.RecallAt(3, pre_sorted=True).update_state(SORTED, SCORES)
    with pytest.raises(ValueError, match="y_pred must be given"):
        ml.RecallAt(3).update_state(SORTED)
    with pytest.raises(ValueError, match=r"k must be at least 1, each once. Received: \[0\]"):
        ml.RecallAt(0)
    with pytest.raises(ValueError, match=r"top_ks must be at least 1, each once. Received: \[2, 2\]"):
        ml.RecallAt(top_ks=[2, 2])
    with pytest.raises(ValueError, match="k and top_ks must not be given together"):
        ml.RecallAt(3, top_ks=[3])
    with pytest.raises(
        ValueError, match=r"sample_weight must broadcast to the rows, of shape \(3,\). Received: \(3, 5\)"
    ):
        ml.RecallAt(3).update_state(RELEVANCE, SCORES, sample_weight=RELEVANCE)
    with pytest.raises(
        ValueError, match=r"metrics must have different names. Received: \['recall_at_3', 'recall_at_3'\]"
    ):
        ml.TopKMetricsAggregator(ml.RecallAt(3), ml.RecallAt(3))
    with pytest.raises(TypeError, match="metrics must be ranking metrics"):
        ml.TopKMetricsAggregator(keras.metrics.AUC())
    with pytest.raises(ValueError, match="metrics must have neither pre_sorted nor labels_onehot"):
        ml.TopKMetricsAggregator(ml.RecallAt(3, pre_sorted=True))
