"""A training step of a Keras model as a benchmark calls it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from benchmarks.harness import Provider


class KerasStep(Provider):
    """``train_step`` of a compiled model in a tf.function, on inputs that are on the device; a call returns the loss."""

    runtime = "tensorflow"
    jit = False  # what Keras' jit_compile="auto" gives

    def setup(self, problem: Any, device: str, mode: str, optimizer: str) -> None:
        import keras
        import tensorflow as tf

        self._keras = keras
        with _layers_of(keras, problem.case.dtype):
            model = self.make_model(problem)
        self.compile(model)
        model.optimizer.build(model.trainable_variables)
        data = self.data(problem)

        @tf.function(jit_compile=self.jit)
        def train() -> Any:
            return model.train_step(data)

        self._train, self._model = train, model

    def make_model(self, problem: Any) -> Any:
        raise NotImplementedError

    def compile(self, model: Any) -> None:
        """Compiles it, unless :meth:`make_model` has."""

    def data(self, problem: Any) -> tuple[Any, ...]:
        """A batch as ``train_step`` takes it."""
        raise NotImplementedError

    def update(self, i: int, g: int) -> Any:
        return self._train()["loss"]

    def loss_of_step(self) -> float:
        """Takes a step; Keras returns the mean of the losses since metrics were reset."""
        self._model.reset_metrics()
        return float(self.update(0, 0))


@contextlib.contextmanager
def _layers_of(keras: Any, dtype: str) -> Iterator[None]:
    """Layers made meanwhile compute in that dtype; their weights are float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32" if dtype == "float32" else f"mixed_{dtype}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
