"""Aggregations: a dictionary of tensors becomes one tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import Block, register
from merlin_models.blocks.masking import common_mask, mask_of, with_mask
from merlin_models.blocks.registry import Registry
from merlin_models.layers.dense import Dense
from merlin_models.schema import Schema, Tags

AGGREGATIONS = Registry("aggregation")


class Aggregation(Block):
    """Makes one tensor of the tensors of a dictionary, taken in the order of their names.

    Subclasses write ``combine``. All tensors are cast to the layer's compute dtype first.

    Call arguments:
        inputs: a dictionary of tensors (batch, ...).

    Returns:
        A tensor, as the subclass says.

    Raises:
        TypeError: if the input is no dictionary.
        ValueError: if it is empty, or the shapes do not fit.

    Example:
        >>> import keras, numpy as np, merlin_models.tf as ml
        >>> class Largest(ml.Aggregation):
        ...     def combine(self, tensors):
        ...         a, b = tensors.values()  # sorted by name
        ...         return keras.ops.maximum(a, b)
        >>> Largest()({"a": np.array([[1.0, 5.0]]), "b": np.array([[3.0, 4.0]])}).numpy().tolist()
        [[3.0, 5.0]]
    """

    def call(self, inputs: dict[str, Any], training: bool | None = None) -> Any:
        if not isinstance(inputs, Mapping):
            raise TypeError(
                f"Inputs of {type(self).__name__} must be a dictionary of tensors. Received: {type(inputs).__name__}"
            )
        if not inputs:
            raise ValueError(f"Inputs of {type(self).__name__} must hold a tensor. Received: an empty dictionary")
        return self.combine({name: ops.cast(inputs[name], self.compute_dtype) for name in sorted(inputs)})

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        return common_mask(previous_mask.values()) if isinstance(previous_mask, Mapping) else None

    def combine(self, tensors: dict[str, Any]) -> Any:
        """One tensor of the tensors, which are sorted by name and of one dtype."""
        raise NotImplementedError(f"{type(self).__name__} must define combine(tensors).")

    def _check_equal(self, tensors: dict[str, Any]) -> None:
        """Raises unless all shapes are equal, as far as they are known."""
        shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        first = next(iter(shapes.values()))
        for shape in shapes.values():
            if len(shape) != len(first) or any(
                a != b and None not in (a, b) for a, b in zip(shape, first, strict=True)
            ):
                raise ValueError(f"Inputs of {type(self).__name__} must have equal shapes. Received: {shapes}")


def concat(tensors: Mapping[str, Any], dtype: str, axis: int = -1) -> Any:
    """Concatenates tensors in the order of their names, cast to one dtype; masks are combined.

    Raises:
        ValueError: if their ranks differ.
    """
    shapes = {name: tuple(tensors[name].shape) for name in sorted(tensors)}
    if len({len(shape) for shape in shapes.values()}) != 1:
        raise ValueError(f"Tensors must have equal ranks to be concatenated. Received: {shapes}")
    together = ops.concatenate([ops.cast(tensors[name], dtype) for name in shapes], axis=axis)
    return with_mask(together, common_mask(mask_of(tensor) for tensor in tensors.values()))


@AGGREGATIONS.register("concat")
@register
class ConcatFeatures(Aggregation):
    """Concatenates in the order of names.

    Args:
        axis: of the concatenation, the last by default.

    Call arguments:
        inputs: a dictionary of tensors (batch, ..., dim) of one rank.

    Returns:
        (batch, ..., sum of dims).

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import ConcatFeatures
        >>> ConcatFeatures()({"b": np.ones((2, 3)), "a": np.zeros((2, 1))}).shape
        TensorShape([2, 4])
    """

    def __init__(self, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = axis

    def combine(self, tensors: dict[str, Any]) -> Any:
        return concat(tensors, self.compute_dtype, self.axis)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}


@AGGREGATIONS.register("stack")
@register
class StackFeatures(Aggregation):
    """Stacks equal shapes along a new axis, the last by default: (batch, dim) to (batch, dim, features).

    Args:
        axis: the new one, counted in the result.

    Call arguments:
        inputs: a dictionary of tensors (batch, dim) of one shape.

    Returns:
        (batch, dim, features).

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> x = {"a": np.array([[1.0, 2.0]]), "b": np.array([[3.0, 4.0]])}
        >>> ml.StackFeatures()(x).numpy().tolist()
        [[[1.0, 3.0], [2.0, 4.0]]]
    """

    def __init__(self, axis: int = -1, **kwargs: Any):
        super().__init__(**kwargs)
        self.axis = axis

    def combine(self, tensors: dict[str, Any]) -> Any:
        self._check_equal(tensors)
        return ops.stack(list(tensors.values()), axis=self.axis)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "axis": self.axis}


@AGGREGATIONS.register("sum")
@register
class Sum(Aggregation):
    """The sum; shapes are broadcast.

    Call arguments:
        inputs: a dictionary of tensors (batch, ...).

    Returns:
        A tensor of the shape that they broadcast to.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> x = {"a": np.array([[1.0, 2.0]]), "b": np.array([[3.0, 4.0]])}
        >>> ml.Sum()(x).numpy().tolist()
        [[4.0, 6.0]]
    """

    def combine(self, tensors: dict[str, Any]) -> Any:
        total, *rest = tensors.values()
        for tensor in rest:
            total = total + tensor  # ops.add takes an empty batch for a bias
        return total


@AGGREGATIONS.register("element-wise-sum")
@register
class ElementwiseSum(Sum):
    """The sum of tensors that must have equal shapes.

    Returns:
        A tensor of the shape of all of them, (batch, ...).

    Raises:
        ValueError: if shapes differ.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> x = {"a": np.array([[1.0, 2.0]]), "b": np.array([[3.0, 4.0]])}
        >>> ml.ElementwiseSum()(x).numpy().tolist()
        [[4.0, 6.0]]
    """

    def combine(self, tensors: dict[str, Any]) -> Any:
        self._check_equal(tensors)
        return super().combine(tensors)


@AGGREGATIONS.register("elementwise-multiply")
@register
class ElementwiseMultiply(Aggregation):
    """The product of tensors that must have equal shapes.

    Returns:
        A tensor of the shape of all of them, (batch, ...).

    Raises:
        ValueError: if shapes differ.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> x = {"a": np.array([[1.0, 2.0]]), "b": np.array([[3.0, 4.0]])}
        >>> ml.ElementwiseMultiply()(x).numpy().tolist()
        [[3.0, 8.0]]
    """

    def combine(self, tensors: dict[str, Any]) -> Any:
        self._check_equal(tensors)
        product, *rest = tensors.values()
        for tensor in rest:
            product = ops.multiply(product, tensor)
        return product


@AGGREGATIONS.register("sum-residual")
@register
class SumResidual(ElementwiseSum):
    """The activation of the sum.

    Args:
        activation: a Keras activation; "relu" by default, None for none.

    Returns:
        A tensor of the shape of all of them, (batch, ...).

    Raises:
        ValueError: if shapes differ.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> x = {"a": np.array([[1.0, 2.0]]), "b": np.array([[3.0, 4.0]])}
        >>> ml.SumResidual()({"a": -x["a"], "b": x["b"]}).numpy().tolist()
        [[2.0, 2.0]]
    """

    def __init__(self, activation: Any = "relu", **kwargs: Any):
        super().__init__(**kwargs)
        self.activation = keras.activations.get(activation)

    def combine(self, tensors: dict[str, Any]) -> Any:
        return self.activation(super().combine(tensors))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "activation": keras.activations.serialize(self.activation)}


@AGGREGATIONS.register("add-left")
@register
class AddLeft(Aggregation):
    """Adds one input, say a bias, to each of the others.

    Where its last axis differs from that of an other input, a ``Dense(1)`` makes it one number a row first.

    Args:
        left_name: the key of the input that is added.

    Call arguments:
        inputs: a dictionary of tensors (batch, dim), with ``left_name``.

    Returns:
        The sum for the only other input, or for several a dictionary of the sums.

    Raises:
        ValueError: if the inputs lack ``left_name`` or have nothing else.

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import AddLeft
        >>> AddLeft()({"bias": np.array([[1.0]]), "logit": np.array([[2.0]])}).numpy().tolist()
        [[3.0]]
    """

    def __init__(self, left_name: str = "bias", **kwargs: Any):
        super().__init__(**kwargs)
        self.left_name = left_name
        self.projection = Dense(1, dtype=self.dtype_policy)

    def combine(self, tensors: dict[str, Any]) -> Any:
        others = {name: tensor for name, tensor in tensors.items() if name != self.left_name}
        if self.left_name not in tensors or not others:
            raise ValueError(
                f"Inputs of AddLeft must have '{self.left_name}' and something to add it to. Received: {list(tensors)}"
            )
        left = tensors[self.left_name]
        if any(tuple(other.shape)[1:] != tuple(left.shape)[1:] for other in others.values()):
            left = self.projection(left) if left.shape[-1] != 1 else left
        sums = {name: other + left for name, other in others.items()}
        return next(iter(sums.values())) if len(sums) == 1 else sums

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "left_name": self.left_name}


@AGGREGATIONS.register("element-wise-sum-item-multi")
@register
class ElementwiseSumItemMulti(ElementwiseSum):
    """The item id's embedding, times the sum of all others; all of equal shapes.

    Args:
        schema: has the column tagged ``item_id``. Without it, that of the block that aggregates.

    Call arguments:
        inputs: a dictionary of tensors (batch, dim) by feature.

    Returns:
        (batch, dim).

    Raises:
        ValueError: if the schema has no such column, or several; when called without a schema, without that column or
            with nothing else.

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import ElementwiseSumItemMulti
        >>> from merlin_models.schema import ColumnSchema, Schema
        >>> aggregation = ElementwiseSumItemMulti(Schema([ColumnSchema("movieId", tags=("item_id",))]))
        >>> inputs = {"movieId": np.array([[2.0]]), "age": np.array([[3.0]]), "genres": np.array([[4.0]])}
        >>> aggregation(inputs).numpy().tolist()
        [[14.0]]
    """

    def __init__(self, schema: Schema | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self._item_id: str | None = None
        self._columns: Schema | None = None
        if schema is not None:
            self.take_schema(schema)

    def take_schema(self, schema: Schema) -> None:
        """Sets the schema if there is none yet."""
        if self._columns is not None:
            return
        names = schema.select_by_tag(Tags.ITEM_ID).column_names
        if len(names) != 1:
            raise ValueError(
                f"schema must have one column tagged item_id for ElementwiseSumItemMulti. Received: {names}"
            )
        self._item_id, self._columns = names[0], schema.select_by_name(names)

    def combine(self, tensors: dict[str, Any]) -> Any:
        if self._item_id is None:
            raise ValueError("schema must be given to ElementwiseSumItemMulti, or to its block. Received: none")
        others = {name: tensor for name, tensor in tensors.items() if name != self._item_id}
        if self._item_id not in tensors or not others:
            raise ValueError(
                f"Inputs of ElementwiseSumItemMulti must have the item id '{self._item_id}' and something else. "
                f"Received: {list(tensors)}"
            )
        self._check_equal(tensors)
        return ops.multiply(tensors[self._item_id], super().combine(others))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "schema": None if self._columns is None else self._columns.to_json()}


@AGGREGATIONS.register("cosine", "cosine-similarity")
@register
class CosineSimilarity(Aggregation):
    """The cosine of the angle between two tensors (batch, dim), as (batch, 1).

    Raises:
        ValueError: for another number of tensors than two, or of different shapes.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> x = {"a": np.array([[1.0, 2.0]]), "b": np.array([[3.0, 4.0]])}
        >>> ml.CosineSimilarity()(x).numpy().round(4)
        array([[0.9839]], dtype=float32)
    """

    def combine(self, tensors: dict[str, Any]) -> Any:
        if len(tensors) != 2:
            raise ValueError(f"Inputs of CosineSimilarity must be two tensors. Received: {list(tensors)}")
        self._check_equal(tensors)
        one, other = (ops.normalize(tensor, axis=-1) for tensor in tensors.values())
        return ops.sum(ops.multiply(one, other), axis=-1, keepdims=True)


def get_aggregation(aggregation: str | Aggregation | None) -> Aggregation | None:
    """An aggregation from its name, or as given.

    Raises:
        KeyError: for an unknown name; lists the known ones.
        TypeError: for anything else.
    """
    if aggregation is None or isinstance(aggregation, Aggregation):
        return aggregation
    if isinstance(aggregation, str):
        return AGGREGATIONS.get(aggregation)()
    raise TypeError(f"aggregation must be a name, an Aggregation or None. Received: {aggregation!r}")
