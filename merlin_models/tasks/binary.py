"""BinaryClassificationTask: the probability of a yes."""

from __future__ import annotations

from typing import Any

import keras

from merlin_models.blocks.base import register
from merlin_models.layers.dense import Dense
from merlin_models.schema import Tags
from merlin_models.tasks.base import PredictionTask


@register
class BinaryClassificationTask(PredictionTask):
    """The probability that the target is 1: one sigmoid unit.

    Args:
        target_name: see :class:`PredictionTask`; the tag is ``binary_classification``.
        task_name, task_block, sample_weight: as in :class:`PredictionTask`.
        loss: binary cross-entropy by default.
        metrics: precision, recall, binary accuracy and AUC by default.

    Call arguments:
        inputs: (batch, dim), or a dictionary of such tensors.

    Returns:
        (batch, 1), float32 also under a mixed dtype policy.

    Example:
        >>> import merlin_models.tf as ml
        >>> task = ml.BinaryClassificationTask("rating_b")
        >>> [metric.name for metric in task.create_metrics()][:2]
        ['rating_b/binary_classification_task/precision', 'rating_b/binary_classification_task/recall']
    """

    default_loss = "BinaryCrossentropy"
    default_metrics = (
        keras.metrics.Precision,
        keras.metrics.Recall,
        keras.metrics.BinaryAccuracy,
        keras.metrics.AUC,
    )
    target_tag = Tags.BINARY_CLASSIFICATION
    takes_bias = True

    def make_head(self) -> keras.layers.Layer:
        return Dense(1, dtype=self.output_dtype)

    def finish(self, outputs: Any) -> Any:
        return keras.activations.sigmoid(outputs)
