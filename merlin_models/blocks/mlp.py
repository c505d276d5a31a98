"""MLPBlock: dense layers one after the other."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any

import keras

from merlin_models.blocks.base import register
from merlin_models.blocks.combinators import SequentialBlock
from merlin_models.blocks.sharing import apart_from_files
from merlin_models.blocks.tabular import Filter
from merlin_models.layers.dense import Dense


@register
class MLPBlock(SequentialBlock):
    """A multi-layer perceptron: for each dimension Dense with its activation, then dropout, then
    normalization.

    Args:
        dimensions: units of the layers.
        activation: a Keras activation for all layers, or a list with one (or None) a layer.
        use_bias, kernel_initializer, bias_initializer: of the Dense layers.
        kernel_regularizer, bias_regularizer, activity_regularizer: of the Dense layers, too.
        dropout: the rate, in [0, 1), or None.
        normalization: "batch_norm", a Keras layer that is copied for each Dense layer, or None.
        filter: a ``Filter``, or its first argument, for what the block sees of a dictionary.
        block_name: see :class:`Block`.
        no_activation_last_layer: whether the last layer is linear.

    Call arguments:
        inputs: (batch, ..., dim), or a dictionary of such tensors, which are concatenated in the order of
            their names.

    Returns:
        (batch, ..., dimensions[-1])

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import MLPBlock
        >>> MLPBlock([64, 32], dropout=0.1)(np.ones((8, 10))).shape
        TensorShape([8, 32])
    """

    def __init__(
        self,
        dimensions: Sequence[int],
        activation: Any = "relu",
        use_bias: bool = True,
        dropout: float | None = None,
        normalization: str | keras.layers.Layer | None = None,
        filter: Any = None,
        block_name: str = "MLPBlock",
        no_activation_last_layer: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        **kwargs: Any,
    ):
        dimensions = [dimensions] if isinstance(dimensions, int) else list(dimensions)
        if not dimensions or not all(isinstance(units, int) and units > 0 for units in dimensions):
            raise ValueError(f"dimensions must be one or several positive integers. Received: {dimensions}")
        activations = _one_each(activation, len(dimensions), no_activation_last_layer)
        if dropout is not None and not 0 <= dropout < 1:
            raise ValueError(f"dropout must be None or in [0, 1). Received: {dropout}")
        if isinstance(normalization, str) and normalization != "batch_norm":
            raise ValueError(f"normalization must be 'batch_norm', a layer or None. Received: {normalization!r}")
        if filter is not None and not isinstance(filter, Filter):
            filter = Filter(filter)

        # Objects, not configs: in a file Keras marks what is shared by the identity of living objects. In a
        # namespace, so that templates do not count as sublayers.
        self._options = types.SimpleNamespace(
            dimensions=dimensions,
            activation=[keras.activations.get(each) for each in activations],
            use_bias=use_bias,
            dropout=dropout,
            normalization=normalization,
            filter=filter,
            kernel_initializer=keras.initializers.get(kernel_initializer),
            bias_initializer=keras.initializers.get(bias_initializer),
            kernel_regularizer=keras.regularizers.get(kernel_regularizer),
            bias_regularizer=keras.regularizers.get(bias_regularizer),
            activity_regularizer=keras.regularizers.get(activity_regularizer),
        )
        dtype = {"dtype": kwargs["dtype"]} if kwargs.get("dtype") is not None else {}
        super().__init__(_layers(self._options, dtype), filter=filter, block_name=block_name, **kwargs)

    @property
    def dimensions(self) -> list[int]:
        return list(self._options.dimensions)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["layers"]
        options = {name: keras.saving.serialize_keras_object(part) for name, part in vars(self._options).items()}
        options["activation"] = [keras.activations.serialize(each) for each in self._options.activation]
        return {**config, **options}


def _layers(options: types.SimpleNamespace, dtype: dict[str, Any]) -> list[keras.layers.Layer]:
    layers: list[keras.layers.Layer] = []
    for units, activation in zip(options.dimensions, options.activation, strict=True):
        layers.append(
            Dense(
                units,
                activation=activation,
                use_bias=options.use_bias,
                kernel_initializer=_fresh(options.kernel_initializer),
                bias_initializer=_fresh(options.bias_initializer),
                kernel_regularizer=options.kernel_regularizer,
                bias_regularizer=options.bias_regularizer,
                activity_regularizer=options.activity_regularizer,
                **dtype,
            )
        )
        if options.dropout:
            layers.append(keras.layers.Dropout(options.dropout, **dtype))
        if options.normalization == "batch_norm":
            layers.append(keras.layers.BatchNormalization(**dtype))
        elif options.normalization is not None:
            layers.append(_fresh(options.normalization))
    return layers


def _one_each(activation: Any, count: int, linear_last: bool) -> list[Any]:
    activations = list(activation) if isinstance(activation, list | tuple) else [activation] * count
    if len(activations) != count:
        raise ValueError(
            f"activation must be one for all layers or have the length of dimensions, {count}. "
            f"Received: {len(activations)} activations"
        )
    return [*activations[:-1], None] if linear_last else activations


def _fresh(part: Any) -> Any:
    """A copy, so that no two layers share weights or draw the same random numbers."""
    with apart_from_files():
        return type(part).from_config(part.get_config())
