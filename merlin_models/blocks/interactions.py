"""Second-order interactions between feature vectors: dot products and factorization machines."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from merlin_models.blocks.base import Block, register
from merlin_models.layers import DotInteraction

_TYPES = (None, "field_all", "field_each", "field_interaction")


@register
class DotProductInteraction(Block):
    """The dot products of all pairs of a sample's feature vectors, or bilinear ones.

    Pairs (i, j), i < j, are ordered (0, 1), (0, 2), ..., (1, 2), ... A product is x_i . x_j, or with a matrix W of
    trained weights (W x_i) . x_j, where W is one for all pairs ("field_all"), one for each i ("field_each") or one for
    each pair ("field_interaction").

    Args:
        interaction_type: None, "field_all", "field_each" or "field_interaction".
        self_interaction: with the pairs (i, i).
        kernel_initializer: of W.

    Call arguments:
        inputs: (batch, features, dim).

    Returns:
        (batch, pairs): features * (features - 1) / 2 pairs, with ``self_interaction`` features * (features + 1) / 2.

    Raises:
        ValueError: for another interaction_type, or inputs of another rank.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> ml.DotProductInteraction()(np.ones((2, 4, 8), "float32")).shape
        TensorShape([2, 6])

    Reference:
        Naumov et al., Deep Learning Recommendation Model for Personalization and Recommendation Systems, 2019,
        https://arxiv.org/abs/1906.00091; the bilinear forms: Huang et al., FiBiNET, 2019,
        https://arxiv.org/abs/1905.09433
    """

    def __init__(
        self,
        interaction_type: str | None = None,
        self_interaction: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if interaction_type not in _TYPES:
            raise ValueError(f"interaction_type must be one of {_TYPES}. Received: {interaction_type!r}")
        self.interaction_type, self.self_interaction = interaction_type, bool(self_interaction)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.products = None
        if interaction_type is None:
            self.products = DotInteraction(
                order="upper", self_interaction=self.self_interaction, dtype=self.dtype_policy
            )

    def build(self, input_shape: Any) -> None:
        if self.built:
            return
        features, dim = _sizes(input_shape)
        count = {"field_each": features, "field_interaction": len(self._pairs(features)[0])}
        if self.interaction_type is not None:
            leading = (count[self.interaction_type],) if self.interaction_type in count else ()
            self.kernel = self.add_weight(
                name="kernel", shape=(*leading, dim, dim), initializer=self.kernel_initializer
            )
        self.built = True

    def _pairs(self, features: int) -> tuple[np.ndarray, np.ndarray]:
        return np.triu_indices(features, 0 if self.self_interaction else 1)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        features, _ = _sizes(inputs.shape)
        if self.products is not None:
            return self.products(inputs)
        first, second = self._pairs(features)
        kernel = ops.cast(self.kernel, inputs.dtype)
        right = ops.take(inputs, second, axis=1)
        if self.interaction_type == "field_interaction":
            left = ops.einsum("bpd,pde->bpe", ops.take(inputs, first, axis=1), kernel)
        else:
            equation = "bfd,de->bfe" if self.interaction_type == "field_all" else "bfd,fde->bfe"
            left = ops.take(ops.einsum(equation, inputs, kernel), first, axis=1)
        return ops.sum(ops.multiply(left, right), axis=-1)

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> keras.KerasTensor:
        features, _ = _sizes(inputs.shape)
        return keras.KerasTensor((inputs.shape[0], len(self._pairs(features)[0])), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "interaction_type": self.interaction_type,
            "self_interaction": self.self_interaction,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


@register
class FMPairwiseInteraction(Block):
    """The second-order term of a factorization machine, by dimension: the sum over pairs of features of their
    elementwise products, ``((sum_f v_f) ** 2 - sum_f v_f ** 2) / 2``.

    Call arguments:
        inputs: (batch, features, dim).

    Returns:
        (batch, dim); its sum over the dimensions is the term itself.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> ml.FMPairwiseInteraction()(np.array([[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]])).numpy().tolist()
        [[4.0, 10.0, 18.0]]

    Reference:
        Rendle, Factorization Machines, 2010, https://ieeexplore.ieee.org/document/5694074
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        _sizes(inputs.shape)
        # Squares of sums cancel: in float32, whatever the layers around compute in.
        wide = ops.cast(inputs, "float32")
        square_of_sum, sum_of_squares = ops.square(ops.sum(wide, axis=1)), ops.sum(ops.square(wide), axis=1)
        return ops.cast(0.5 * (square_of_sum - sum_of_squares), self.compute_dtype)


def _sizes(shape: Any) -> tuple[int, int]:
    shape = tuple(shape)
    if len(shape) != 3 or None in shape[1:]:
        raise ValueError(f"inputs must have shape (batch, features, dim). Received: {shape}")
    return shape[1], shape[2]
