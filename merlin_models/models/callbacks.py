"""Callbacks: ExamplesPerSecondCallback, StopOnNonFinite."""

from __future__ import annotations

import math
import time
from typing import Any

import keras
from keras import ops


class ExamplesPerSecondCallback(keras.callbacks.Callback):
    """Measures how fast ``fit`` goes.

    The first steps of an epoch, in which graphs are made and data is first read, do not count. An epoch's rate is added
    to its logs as ``examples_per_second``, and so to the history; it is missing where no step counts.

    Args:
        batch_size: examples a batch.
        every_n_steps: rates within an epoch are of this many steps each; None for none of these.
        skip_steps: how many first steps do not count.
        log_as_print: whether the rates within an epoch are printed.

    Attributes:
        history: (epoch, step, examples per second) for each rate within an epoch.

    Raises:
        ValueError: if a number is out of range.

    Example:
        >>> import merlin_models.tf as ml
        >>> callback = ml.ExamplesPerSecondCallback(batch_size=1024)
    """

    def __init__(
        self, batch_size: int, every_n_steps: int | None = 100, skip_steps: int = 1, log_as_print: bool = False
    ):
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("every_n_steps", every_n_steps, 1),
            ("skip_steps", skip_steps, 0),
        ):
            if value is None and name == "every_n_steps":
                continue
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} must be an integer of at least {least}. Received: {value!r}")
        self.batch_size, self.every_n_steps = batch_size, every_n_steps
        self.skip_steps, self.log_as_print = skip_steps, log_as_print
        self.history: list[tuple[int, int, float]] = []
        self._epoch = 0
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] | None = None
        self._now: tuple[int, float] | None = None

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._epoch, self._first = epoch, None
        if self.skip_steps == 0:
            self._first = self._last = self._now = (0, time.perf_counter())

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._now = (batch + 1, time.perf_counter())  # batches that run as one end as one
        if self._first is None:
            if batch + 1 >= self.skip_steps:
                self._first = self._last = self._now
            return
        if self.every_n_steps is not None and self._now[0] - self._last[0] >= self.every_n_steps:
            rate = self._rate(self._last)
            self.history.append((self._epoch, batch + 1, rate))
            self._last = self._now
            if self.log_as_print:
                print(f"epoch {self._epoch + 1}, step {batch + 1}: {rate:,.0f} examples per second")

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if logs is not None and self._first is not None and self._now[0] > self._first[0]:
            logs["examples_per_second"] = self._rate(self._first)

    def _rate(self, since: tuple[int, float]) -> float:
        return (self._now[0] - since[0]) * self.batch_size / max(self._now[1] - since[1], 1e-9)


class StopOnNonFinite(keras.callbacks.Callback):
    """Ends ``fit`` with an error once the loss or a weight is NaN or infinite.

    ``keras.callbacks.TerminateOnNaN`` looks at the loss alone. On a CPU that may stay finite: TensorFlow's fused dense
    layer with a ReLU makes 0 of NaN, so that one NaN among the features ends in weights that are NaN and predictions that
    are all alike. Embedding tables are not looked at: what makes their rows NaN does so to the other weights.

    Put it before callbacks that write checkpoints, which then keep the last good one.

    Args:
        every_n_steps: weights are looked at after so many batches, and at the end of an epoch.

    Raises:
        ValueError: if a number is out of range.
        FloatingPointError: by ``fit``; names the loss, or the weights.

    Example:
        >>> import merlin_models.tf as ml
        >>> callback = ml.StopOnNonFinite(every_n_steps=1000)
    """

    def __init__(self, every_n_steps: int = 100):
        super().__init__()
        if not isinstance(every_n_steps, int) or every_n_steps < 1:
            raise ValueError(f"every_n_steps must be an integer of at least 1. Received: {every_n_steps!r}")
        self.every_n_steps = every_n_steps
        self._last = 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._last = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if batch + 1 - self._last >= self.every_n_steps:
            self._last = batch + 1
            self._check(f"batch {batch}", logs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._check(f"the last batch of epoch {epoch + 1}", logs)

    def _check(self, when: str, logs: dict[str, Any] | None) -> None:
        loss = (logs or {}).get("loss")
        names = [] if loss is None or math.isfinite(loss) else ["the loss"]
        dense = [each for each in self.model.trainable_variables if not getattr(each, "row_sparse", False)]
        finite = [ops.all(ops.isfinite(each)) for each in dense]
        if finite and not bool(ops.all(ops.stack(finite))):
            names += [each.path for each, good in zip(dense, finite, strict=True) if not bool(good)]
        if names:
            raise FloatingPointError(
                f"The loss and the weights must be finite. Received: NaN or infinity after {when} in {', '.join(names)}"
            )
