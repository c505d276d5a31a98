"""RegressionTask: a real number."""

from __future__ import annotations

import keras

from merlin_models.blocks.base import register
from merlin_models.layers.dense import Dense
from merlin_models.schema import Tags
from merlin_models.tasks.base import PredictionTask


@register
class RegressionTask(PredictionTask):
    """The target's value: one linear unit.

    Args:
        target_name: see :class:`PredictionTask`; the tag is ``regression``.
        task_name, task_block, sample_weight: as in :class:`PredictionTask`.
        loss: mean squared error by default.
        metrics: root mean squared error by default.

    Call arguments:
        inputs: (batch, dim), or a dictionary of such tensors.

    Returns:
        (batch, 1), float32 also under a mixed dtype policy.

    Example:
        >>> import merlin_models.tf as ml
        >>> ml.RegressionTask("rating").task_name
        'rating/regression_task'
    """

    default_loss = "MeanSquaredError"
    default_metrics = (keras.metrics.RootMeanSquaredError,)
    target_tag = Tags.REGRESSION
    takes_bias = True

    def make_head(self) -> keras.layers.Layer:
        return Dense(1, dtype=self.output_dtype)
