"""What comes first: relevance by score, and the rank of the only positive. Ties are broken at random."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops


class Ranking(NamedTuple):
    """The best candidates of each row, as ranking metrics need them.

    Attributes:
        relevance: (..., k) float32, best score first; more than 0 is relevant.
        num_relevant: (...) float32, the relevant candidates of the row, found or not.
        labels: (..., candidates) float32, all of the row, for the best possible order; None where only their number is
            known, and each counts 1.

    Example:
        >>> from merlin_models.metrics import rank_labels
        >>> ranking = rank_labels([[0, 1, 0, 1]], [[0.9, 0.8, 0.7, 0.6]], k=2)
        >>> ranking.relevance.numpy().tolist(), ranking.num_relevant.numpy().tolist()
        ([[0.0, 1.0]], [2.0])
    """

    relevance: Any
    num_relevant: Any
    labels: Any


def rank_labels(
    y_true: Any,
    y_pred: Any = None,
    label_relevant_counts: Any = None,
    k: int = 10,
    seed: int | keras.random.SeedGenerator = 0,
) -> Ranking:
    """The first k of each row.

    Args:
        y_true: (..., candidates), relevance: 0 or 1, or a grade.
        y_pred: (..., candidates), scores; None if ``y_true`` has the best first already.
        label_relevant_counts: (...), the number of relevant candidates where ``y_true`` does not hold them all. Relevance
            is 0 or 1 then.
        k: how many.
        seed: of the order among equal scores.

    Returns:
        A :class:`Ranking`: relevance (..., k) float32 and the number of relevant candidates, (...) float32.

    Raises:
        ValueError: if there are less than k candidates, or the shapes differ.

    Example:
        >>> from merlin_models.metrics import rank_labels
        >>> rank_labels([[0, 1, 0, 1]], [[0.1, 0.8, 0.7, 0.6]], k=3).relevance.numpy().tolist()
        [[1.0, 0.0, 1.0]]
    """
    labels = ops.cast(y_true, "float32")
    scores = None if y_pred is None else ops.convert_to_tensor(y_pred)
    _check_shapes(labels, scores, k)
    relevance = labels[..., :k]
    if scores is not None:
        relevance = ops.take_along_axis(labels, best_places(scores, k, seed), axis=-1)
    if label_relevant_counts is not None:
        return Ranking(relevance, ops.cast(label_relevant_counts, "float32"), None)
    return Ranking(relevance, ops.sum(ops.cast(labels > 0, "float32"), axis=-1), labels)


def _check_shapes(labels: Any, scores: Any, k: int) -> None:
    if len(labels.shape) == 0 or (labels.shape[-1] is not None and labels.shape[-1] < k):
        raise ValueError(f"y_true must have at least k = {k} candidates. Received shape: {tuple(labels.shape)}")
    if scores is None:
        return
    shapes = tuple(labels.shape), tuple(scores.shape)
    if len(shapes[0]) != len(shapes[1]) or any(a != b and None not in (a, b) for a, b in zip(*shapes, strict=True)):
        raise ValueError(f"y_true and y_pred must have one shape. Received: {shapes[0]} and {shapes[1]}")


def best_places(scores: Any, k: int, seed: int | keras.random.SeedGenerator = 0) -> Any:
    """Places of the k highest scores, the highest first; among equal scores each order is as likely as any other.

    Args:
        scores: (..., candidates), float.
        k: at most the number of candidates.
        seed: an integer for the same order in each call, or a generator.

    Returns:
        (..., k) int32.
    """
    scores = ops.convert_to_tensor(scores)
    first, second = (seed, seed + 1) if isinstance(seed, int) else (seed, seed)
    values, places = ops.top_k(scores, k)
    last = values[..., -1:]

    def chosen_among_last() -> Any:
        noise = keras.random.uniform(ops.shape(scores), dtype="float32", seed=first)
        preference = ops.where(scores > last, 2.0, ops.where(scores == last, noise, -1.0))
        return ops.top_k(preference, k)[1]

    left_out = _count(scores == last) > _count(values == last)
    places = ops.cond(ops.any(left_out), chosen_among_last, lambda: places)
    # top_k keeps the order of equal scores, so shuffling comes first.
    shuffle = ops.argsort(keras.random.uniform(ops.shape(places), dtype="float32", seed=second), axis=-1)
    places = ops.take_along_axis(places, shuffle, axis=-1)
    order = ops.top_k(ops.take_along_axis(scores, places, axis=-1), k)[1]
    return ops.take_along_axis(places, order, axis=-1)


def _count(flags: Any) -> Any:
    return ops.sum(ops.cast(flags, "int32"), axis=-1)


def is_relevance(y_true: Any, y_pred: Any) -> bool:
    """Whether targets are relevance, one number a candidate, rather than places, (batch,) or (batch, 1)."""
    labels, scores = tuple(ops.convert_to_tensor(y_true).shape), tuple(ops.convert_to_tensor(y_pred).shape)
    return len(labels) == len(scores) and labels[-1] == scores[-1] and labels[-1] not in (1, None)


def positive_rank(y_true: Any, y_pred: Any, seed: int | keras.random.SeedGenerator = 0) -> Any:
    """The rank of the only relevant candidate of each row: how many come before it.

    Nothing is sorted: candidates with a higher score count, and of those with an equal one a random number.

    Args:
        y_true: (batch,) or (batch, 1), integers: the place of the relevant candidate.
        y_pred: (batch, candidates), scores.
        seed: of the order among equal scores.

    Returns:
        (batch,) int64, 0 for the best.

    Example:
        >>> from merlin_models.metrics import positive_rank
        >>> positive_rank([2, 0], [[0.9, 0.8, 0.7], [0.3, 0.2, 0.1]]).numpy().tolist()
        [2, 0]
    """
    scores = ops.convert_to_tensor(y_pred)
    place = ops.reshape(ops.cast(y_true, "int64"), (-1, 1))
    own = ops.take_along_axis(scores, place, axis=-1)
    higher = _count(scores > own)
    equal = _count(scores == own)  # with itself
    share = keras.random.uniform(ops.shape(equal), dtype="float32", seed=seed)
    before = ops.minimum(ops.cast(share * ops.cast(equal, "float32"), "int32"), equal - 1)
    return ops.cast(higher + ops.maximum(before, 0), "int64")
