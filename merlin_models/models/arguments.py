"""Checks of what `fit` and `evaluate` are called with, before anything runs."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from merlin_models.loader.dataset import Dataset
from merlin_models.loader.tensorflow import KerasSequenceLoader
from merlin_models.schema import Schema
from merlin_models.tasks import PredictionTask

_NO_TARGETS = "no targets"


def arguments_of(method: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments of a method by name. Raises TypeError for those that it does not have."""
    _, *given = inspect.signature(method).bind_partial(None, *args, **kwargs).arguments.items()
    return dict(given)


def check_labels(tasks: Sequence[PredictionTask], *data: Any) -> None:
    """Compares the labels of loaders with the targets of tasks; other data, and loaders with functions on them, pass.

    Raises:
        ValueError: if a task's target is no label.
    """
    for loader in data:
        if not isinstance(loader, KerasSequenceLoader) or loader.is_mapped:
            continue
        labels = loader.label_names
        for task in tasks if labels else ():
            if task.target_name is not None and not {task.target_name, task.task_name} & set(labels):
                raise ValueError(
                    f"Labels of the loader must have the target '{task.target_name}' of task '{task.task_name}'. "
                    f"Received: {labels}"
                )


def check_class_weight(tasks: Sequence[PredictionTask], x: Any, class_weight: Any) -> None:
    """Raises ValueError for weights of classes where it is not known whose classes they are."""
    several = isinstance(x, KerasSequenceLoader) and not x.is_mapped and len(x.label_names) > 1
    if class_weight is not None and (several or len(tasks) > 1):
        raise ValueError(
            "class_weight must be None where there are several tasks or labels; a task's classes are weighed by its "
            f"sample_weight=ColumnBasedSampleWeight(binary_class_weights=...). Received: {class_weight!r}"
        )


def check_rows(*data: Any) -> None:
    """Raises ValueError for arrays of different lengths, and for data without rows or batches."""
    for x in data:
        x = x[0] if isinstance(x, tuple | list) and x else x
        if isinstance(x, KerasSequenceLoader) and not len(x):
            raise ValueError(
                "A loader must have at least one batch. Received: none, of its rows with "
                f"batch_size={x.batch_size}, drop_last={x.drop_last}"
            )
        if not isinstance(x, Mapping):
            continue
        shapes = {name: getattr(value, "shape", None) for name, value in x.items()}
        lengths = {name: shape[0] for name, shape in shapes.items() if shape is not None and len(shape)}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"Features must have one length. Received: {lengths}")
        if lengths and not next(iter(lengths.values())):
            raise ValueError(
                "x must have at least one row; the model itself and batch_predict() take none, too. Received: no row"
            )


def targets_for_weights(x: Any, y: Any, sample_weight: Any, tasks: Sequence[PredictionTask], pre: Any = None) -> Any:
    """The targets; where there are none, and weights of arrays, what stands for none: Keras would leave weights out.

    Raises:
        ValueError: for weights without targets where a task needs these and no ``pre`` may make them.
    """
    if y is not None or sample_weight is None or not isinstance(x, Mapping):
        return y
    if (pre is None and any(task.needs_targets for task in tasks)) or isinstance(sample_weight, Mapping | list | tuple):
        raise ValueError(
            "y must be given where sample_weight is, or targets be among the features, or pre= make them of weights that are "
            "one array. Received: y=None"
        )
    return {_NO_TARGETS: np.zeros(len(sample_weight), np.float32)}


def targets_for_class_weight(x: Any, y: Any, task: PredictionTask) -> Any:
    """The only task's targets, which Keras does not take as a dictionary where classes are weighed.

    Raises:
        ValueError: if there are none beside arrays.
    """
    if y is None and isinstance(x, Mapping):
        raise ValueError(
            "y must be given where class_weight is, or without pre= targets be among the features. Received: y=None"
        )
    return task.target_in(y) if isinstance(y, Mapping) else y


def without_placeholder(y: Any, sample_weight: Any) -> tuple[Any, Any]:
    """Targets and weights of a batch, with None for what :func:`targets_for_weights` put in the place of none."""
    if isinstance(y, Mapping) and list(y) == [_NO_TARGETS]:
        return None, sample_weight[_NO_TARGETS]
    return y, sample_weight


def columns_of(x: Any, schema: Schema | None, also: Sequence[str | None] = ()) -> Any:
    """Features as Keras takes them: of a DataFrame a dictionary, without entries that are no numbers and that nothing reads.

    Args:
        x: a DataFrame, a dictionary, or what Keras takes and is returned as it is.
        schema: of the model's features, or None where every column may be one.
        also: names of further columns that are read.

    Raises:
        TypeError: if a column that is read does not hold numbers; for data that only a loader reads.
        ValueError: if two columns of a DataFrame have one name.
    """
    if isinstance(x, Dataset | pa.Table | str | os.PathLike):
        raise TypeError(
            "x must be a loader, a DataFrame or a dictionary from feature to array; Loader(data, batch_size) reads data "
            f"sets, tables and files. Received: {type(x).__name__}"
        )
    if isinstance(x, pd.DataFrame):
        if not x.columns.is_unique:
            raise ValueError(f"Columns of a DataFrame must have unique names. Received: {list(x.columns)}")
        x = {name: x[name] for name in x.columns if isinstance(name, str)}
    elif not isinstance(x, Mapping) or schema is None:
        return x
    read = {*(x if schema is None else schema.column_names), *also}
    return {name: _numbers(name, value) for name, value in x.items() if name in read or _holds_numbers(value)}


def targets_among(
    x: Mapping[str, Any], tasks: Sequence[PredictionTask], schema: Schema | None = None
) -> dict[str, Any] | None:
    """The targets among features, a dictionary by name; None if there is none.

    Raises:
        ValueError: for a target that the model reads as a feature, too: it would learn to repeat it.
    """
    found = {task.target_name: x[task.target_name] for task in tasks if task.target_name in x}
    read = [name for name in found if schema is not None and name in schema]
    if read:
        raise ValueError(
            f"y must have the targets {read}, or pre= make them, such as SequencePredictNext(schema), where the model reads "
            "them as features. Received: y=None"
        )
    return found or None


def targets_of_frame(y: Any, tasks: Sequence[PredictionTask]) -> Any:
    """Targets as Keras takes them: of a DataFrame with a task's target a dictionary by name, others as they are."""
    if not isinstance(y, pd.DataFrame):
        return y
    names = {name for task in tasks for name in (task.target_name, task.task_name)}
    chosen = [name for name in y.columns if name in names]
    return {name: _numbers(name, y[name]) for name in chosen} if chosen else y


def _holds_numbers(value: Any) -> bool:
    """Whether Keras can make a tensor of it, as far as it is a column of NumPy or pandas, or a list."""
    if isinstance(value, pd.Series):
        return pd.api.types.is_numeric_dtype(value.dtype) and not (value.dtype.kind != "f" and value.hasnans)
    return value.dtype.kind in "biufc" if isinstance(value, np.ndarray) else not isinstance(value, list)


def _numbers(name: str, value: Any) -> Any:
    if isinstance(value, pd.Series | np.ndarray) and not _holds_numbers(value):
        raise TypeError(
            f"The column '{name}' must hold numbers, none of them missing; a Loader takes lists of numbers, too. "
            f"Received: {value.dtype}, such as {next(iter(value), None)!r}"
        )
    if not isinstance(value, pd.Series):
        return value
    return value.to_numpy(dtype=getattr(value.dtype, "numpy_dtype", None))
