"""Metrics of rankings and recommendations, as functions and as streaming Keras metrics."""

from __future__ import annotations

from merlin_models.metrics.aggregator import TopKMetricsAggregator
from merlin_models.metrics.catalogue import ItemCoverageAt, NoveltyAt, PopularityBiasAt
from merlin_models.metrics.log_loss import LogLossMetric
from merlin_models.metrics.ordering import Ranking, positive_rank, rank_labels
from merlin_models.metrics.ranking import average_precision_at, dcg_at, mrr_at, ndcg_at, precision_at, recall_at
from merlin_models.metrics.top_k import (
    AvgPrecisionAt,
    MRRAt,
    NDCGAt,
    PrecisionAt,
    RecallAt,
    TopKMetric,
    ranking_metrics,
)

__all__ = [
    "AvgPrecisionAt",
    "ItemCoverageAt",
    "LogLossMetric",
    "MRRAt",
    "NDCGAt",
    "NoveltyAt",
    "PopularityBiasAt",
    "PrecisionAt",
    "Ranking",
    "RecallAt",
    "TopKMetric",
    "TopKMetricsAggregator",
    "average_precision_at",
    "dcg_at",
    "mrr_at",
    "ndcg_at",
    "positive_rank",
    "precision_at",
    "rank_labels",
    "ranking_metrics",
    "recall_at",
]
