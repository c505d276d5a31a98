"""ParallelPredictionBlock: several tasks on one body, or each on a part of it."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from merlin_models.blocks.base import Block, copy_of, register
from merlin_models.blocks.combinators import SequentialBlock, run_in_sequence
from merlin_models.blocks.symbolic import parts_from_config
from merlin_models.layers.dense import Dense
from merlin_models.schema import ColumnSchema, Schema
from merlin_models.tasks.base import PredictionTask
from merlin_models.tasks.binary import BinaryClassificationTask
from merlin_models.tasks.multi_class import MultiClassClassificationTask
from merlin_models.tasks.regression import RegressionTask


@register
class ParallelPredictionBlock(Block):
    """Several prediction tasks.

    All get the same input; or each gets its own, where the input is a dictionary with an entry for each task, by its name
    or its target's, and nothing else, such as :class:`MMOEBlock` returns. With a ``bias_block`` that gets all other entries
    of such a dictionary.

    Args:
        *tasks: the tasks; their names must be unique.
        task_blocks: a layer, of which each task gets a copy before it, with weights of its own; or a dictionary from a
            task's or a target's name to a layer.
        task_weights: dictionary from a task's or a target's name to its weight in the loss, 1 where there is none.
            ``loss_weights`` of ``compile`` come before these.
        bias_block: a layer on the block's input (say, ``MLPBlock([8], filter="position")``). A ``Dense(1)`` makes one number
            a row of its output, which is added before the activation of every task.

    Call arguments:
        inputs: (batch, dim), or a dictionary of such tensors.

    Returns:
        Dictionary task name -> predictions.

    Raises:
        ValueError: if names repeat or an argument names no task; if a weight is negative; if a task cannot take a bias;
            when called on a dictionary with the names of some of the tasks only.

    Example:
        >>> import merlin_models.tf as ml
        >>> click, rating = ml.BinaryClassificationTask("click"), ml.RegressionTask("rating")
        >>> tasks = ml.ParallelPredictionBlock(click, rating, task_blocks=ml.MLPBlock([4]), task_weights={"rating": 0.5})
        >>> sorted(tasks.compute_output_shape((None, 8)))
        ['click/binary_classification_task', 'rating/regression_task']
    """

    def __init__(
        self,
        *tasks: PredictionTask,
        task_blocks: keras.layers.Layer | Mapping[str, keras.layers.Layer] | None = None,
        task_weights: Mapping[str, float] | None = None,
        bias_block: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for task in tasks:
            if not isinstance(task, PredictionTask):
                raise TypeError(f"tasks must be prediction tasks. Received: {task!r}")
        names = [task.task_name for task in tasks]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"tasks must be one or several, with unique names. Received: {names}")
        self.tasks = list(tasks)
        weights = {name: float(weight) for name, weight in self._by_task("task_weights", task_weights or {}).items()}
        if any(weight < 0 for weight in weights.values()):
            raise ValueError(f"task_weights must not be negative. Received: {weights}")
        self.task_weights = weights
        self.task_blocks = self._blocks(task_blocks)
        refusing = [task.task_name for task in tasks if not task.takes_bias]
        if bias_block is not None and refusing:
            raise ValueError(f"bias_block must be None where a task cannot take a bias. Received: {refusing}")
        self.bias_block = bias_block
        self.bias_logit = None if bias_block is None else Dense(1, dtype=self.variable_dtype)

    def _by_task(self, argument: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """The entries of an argument by task name."""
        found, unknown = {}, set(given)
        for task in self.tasks:
            for key in (task.task_name, task.target_name):
                if key in given:
                    found.setdefault(task.task_name, given[key])
                    unknown.discard(key)
        if unknown:
            known = [task.target_name or task.task_name for task in self.tasks]
            raise ValueError(f"Keys of {argument} must be targets or tasks, {known}. Received: {sorted(unknown)}")
        return found

    def _blocks(self, given: Any) -> dict[str, keras.layers.Layer]:
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            if not isinstance(given, keras.layers.Layer):
                raise TypeError(f"task_blocks must be a layer or a dictionary of layers. Received: {given!r}")
            return {task.task_name: copy_of(given) for task in self.tasks}
        return self._by_task("task_blocks", given)

    @classmethod
    def from_schema(
        cls,
        schema: Schema,
        task_blocks: keras.layers.Layer | Mapping[str, keras.layers.Layer] | None = None,
        task_weight_dict: Mapping[str, float] | None = None,
        bias_block: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> ParallelPredictionBlock:
        """See :func:`PredictionTasks`."""
        tasks = [kind(column) for column, kind in targets_of(schema)]
        return cls(*tasks, task_blocks=task_blocks, task_weights=task_weight_dict, bias_block=bias_block, **kwargs)

    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        # Keras hands `training` to the sublayers.
        of_task, rest = self._inputs_of_tasks(inputs)
        bias = {}
        if self.bias_block is not None:
            bias["bias"] = run_in_sequence([self.bias_block, self.bias_logit], rest, self.compute_dtype)
        outputs = {}
        for task in self.tasks:
            name = task.task_name
            before = [self.task_blocks[name]] if name in self.task_blocks else []
            outputs[name] = task(run_in_sequence(before, of_task[name], self.compute_dtype), **bias)
        return outputs

    def _inputs_of_tasks(self, inputs: Any) -> tuple[dict[str, Any], Any]:
        """What each task gets, and what the bias gets."""
        names = [task.task_name for task in self.tasks]
        same = dict.fromkeys(names, inputs), inputs
        if not isinstance(inputs, Mapping):
            return same
        keys: dict[str, str] = {}
        for task in self.tasks:
            keys.update((task.task_name, key) for key in (task.target_name, task.task_name) if key in inputs)
        rest = {name: value for name, value in inputs.items() if name not in keys.values()}
        if len(keys) == len(names) and bool(rest) == (self.bias_block is not None):
            return {name: inputs[key] for name, key in keys.items()}, rest
        if any(name in inputs for name in names):
            beside = "nothing beside" if self.bias_block is None else "what bias_block reads beside"
            raise ValueError(
                f"Inputs by task must have an entry for each of {names}, and {beside}. Received: {sorted(inputs)}"
            )
        return same  # features, one of which may have a target's name

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "tasks": [serialize(task) for task in self.tasks],
            "task_blocks": {name: serialize(block) for name, block in self.task_blocks.items()},
            "task_weights": dict(self.task_weights),
            "bias_block": serialize(self.bias_block),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ParallelPredictionBlock:
        parts = parts_from_config(config)
        return cls(*parts.pop("tasks"), **parts)


def PredictionTasks(
    schema: Schema,
    task_blocks: keras.layers.Layer | Mapping[str, keras.layers.Layer] | None = None,
    task_weight_dict: Mapping[str, float] | None = None,
    bias_block: keras.layers.Layer | None = None,
    **kwargs: Any,
) -> ParallelPredictionBlock:
    """A task for each target of a schema.

    Columns tagged ``binary_classification`` get a :class:`BinaryClassificationTask`, ``regression`` a
    :class:`RegressionTask`, ``multi_class_classification`` a :class:`MultiClassClassificationTask`.

    Args:
        schema: of the data set.
        task_blocks, bias_block: as in :class:`ParallelPredictionBlock`.
        task_weight_dict: its ``task_weights``.
        **kwargs: of the block.

    Returns:
        A :class:`ParallelPredictionBlock`.

    Raises:
        ValueError: if the schema has no such column.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> tags = (ml.Tags.TARGET, ml.Tags.BINARY_CLASSIFICATION)
        >>> schema = ml.Schema([ml.ColumnSchema(name, np.int64, tags) for name in ("click", "conversion")])
        >>> block = ml.PredictionTasks(schema, task_blocks=ml.MLPBlock([16]), task_weight_dict={"conversion": 2.0})
        >>> [task.task_name for task in block.tasks]
        ['click/binary_classification_task', 'conversion/binary_classification_task']
    """
    return ParallelPredictionBlock.from_schema(schema, task_blocks, task_weight_dict, bias_block, **kwargs)


_KINDS = (BinaryClassificationTask, RegressionTask, MultiClassClassificationTask)


def targets_of(schema: Schema) -> list[tuple[ColumnSchema, type[PredictionTask]]]:
    """The targets of a schema with their tasks. Raises ValueError if there is none."""
    found = [(column, kind) for column in schema for kind in _KINDS if column.has_tag(kind.target_tag)]
    if not found:
        tags = [str(kind.target_tag) for kind in _KINDS]
        names = f"{', '.join(tags[:-1])} or {tags[-1]}"
        raise ValueError(f"schema must have a column tagged {names}. Received: {schema.column_names}")
    return found


def with_weights_of(block: keras.layers.Layer, loss_weights: Any) -> dict[str, float] | None:
    """Loss weights by target or task name, with the weights of a block that ends in several tasks where they say none.

    Args:
        loss_weights: a dictionary; a list in the order of the tasks; or None.

    Raises:
        TypeError: for another kind of weights.
        ValueError: for a list of another length.
    """
    if isinstance(block, SequentialBlock):
        return with_weights_of(block.layers[-1], loss_weights)
    weights, tasks = getattr(block, "task_weights", {}), tasks_of(block)
    if isinstance(loss_weights, list | tuple):
        in_order = one_for_each("loss_weights", loss_weights, tasks)
        loss_weights = {task.task_name: weight for task, weight in zip(tasks, in_order, strict=True)}
    given = {} if loss_weights is None else loss_weights
    known = isinstance(given, Mapping) and all(isinstance(weight, numbers.Real) for weight in given.values())
    if not known:
        raise TypeError(
            "loss_weights must be a dictionary from target or task to a number, or a list of a number for each task. "
            f"Received: {loss_weights!r}"
        )
    given = dict(given)
    for task in tasks:
        if task.task_name in weights and not {task.task_name, task.target_name} & set(given):
            given[task.task_name] = weights[task.task_name]
    return given or None


def one_for_each(argument: str, values: Sequence[Any], tasks: Sequence[PredictionTask]) -> list[Any]:
    """A list in the order of the tasks. Raises ValueError if it has not one entry for each."""
    if len(values) != len(tasks):
        raise ValueError(
            f"{argument} must have an entry for each task, {[task.task_name for task in tasks]}, where it is a list. "
            f"Received: {len(values)}"
        )
    return list(values)


def tasks_of(block: keras.layers.Layer) -> list[PredictionTask]:
    """The tasks of a block that ends in one or several, else none."""
    # A function, not a property: Keras loads files by walking through properties, and a task in a property of
    # its own would be an endless walk.
    if isinstance(block, PredictionTask):
        return [block]
    if isinstance(block, ParallelPredictionBlock):
        return list(block.tasks)
    return tasks_of(block.layers[-1]) if isinstance(block, SequentialBlock) else []
