"""ColumnBasedSampleWeight: a task's sample weights from a column of the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.symbolic import rank_of
from merlin_models.schema import ColumnSchema


@keras.saving.register_keras_serializable("merlin_models")
class ColumnBasedSampleWeight:
    """Sample weights of one task, from a feature or a target of the batch.

    ``ColumnBasedSampleWeight("click")`` on the task "conversion" counts conversions of clicked rows only: the task is
    learnt on its conditional space. ``ColumnBasedSampleWeight(binary_class_weights=(1, 5))`` weighs positives five times.

    Args:
        weight_column_name: the column, or its ``ColumnSchema``. The task's own target if None. A feature comes before a
            target of that name.
        binary_class_weights: (weight where the column is 0, weight where it is not). None takes the column's values
            as weights.

    Raises:
        ValueError: if there is neither argument, or not two class weights; in a step, if the batch lacks the column or
            it has several values a row.

    Example:
        >>> import merlin_models.tf as ml
        >>> weight = ml.ColumnBasedSampleWeight("click")
        >>> task = ml.BinaryClassificationTask("conversion", sample_weight=weight)
        >>> weight.compute({"click": [1, 0, 1]}).numpy().tolist()
        [1.0, 0.0, 1.0]

    Reference:
        Ma et al., Entire Space Multi-Task Model, 2018, https://arxiv.org/abs/1804.07931, describes what a conditional
        task's sample bias is.
    """

    def __init__(
        self,
        weight_column_name: str | ColumnSchema | None = None,
        binary_class_weights: Sequence[float] | None = None,
    ):
        if isinstance(weight_column_name, ColumnSchema):
            weight_column_name = weight_column_name.name
        if weight_column_name is None and binary_class_weights is None:
            raise ValueError("weight_column_name or binary_class_weights must be given. Received: neither")
        if binary_class_weights is not None:
            binary_class_weights = tuple(float(weight) for weight in binary_class_weights)
            if len(binary_class_weights) != 2 or min(binary_class_weights) < 0:
                raise ValueError(
                    f"binary_class_weights must be two numbers that are not negative. Received: {binary_class_weights}"
                )
        self.weight_column_name, self.binary_class_weights = weight_column_name, binary_class_weights

    def compute(self, columns: Mapping[str, Any], target_name: str | None = None) -> Any:
        """Weights (batch,), float32.

        Args:
            columns: name -> tensor (batch,) or (batch, 1), features and targets.
            target_name: of the task.
        """
        name = self.weight_column_name or target_name
        if name not in columns:
            raise ValueError(
                f"A batch must have the column '{name}', of sample weights, as a feature or a target. "
                f"Received: {sorted(columns)}"
            )
        values = columns[name]
        values = ops.convert_to_tensor(values) if isinstance(values, list | tuple) else values
        several = not hasattr(values, "shape") or hasattr(values, "row_splits") or hasattr(values, "dense_shape")
        if several or (rank_of(values) == 2 and values.shape[1] not in (1, None)):
            raise ValueError(f"The column '{name}', of sample weights, must have one value a row. Received: {values}")
        values = ops.reshape(values, (-1,))
        if self.binary_class_weights is None:
            return ops.cast(values, "float32")
        negative, positive = self.binary_class_weights
        return ops.where(ops.cast(values, "bool"), ops.cast(positive, "float32"), ops.cast(negative, "float32"))

    def get_config(self) -> dict[str, Any]:
        return {
            "weight_column_name": self.weight_column_name,
            "binary_class_weights": self.binary_class_weights,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ColumnBasedSampleWeight:
        return cls(**config)


def times(weight: Any, other: Any) -> Any:
    """The product of a rule's weights (batch,) and given ones, (batch,), (batch, 1), a scalar or none."""
    if other is None:
        return weight
    return weight * ops.reshape(ops.cast(other, "float32"), (-1,))
