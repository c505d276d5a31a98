"""A dense layer whose bias has its gradient from a product."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="merlin_models")
class Dense(keras.layers.Dense):
    """``keras.layers.Dense`` with another gradient of the bias b in activation(x W + b): ones times that of the output.

    It is the same sum over all rows. TensorFlow's kernel for it adds up with atomic operations, in any order, and takes more
    than a third of a DLRM's step in bfloat16 on a GPU (docs/performance.md); the product is as fast as the memory and, with
    the same shapes, has the same result each time. In float32 on a GPU it is of TF32 where TensorFlow's products are.

    Args, shapes and what is saved are those of ``keras.layers.Dense``.

    Example:
        >>> import keras
        >>> from merlin_models.layers import Dense
        >>> Dense(4, activation="relu")(keras.ops.ones((2, 3))).shape
        TensorShape([2, 4])
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not training or self.bias is None:
            return super().call(inputs, training=training)
        # A tensor: what has a gradient of its own may use no variable.
        bias = ops.reshape(self.bias, (self.units,))
        x = _add_bias(ops.matmul(inputs, self.kernel), bias)
        return x if self.activation is None else self.activation(x)

    def quantize(self, mode: str | None = None, type_check: bool = True, config: Any = None) -> None:
        super().quantize(mode, type_check=False, config=config)  # Keras refuses classes that may compute otherwise


@ops.custom_gradient
def _add_bias(x: Any, bias: Any) -> Any:
    def gradient(*args: Any, upstream: Any = None) -> tuple[Any, Any]:
        if upstream is None:
            (upstream,) = args
        rows = ops.reshape(upstream, (-1, bias.shape[0]))
        ones = ops.reshape(ops.ones_like(rows[:, 0]), (1, -1))
        return upstream, ops.reshape(ops.matmul(ones, rows), (-1,))

    return ops.add(x, bias), gradient
