"""Checks of what `fit` and `evaluate` are called with, before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from merlin_models.loader.tensorflow import KerasSequenceLoader
from merlin_models.tasks import PredictionTask


def arguments_of(method: Callable[..., Any], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments of a method by name. Raises TypeError for those that it does not have."""
    return inspect.signature(method).bind_partial(None, *args, **kwargs).arguments


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
