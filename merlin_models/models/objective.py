"""Objective: the losses and metrics of a compiled model's tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.symbolic import rank_of
from merlin_models.schema import Schema
from merlin_models.tasks.base import MetricTemplates, PredictionTask, TaskStep
from merlin_models.tasks.parallel import one_for_each
from merlin_models.tasks.sample_weight import times


class Objective:
    """What a model minimizes and reports, over one or several tasks.

    The loss is the sum of the tasks' losses, each times its weight. Arguments that name a task take its
    target's name or its own.

    Args:
        tasks: the model's tasks.
        loss: one loss for all tasks, a list in their order, or a dictionary task -> loss; tasks without one use their own.
        loss_weights: dictionary task -> weight; 1 where there is none.
        metrics: a list for all tasks, a list of lists in their order, or a dictionary task -> list; tasks without one use
            their own.
        weighted_metrics: the same, for metrics that sample weights apply to; none by default.
        schema: of the model's features, for tasks that read some themselves.

    Attributes:
        arguments: the above but ``tasks``, as given, for saving.
    """

    def __init__(
        self,
        tasks: Sequence[PredictionTask],
        loss: Any = None,
        loss_weights: Mapping[str, float] | None = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        schema: Schema | None = None,
    ):
        self.tasks, self._schema = list(tasks), schema
        self.arguments = {
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
        }
        losses = self._for_tasks("loss", loss)
        weights = self._for_tasks("loss_weights", loss_weights)
        plain = self._for_tasks("metrics", metrics)
        weighted = self._for_tasks("weighted_metrics", weighted_metrics)
        self._losses = [
            task.loss if own is None else task.as_loss(own) for task, own in zip(self.tasks, losses, strict=True)
        ]
        self._weights = [1.0 if weight is None else float(weight) for weight in weights]
        self._plain = [
            task.create_metrics() if own is None else MetricTemplates(own, task.as_metric).create(task.task_name)
            for task, own in zip(self.tasks, plain, strict=True)
        ]
        self._weighted = [
            [] if own is None else MetricTemplates(own, task.as_metric).create(task.task_name)
            for task, own in zip(self.tasks, weighted, strict=True)
        ]
        self._loss = keras.metrics.Mean(name="loss")
        several = self.tasks if len(self.tasks) > 1 else []
        self._task_losses = [keras.metrics.Mean(name=f"{task.task_name}/loss") for task in several]
        self._regularization = keras.metrics.Mean(name="regularization_loss")
        self._total = keras.metrics.Mean(name="total_loss")
        names = [metric.name for metric in self.metrics]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"Names of metrics must be unique. Received twice: {repeated}")

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """All, in the order of the logs."""
        own = [
            metric for metrics in zip(self._plain, self._weighted, strict=True) for each in metrics for metric in each
        ]
        return [self._loss, *self._task_losses, *own, self._regularization, self._total]

    def metrics_of(self, task: PredictionTask) -> tuple[list[keras.metrics.Metric], list[keras.metrics.Metric]]:
        """A task's metrics without and with sample weights."""
        index = self.tasks.index(task)
        return self._plain[index], self._weighted[index]

    def compute_loss(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any, regularization: Any, training: bool = True
    ) -> Any:
        """The total loss, a scalar; keeps the means of its parts."""
        sums, counts = [], []
        for index, (task, target, prediction, weight) in enumerate(self._parts(y, y_pred, sample_weight)):
            if task.has_own_loss:
                step = TaskStep(x, self._schema, target, prediction, weight, training)
                value = task.compute_loss(step, self._losses[index], self._plain[index], self._weighted[index])
            else:
                target, prediction = task.match(target, prediction)
                loss = self._losses[index]
                value = loss(task.targets_for(loss, target, prediction), prediction, sample_weight=weight)
            sums.append(value * self._weights[index])
            counts.append(ops.shape(keras.tree.flatten(prediction)[0])[0])
            if self._task_losses:
                self._task_losses[index].update_state(value, sample_weight=counts[-1])
        loss = sum(sums[1:], start=sums[0])
        total = loss + regularization
        for metric, value in (
            (self._loss, loss),
            (self._regularization, regularization),
            (self._total, total),
        ):
            metric.update_state(value, sample_weight=counts[0])
        return total

    def update_metrics(self, y: Any, y_pred: Any, sample_weight: Any) -> None:
        """Updates the metrics of the tasks whose :meth:`compute_loss` does not."""
        for index, (task, target, prediction, weight) in enumerate(self._parts(y, y_pred, sample_weight)):
            if task.has_own_loss:
                continue
            target, prediction = task.match(target, prediction)
            for metric in self._plain[index]:
                metric.update_state(task.targets_for(metric, target, prediction), prediction)
            for metric in self._weighted[index]:
                metric.update_state(task.targets_for(metric, target, prediction), prediction, sample_weight=weight)

    def sample_weights(self, x: Any, y: Any, sample_weight: Any) -> Any:
        """The weights of a step: those given, times those of the tasks' rules."""
        sample_weight = keras.tree.map_structure(_of_known_rank, sample_weight)
        rules = [task.sample_weight for task in self.tasks]
        if not any(rules):
            return sample_weight
        targets = zip(self.tasks, self._targets(y), strict=True)
        columns = {task.target_name: target for task, target in targets if target is not None}
        for more in (y, x):
            columns.update(more if isinstance(more, Mapping) else {})
        return [
            given if rule is None else times(rule.compute(columns, task.target_name), given)
            for task, rule, given in zip(self.tasks, rules, self._sample_weights(sample_weight), strict=True)
        ]

    def _parts(self, y: Any, y_pred: Any, sample_weight: Any) -> list[tuple[PredictionTask, Any, Any, Any]]:
        targets = self._targets(y)
        weights = self._sample_weights(sample_weight)
        predictions = [y_pred[task.task_name] if isinstance(y_pred, Mapping) else y_pred for task in self.tasks]
        return list(zip(self.tasks, targets, predictions, weights, strict=True))

    def _targets(self, y: Any) -> list[Any]:
        """A target (or None) a task, of a tensor, a sequence in the order of tasks, or a dictionary."""
        if y is None:
            return [None] * len(self.tasks)
        if isinstance(y, Mapping):
            return [task.target_in(y, alone=len(self.tasks) == 1) for task in self.tasks]
        y = list(y) if isinstance(y, list | tuple) else [y]
        if len(y) != len(self.tasks):
            raise ValueError(
                f"Targets must be one for each task, {[task.task_name for task in self.tasks]}. Received: {len(y)}"
            )
        return y

    def _sample_weights(self, sample_weight: Any) -> list[Any]:
        if isinstance(sample_weight, Mapping):
            return self._for_tasks("sample_weight", sample_weight)
        if not isinstance(sample_weight, list | tuple):
            return [sample_weight] * len(self.tasks)
        if len(sample_weight) != len(self.tasks):
            raise ValueError(
                "sample_weight must be one for all tasks or one for each. "
                f"Received: {len(sample_weight)} for {len(self.tasks)} tasks"
            )
        return list(sample_weight)

    def _for_tasks(self, argument: str, value: Any) -> list[Any]:
        """What an argument gives to each task: the entry of its target or name, or of its place, or the same for all."""
        if isinstance(value, list | tuple) and (
            argument == "loss" or any(isinstance(own, list | tuple) for own in value)
        ):
            return one_for_each(argument, value, self.tasks)
        if not isinstance(value, Mapping) or "class_name" in value:
            return [value] * len(self.tasks)
        known = {key for task in self.tasks for key in (task.target_name, task.task_name) if key}
        unknown = sorted(set(value) - known)
        if unknown:
            raise ValueError(f"Keys of {argument} must be targets or tasks, {sorted(known)}. Received: {unknown}")
        return [value.get(task.task_name, value.get(task.target_name)) for task in self.tasks]


def _of_known_rank(weight: Any) -> Any:
    """The weight, one a row where TensorFlow has forgotten its rank: it came once as (batch,) and once as (batch, 1)."""
    return ops.reshape(weight, (-1,)) if hasattr(weight, "shape") and rank_of(weight) is None else weight
