"""LogitsTemperature: what scores are divided by, a number or learned."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

LEAST = 0.01


@keras.saving.register_keras_serializable(package="merlin_models")
class LogitsTemperature(keras.layers.Layer):
    """Divides scores by a temperature: below 1 the softmax of them is sharper, above it is flatter.

    Args:
        temperature: positive.
        learnable: whether it is the start of a weight, the logarithm of 1 / temperature. Training keeps it at least 0.01.

    Call arguments:
        logits: scores of any shape.

    Returns:
        The same shape and dtype.

    Example:
        >>> import numpy as np
        >>> from merlin_models.layers import LogitsTemperature
        >>> LogitsTemperature(0.5)(np.array([1.0, 2.0])).numpy()
        array([2., 4.], dtype=float32)

    Reference:
        Radford et al., Learning Transferable Visual Models From Natural Language Supervision, 2021,
        https://arxiv.org/abs/2103.00020 (learned).
    """

    def __init__(self, temperature: float = 1.0, learnable: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        if not (temperature > 0 and math.isfinite(temperature)):
            raise ValueError(f"temperature must be a positive number. Received: {temperature!r}")
        if learnable and temperature < LEAST:
            raise ValueError(f"temperature must be at least {LEAST} to be learned. Received: {temperature!r}")
        self.temperature, self.learnable = float(temperature), bool(learnable)
        self.log_scale = None

    def build(self, input_shape: Any = None) -> None:
        if self.learnable:
            self.log_scale = self.add_weight(
                name="log_scale",
                shape=(),
                initializer=keras.initializers.Constant(-math.log(self.temperature)),
                constraint=_AtMost(-math.log(LEAST)),
                dtype="float32",
                autocast=False,
            )
        self.built = True

    @property
    def value(self) -> Any:
        """The temperature: a number, or a float32 scalar."""
        if not self.learnable:
            return self.temperature
        if not self.built:
            self.build()
        return ops.exp(-self.log_scale)

    def call(self, logits: Any) -> Any:
        return logits / ops.cast(self.value, logits.dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "temperature": self.temperature, "learnable": self.learnable}


class _AtMost(keras.constraints.Constraint):
    def __init__(self, limit: float):
        self.limit = limit

    def __call__(self, w: Any) -> Any:
        return ops.minimum(w, self.limit)
