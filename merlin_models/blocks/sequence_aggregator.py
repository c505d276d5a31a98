"""SequenceAggregator and AverageEmbeddingsByWeightFeature: the vectors of a sequence become one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import Block, register
from merlin_models.blocks.masking import mask_of
from merlin_models.blocks.symbolic import rank_of
from merlin_models.ops import is_ragged, to_dense, to_padded
from merlin_models.schema import Schema

_COMBINERS = ("mean", "sum", "max", "min")


@register
class SequenceAggregator(Block):
    """One vector of the vectors of a sequence, of which padding is left out.

    Args:
        combiner: "mean", "sum", "max" or "min".
        axis: of the positions. Masks and ragged tensors have them on axis 1.

    Call arguments:
        inputs: (batch, length, dim), ragged or dense, or a dictionary. Positions that a Keras mask leaves out do not count.
            In a dictionary, tensors of rank 2 are passed on.

    Returns:
        (batch, dim); zeros for a sequence without positions.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.blocks import SequenceAggregator
        >>> SequenceAggregator("sum")(tf.ragged.constant([[[1.0], [2.0]], [[5.0]]], ragged_rank=1)).numpy().tolist()
        [[3.0], [5.0]]
    """

    def __init__(self, combiner: str = "mean", axis: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        if combiner not in _COMBINERS:
            raise ValueError(f"combiner must be one of {_COMBINERS}. Received: {combiner!r}")
        self.combiner, self.axis = combiner, int(axis)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if isinstance(inputs, Mapping):
            return {name: self._one(value) if rank_of(value) == 3 else value for name, value in inputs.items()}
        return self._one(inputs)

    def _one(self, x: Any) -> Any:
        if rank_of(x) != 3:
            raise ValueError(f"Inputs must have the shape (batch, length, dim). Received: {tuple(x.shape)}")
        x, mask = padded(x)
        if mask is not None and self.axis != 1:
            raise ValueError(f"axis must be 1 for sequences that are ragged or have a mask. Received: {self.axis}")
        if mask is None:
            return getattr(ops, self.combiner)(x, axis=self.axis)
        mask = ops.expand_dims(mask, -1)
        counts = ops.sum(ops.cast(mask, x.dtype), axis=1)
        if self.combiner in ("mean", "sum"):
            total = ops.sum(ops.where(mask, x, ops.zeros_like(x)), axis=1)
            return total if self.combiner == "sum" else ops.divide_no_nan(total, counts)
        worst = ops.cast(-math.inf if self.combiner == "max" else math.inf, x.dtype)
        extreme = getattr(ops, self.combiner)(ops.where(mask, x, worst), axis=1)
        return ops.where(counts > 0, extreme, ops.zeros_like(extreme))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "combiner": self.combiner, "axis": self.axis}


@register
class AverageEmbeddingsByWeightFeature(Block):
    """The average of a list's embeddings, weighted by another feature.

    As the ``sequence_combiner`` of ``EmbeddingTable`` or ``Embeddings``, the weights go into the lookup itself, and the
    list's vectors are never written. By itself it takes vectors and weights.

    Args:
        weight_feature_name: the feature with a weight for each id, in the form of the ids.
        axis: of the positions, 1.

    Call arguments:
        inputs: (batch, length, dim), ragged or dense.
        weights: (batch, length) in the same form.

    Returns:
        ``sum_i w_i e_i / sum_i w_i``, (batch, dim); zeros where the weights add up to zero.

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import AverageEmbeddingsByWeightFeature
        >>> average = AverageEmbeddingsByWeightFeature("genres_weight")
        >>> average(np.array([[[1.0], [4.0]]]), np.array([[2.0, 1.0]])).numpy().tolist()
        [[2.0]]
    """

    def __init__(self, weight_feature_name: str, axis: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        if axis != 1:
            raise ValueError(f"axis must be 1, that of a list's positions. Received: {axis}")
        self.weight_feature_name, self.axis = str(weight_feature_name), axis

    @classmethod
    def from_schema_convention(
        cls, schema: Schema, weight_features_name_suffix: str = "_weight"
    ) -> dict[str, AverageEmbeddingsByWeightFeature]:
        """One for each column that has another one with its name and the suffix, as a dictionary by the column's name.

        Raises:
            ValueError: if there is none.
        """
        names = [column.name for column in schema if column.name + weight_features_name_suffix in schema]
        if not names:
            raise ValueError(
                f"schema must have a column whose name with '{weight_features_name_suffix}' is another one's. "
                f"Received: {schema.column_names}"
            )
        return {name: cls(name + weight_features_name_suffix) for name in names}

    def build(self, input_shape: Any) -> None:
        self.built = True

    def call(self, inputs: Any, weights: Any, training: bool | None = None) -> Any:
        (x, mask), w = padded(inputs), to_padded(weights)[0] if is_ragged(weights) else to_dense(weights)
        if w.shape.rank != 2:
            raise ValueError(f"weights must have the shape (batch, length). Received: {tuple(w.shape)}")
        w = ops.cast(w, x.dtype)
        if mask is not None:
            w = ops.where(mask, w, ops.zeros_like(w))
        total = ops.sum(x * ops.expand_dims(w, -1), axis=1)
        return ops.divide_no_nan(total, ops.sum(w, axis=1, keepdims=True))

    def get_config(self) -> dict[str, Any]:
        config = {"weight_feature_name": self.weight_feature_name, "axis": self.axis}
        return {**super().get_config(), **config}


def padded(x: Any) -> tuple[Any, Any]:
    """Sequences as a dense tensor (batch, length, ...), and a mask (batch, length) of what is no padding, or None."""
    return to_padded(x) if is_ragged(x) else (x, mask_of(x))


def as_combiner(combiner: Any) -> keras.layers.Layer | str | None:
    """What a ``sequence_combiner`` may be, as given.

    Raises:
        ValueError: for anything but None, a name of the lookup's combiners or a layer.
    """
    names = ("mean", "sum", "sqrtn", "max")
    if combiner is None or combiner in names or isinstance(combiner, keras.layers.Layer):
        return combiner
    raise ValueError(f"sequence_combiner must be None, a layer or one of {names}. Received: {combiner!r}")
