"""ParallelPredictionBlock: several tasks on one body."""

from __future__ import annotations

from typing import Any

import keras

from merlin_models.blocks.base import Block, register
from merlin_models.blocks.combinators import SequentialBlock
from merlin_models.schema import Schema
from merlin_models.tasks.base import PredictionTask
from merlin_models.tasks.binary import BinaryClassificationTask
from merlin_models.tasks.regression import RegressionTask


@register
class ParallelPredictionBlock(Block):
    """Several prediction tasks on the same input.

    Args:
        *tasks: the tasks; their names must be unique.

    Returns:
        Dictionary task name -> predictions.

    Example:
        >>> import merlin_models.tf as ml
        >>> click, rating = ml.BinaryClassificationTask("click"), ml.RegressionTask("rating")
        >>> tasks = ml.ParallelPredictionBlock(click, rating)
        >>> sorted(tasks.compute_output_shape((None, 8)))
        ['click/binary_classification_task', 'rating/regression_task']
    """

    def __init__(self, *tasks: PredictionTask, **kwargs: Any):
        super().__init__(**kwargs)
        for task in tasks:
            if not isinstance(task, PredictionTask):
                raise TypeError(f"tasks must be prediction tasks. Received: {task!r}")
        names = [task.task_name for task in tasks]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"tasks must be one or several, with unique names. Received: {names}")
        self.tasks = list(tasks)

    @classmethod
    def from_schema(cls, schema: Schema) -> ParallelPredictionBlock:
        """A task for each target: columns tagged ``binary_classification`` or ``regression``."""
        kinds = (BinaryClassificationTask, RegressionTask)
        tasks = [kind(column.name) for column in schema for kind in kinds if column.has_tag(kind.target_tag)]
        if not tasks:
            raise ValueError(
                f"schema must have a column tagged binary_classification or regression. Received: {schema.column_names}"
            )
        return cls(*tasks)

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        return {task.task_name: task(inputs) for task in self.tasks}

    def get_config(self) -> dict[str, Any]:
        tasks = [keras.saving.serialize_keras_object(task) for task in self.tasks]
        return {**super().get_config(), "tasks": tasks}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ParallelPredictionBlock:
        config = keras.saving.deserialize_keras_object(dict(config))
        return cls(*config.pop("tasks"), **config)


def tasks_of(block: keras.layers.Layer) -> list[PredictionTask]:
    """The tasks of a block that ends in one or several, else none."""
    # A function, not a property: Keras loads files by walking through properties, and a task in a property of
    # its own would be an endless walk.
    if isinstance(block, PredictionTask):
        return [block]
    if isinstance(block, ParallelPredictionBlock):
        return list(block.tasks)
    return tasks_of(block.layers[-1]) if isinstance(block, SequentialBlock) else []
