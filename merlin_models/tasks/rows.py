"""What tasks share that compute one loss a row from the items of a batch: ids, weights, reductions, metrics."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.combinators import as_features
from merlin_models.blocks.symbolic import rank_of
from merlin_models.losses import PairwiseLoss, loss_registry
from merlin_models.tasks.base import TaskStep, as_loss

REDUCTIONS = ("sum", "sum_over_batch_size", "mean", "mean_with_sample_weight")


def softmax_loss(reduction: str) -> keras.losses.Loss:
    """Softmax cross-entropy as a Keras loss. Its name, weights and reduction are used; the op computes it."""
    return keras.losses.CategoricalCrossentropy(from_logits=True, reduction=reduction)


def as_row_loss(loss: Any, reduction: str) -> keras.losses.Loss:
    """A loss of scores from what users may give; ``reduction`` where they give only a name or a class.

    Raises:
        ValueError: for a loss that is none of scores, or has no reduction.
    """
    if isinstance(loss, str) and loss in loss_registry.names:
        loss = loss_registry.get(loss)
    if inspect.isclass(loss) and issubclass(loss, keras.losses.CategoricalCrossentropy):
        loss = softmax_loss(reduction)
    loss = as_loss(loss)
    softmax = isinstance(loss, keras.losses.CategoricalCrossentropy) and loss.from_logits and not loss.label_smoothing
    if not softmax and not isinstance(loss, PairwiseLoss):
        raise ValueError(
            "loss must be 'categorical_crossentropy', from logits and without label_smoothing, or a pairwise loss. "
            f"Received: {loss.name} {loss.get_config()}"
        )
    if loss.reduction not in REDUCTIONS:
        raise ValueError(f"loss must have a reduction out of {REDUCTIONS}. Received: {loss.reduction!r}")
    return loss


def item_ids(step: TaskStep, name: str | None) -> Any:
    """The ids of the batch's items, (batch,) int64, or None where neither a name nor the schema tells them.

    Args:
        name: of the feature; that tagged ``item_id`` if None.

    Raises:
        ValueError: if the inputs do not have that feature, or several are tagged so.
    """
    if name is None and step.schema is not None:
        name = step.schema.item_id_column_name
    if name is None:
        return None
    features = as_features(step.features, step.schema)
    if name not in features:
        raise ValueError(f"Inputs must have the items' ids, '{name}'. Received: {sorted(features)}")
    return ops.reshape(ops.cast(features[name], "int64"), (-1,))


def row_weights(step: TaskStep, task_name: str) -> tuple[Any, Any]:
    """What each row counts: to metrics, and to the loss and weighted metrics; (batch,) float32 each, or None for 1.

    A target is the weight of its row; metrics count the rows whose target is not 0.
    """
    labels = _one_each(step.targets, f"Targets of task '{task_name}'")
    weights = _one_each(step.sample_weight, f"sample_weight of task '{task_name}'")
    if labels is None:
        return None, weights
    counted = ops.cast(ops.not_equal(labels, 0.0), "float32")
    return counted, labels if weights is None else labels * weights


def _one_each(values: Any, what: str) -> Any:
    if values is None:
        return None
    if isinstance(values, Mapping | Sequence):
        raise ValueError(f"{what} must be one tensor. Received: {type(values).__name__}")
    rank = rank_of(values)
    if rank not in (None, 1) and (rank != 2 or values.shape[1] not in (1, None)):
        raise ValueError(f"{what} must have the shape (batch,) or (batch, 1). Received: {tuple(values.shape)}")
    return ops.reshape(ops.cast(values, "float32"), (-1,))


def reduce_rows(losses: Any, weights: Any, reduction: str) -> Any:
    """A scalar of one loss a row, as the Keras reduction of that name."""
    weighted = losses if weights is None else losses * weights
    total = ops.sum(weighted)
    if reduction == "sum":
        return total
    if reduction == "mean_with_sample_weight" and weights is not None:
        return ops.divide_no_nan(total, ops.sum(weights))
    return ops.divide_no_nan(total, ops.cast(ops.shape(losses)[0], total.dtype))


def update_from_rank(metrics: Sequence[keras.metrics.Metric], rank: Any, weights: Any) -> None:
    """Adds rows to ranking metrics by the rank of each row's positive.

    Raises:
        ValueError: for a metric that is none of rankings.
    """
    for metric in metrics:
        if not hasattr(metric, "update_state_from_rank"):
            raise ValueError(
                "metrics of a retrieval task must be ranking metrics such as RecallAt(10): they are updated from ranks. "
                f"Received: {metric.name}"
            )
        metric.update_state_from_rank(rank, sample_weight=weights)


def softmax_rows(
    softmax: Any, queries: Any, pool: Any, temperature: Any, loss: keras.losses.Loss, weights: Any, training: bool
) -> tuple[Any, Any]:
    """The loss of queries (batch, dim), a scalar, and the rank (batch,) of each one's positive among the pool's candidates.

    Softmax cross-entropy is one op, without a matrix of scores; pairwise losses are computed from that matrix.

    Args:
        softmax: an ``InbatchSoftmax`` layer.
        pool: see ``merlin_models.tasks.negatives``.
    """
    if not isinstance(loss, PairwiseLoss):
        rows = softmax(queries, **pool._asdict(), temperature=temperature, loss_weights=weights, training=training)
        return reduce_rows(rows.loss, weights, loss.reduction), rows.rank
    batch = ops.shape(queries)[0]
    queries, candidates = ops.cast(queries, "float32"), ops.cast(pool.candidates, "float32")
    positives = candidates[:batch] if pool.positives is None else ops.cast(pool.positives, "float32")
    scores = ops.matmul(queries, ops.transpose(candidates)) / temperature
    positive = ops.sum(queries * positives, axis=1, keepdims=True) / temperature
    if pool.candidate_log_q is not None:
        scores, positive = scores - pool.candidate_log_q, positive - ops.expand_dims(pool.positive_log_q, 1)
    candidate_ids, positive_ids = pool.candidate_ids, pool.positive_ids
    if candidate_ids is None:  # all different: of the candidates a row's own is the one at its place, or none
        candidate_ids = ops.arange(ops.shape(candidates)[0])
        positive_ids = candidate_ids[:batch] if pool.positives is None else ops.full((batch,), -1, candidate_ids.dtype)
    valid = ops.expand_dims(positive_ids, 1) != candidate_ids
    pairs = ops.where(valid, loss.of_pairs(positive, ops.where(valid, scores, 0.0), valid), 0.0)
    rank = ops.sum(ops.cast(valid & (scores > positive), "int64"), axis=1)
    total = reduce_rows(ops.sum(pairs, axis=1), weights, "sum")
    if loss.reduction != "sum":
        total = ops.divide_no_nan(total, ops.cast(ops.sum(ops.cast(valid, "int32")), total.dtype))
    return total, rank
