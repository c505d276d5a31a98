"""CrossBlock: the cross network of DCN-v2; DenseResidualBlock: dense layers with a residual sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.aggregation import concat
from merlin_models.blocks.base import Block, register
from merlin_models.blocks.tabular import Filter
from merlin_models.layers.dense import Dense


class _SameWidth(Block):
    """A block on one tensor, or a dictionary that is concatenated, whose output is as wide as its input.

    Subclasses write ``make_layers(width)`` and ``run(x)``.
    """

    def __init__(self, filter: Any = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.filter = Filter(filter) if filter is not None and not isinstance(filter, Filter) else filter

    def build(self, input_shape: Any) -> None:
        if self.built:
            return
        shapes = input_shape if isinstance(input_shape, Mapping) else {"": input_shape}
        if self.filter is not None:
            shapes = {name: s for name, s in shapes.items() if (name in self.filter.names) != self.filter.exclude}
        widths = [shape[-1] for shape in shapes.values()]
        if None in widths:
            raise ValueError(f"inputs must have a static last dimension. Received shapes: {shapes}")
        self.make_layers(sum(widths))
        self.built = True

    def make_layers(self, width: int) -> None:
        raise NotImplementedError(f"{type(self).__name__} must define make_layers(width).")

    def run(self, x: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define run(x).")

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if self.filter is not None:
            inputs = self.filter(inputs)
        return self.run(concat(inputs, self.compute_dtype) if isinstance(inputs, Mapping) else inputs)

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        self.build(keras.tree.map_structure(lambda tensor: tuple(tensor.shape), inputs))
        return super().compute_output_spec(inputs)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "filter": keras.saving.serialize_keras_object(self.filter)}


@register
class CrossBlock(_SameWidth):
    """The cross network: x_{i+1} = x_0 * (W_i x_i + b_i) + x_i, elementwise products, for ``depth`` layers.

    Args:
        depth: number of layers, each of which raises the degree of the interactions by one.
        filter: a ``Filter``, or its first argument, for what the block sees of a dictionary.
        low_rank_dim: r for W = U V of rank r, or None for a full W.
        use_bias, kernel_initializer, bias_initializer, kernel_regularizer, bias_regularizer: of the layers.

    Call arguments:
        inputs: (batch, dim), or a dictionary of such tensors, which are concatenated in the order of their names.

    Returns:
        (batch, dim)

    Raises:
        ValueError: if depth or low_rank_dim is not positive.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> ml.CrossBlock(depth=2, low_rank_dim=4)(np.ones((8, 10))).shape
        TensorShape([8, 10])

    Reference:
        Wang et al., DCN V2: Improved Deep & Cross Network, 2020, https://arxiv.org/abs/2008.13535
    """

    def __init__(
        self,
        depth: int = 1,
        filter: Any = None,
        low_rank_dim: int | None = None,
        use_bias: bool = True,
        kernel_initializer: Any = "truncated_normal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ):
        if not isinstance(depth, int) or depth <= 0:
            raise ValueError(f"Number of cross layers (depth) should be positive but is {depth}.")
        _check_rank(low_rank_dim)
        super().__init__(filter=filter, **kwargs)
        self.depth, self.low_rank_dim, self.use_bias = depth, low_rank_dim, use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_regularizer = keras.regularizers.get(bias_regularizer)
        self.projections: list[list[keras.layers.Layer]] = []

    def make_layers(self, width: int) -> None:
        self.projections = [_dense(width, self, self.low_rank_dim) for _ in range(self.depth)]

    def run(self, x: Any) -> Any:
        first, current = x, x
        for layers in self.projections:
            projected = current
            for layer in layers:
                projected = layer(projected)
            first, current = ops.cast(first, projected.dtype), ops.cast(current, projected.dtype)
            current = first * projected + current
        return current

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "depth": self.depth,
            "low_rank_dim": self.low_rank_dim,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_regularizer": keras.regularizers.serialize(self.bias_regularizer),
        }


@register
class DenseResidualBlock(_SameWidth):
    """``depth`` times activation(x + N(D(W x + b))), with dropout D and normalization N; the width stays.

    Args:
        low_rank_dim: r for W = U V of rank r, or None for a full W.
        activation: a Keras activation, of the sum.
        use_bias, kernel_initializer, bias_initializer: of the layers.
        dropout: the rate, in [0, 1), or None.
        normalization: "batch_norm" or None.
        depth: how many.
        filter: as in :class:`CrossBlock`.

    Call arguments:
        inputs: (batch, dim), or a dictionary of such tensors, which are concatenated in the order of their names.

    Returns:
        (batch, dim)

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> ml.DenseResidualBlock(depth=2)(np.ones((8, 10))).shape
        TensorShape([8, 10])

    Reference:
        He et al., Deep Residual Learning for Image Recognition, 2015, https://arxiv.org/abs/1512.03385
    """

    def __init__(
        self,
        low_rank_dim: int | None = None,
        activation: Any = "relu",
        use_bias: bool = True,
        dropout: float | None = None,
        normalization: str | None = "batch_norm",
        depth: int = 1,
        filter: Any = None,
        kernel_initializer: Any = "truncated_normal",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ):
        if not isinstance(depth, int) or depth <= 0:
            raise ValueError(f"depth must be a positive integer. Received: {depth!r}")
        _check_rank(low_rank_dim)
        if dropout is not None and not 0 <= dropout < 1:
            raise ValueError(f"dropout must be None or in [0, 1). Received: {dropout}")
        if normalization not in (None, "batch_norm"):
            raise ValueError(f"normalization must be 'batch_norm' or None. Received: {normalization!r}")
        super().__init__(filter=filter, **kwargs)
        self.low_rank_dim, self.use_bias, self.dropout, self.depth = low_rank_dim, use_bias, dropout, depth
        self.normalization = normalization
        self.activation = keras.activations.get(activation)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = self.bias_regularizer = None
        self.residuals: list[list[keras.layers.Layer]] = []

    def make_layers(self, width: int) -> None:
        for _ in range(self.depth):
            layers = _dense(width, self, self.low_rank_dim)
            if self.dropout:
                layers.append(keras.layers.Dropout(self.dropout, dtype=self.dtype_policy))
            if self.normalization:
                layers.append(keras.layers.BatchNormalization(dtype=self.dtype_policy))
                layers[-1].build((None, width))
            self.residuals.append(layers)

    def run(self, x: Any) -> Any:
        for layers in self.residuals:
            y = x
            for layer in layers:
                y = layer(y)
            x = self.activation(ops.cast(x, y.dtype) + y)
        return x

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "low_rank_dim": self.low_rank_dim,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "dropout": self.dropout,
            "normalization": self.normalization,
            "depth": self.depth,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


def _check_rank(low_rank_dim: int | None) -> None:
    if low_rank_dim is not None and (not isinstance(low_rank_dim, int) or low_rank_dim <= 0):
        raise ValueError(f"low_rank_dim must be a positive integer or None. Received: {low_rank_dim!r}")


def _dense(width: int, block: Any, low_rank_dim: int | None) -> list[keras.layers.Layer]:
    """Layers for x W + b of the block's options, built."""

    def fresh(initializer: Any) -> Any:
        return type(initializer).from_config(initializer.get_config())

    layers: list[keras.layers.Layer] = []
    for units, last in [(width, True)] if low_rank_dim is None else [(low_rank_dim, False), (width, True)]:
        layers.append(
            Dense(
                units,
                use_bias=block.use_bias and last,
                kernel_initializer=fresh(block.kernel_initializer),
                bias_initializer=fresh(block.bias_initializer),
                kernel_regularizer=block.kernel_regularizer,
                bias_regularizer=block.bias_regularizer,
                dtype=block.dtype_policy,
            )
        )
        layers[-1].build((None, width if len(layers) == 1 else low_rank_dim))
    return layers
