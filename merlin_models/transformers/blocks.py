"""TransformerBlock, and the blocks of known transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from merlin_models.blocks.aggregation import concat
from merlin_models.blocks.base import Block, register
from merlin_models.blocks.combinators import run_in_sequence
from merlin_models.blocks.masking import with_mask
from merlin_models.blocks.registry import get_block
from merlin_models.blocks.sequence_aggregator import padded
from merlin_models.blocks.symbolic import rank_of
from merlin_models.ops import is_ragged, items_of_padded
from merlin_models.transformers.encoder import TransformerEncoder
from merlin_models.transformers.outputs import TransformerOutput


@register
class TransformerBlock(Block):
    """A transformer on sequences of vectors: ragged in, ragged out.

    Args:
        transformer: a layer on (batch, length, dim) that takes a boolean ``mask`` (batch, length); returns (batch, length,
            dim), or a dictionary with fields of :class:`TransformerOutput`.
        pre: a layer on the vectors, or the name of a block, such as "replace_masked_embeddings"; or None.
        post: a layer, or the name of a block, on the block's output; or None.
        transformer_post: what is taken of the transformer's output: "last_hidden_state" (batch, length, dim);
            "sequence_last", "sequence_first", "sequence_mean" or "pooler_output" (batch, dim); "hidden_states",
            "attentions", "last_hidden_state_and_attention"; or a layer on a :class:`TransformerOutput`.

    Call arguments:
        inputs: (batch, length, dim), ragged, or dense with or without a Keras mask; or a dictionary of such tensors, which
            are concatenated in the order of their names.

    Returns:
        As ``transformer_post`` says; sequences are ragged for ragged inputs, and have the mask of dense ones.

    Raises:
        TypeError: if a part is neither a layer nor a name.
        ValueError: for inputs of another rank.

    Example:
        >>> import keras, numpy as np, merlin_models.tf as ml
        >>> class Attention(keras.layers.Layer):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.attention = keras.layers.MultiHeadAttention(num_heads=2, key_dim=8)
        ...
        ...     def call(self, x, mask=None):
        ...         return self.attention(x, x, attention_mask=None if mask is None else mask[:, None])
        >>> ml.TransformerBlock(Attention(), transformer_post="sequence_mean")(np.ones((2, 5, 16))).shape
        TensorShape([2, 16])
    """

    def __init__(
        self,
        transformer: keras.layers.Layer,
        pre: keras.layers.Layer | str | None = None,
        post: keras.layers.Layer | str | None = None,
        transformer_post: keras.layers.Layer | str = "last_hidden_state",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.pre, self.post = get_block(pre), get_block(post)
        self.transformer_post = get_block(transformer_post)
        for name in ("transformer_post", "pre", "post"):
            part = getattr(self, name)
            if not isinstance(part, keras.layers.Layer) and (part is not None or name == "transformer_post"):
                raise TypeError(f"{name} must be a layer or the name of a block. Received: {part!r}")
        self.transformer = transformer

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        # Keras hands `training` to the sublayers.
        inputs = self._one_tensor(inputs)
        if self.pre is not None:
            inputs = run_in_sequence([self.pre], inputs, self.compute_dtype)
        if rank_of(inputs) != 3:
            raise ValueError(
                f"Inputs of {type(self).__name__} must have the shape (batch, length, dim). Received: {tuple(inputs.shape)}"
            )
        x, mask = padded(inputs)
        found = self.transformer(x, mask=mask)
        found = TransformerOutput(**found) if isinstance(found, Mapping) else TransformerOutput(found)

        def in_form(state: Any) -> Any:
            return items_of_padded(state, inputs) if is_ragged(inputs) else with_mask(state, mask)

        states = None if found.hidden_states is None else tuple(in_form(state) for state in found.hidden_states)
        found = found._replace(last_hidden_state=in_form(found.last_hidden_state), hidden_states=states)
        outputs = self.transformer_post(found)
        return outputs if self.post is None else run_in_sequence([self.post], outputs, self.compute_dtype)

    def _one_tensor(self, inputs: Any) -> Any:
        return concat(inputs, self.compute_dtype) if isinstance(inputs, Mapping) else inputs

    def get_config(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in ("transformer", "pre", "post", "transformer_post")}
        serialize = keras.saving.serialize_keras_object
        return {**super().get_config(), **{name: serialize(part) for name, part in parts.items()}}


class _KnownTransformer(TransformerBlock):
    """A transformer block that makes its transformer of the arguments that all of them share."""

    fixed: dict[str, Any]

    def __init__(
        self,
        d_model: int,
        n_head: int,
        n_layer: int,
        hidden_act: Any = "gelu",
        initializer_range: float = 0.01,
        layer_norm_eps: float = 0.03,
        dropout: float = 0.3,
        pad_token: int = 0,
        pre: keras.layers.Layer | str | None = None,
        post: keras.layers.Layer | str | None = None,
        transformer_post: keras.layers.Layer | str = "last_hidden_state",
        max_position_embeddings: int = 512,
        d_inner: int | None = None,
        **kwargs: Any,
    ):
        if pad_token != 0:
            raise ValueError(
                "pad_token must be 0, the padding of all lists of the library: padding is known from ragged lengths or the "
                f"mask of the vectors. Received: {pad_token!r}"
            )
        transformer_post = get_block(transformer_post)
        options = {
            "d_model": d_model,
            "n_head": n_head,
            "n_layer": n_layer,
            "hidden_act": keras.activations.get(hidden_act),
            "initializer_range": initializer_range,
            "layer_norm_eps": layer_norm_eps,
            "dropout": dropout,
            "max_position_embeddings": max_position_embeddings,
            "d_inner": d_inner,
        }
        needs = {
            "use_pooler": getattr(transformer_post, "needs_pooler", False),
            "return_attentions": getattr(transformer_post, "needs_attentions", False),
        }
        dtype = {"dtype": kwargs["dtype"]} if kwargs.get("dtype") is not None else {}
        encoder = TransformerEncoder(**options, **self.fixed, **needs, **dtype)
        super().__init__(encoder, pre, post, transformer_post, **kwargs)
        self._options = options

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["transformer"]
        hidden_act = keras.activations.serialize(self._options["hidden_act"])
        return {**config, **self._options, "hidden_act": hidden_act}


@register
class BertBlock(_KnownTransformer):
    """BERT's encoder: every position attends to all, normalization comes after each part, positions are trained vectors.

    It starts from vectors: there are no word pieces and no segments. Nothing is pretrained.

    Args:
        d_model: dim of the vectors, that of the inputs.
        n_head, n_layer: number of heads, which must divide d_model, and of layers.
        hidden_act: activation of the feed-forward networks.
        initializer_range: standard deviation of kernels and positions.
        layer_norm_eps, dropout: of the normalizations; of attention weights and of each part's output.
        pad_token: 0; padding is known from ragged lengths or the mask of the vectors.
        pre, post, transformer_post: as in :class:`TransformerBlock`.
        max_position_embeddings: length of the longest sequence; longer ones are an error.
        d_inner: units of the feed-forward networks; ``4 * d_model`` if None.

    Call arguments, returns:
        As for :class:`TransformerBlock`.

    Example:
        >>> import numpy as np
        >>> from merlin_models.transformers import BertBlock
        >>> BertBlock(d_model=16, n_head=2, n_layer=1)(np.ones((2, 5, 16))).shape
        TensorShape([2, 5, 16])

    Reference:
        Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers for Language Understanding, 2018,
        https://arxiv.org/abs/1810.04805
    """

    fixed = {"norm_embeddings": True}  # noqa: RUF012


@register
class RobertaBlock(BertBlock):
    """RoBERTa's encoder, which on vectors is BERT's: the two differ in their text, its positions' numbers and their training.

    See :class:`BertBlock`.

    Args:
        d_model, n_head, n_layer, hidden_act, initializer_range, layer_norm_eps, dropout: as of :class:`BertBlock`.
        pad_token, pre, post, transformer_post, max_position_embeddings, d_inner: as of :class:`BertBlock`.

    Call arguments:
        inputs: (batch, length, dim), as of :class:`TransformerBlock`.

    Returns:
        As of :class:`TransformerBlock`.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> ml.RobertaBlock(d_model=16, n_head=2, n_layer=1)(np.ones((2, 5, 16))).shape
        TensorShape([2, 5, 16])

    Reference:
        Liu et al., RoBERTa: A Robustly Optimized BERT Pretraining Approach, 2019, https://arxiv.org/abs/1907.11692
    """


@register
class AlbertBlock(_KnownTransformer):
    """ALBERT's encoder: BERT's, with one layer that runs ``n_layer`` times.

    The vectors are d_model long from the start: ALBERT's smaller embeddings are a Dense layer before this block. Arguments as
    for :class:`BertBlock`.

    Args:
        d_model, n_head, n_layer, hidden_act, initializer_range, layer_norm_eps, dropout: as of :class:`BertBlock`.
        pad_token, pre, post, transformer_post, max_position_embeddings, d_inner: as of :class:`BertBlock`.

    Call arguments:
        inputs: (batch, length, dim), as of :class:`TransformerBlock`.

    Returns:
        As of :class:`TransformerBlock`.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> ml.AlbertBlock(d_model=16, n_head=2, n_layer=1)(np.ones((2, 5, 16))).shape
        TensorShape([2, 5, 16])

    Reference:
        Lan et al., ALBERT: A Lite BERT for Self-supervised Learning of Language Representations, 2019,
        https://arxiv.org/abs/1909.11942
    """

    fixed = {"norm_embeddings": True, "share_layers": True}  # noqa: RUF012


@register
class GPT2Block(_KnownTransformer):
    """GPT-2's decoder: a position attends to itself and those before it, normalization comes before each part and once at the
    end.

    For ``SequencePredictNext``. Kernels of all layers are drawn alike: GPT-2 draws those that end a residual smaller.
    Arguments as for :class:`BertBlock`.

    Args:
        d_model, n_head, n_layer, hidden_act, initializer_range, layer_norm_eps, dropout: as of :class:`BertBlock`.
        pad_token, pre, post, transformer_post, max_position_embeddings, d_inner: as of :class:`BertBlock`.

    Call arguments:
        inputs: (batch, length, dim), as of :class:`TransformerBlock`.

    Returns:
        As of :class:`TransformerBlock`.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> ml.GPT2Block(d_model=16, n_head=2, n_layer=1)(np.ones((2, 5, 16))).shape
        TensorShape([2, 5, 16])

    Reference:
        Radford et al., Language Models are Unsupervised Multitask Learners, 2019
    """

    fixed = {"norm_first": True, "causal": True, "norm_last": True}  # noqa: RUF012


@register
class XLNetBlock(_KnownTransformer):
    """XLNet's layers: attention by relative positions, every position to all, normalization after each part.

    It has the two-way attention of XLNet's content stream, not its training by permutations with a second stream, nor a
    memory of earlier segments; it is trained by masks, like BERT. Sequences may have any length.

    Args:
        d_model, n_head, n_layer, hidden_act, initializer_range, layer_norm_eps: as in :class:`BertBlock`.
        dropout, pad_token, pre, post, transformer_post, d_inner: as in :class:`BertBlock`.
        attn_type: "bi", or "uni" where a position attends to itself and those before it.

    Call arguments:
        inputs: (batch, length, dim), as of :class:`TransformerBlock`.

    Returns:
        As of :class:`TransformerBlock`.

    Raises:
        ValueError: for another attn_type.
        TypeError: for ``max_position_embeddings``, as positions are relative.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> ml.XLNetBlock(d_model=16, n_head=2, n_layer=1)(np.ones((2, 5, 16))).shape
        TensorShape([2, 5, 16])

    Reference:
        Yang et al., XLNet: Generalized Autoregressive Pretraining for Language Understanding, 2019,
        https://arxiv.org/abs/1906.08237
    """

    def __init__(self, d_model: int, n_head: int, n_layer: int, attn_type: str = "bi", **kwargs: Any):
        if attn_type not in ("bi", "uni"):
            raise ValueError(f"attn_type must be 'bi' or 'uni'. Received: {attn_type!r}")
        if "max_position_embeddings" in kwargs:
            raise TypeError("XLNetBlock has no max_position_embeddings: its positions are relative.")
        self.attn_type = attn_type
        super().__init__(d_model, n_head, n_layer, **kwargs)

    @property
    def fixed(self) -> dict[str, Any]:
        return {"position": "relative", "causal": self.attn_type == "uni"}

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["max_position_embeddings"]
        return {**config, "attn_type": self.attn_type}
