"""RelativeSelfAttention: self-attention whose scores know how far apart two positions are."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import register


@register
class RelativeSelfAttention(keras.layers.Layer):
    """Multi-head self-attention with relative positions.

    The score of query i and key j is ``((q_i + u) . k_j + (q_i + v) . r_(i-j)) / sqrt(dim of a head)``: u and v are trained
    vectors of each head, r is a linear function of sines and cosines of the distance. No position has a vector of its own, so
    sequences may have any length.

    Args:
        num_heads, key_dim: number of heads, and the dim of each.
        dropout: of the attention weights.
        causal: whether a position attends only to itself and those before it.
        kernel_initializer: a Keras initializer.

    Call arguments:
        inputs: (batch, length, dim).
        attention_mask: boolean (batch, length): which positions may be attended to. None for all.
        return_attention_scores: whether to return the weights too, (batch, heads, length, length).

    Returns:
        (batch, length, dim)

    Reference:
        Dai et al., Transformer-XL: Attentive Language Models Beyond a Fixed-Length Context, 2019,
        https://arxiv.org/abs/1901.02860
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        dropout: float = 0.0,
        causal: bool = False,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_heads, self.key_dim, self.dropout, self.causal = num_heads, key_dim, dropout, bool(causal)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.dropout_layer = keras.layers.Dropout(dropout, dtype=self.dtype_policy)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        if self.built:
            return
        dim, heads = input_shape[-1], (self.num_heads, self.key_dim)

        def kernel(name: str, shape: tuple[int, ...]) -> keras.Variable:
            # A copy each: one initializer object gives equal shapes the same numbers.
            fresh = type(self.kernel_initializer).from_config(self.kernel_initializer.get_config())
            return self.add_weight(name=name, shape=shape, initializer=fresh)

        self.query, self.key, self.value = (kernel(name, (dim, *heads)) for name in ("query", "key", "value"))
        self.position = kernel("position", (dim, *heads))
        self.output_kernel = kernel("output", (*heads, dim))
        self.content_bias = kernel("content_bias", heads)
        self.position_bias = kernel("position_bias", heads)
        self.dropout_layer.build(input_shape)
        self.built = True

    def call(
        self,
        inputs: Any,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
    ) -> Any:
        length = ops.shape(inputs)[1]
        query, key, value = (ops.einsum("bld,dhk->blhk", inputs, w) for w in (self.query, self.key, self.value))
        distances = relative_positions(length, inputs.shape[-1], self.compute_dtype)
        positions = ops.einsum("md,dhk->mhk", distances, self.position)
        by_content = ops.einsum("bihk,bjhk->bhij", query + self.content_bias, key)
        by_position = shifted(ops.einsum("bihk,mhk->bhim", query + self.position_bias, positions), length)
        scores = (by_content + by_position) / math.sqrt(self.key_dim)
        allowed = None if attention_mask is None else attention_mask[:, None, None, :]
        if self.causal:
            order = ops.arange(length)
            past = (order[None, :] <= order[:, None])[None, None]
            allowed = past if allowed is None else ops.logical_and(allowed, past)
        if allowed is not None:
            least = -3e4 if keras.backend.standardize_dtype(scores.dtype) == "float16" else -1e9
            scores = ops.where(allowed, scores, ops.cast(least, scores.dtype))
        weights = ops.softmax(scores, axis=-1)
        mixed = ops.einsum("bhij,bjhk->bihk", self.dropout_layer(weights, training=training), value)
        outputs = ops.einsum("bihk,hkd->bid", mixed, self.output_kernel)
        return (outputs, weights) if return_attention_scores else outputs

    def compute_output_spec(
        self, inputs: Any, attention_mask: Any = None, return_attention_scores: bool = False, **_: Any
    ):
        outputs = keras.KerasTensor(inputs.shape, self.compute_dtype)
        shape = (inputs.shape[0], self.num_heads, inputs.shape[1], inputs.shape[1])
        return (outputs, keras.KerasTensor(shape, self.compute_dtype)) if return_attention_scores else outputs

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "dropout": self.dropout,
            "causal": self.causal,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }


def relative_positions(length: Any, dim: int, dtype: str) -> Any:
    """Sines and cosines of the distances length - 1, ..., 0, ..., 1 - length: (2 length - 1, dim)."""
    distances = ops.cast(length - 1 - ops.arange(2 * length - 1), "float32")
    half = (dim + 1) // 2
    rates = ops.exp(ops.arange(half, dtype="float32") * (-math.log(10000.0) / max(half, 1)))
    angles = distances[:, None] * rates[None, :]
    return ops.cast(ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1)[:, :dim], dtype)


def shifted(x: Any, length: Any) -> Any:
    """From scores by distance to scores by key: out[..., i, j] = x[..., i, j - i + length - 1].

    With one more column, row i begins at 2 length i; read in rows of 2 length - 1 from the (length - 1)-th number on, it
    begins one number further left in each row, as wanted.
    """
    batch, heads = ops.shape(x)[0], x.shape[1]
    flat = ops.reshape(ops.pad(x, [[0, 0], [0, 0], [0, 0], [0, 1]]), (batch, heads, 2 * length * length))
    # An empty sequence has nothing to begin with.
    start = ops.maximum(length - 1, 0)
    width = ops.maximum(2 * length - 1, 0)
    rows = ops.reshape(flat[:, :, start : start + length * width], (batch, heads, length, width))
    return rows[..., :length]
