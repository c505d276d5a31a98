"""PredictionTask: the last block of a model, which predicts a target and knows its loss and metrics."""

from __future__ import annotations

import contextlib
import inspect
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import keras
from keras import ops

from merlin_models.blocks.aggregation import concat
from merlin_models.blocks.base import Block, register, with_own_arguments
from merlin_models.blocks.combinators import run_in_sequence
from merlin_models.blocks.sharing import apart_from_files
from merlin_models.blocks.symbolic import rank_of
from merlin_models.schema import ColumnSchema, Schema, Tags
from merlin_models.tasks.named_metrics import named_metric
from merlin_models.tasks.sample_weight import ColumnBasedSampleWeight


class TaskStep(NamedTuple):
    """What a task with a loss of its own gets of a step of training or evaluation.

    Attributes:
        features: the model's inputs, as they came.
        schema: of the features that the model reads, or None.
        targets: of this task, or None.
        outputs: of the task's ``call``.
        sample_weight: for this task, or None.
        training: whether it is a step of training.

    Example:
        >>> import keras, merlin_models.tf as ml
        >>> class LargestError(ml.RegressionTask):  # a loss of the batch, not of its rows
        ...     has_own_loss = True
        ...
        ...     def compute_loss(self, step, loss, metrics, weighted_metrics):
        ...         return keras.ops.max(keras.ops.abs(step.outputs - keras.ops.reshape(step.targets, (-1, 1))))
        >>> schema = ml.Schema([ml.ColumnSchema.create_continuous("age")])
        >>> model = ml.Model(ml.InputBlock(schema), LargestError("price"))
        >>> model.compile("sgd")
        >>> history = model.fit({"age": keras.ops.ones((4, 1))}, keras.ops.ones((4,)), verbose=0)
    """

    features: Any
    schema: Schema | None
    targets: Any
    outputs: Any
    sample_weight: Any
    training: bool


_computing = threading.local()


@contextlib.contextmanager
def computing_loss() -> Iterator[None]:
    """While active, tasks with a loss of their own return what it is computed from, instead of predictions.

    The steps of ``Model.fit`` and ``Model.evaluate`` run in it.
    """
    before = is_computing_loss()
    _computing.active = True
    try:
        yield
    finally:
        _computing.active = before


def is_computing_loss() -> bool:
    return getattr(_computing, "active", False)


@register
class PredictionTask(Block):
    """Predicts one target.

    Subclasses set ``default_loss``, ``default_metrics`` and ``target_tag``, and write ``make_head``, or
    ``call``. Those whose loss is no function of targets and predictions set ``has_own_loss`` and write ``compute_loss``.

    Args:
        target_name: name of the target, its ``ColumnSchema``, or a ``Schema`` with exactly one column of the
            task's tag. It is the key where targets come as a dictionary; a lone tensor of targets belongs to
            the only task.
        task_name: ``<target>/<class in snake case>`` if None. Metrics are named ``<task_name>/<metric>``.
        task_block: a layer before the prediction, or None.
        loss: a Keras loss, its name or its class.
        metrics: Keras metrics: objects, which are copied, their classes or names. "accuracy" ("acc") and "crossentropy"
            ("ce") are those of one number, of class numbers or of rows of classes, by the shapes of targets and predictions.
        sample_weight: a :class:`ColumnBasedSampleWeight` for this task's loss and weighted metrics, or None.

    Call arguments:
        inputs: (batch, dim), or a dictionary of such tensors.
        bias: a number a row that is added before the activation, (batch, 1), or None; see ``ParallelPredictionBlock``.

    Raises:
        TypeError: if ``sample_weight`` is no :class:`ColumnBasedSampleWeight`.

    Example:
        >>> import keras, merlin_models.tf as ml
        >>> class CountTask(ml.PredictionTask):
        ...     default_loss = "poisson"
        ...     default_metrics = (keras.metrics.MeanAbsoluteError,)
        ...
        ...     def make_head(self):
        ...         return keras.layers.Dense(1, activation="softplus")
        >>> CountTask("views").task_name
        'views/count_task'
    """

    takes_bias: ClassVar[bool] = False
    has_own_loss: ClassVar[bool] = False
    needs_targets: ClassVar[bool] = True  # False: no targets are the same as ones
    default_loss: ClassVar[str] = ""
    default_metrics: ClassVar[tuple[Any, ...]] = ()
    target_tag: ClassVar[Tags] = Tags.TARGET

    def __init__(
        self,
        target_name: str | ColumnSchema | Schema | None = None,
        task_name: str | None = None,
        task_block: keras.layers.Layer | None = None,
        loss: Any = None,
        metrics: Sequence[Any] | None = None,
        sample_weight: ColumnBasedSampleWeight | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if sample_weight is not None and not isinstance(sample_weight, ColumnBasedSampleWeight):
            raise TypeError(f"sample_weight must be a ColumnBasedSampleWeight or None. Received: {sample_weight!r}")
        self.sample_weight = sample_weight
        self.target_name = self._name_of(target_name)
        self._given_task_name = task_name
        self.task_block = task_block
        self.loss = self.as_loss(self.default_loss if loss is None else loss)
        self.metric_templates = MetricTemplates(self.default_metrics if metrics is None else metrics, self.as_metric)
        self.head = self.make_head()

    def make_head(self) -> keras.layers.Layer:
        """The layer that makes predictions of the body's output, one tensor."""
        raise NotImplementedError(f"{type(self).__name__} must define make_head().")

    def _name_of(self, target: Any) -> str | None:
        if target is None or isinstance(target, str):
            return target
        if isinstance(target, ColumnSchema):
            return target.name
        if not isinstance(target, Schema):
            raise TypeError(
                f"target_name must be a name, a ColumnSchema or a Schema. Received: {type(target).__name__}"
            )
        names = target.select_by_tag(self.target_tag).column_names
        if len(names) != 1:
            raise ValueError(
                f"target_name must be a schema with one column tagged {self.target_tag}. Received: {names}"
            )
        return names[0]

    @property
    def task_name(self) -> str:
        """The name of predictions, metrics and the loss."""
        if self._given_task_name:
            return self._given_task_name
        kind = snake_case(type(self).__name__)
        return f"{self.target_name}/{kind}" if self.target_name else kind

    def call(self, inputs: Any, training: bool | None = None, bias: Any = None) -> Any:
        if self.task_block is not None:
            inputs = run_in_sequence([self.task_block], inputs, self.compute_dtype)
        if isinstance(inputs, Mapping):
            inputs = concat(inputs, self.compute_dtype)
        outputs = self.head(inputs)
        return self.finish(outputs if bias is None else outputs + ops.cast(bias, outputs.dtype))

    def finish(self, outputs: Any) -> Any:
        """Predictions of the head's output: an activation, where there is one."""
        return outputs

    def target_in(self, targets: Any, alone: bool = True) -> Any:
        """This task's target of a dictionary by target or task name; targets that are no dictionary as they are.

        Args:
            alone: whether the model has no other task: the only entry is its target, if it has no ``target_name``.

        Raises:
            ValueError: if the dictionary has not that target.
        """
        if not isinstance(targets, Mapping):
            return targets
        for key in (self.target_name, self.task_name):
            if key in targets:
                return targets[key]
        if self.target_name is None and alone and len(targets) == 1:
            return next(iter(targets.values()))
        if self.target_name is None:
            raise ValueError(
                f"Task '{self.task_name}' must have a target_name where targets are a dictionary. Received: {sorted(targets)}"
            )
        raise ValueError(
            f"Targets must have the target '{self.target_name}' of task '{self.task_name}'. Received: {sorted(targets)}"
        )

    def match(self, targets: Any, predictions: Any) -> tuple[Any, Any]:
        """Targets and predictions of shapes that fit together: targets (batch,) become (batch, 1).

        Raises:
            ValueError: if the targets are missing or their shape does not fit.
        """
        if targets is None:
            raise ValueError(f"Task '{self.task_name}' must get targets. Received: none")
        if rank_of(targets) is None:
            targets = ops.reshape(targets, ops.shape(predictions))
        elif rank_of(targets) == rank_of(predictions) - 1:
            targets = ops.expand_dims(targets, -1)
        shapes = tuple(targets.shape), tuple(predictions.shape)
        if len(shapes[0]) != len(shapes[1]) or any(a != b and None not in (a, b) for a, b in zip(*shapes, strict=True)):
            raise ValueError(
                f"Targets of task '{self.task_name}' must have the shape of its predictions, {shapes[1]}, "
                f"or that without the last axis. Received: {shapes[0]}"
            )
        if any(None in shape[1:] for shape in shapes):  # losses would broadcast one to the other
            with keras.name_scope("targets_must_have_the_shape_of_predictions"):
                targets = ops.reshape(targets, ops.shape(predictions))
        return targets, predictions

    def targets_for(self, consumer: Any, targets: Any, predictions: Any) -> Any:
        """What a loss or a metric gets of the targets that :meth:`match` returned."""
        return targets

    def as_loss(self, loss: Any) -> keras.losses.Loss:
        """A loss object from what users may give: an object, a class, a name, a config or a function."""
        return as_loss(loss)

    def as_metric(self, metric: Any) -> keras.metrics.Metric:
        """A metric object from what users may give: an object, a class, a name, a config or a function."""
        named = named_metric(metric, from_logits=getattr(self.loss, "from_logits", False))
        return as_metric(metric) if named is None else named

    def compute_loss(
        self, step: TaskStep, loss: keras.losses.Loss, metrics: Sequence[Any], weighted_metrics: Sequence[Any]
    ) -> Any:
        """The loss of a step, a scalar, where ``has_own_loss``; updates the metrics from the same numbers.

        Args:
            step: what is known of the batch. Its outputs are what ``call`` returned while a loss is computed.
            loss: the task's, or the one that ``compile`` was given.
            metrics, weighted_metrics: Keras metrics; sample weights apply to the second.
        """
        raise NotImplementedError(f"{type(self).__name__} must define compute_loss(), as it has a loss of its own.")

    def create_metrics(self) -> list[keras.metrics.Metric]:
        """New metrics, named ``<task_name>/<metric>``."""
        return self.metric_templates.create(self.task_name)

    @property
    def output_dtype(self) -> str:
        """The dtype of predictions: float32 under a mixed policy, so that losses keep their precision."""
        return self.variable_dtype

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "target_name": self.target_name,
            "task_name": self._given_task_name,
            "task_block": keras.saving.serialize_keras_object(self.task_block),
            "loss": keras.saving.serialize_keras_object(self.loss),
            "metrics": self.metric_templates.get_config(),
            "sample_weight": keras.saving.serialize_keras_object(self.sample_weight),
        }
        return with_own_arguments(self, PredictionTask, config)


def snake_case(name: str) -> str:
    """``BinaryAccuracy`` to ``binary_accuracy``, ``AUC`` to ``auc``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _name_of_function(function: Any) -> str | None:
    """As Keras names it: without what scopes cannot have, such as the brackets of a lambda's."""
    name = getattr(function, "__name__", None)
    return None if name is None else re.sub(r"\W+", "", name)


@register
class FunctionLoss(keras.losses.Loss):
    """A loss from a function of (targets, predictions) that returns one value an example.

    Args:
        function: a registered function, for saving.
    """

    def __init__(self, function: Any, name: str | None = None, reduction: str = "sum_over_batch_size", **kwargs: Any):
        super().__init__(name=name or _name_of_function(function), reduction=reduction, **kwargs)
        self.function = function

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(y_true, y_pred)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "function": keras.saving.serialize_keras_object(self.function)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FunctionLoss:
        # The function alone: Keras takes every string that is the name of a custom object for this, the loss's name too.
        function = keras.saving.deserialize_keras_object(config["function"])
        return cls(**{**config, "function": function})


@register
class FunctionMetric(keras.metrics.MeanMetricWrapper):
    """The mean of a function of (targets, predictions) that returns one value an example.

    Args:
        function: a registered function, for saving.
    """

    def __init__(self, function: Any, name: str | None = None, dtype: Any = None):
        super().__init__(function, name or _name_of_function(function), dtype)
        self.function = function

    def get_config(self) -> dict[str, Any]:
        function = keras.saving.serialize_keras_object(self.function)
        return {"name": self.name, "dtype": self.dtype, "function": function}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> FunctionMetric:
        return cls(**{**config, "function": keras.saving.deserialize_keras_object(config["function"])})


def as_loss(loss: Any) -> keras.losses.Loss:
    """A loss object from an object, a class, a name, a config or a function."""
    if inspect.isclass(loss) and issubclass(loss, keras.losses.Loss):
        return loss()
    found = keras.losses.get(loss)
    if found is None:
        raise ValueError("loss must be a Keras loss, its class or its name. Received: none")
    if isinstance(found, keras.losses.Loss):
        return found
    # Keras gives its own losses as functions where they are named in snake case.
    for name, value in vars(keras.losses).items():
        if inspect.isclass(value) and snake_case(name) == getattr(found, "__name__", None):
            return value()
    return FunctionLoss(found)


class MetricTemplates:
    """Metrics to be copied. A plain object, so that a layer which holds it does not count them as its own.

    Args:
        metrics: Keras metrics as objects, classes, names or configs; one or a sequence.
        as_metric: makes an object of one: a task's method.
    """

    def __init__(self, metrics: Any, as_metric: Callable[[Any], keras.metrics.Metric]):
        metrics = metrics if isinstance(metrics, list | tuple) else [metrics]
        self._metrics = [as_metric(metric) for metric in metrics]

    def create(self, prefix: str) -> list[keras.metrics.Metric]:
        """New metrics, each named ``<prefix>/<its own name>``."""
        return [_renamed(metric, prefix) for metric in self._metrics]

    def get_config(self) -> list[dict[str, Any]]:
        return [keras.metrics.serialize(metric) for metric in self._metrics]


def as_metric(metric: Any) -> keras.metrics.Metric:
    """A metric object from an object, a class, a name, a config or a function."""
    if inspect.isclass(metric) and issubclass(metric, keras.metrics.Metric):
        return metric() if _named_by_arguments(metric) else metric(name=snake_case(metric.__name__))
    found = keras.metrics.get(metric)
    if isinstance(found, keras.metrics.Metric):
        return found
    if callable(found):
        return FunctionMetric(found)
    raise ValueError(f"A metric must be a Keras metric, its class or its name. Received: {metric!r}")


def _renamed(metric: keras.metrics.Metric, prefix: str) -> keras.metrics.Metric:
    default = snake_case(type(metric).__name__)
    # Keras numbers the names that it makes itself: auc, auc_1, ...
    numbered = re.fullmatch(rf"{default}_\d+", metric.name) and not _named_by_arguments(metric)
    own = default if numbered else metric.name
    # Configs of these would ask for a registered function.
    if type(metric) is FunctionMetric:
        return FunctionMetric(metric.function, f"{prefix}/{own}", metric.dtype)
    if type(metric) is keras.metrics.MeanMetricWrapper:
        return keras.metrics.MeanMetricWrapper(metric._fn, f"{prefix}/{own}", metric.dtype, **metric._fn_kwargs)
    with apart_from_files():
        return type(metric).from_config({**metric.get_config(), "name": f"{prefix}/{own}"})


def _named_by_arguments(metric: Any) -> bool:
    """Whether a number at the end of the name is an argument's, as in ``recall_at_10``."""
    return getattr(metric, "named_by_arguments", False)
