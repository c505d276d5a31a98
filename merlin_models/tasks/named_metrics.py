"""Accuracy and cross-entropy by the shapes of targets and predictions, as the names of metrics choose them."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from merlin_models.blocks.symbolic import rank_of

_ACCURACIES, _CROSSENTROPIES = ("accuracy", "acc"), ("crossentropy", "ce")


@keras.saving.register_keras_serializable("merlin_models")
def accuracy(y_true: Any, y_pred: Any) -> Any:
    """Whether the prediction of each row is right: of one number, of targets that are class numbers, or of rows of classes.

    Example:
        >>> from merlin_models.tasks.named_metrics import accuracy
        >>> accuracy([[1], [1]], [[0.9], [0.2]]).numpy().tolist()
        [1.0, 0.0]
        >>> accuracy([2, 0], [[0.1, 0.2, 0.7], [0.1, 0.2, 0.7]]).numpy().tolist()
        [1.0, 0.0]
    """
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    if y_pred.shape[-1] == 1:
        right = keras.metrics.binary_accuracy(y_true, y_pred)
        return ops.squeeze(right, axis=-1) if rank_of(right) == rank_of(y_pred) else right
    if _of_classes(y_true, y_pred):
        return keras.metrics.sparse_categorical_accuracy(y_true, y_pred)
    return keras.metrics.categorical_accuracy(y_true, y_pred)


@keras.saving.register_keras_serializable("merlin_models")
def crossentropy(y_true: Any, y_pred: Any, from_logits: bool = False) -> Any:
    """The cross-entropy of each row, by the same shapes as :func:`accuracy`.

    Args:
        from_logits: whether predictions are scores rather than probabilities.
    """
    y_true, y_pred = ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)
    if y_pred.shape[-1] == 1:
        return keras.losses.binary_crossentropy(y_true, y_pred, from_logits=from_logits)
    if _of_classes(y_true, y_pred):
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=from_logits)
    return keras.losses.categorical_crossentropy(y_true, y_pred, from_logits=from_logits)


def named_metric(name: Any, from_logits: bool) -> keras.metrics.Metric | None:
    """The metric of a name that stands for different ones at different outputs, or None for any other."""
    if not isinstance(name, str) or name.lower() not in (*_ACCURACIES, *_CROSSENTROPIES):
        return None
    if name.lower() in _ACCURACIES:
        return keras.metrics.MeanMetricWrapper(accuracy, name=name.lower())
    return keras.metrics.MeanMetricWrapper(crossentropy, name=name.lower(), from_logits=from_logits)


def _of_classes(y_true: Any, y_pred: Any) -> bool:
    return rank_of(y_true) < rank_of(y_pred) or y_true.shape[-1] == 1
