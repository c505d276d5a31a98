"""L2Norm: vectors divided by their length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras import ops

from merlin_models.blocks.base import Block, register
from merlin_models.blocks.registry import BLOCKS


@BLOCKS.register("l2-norm")
@register
class L2Norm(Block):
    """Divides vectors by their Euclidean length, along the last axis.

    Lengths are computed in float32 (float64 for such inputs), so that they neither overflow nor vanish in float16.

    Args:
        epsilon: the least length that is divided by; a vector of zeros stays one.

    Call arguments:
        inputs: (..., dim), or a dictionary of such tensors.

    Returns:
        The same shapes and dtypes.

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import L2Norm
        >>> L2Norm()(np.array([[3.0, 4.0]])).numpy().round(4).tolist()
        [[0.6000000238418579, 0.800000011920929]]
    """

    def __init__(self, epsilon: float = 1e-6, **kwargs: Any):
        super().__init__(**kwargs)
        if not epsilon > 0:
            raise ValueError(f"epsilon must be positive. Received: {epsilon}")
        self.epsilon = float(epsilon)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if isinstance(inputs, Mapping):
            return {name: self._normalize(tensor) for name, tensor in inputs.items()}
        return self._normalize(inputs)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        return previous_mask

    def _normalize(self, tensor: Any) -> Any:
        tensor = ops.cast(tensor, self.compute_dtype)
        wide = ops.cast(tensor, "float64" if self.compute_dtype == "float64" else "float32")
        squares = ops.sum(ops.square(wide), axis=-1, keepdims=True)
        return ops.cast(wide * ops.rsqrt(ops.maximum(squares, self.epsilon**2)), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}
