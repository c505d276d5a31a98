"""StochasticSwapNoise: values of a batch change places with others."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import Block, register
from merlin_models.blocks.registry import BLOCKS
from merlin_models.blocks.symbolic import is_symbolic
from merlin_models.ops import is_ragged
from merlin_models.schema import Schema
from merlin_models.transforms.lists import map_features


@BLOCKS.register("stochastic-swap-noise", "ssn")
@register
class StochasticSwapNoise(Block):
    """Replaces values, in training only, by values that the same feature has elsewhere in the batch.

    Each value that is no padding is replaced with a probability; the new one is drawn from all values of the feature in the
    batch that are no padding, with equal chances. Padding stays where it is.

    Args:
        schema: the features to change; all if None.
        pad_token: the value that is padding.
        replacement_prob: in [0, 1].
        seed: of the random numbers, or a ``keras.random.SeedGenerator``.

    Call arguments:
        inputs: a dictionary, or without a schema one tensor; ids or numbers, dense of any rank or ragged.

    Example:
        >>> import numpy as np
        >>> from merlin_models.transforms import StochasticSwapNoise
        >>> out = StochasticSwapNoise(replacement_prob=1.0)(np.array([[7, 7, 0], [7, 0, 0]]), training=True)
        >>> out.numpy().tolist()
        [[7, 7, 0], [7, 0, 0]]

    Reference:
        Somepalli et al., SAINT: Improved Neural Networks for Tabular Data via Row Attention and Contrastive Pre-Training,
        2021, https://arxiv.org/abs/2106.01342
    """

    def __init__(
        self,
        schema: Schema | None = None,
        pad_token: int = 0,
        replacement_prob: float = 0.1,
        seed: Any = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not 0 <= replacement_prob <= 1:
            raise ValueError(f"replacement_prob must be in [0, 1]. Received: {replacement_prob}")
        if schema is not None and not isinstance(schema, Schema):
            raise TypeError(f"schema must be a Schema or None. Received: {type(schema).__name__}")
        self.columns, self.pad_token, self.replacement_prob = schema, pad_token, replacement_prob
        self.seed = seed
        self.seed_generator = seed if isinstance(seed, keras.random.SeedGenerator) else keras.random.SeedGenerator(seed)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not training or is_symbolic(inputs):
            return inputs
        return map_features(self._noisy, inputs)

    def _noisy(self, name: str, value: Any) -> Any:
        if self.columns is not None and name not in self.columns:
            return value
        if is_ragged(value):
            return value.with_flat_values(self._swapped(value.flat_values))
        if isinstance(value, tuple | list) or hasattr(value, "dense_shape"):
            raise ValueError(f"'{name}' must be a dense or ragged tensor. Received: {type(value).__name__}")
        return self._swapped(value)

    def _swapped(self, value: Any) -> Any:
        flat = ops.reshape(value, (-1,))
        shape = ops.shape(flat)
        valid = ops.not_equal(flat, ops.cast(self.pad_token, flat.dtype))
        # The r-th valid value, from 1, stands where the running count of valid ones first reaches r.
        count = ops.cumsum(ops.cast(valid, "int32"))
        total = ops.sum(ops.cast(valid, "float32"))
        rank = 1 + ops.floor(keras.random.uniform(shape, seed=self.seed_generator) * total)
        rank = ops.cast(ops.minimum(rank, ops.maximum(total, 1.0)), "int32")
        place = ops.minimum(ops.searchsorted(count, rank), ops.maximum(shape[0] - 1, 0))
        chosen = keras.random.uniform(shape, seed=self.seed_generator) < self.replacement_prob
        swapped = ops.where(ops.logical_and(valid, chosen), ops.take(flat, place), flat)
        return ops.reshape(swapped, ops.shape(value))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "schema": None if self.columns is None else self.columns.to_json(),
            "pad_token": self.pad_token,
            "replacement_prob": self.replacement_prob,
            "seed": keras.saving.serialize_keras_object(self.seed),
        }
