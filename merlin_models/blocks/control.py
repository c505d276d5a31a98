"""Blocks that choose or repeat a layer: Cond and MapValues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import Block, register
from merlin_models.blocks.tabular import Filter, NoOp
from merlin_models.schema import Schema


@register
class Cond(Block):
    """Runs one of two layers, by a condition on the whole batch.

    Args:
        condition: a layer from the inputs to one boolean.
        true: runs where it is true.
        false: runs where it is false; None passes the inputs on. Both must return the same structure, shapes and dtypes.
            Within either, a layer must not add losses, which a branch of a graph cannot hand out.

    Call arguments:
        inputs: a tensor or a dictionary of tensors.

    Returns:
        What the layer that ran returns.

    Raises:
        ValueError: if the condition is not one boolean.

    Example:
        >>> import keras, numpy as np
        >>> from merlin_models.blocks import Block, Cond
        >>> class IsLarge(Block):
        ...     def call(self, inputs, training=None):
        ...         return keras.ops.max(inputs) > 10
        >>> block = Cond(IsLarge(), keras.layers.Rescaling(0.1))
        >>> block(np.array([[5.0], [20.0]])).numpy().tolist(), block(np.array([[5.0]])).numpy().tolist()
        ([[0.5], [2.0]], [[5.0]])
    """

    def __init__(
        self,
        condition: keras.layers.Layer,
        true: keras.layers.Layer,
        false: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for name, layer in (("condition", condition), ("true", true), ("false", false or true)):
            if not isinstance(layer, keras.layers.Layer):
                raise TypeError(f"{name} must be a Keras layer. Received: {layer!r}")
        self.condition, self.true = condition, true
        self.false = NoOp() if false is None else false

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        # Keras hands `training` to the sublayers.
        condition = self.condition(inputs)
        if len(condition.shape) or keras.backend.standardize_dtype(condition.dtype) != "bool":
            raise ValueError(
                "condition must return one boolean. Received: shape "
                f"{tuple(condition.shape)}, {keras.backend.standardize_dtype(condition.dtype)}"
            )
        return ops.cond(condition, lambda: self.true(inputs), lambda: self.false(inputs))

    def get_config(self) -> dict[str, Any]:
        parts = {"condition": self.condition, "true": self.true, "false": self.false}
        return {
            **super().get_config(),
            **{name: keras.saving.serialize_keras_object(part) for name, part in parts.items()},
        }


@register
class MapValues(Block):
    """Runs one layer on each entry of a dictionary, with the same weights.

    Args:
        layer: from one entry to another; the entries must have the shape that it is built for.
        filter: which entries: a ``Filter`` or its first argument. The others are passed on. All if None.

    Call arguments:
        inputs: dictionary name -> tensor, or one tensor.

    Returns:
        The dictionary, with the results in the places of the entries; for one tensor the layer's output.

    Example:
        >>> import keras, numpy as np
        >>> from merlin_models.blocks import MapValues
        >>> out = MapValues(keras.layers.Rescaling(0.1), filter="price")({"price": np.ones(1), "age": np.ones(1)})
        >>> {name: round(float(value[0]), 2) for name, value in out.items()}
        {'price': 0.1, 'age': 1.0}
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        filter: Filter | str | Sequence[str] | Schema | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not isinstance(layer, keras.layers.Layer):
            raise TypeError(f"layer must be a Keras layer. Received: {layer!r}")
        self.layer = layer
        self.filter = filter if filter is None or isinstance(filter, Filter) else Filter(filter)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not isinstance(inputs, Mapping):
            return self.layer(inputs)
        chosen = inputs if self.filter is None else self.filter(inputs)
        return {name: self.layer(value) if name in chosen else value for name, value in inputs.items()}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.layer),
            "filter": keras.saving.serialize_keras_object(self.filter),
        }
