"""TransformerEncoder: layers of self-attention and feed-forward networks, on vectors."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import register
from merlin_models.layers.checkpoints import InCheckpoints
from merlin_models.layers.dense import Dense
from merlin_models.ops import check_at_most
from merlin_models.transformers.attention import RelativeSelfAttention

_POSITIONS = ("absolute", "relative")


@register
class TransformerLayer(keras.layers.Layer):
    """Self-attention, then a feed-forward network, each with dropout, a residual and a layer normalization.

    Args:
        d_model, n_head, d_inner: dim of the vectors, number of heads, units of the feed-forward network.
        hidden_act: its activation.
        layer_norm_eps, dropout: of the normalizations; of the attention weights and of both parts' outputs.
        norm_first: whether a part's input is normalized (GPT-2), and not the sum with its output (BERT).
        causal: whether a position attends only to itself and those before it.
        relative: whether attention is by relative positions, :class:`RelativeSelfAttention`.
        initializer_range: standard deviation of kernels.

    Call arguments:
        inputs: (batch, length, d_model).
        mask: boolean (batch, length), True where there is no padding; None for no padding.
        return_attentions: whether to return the attention weights too.

    Reference:
        Vaswani et al., Attention Is All You Need, 2017, https://arxiv.org/abs/1706.03762
    """

    def __init__(
        self,
        d_model: int,
        n_head: int,
        d_inner: int,
        hidden_act: Any = "gelu",
        layer_norm_eps: float = 1e-12,
        dropout: float = 0.0,
        norm_first: bool = False,
        causal: bool = False,
        relative: bool = False,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.options = {
            "d_model": d_model,
            "n_head": n_head,
            "d_inner": d_inner,
            "layer_norm_eps": layer_norm_eps,
            "dropout": dropout,
            "norm_first": bool(norm_first),
            "causal": bool(causal),
            "relative": bool(relative),
            "initializer_range": initializer_range,
        }
        self.hidden_act = keras.activations.get(hidden_act)
        self.norm_first, self.causal, self.relative = bool(norm_first), bool(causal), bool(relative)
        policy = {"dtype": self.dtype_policy}

        def kernel() -> Any:
            return keras.initializers.TruncatedNormal(stddev=initializer_range)

        attention = {"num_heads": n_head, "key_dim": d_model // n_head, "dropout": dropout, **policy}
        if relative:
            self.attention = RelativeSelfAttention(causal=causal, kernel_initializer=kernel(), **attention)
        else:
            self.attention = keras.layers.MultiHeadAttention(kernel_initializer=kernel(), **attention)
        self.inner = Dense(d_inner, activation=self.hidden_act, kernel_initializer=kernel(), **policy)
        self.outer = Dense(d_model, kernel_initializer=kernel(), **policy)
        self.norms = [keras.layers.LayerNormalization(epsilon=layer_norm_eps, **policy) for _ in range(2)]
        self.dropouts = [keras.layers.Dropout(dropout, **policy) for _ in range(2)]
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        if self.built:
            return
        if self.relative:
            self.attention.build(input_shape)
        else:
            self.attention.build(input_shape, input_shape)
        self.inner.build(input_shape)
        self.outer.build((*input_shape[:-1], self.options["d_inner"]))
        for layer in (*self.norms, *self.dropouts):
            layer.build(input_shape)
        self.built = True

    def call(self, inputs: Any, mask: Any = None, return_attentions: bool = False, training: bool | None = None) -> Any:
        # Keras hands `training` to the sublayers.
        norm_attention, norm_network = self.norms
        x = norm_attention(inputs) if self.norm_first else inputs
        attended, weights = self._attend(x, mask, return_attentions)
        x = inputs + self.dropouts[0](attended)
        x = x if self.norm_first else norm_attention(x)
        hidden = self.outer(self.inner(norm_network(x) if self.norm_first else x))
        x = x + self.dropouts[1](hidden)
        x = x if self.norm_first else norm_network(x)
        return (x, weights) if return_attentions else x

    def _attend(self, x: Any, mask: Any, return_weights: bool) -> tuple[Any, Any]:
        if self.relative:
            found = self.attention(x, attention_mask=mask, return_attention_scores=return_weights)
        else:
            allowed = None if mask is None else mask[:, None, :]
            found = self.attention(
                x, x, attention_mask=allowed, return_attention_scores=return_weights, use_causal_mask=self.causal
            )
        return found if return_weights else (found, None)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            **self.options,
            "hidden_act": keras.activations.serialize(self.hidden_act),
        }


@register
class TransformerEncoder(InCheckpoints, keras.layers.Layer):
    """Transformer layers on vectors (batch, length, d_model), which get their positions added first.

    Args:
        d_model, n_head, n_layer: dim of the vectors, number of heads and of layers.
        d_inner: units of the feed-forward networks; ``4 * d_model`` if None.
        hidden_act, layer_norm_eps, dropout, norm_first, causal, initializer_range: as in :class:`TransformerLayer`.
        share_layers: whether all layers are the same one (ALBERT).
        position: "absolute": a trained vector a position is added; "relative": attention is by distances.
        norm_embeddings: whether vectors with their positions are normalized before the first layer.
        norm_last: whether those of the last layer are.
        max_position_embeddings: longest sequence, for absolute positions.
        use_pooler: whether ``pooler_output`` is computed.
        return_attentions: whether ``attentions`` are returned.

    Call arguments:
        inputs: (batch, length, d_model).
        mask: boolean (batch, length), True where there is no padding; the inputs' Keras mask if None.

    Returns:
        Dictionary with the fields of a :class:`TransformerOutput` that are asked for.

    Raises:
        ValueError: if n_head does not divide d_model; if inputs have another dim.
        tf.errors.InvalidArgumentError: for sequences longer than ``max_position_embeddings``.
    """

    def __init__(
        self,
        d_model: int,
        n_head: int,
        n_layer: int,
        d_inner: int | None = None,
        hidden_act: Any = "gelu",
        layer_norm_eps: float = 1e-12,
        dropout: float = 0.0,
        norm_first: bool = False,
        causal: bool = False,
        initializer_range: float = 0.02,
        share_layers: bool = False,
        position: str = "absolute",
        norm_embeddings: bool = False,
        norm_last: bool = False,
        max_position_embeddings: int = 512,
        use_pooler: bool = False,
        return_attentions: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        counts = {"d_model": d_model, "n_head": n_head, "n_layer": n_layer}
        for name, value in {**counts, "max_position_embeddings": max_position_embeddings}.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a positive integer. Received: {value!r}")
        if d_model % n_head:
            raise ValueError(f"n_head must divide d_model. Received: {n_head} and {d_model}")
        if position not in _POSITIONS:
            raise ValueError(f"position must be one of {_POSITIONS}. Received: {position!r}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1). Received: {dropout}")
        options = {
            "d_model": d_model,
            "n_head": n_head,
            "d_inner": 4 * d_model if d_inner is None else d_inner,
            "layer_norm_eps": layer_norm_eps,
            "dropout": dropout,
            "norm_first": norm_first,
            "causal": causal,
            "initializer_range": initializer_range,
        }
        own = {
            "n_layer": n_layer,
            "share_layers": bool(share_layers),
            "position": position,
            "norm_embeddings": bool(norm_embeddings),
            "norm_last": bool(norm_last),
            "max_position_embeddings": max_position_embeddings,
            "use_pooler": bool(use_pooler),
            "return_attentions": bool(return_attentions),
        }
        self.options = {**options, **own}
        self.hidden_act = keras.activations.get(hidden_act)
        self.d_model, self.n_layer, self.return_attentions = d_model, n_layer, bool(return_attentions)
        policy = {"dtype": self.dtype_policy}
        self.encoder_layers = [
            TransformerLayer(**options, hidden_act=self.hidden_act, relative=position == "relative", **policy)
            for _ in range(1 if share_layers else n_layer)
        ]
        self.norm_embeddings = self._norm(norm_embeddings)
        self.norm_last = self._norm(norm_last)
        self.dropout = keras.layers.Dropout(dropout, **policy)
        self.pooler = None
        if use_pooler:
            kernel = keras.initializers.TruncatedNormal(stddev=initializer_range)
            self.pooler = Dense(d_model, activation="tanh", kernel_initializer=kernel, **policy)
        self.supports_masking = True

    def _norm(self, wanted: bool) -> keras.layers.Layer | None:
        epsilon = self.options["layer_norm_eps"]
        return keras.layers.LayerNormalization(epsilon=epsilon, dtype=self.dtype_policy) if wanted else None

    def build(self, input_shape: Any) -> None:
        if self.built:
            return
        if len(input_shape) != 3 or input_shape[-1] != self.d_model:
            raise ValueError(
                f"Inputs of a transformer must have the shape (batch, length, {self.d_model}), the last being d_model. "
                f"Received: {tuple(input_shape)}"
            )
        if self.options["position"] == "absolute":
            self.positions = self.add_weight(
                name="positions",
                shape=(self.options["max_position_embeddings"], self.d_model),
                initializer=keras.initializers.TruncatedNormal(stddev=self.options["initializer_range"]),
            )
        for layer in (*self.encoder_layers, self.norm_embeddings, self.norm_last, self.dropout):
            if layer is not None:
                layer.build(input_shape)
        if self.pooler is not None:
            self.pooler.build((input_shape[0], self.d_model))
        self.built = True

    def call(self, inputs: Any, mask: Any = None, training: bool | None = None) -> dict[str, Any]:
        # Keras hands `training` to the sublayers.
        x = ops.cast(inputs, self.compute_dtype)
        if self.options["position"] == "absolute":
            longest = self.options["max_position_embeddings"]
            length = check_at_most(
                ops.shape(x)[1], longest, f"Sequences must not be longer than max_position_embeddings={longest}"
            )
            x = x + ops.cast(self.positions, x.dtype)[None, :length]
        if self.norm_embeddings is not None:
            x = self.norm_embeddings(x)
        x = self.dropout(x)
        states, attentions = [x], []
        for index in range(self.n_layer):
            layer = self.encoder_layers[index % len(self.encoder_layers)]
            if self.return_attentions:
                x, weights = layer(x, mask=mask, return_attentions=True)
                attentions.append(weights)
            else:
                x = layer(x, mask=mask)
            states.append(x)
        if self.norm_last is not None:
            x = states[-1] = self.norm_last(x)
        return self._output(x, states, attentions, None if self.pooler is None else self.pooler(x[:, 0]))

    def _output(self, last: Any, states: Any, attentions: Any, pooled: Any) -> dict[str, Any]:
        output = {"last_hidden_state": last, "hidden_states": tuple(states)}
        if self.return_attentions:
            output["attentions"] = tuple(attentions)
        return output if pooled is None else {**output, "pooler_output": pooled}

    def compute_output_spec(self, inputs: Any, mask: Any = None, training: bool | None = None) -> dict[str, Any]:
        batch, length, _ = inputs.shape

        def tensor(*shape: Any) -> keras.KerasTensor:
            return keras.KerasTensor(shape, self.compute_dtype)

        heads = self.options["n_head"]
        states = [tensor(batch, length, self.d_model) for _ in range(self.n_layer + 1)]
        attentions = [tensor(batch, heads, length, length) for _ in range(self.n_layer)]
        pooled = None if self.pooler is None else tensor(batch, self.d_model)
        return self._output(states[-1], states, attentions, pooled)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        return None  # the block that runs the encoder puts masks where they belong

    def get_config(self) -> dict[str, Any]:
        hidden_act = keras.activations.serialize(self.hidden_act)
        return {**super().get_config(), **self.options, "hidden_act": hidden_act}
