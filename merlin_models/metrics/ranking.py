"""Ranking metrics of a row, as functions: recall, precision, average precision, DCG, NDCG and reciprocal rank at k.

All take relevance and scores of the same shape (..., candidates) and return (...) float32. Without scores, relevance has the
best candidate first already; see :func:`merlin_models.metrics.ordering.rank_labels` for the arguments.
"""

from __future__ import annotations

from typing import Any

from keras import ops

from merlin_models.metrics.ordering import Ranking, rank_labels


def recall_at(y_true: Any, y_pred: Any = None, label_relevant_counts: Any = None, k: int = 10, seed: int = 0) -> Any:
    """The share of the relevant candidates among the first k: hits / min(max(relevant, 1), k).

    Args:
        y_true, y_pred, label_relevant_counts, k, seed: as of :func:`rank_labels`: relevance and scores (...,
            candidates).

    Returns:
        (...) float32, a value a row.

    Raises:
        ValueError: as of :func:`rank_labels`.

    Example:
        >>> from merlin_models.metrics import recall_at
        >>> recall_at([[0, 1, 0, 1]], [[0.9, 0.8, 0.7, 0.6]], k=3).numpy()
        array([0.5], dtype=float32)
    """
    return recall(rank_labels(y_true, y_pred, label_relevant_counts, k, seed), k)


def precision_at(y_true: Any, y_pred: Any = None, label_relevant_counts: Any = None, k: int = 10, seed: int = 0) -> Any:
    """The share of relevant candidates in the first k: hits / k.

    Args:
        y_true, y_pred, label_relevant_counts, k, seed: as of :func:`rank_labels`: relevance and scores (...,
            candidates).

    Returns:
        (...) float32, a value a row.

    Raises:
        ValueError: as of :func:`rank_labels`.

    Example:
        >>> from merlin_models.metrics import precision_at
        >>> precision_at([[0, 1, 0, 1]], [[0.9, 0.8, 0.7, 0.6]], k=3).numpy().round(4)
        array([0.3333], dtype=float32)
    """
    return precision(rank_labels(y_true, y_pred, label_relevant_counts, k, seed), k)


def average_precision_at(
    y_true: Any, y_pred: Any = None, label_relevant_counts: Any = None, k: int = 10, seed: int = 0
) -> Any:
    """The sum of precision at i over the relevant places i up to k / min(max(relevant, 1), k).

    Args:
        y_true, y_pred, label_relevant_counts, k, seed: as of :func:`rank_labels`: relevance and scores (...,
            candidates).

    Returns:
        (...) float32, a value a row.

    Raises:
        ValueError: as of :func:`rank_labels`.

    Example:
        >>> from merlin_models.metrics import average_precision_at
        >>> average_precision_at([[0, 1, 0, 1]], [[0.9, 0.8, 0.7, 0.6]], k=3).numpy().round(4)
        array([0.25], dtype=float32)
    """
    return average_precision(rank_labels(y_true, y_pred, label_relevant_counts, k, seed), k)


def dcg_at(y_true: Any, y_pred: Any = None, label_relevant_counts: Any = None, k: int = 10, seed: int = 0) -> Any:
    """Discounted cumulative gain: the sum of relevance / log2(place + 1) over the places 1 to k.

    Args:
        y_true, y_pred, label_relevant_counts, k, seed: as of :func:`rank_labels`: relevance and scores (...,
            candidates).

    Returns:
        (...) float32, a value a row.

    Raises:
        ValueError: as of :func:`rank_labels`.

    Example:
        >>> from merlin_models.metrics import dcg_at
        >>> dcg_at([[0, 1, 0, 1]], [[0.9, 0.8, 0.7, 0.6]], k=3).numpy().round(4)
        array([0.6309], dtype=float32)
    """
    return _discounted(rank_labels(y_true, y_pred, label_relevant_counts, k, seed).relevance, k)


def ndcg_at(y_true: Any, y_pred: Any = None, label_relevant_counts: Any = None, k: int = 10, seed: int = 0) -> Any:
    """DCG / the DCG of the best order; 0 for a row without a relevant candidate.

    Args:
        y_true, y_pred, label_relevant_counts, k, seed: as of :func:`rank_labels`: relevance and scores (...,
            candidates).

    Returns:
        (...) float32, a value a row.

    Raises:
        ValueError: as of :func:`rank_labels`.

    Example:
        >>> from merlin_models.metrics import ndcg_at
        >>> ndcg_at([[0, 1, 0, 1]], [[0.9, 0.8, 0.7, 0.6]], k=3).numpy().round(4)
        array([0.3869], dtype=float32)

    Reference:
        Jarvelin and Kekalainen, Cumulated Gain-Based Evaluation of IR Techniques, 2002, https://doi.org/10.1145/582415.582418
    """
    return ndcg(rank_labels(y_true, y_pred, label_relevant_counts, k, seed), k)


def mrr_at(y_true: Any, y_pred: Any = None, label_relevant_counts: Any = None, k: int = 10, seed: int = 0) -> Any:
    """1 / the first relevant place; 0 if there is none up to k.

    Args:
        y_true, y_pred, label_relevant_counts, k, seed: as of :func:`rank_labels`: relevance and scores (...,
            candidates).

    Returns:
        (...) float32, a value a row.

    Raises:
        ValueError: as of :func:`rank_labels`.

    Example:
        >>> from merlin_models.metrics import mrr_at
        >>> mrr_at([[0, 1, 0, 1]], [[0.9, 0.8, 0.7, 0.6]], k=3).numpy().round(4)
        array([0.5], dtype=float32)
    """
    return reciprocal_rank(rank_labels(y_true, y_pred, label_relevant_counts, k, seed), k)


# ---- of a ranking that is made once for several metrics, with at least k places ----


def recall(ranking: Ranking, k: int) -> Any:
    return ops.sum(_hits(ranking, k), axis=-1) / _possible_hits(ranking, k)


def precision(ranking: Ranking, k: int) -> Any:
    return ops.sum(_hits(ranking, k), axis=-1) / k


def average_precision(ranking: Ranking, k: int) -> Any:
    hits = _hits(ranking, k)
    precisions = ops.cumsum(hits, axis=-1) / _places(k)
    return ops.sum(precisions * hits, axis=-1) / _possible_hits(ranking, k)


def ndcg(ranking: Ranking, k: int) -> Any:
    if ranking.labels is None:
        best = ops.cast(_places(k) <= ops.expand_dims(ranking.num_relevant, -1), "float32")
    else:
        best = ops.top_k(ranking.labels, k)[0]
    return ops.divide_no_nan(_discounted(ranking.relevance, k), _discounted(best, k))


def reciprocal_rank(ranking: Ranking, k: int) -> Any:
    hits = _hits(ranking, k)
    first = hits * ops.cast(ops.cumsum(hits, axis=-1) <= 1, "float32")
    return ops.sum(first / _places(k), axis=-1)


def _hits(ranking: Ranking, k: int) -> Any:
    return ops.cast(ranking.relevance[..., :k] > 0, "float32")


def _possible_hits(ranking: Ranking, k: int) -> Any:
    return ops.clip(ranking.num_relevant, 1.0, float(k))


def _places(k: int) -> Any:
    return ops.arange(1, k + 1, dtype="float32")


def _discounted(relevance: Any, k: int) -> Any:
    return ops.sum(relevance[..., :k] / ops.log2(_places(k) + 1.0), axis=-1)
