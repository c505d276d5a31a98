"""Ranking metrics of candidates that are sorted already."""

from __future__ import annotations

import numpy as np


def require_k(k: int, most: int | None = None) -> int:
    """k; ValueError unless it is an integer from 1 to ``most``."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1 or (most is not None and k > most):
        bound = "" if most is None else f" and at most the number of items, {most}"
        raise ValueError(f"k must be an integer of at least 1{bound}. Received: {k!r}.")
    return int(k)


def ranking_metrics_of(relevance: np.ndarray, k: int, num_relevant: np.ndarray | None = None) -> dict[str, float]:
    """Means over rows of recall, precision, MAP, NDCG and MRR at k.

    Args:
        relevance: (rows, at least k), the best candidate first.
        k: how many candidates count.
        num_relevant: (rows,), where ``relevance`` does not have all of a row's candidates.
    """
    from merlin_models import metrics

    functions = {
        "recall_at": metrics.recall_at,
        "precision_at": metrics.precision_at,
        "map_at": metrics.average_precision_at,
        "ndcg_at": metrics.ndcg_at,
        "mrr_at": metrics.mrr_at,
    }
    return {
        f"{name}_{k}": float(np.mean(function(relevance, label_relevant_counts=num_relevant, k=k)))
        for name, function in functions.items()
    }
