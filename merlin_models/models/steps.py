"""Steps of a model: what comes before them, how often metrics are computed, and targets among the features."""

from __future__ import annotations

import contextlib
import inspect
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.prediction import Prediction
from merlin_models.models.arguments import (
    arguments_of,
    check_class_weight,
    check_labels,
    check_rows,
    columns_of,
    targets_among,
    targets_for_class_weight,
    targets_for_weights,
    targets_of_frame,
    without_placeholder,
)
from merlin_models.models.batches import warn_of_random_order


class PreparedSteps:
    """A mixin for ``Model``, before the classes whose steps it prepares.

    Subclasses have ``prediction_tasks``, and ask :meth:`_now_and_then` to update metrics.
    """

    def _prepare_steps(self) -> None:
        # In a namespace: what comes before the model is no part of it. `made` is what the compiled functions were made
        # for; `batches` counts those of training.
        self._step_options = types.SimpleNamespace(
            pre=None, test_pre=None, predict_pre=None, metrics_steps=1, made={}, batches=None, training=False
        )

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        *args: Any,
        train_metrics_steps: int = 1,
        pre: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """As ``keras.Model.fit``.

        Args:
            x: a loader, a DataFrame, a dictionary from feature to array, or other batches of such dictionaries. Columns that
                are no numbers and that the model does not read are left out, of a dictionary only without ``pre``.
            y, *args, **kwargs: of Keras; y may also be a DataFrame. Without y, features whose name is a task's target are
                the targets, to which ``sample_weight`` and ``class_weight`` then belong.
            train_metrics_steps: the tasks' metrics see every n-th batch of training, and for 0 none. Losses are of all
                batches.
            pre: what changes each batch of training, and of ``validation_data``, before the model: a layer or a function
                that is called with the features, and with those of ``targets``, ``sample_weight``, ``training`` and
                ``testing`` that it has arguments for. It returns features, ``(features, targets)``, ``(features, targets,
                sample_weight)`` or a :class:`Prediction`. It is no part of the model and is not saved with it.

        Raises:
            ValueError: for ``sample_weight`` where nothing tells targets and a task needs these: Keras would leave it out.
        """
        _check_pre(pre)
        given = arguments_of(keras.Model.fit, x, y, *args, **kwargs)
        check_class_weight(self.prediction_tasks, x, given.get("class_weight"))
        if pre is None:
            check_labels(self.prediction_tasks, x, given.get("validation_data"))
        if not isinstance(train_metrics_steps, int) or train_metrics_steps < 0:
            raise ValueError(f"train_metrics_steps must be an integer, 0 or more. Received: {train_metrics_steps!r}")
        given["x"], given["y"] = self._data_of(x, y, pre)
        if given.get("class_weight") is not None:
            given["y"] = targets_for_class_weight(given["x"], given["y"], self.prediction_tasks[0])
        given["y"] = targets_for_weights(given["x"], given["y"], given.get("sample_weight"), self.prediction_tasks, pre)
        if "validation_data" in given:
            given["validation_data"] = self._validation_data_of(given["validation_data"], pre)
        check_rows(given["x"], given.get("validation_data"))
        if train_metrics_steps != 1 and self._step_options.batches is None:
            self._step_options.batches = keras.Variable(0, trainable=False, dtype="int64", name="batches")
        with self._options(pre=pre, test_pre=pre, metrics_steps=train_metrics_steps):
            return super().fit(**given)

    def evaluate(
        self, x: Any = None, y: Any = None, *args: Any, pre: Callable[..., Any] | None = None, **kwargs: Any
    ) -> Any:
        """As ``keras.Model.evaluate``.

        Args:
            x, y, *args, **kwargs: as in :meth:`fit`.
            pre: as in :meth:`fit`, called with ``testing=True`` and ``training=False``.
        """
        _check_pre(pre)
        if kwargs.get("_use_cached_eval_dataset"):  # by fit, for its validation data
            return super().evaluate(x, y, *args, **kwargs)
        if pre is None:
            check_labels(self.prediction_tasks, x)
        x, y = self._data_of(x, y, pre)
        weights = arguments_of(keras.Model.evaluate, x, y, *args, **kwargs).get("sample_weight")
        y = targets_for_weights(x, y, weights, self.prediction_tasks, pre)
        check_rows(x)
        with self._options(test_pre=pre):
            return super().evaluate(x, y, *args, **kwargs)

    def predict(self, x: Any, *args: Any, pre: Callable[..., Any] | None = None, **kwargs: Any) -> Any:
        """As ``keras.Model.predict``.

        Args:
            x: as in :meth:`fit`. A loader must have ``shuffle=False``; with another one the predictions come in a random
                order, and it warns.
            *args, **kwargs: of Keras.
            pre: as in :meth:`fit`, called without targets and with ``training=False`` and ``testing=False``.
        """
        _check_pre(pre)
        warn_of_random_order(x)
        with self._options(predict_pre=pre):
            x = x if pre is not None and isinstance(x, Mapping) else columns_of(x, self.schema)
            check_rows(x)
            return super().predict(x, *args, **kwargs)

    def _data_of(self, x: Any, y: Any, pre: Any) -> tuple[Any, Any]:
        tasks = self.prediction_tasks
        if pre is not None and isinstance(x, Mapping):  # which may read any of them
            return x, targets_of_frame(y, tasks)
        also = [task.sample_weight.weight_column_name for task in tasks if task.sample_weight is not None]
        targets = [task.target_name for task in tasks] if y is None else []
        x = columns_of(x, self.schema, [*also, *targets])
        if y is None and pre is None and isinstance(x, Mapping):
            y = targets_among(x, tasks, self.schema)
        return x, targets_of_frame(y, tasks)

    def _validation_data_of(self, data: Any, pre: Any) -> Any:
        if isinstance(data, tuple | list):
            x, y, *weights = data if len(data) > 1 else (*data, None)
            x, y = self._data_of(x, y, pre)
            y = targets_for_weights(x, y, weights[0] if weights else None, self.prediction_tasks, pre)
            return x, y, *weights
        return self._data_of(data, None, pre)[0]

    @contextlib.contextmanager
    def _options(self, **options: Any) -> Iterator[None]:
        before = {name: getattr(self._step_options, name) for name in options}
        vars(self._step_options).update(options)
        try:
            yield
        finally:
            vars(self._step_options).update(before)

    @contextlib.contextmanager
    def _remade_after_errors(self) -> Iterator[None]:
        # A compiled function that fails in its first trace may create no variables in a later one: another is made.
        try:
            yield
        except Exception:
            self.train_function = self.test_function = self.predict_function = None
            raise

    def make_train_function(self, force: bool = False) -> Any:
        if self.built and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)  # not in a trace, which may fail
        self._forget_if_other("train_function", (self._step_options.pre, self._step_options.metrics_steps))
        return super().make_train_function(force)

    def make_test_function(self, force: bool = False) -> Any:
        self._forget_if_other("test_function", (self._step_options.test_pre,))
        return super().make_test_function(force)

    def make_predict_function(self, force: bool = False) -> Any:
        self._forget_if_other("predict_function", (self._step_options.predict_pre,))
        return super().make_predict_function(force)

    def _forget_if_other(self, function: str, options: tuple[Any, ...]) -> None:
        made = self._step_options.made.setdefault(function, options)
        if len(made) != len(options) or any(one is not other for one, other in zip(made, options, strict=True)):
            setattr(self, function, None)
        self._step_options.made[function] = options

    def train_step(self, data: Any) -> dict[str, Any]:
        with self._remade_after_errors(), self._options(training=True):
            return super().train_step(self._prepared(data, self._step_options.pre, training=True))

    def test_step(self, data: Any) -> dict[str, Any]:
        with self._remade_after_errors():
            return super().test_step(self._prepared(data, self._step_options.test_pre, training=False))

    def predict_step(self, data: Any) -> Any:
        pre = self._step_options.predict_pre
        with self._remade_after_errors():
            if pre is not None:
                x, _, _ = keras.utils.unpack_x_y_sample_weight(data)
                x, _, _ = run_pre(pre, x, None, None, training=False, testing=False)
                data = (x,)
            return super().predict_step(data)

    def _prepared(self, data: Any, pre: Callable[..., Any] | None, training: bool) -> Any:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        y, sample_weight = without_placeholder(y, sample_weight)
        if pre is not None:
            x, y, sample_weight = run_pre(pre, x, y, sample_weight, training=training, testing=not training)
        if y is None and isinstance(x, Mapping):
            y = targets_among(x, self.prediction_tasks, self.schema)
        y = None if isinstance(y, Mapping) and not y else y
        return x, y, sample_weight

    def _now_and_then(self, update: Callable[[], None]) -> None:
        """Updates metrics, in training only in every n-th batch."""
        steps = self._step_options.metrics_steps
        if not self._step_options.training or steps == 1:
            update()
        elif steps:
            batches = self._step_options.batches
            ops.cond(ops.equal(batches % steps, 0), update, lambda: None)
            batches.assign_add(1)


def _check_pre(pre: Any) -> None:
    if pre is not None and not callable(pre):
        raise TypeError(f"pre must be a layer, a function or None. Received: {pre!r}")


def run_pre(pre: Callable[..., Any], x: Any, y: Any, sample_weight: Any, training: bool, testing: bool) -> Any:
    """(features, targets, sample weights) after ``pre``; see ``Model.fit``.

    Raises:
        TypeError: if it returns a tuple of another length.
    """
    signature = inspect.signature(pre.call if isinstance(pre, keras.layers.Layer) else pre)
    known = {"targets": y, "sample_weight": sample_weight, "training": training, "testing": testing}
    arguments = {name: value for name, value in known.items() if name in signature.parameters}
    outputs = pre(x, **arguments)
    if not isinstance(outputs, tuple):
        return outputs, y, sample_weight
    if not isinstance(outputs, Prediction) and len(outputs) not in (2, 3):
        raise TypeError(
            "pre must return features, (features, targets), (features, targets, sample_weight) or a Prediction. "
            f"Received: a tuple of {len(outputs)}"
        )
    if len(outputs) == 2 or (isinstance(outputs, Prediction) and "sample_weight" not in arguments):
        weight = outputs[2] if len(outputs) > 2 and outputs[2] is not None else sample_weight
        return outputs[0], outputs[1], weight
    return outputs[0], outputs[1], outputs[2]
