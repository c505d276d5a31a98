"""Targets that are classes, in the form that a loss or a metric reads: numbers of classes, or rows of a number a class."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from merlin_models.blocks.symbolic import rank_of
from merlin_models.losses import PairwiseLoss
from merlin_models.metrics import TopKMetric, TopKMetricsAggregator

_OF_ROWS = (
    keras.losses.CategoricalCrossentropy,
    keras.losses.CategoricalFocalCrossentropy,
    keras.losses.CategoricalHinge,
    keras.losses.KLDivergence,
    PairwiseLoss,
    keras.metrics.CategoricalAccuracy,
    keras.metrics.CategoricalCrossentropy,
    keras.metrics.CategoricalHinge,
    keras.metrics.KLDivergence,
    keras.metrics.TopKCategoricalAccuracy,
)
_OF_NUMBERS = (
    keras.losses.SparseCategoricalCrossentropy,
    keras.losses.CategoricalGeneralizedCrossEntropy,
    keras.metrics.SparseCategoricalCrossentropy,
)
_OF_THE_LARGEST = (keras.metrics.SparseCategoricalAccuracy, keras.metrics.SparseTopKCategoricalAccuracy)


def targets_for(consumer: Any, task_name: str, targets: Any, predictions: Any) -> Any:
    """The targets in the form that a loss or a metric reads; as they are where it is not known.

    Numbers become one-hot rows. Rows become the number of their largest entry for accuracies only, which is what those of
    rows compare.

    Args:
        consumer: a loss or a metric.
        task_name: for the error.
        targets: (batch, ...), numbers, or (batch, ..., classes).
        predictions: (batch, ..., classes).

    Raises:
        ValueError: for rows where a loss or a metric reads numbers.
    """
    are_rows = rank_of(targets) == rank_of(predictions)
    ranking = isinstance(consumer, TopKMetric | TopKMetricsAggregator) and not consumer.labels_onehot
    if not are_rows and (ranking or isinstance(consumer, _OF_ROWS)):
        return _one_hot(targets, predictions)
    if are_rows and isinstance(consumer, _OF_THE_LARGEST):
        return ops.argmax(targets, axis=-1)
    if are_rows and isinstance(consumer, _OF_NUMBERS):
        raise ValueError(
            f"Targets of task '{task_name}' must be numbers of classes, (batch,) or (batch, 1), for {consumer.name}; rows of "
            f"a number a class need the loss 'categorical_crossentropy'. Received: {tuple(targets.shape)}"
        )
    return targets


def _one_hot(targets: Any, predictions: Any) -> Any:
    """One-hot rows; of NaN for a number that is no class, so that it is not counted as none."""
    classes = predictions.shape[-1]
    numbers = ops.cast(targets, "int64")
    rows = ops.one_hot(numbers, classes, dtype=predictions.dtype)
    known = ops.expand_dims((numbers >= 0) & (numbers < classes), -1)
    return ops.where(known, rows, ops.cast(float("nan"), rows.dtype))
