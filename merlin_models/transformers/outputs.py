"""What a transformer returns, and blocks that take what a model needs of it."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops

from merlin_models.blocks.base import Block, register
from merlin_models.blocks.masking import mask_of
from merlin_models.blocks.registry import BLOCKS
from merlin_models.blocks.sequence_aggregator import SequenceAggregator
from merlin_models.blocks.symbolic import is_symbolic, rank_of
from merlin_models.ops import is_ragged, positions_in_rows, repeat_for_items, row_lengths, to_dense


class TransformerOutput(NamedTuple):
    """What a transformer returns for sequences (batch, length, dim); ragged for ragged sequences.

    Attributes:
        last_hidden_state: (batch, length, dim) of the last layer.
        hidden_states: those of the embeddings and of each layer, as a tuple; or None if the transformer does not tell.
        attentions: for each layer (batch, heads, length, length), dense, as a tuple; or None if nobody needs them.
        pooler_output: (batch, dim); or None if nobody needs it.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> class First(ml.Block):  # a layer on it, for transformer_post=
        ...     def call(self, inputs, training=None):
        ...         return inputs.last_hidden_state[:, 0]
        >>> ml.BertBlock(d_model=16, n_head=2, n_layer=2, transformer_post=First())(np.ones((2, 5, 16))).shape
        TensorShape([2, 16])
    """

    last_hidden_state: Any
    hidden_states: Any = None
    attentions: Any = None
    pooler_output: Any = None


class TransformerPost(Block):
    """Takes a part of a :class:`TransformerOutput`.

    Subclasses say what they need beside hidden states, and write ``take``.
    """

    needs_attentions = False
    needs_pooler = False

    def __init__(self, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)  # passes tensors on as they are

    def call(self, inputs: TransformerOutput, training: bool | None = None) -> Any:
        if not isinstance(inputs, TransformerOutput):
            raise TypeError(
                f"Inputs of {type(self).__name__} must be a TransformerOutput. Received: {type(inputs).__name__}"
            )
        return self.take(inputs)

    def build(self, input_shape: Any) -> None:
        self.built = True

    def take(self, outputs: TransformerOutput) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define take(outputs).")


@BLOCKS.register("last_hidden_state")
@register
class LastHiddenState(TransformerPost):
    """(batch, length, dim) of the last layer.

    Call arguments:
        inputs: a :class:`TransformerOutput`.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> block = ml.BertBlock(d_model=16, n_head=2, n_layer=1, transformer_post=ml.LastHiddenState())
        >>> block(np.ones((2, 5, 16))).shape
        TensorShape([2, 5, 16])
    """

    def take(self, outputs: TransformerOutput) -> Any:
        return outputs.last_hidden_state


@BLOCKS.register("hidden_states")
@register
class HiddenStates(TransformerPost):
    """(batch, length, dim) of the embeddings and of each layer, as a tuple.

    Call arguments:
        inputs: a :class:`TransformerOutput`.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> block = ml.BertBlock(d_model=16, n_head=2, n_layer=1, transformer_post=ml.HiddenStates())
        >>> [state.shape for state in block(np.ones((2, 5, 16)))]
        [TensorShape([2, 5, 16]), TensorShape([2, 5, 16])]
    """

    def take(self, outputs: TransformerOutput) -> Any:
        return outputs.hidden_states


@BLOCKS.register("attentions")
@register
class AttentionWeights(TransformerPost):
    """(batch, heads, length, length) of each layer, as a tuple.

    Call arguments:
        inputs: a :class:`TransformerOutput`.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> block = ml.BertBlock(d_model=16, n_head=2, n_layer=1, transformer_post=ml.AttentionWeights())
        >>> [weights.shape for weights in block(np.ones((2, 5, 16)))]
        [TensorShape([2, 2, 5, 5])]
    """

    needs_attentions = True

    def take(self, outputs: TransformerOutput) -> Any:
        return outputs.attentions


@BLOCKS.register("last_hidden_state_and_attention")
@register
class LastHiddenStateAndAttention(TransformerPost):
    """(batch, length, dim) and (batch, heads, length, length) of the last layer.

    Call arguments:
        inputs: a :class:`TransformerOutput`.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> block = ml.BertBlock(d_model=16, n_head=2, n_layer=1, transformer_post=ml.LastHiddenStateAndAttention())
        >>> state, weights = block(np.ones((2, 5, 16)))
        >>> state.shape, weights.shape
        (TensorShape([2, 5, 16]), TensorShape([2, 2, 5, 5]))
    """

    needs_attentions = True

    def take(self, outputs: TransformerOutput) -> Any:
        return outputs.last_hidden_state, outputs.attentions[-1]


@BLOCKS.register("pooler_output")
@register
class PoolerOutput(TransformerPost):
    """(batch, dim): a dense layer with tanh on the first position, as BERT has it.

    Call arguments:
        inputs: a :class:`TransformerOutput`.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> block = ml.BertBlock(d_model=16, n_head=2, n_layer=1, transformer_post=ml.PoolerOutput())
        >>> block(np.ones((2, 5, 16))).shape
        TensorShape([2, 16])
    """

    needs_pooler = True

    def take(self, outputs: TransformerOutput) -> Any:
        return outputs.pooler_output


@BLOCKS.register("sequence_cls_index", "cls_index")
@register
class SequenceClsIndex(Block):
    """The vector at one position of each sequence.

    Args:
        cls_index: the position; negative ones count from the end of each sequence, as it is without its padding.

    Call arguments:
        inputs: (batch, length, dim), ragged or dense, whose Keras mask tells the padding; or a ``TransformerOutput``.

    Returns:
        (batch, dim); zeros for a sequence that has no such position.

    Example:
        >>> import tensorflow as tf
        >>> from merlin_models.transformers import SequenceLast
        >>> SequenceLast()(tf.ragged.constant([[[1.0], [2.0]], [[5.0]]], ragged_rank=1)).numpy().tolist()
        [[2.0], [5.0]]
    """

    def __init__(self, cls_index: int = -1, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        if not isinstance(cls_index, int):
            raise TypeError(f"cls_index must be an integer. Received: {cls_index!r}")
        self.cls_index = cls_index

    def build(self, input_shape: Any) -> None:
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        x = inputs.last_hidden_state if isinstance(inputs, TransformerOutput) else inputs
        if rank_of(x) != 3:
            raise ValueError(f"Inputs must have the shape (batch, length, dim). Received: {tuple(x.shape)}")
        if is_symbolic(x):
            return keras.KerasTensor((x.shape[0], x.shape[2]), x.dtype)
        place = ops.expand_dims(self._is_place(x), -1)
        return ops.sum(ops.where(place, x := to_dense(x), ops.zeros_like(x)), axis=1)

    def _is_place(self, x: Any) -> Any:
        """Boolean (batch, length)."""
        index = self.cls_index
        if is_ragged(x):
            wanted = index if index >= 0 else repeat_for_items(row_lengths(x), x).flat_values + index
            return to_dense(x.with_flat_values(ops.equal(positions_in_rows(x), wanted)))
        mask = mask_of(x)
        valid = ops.ones(ops.shape(x)[:2], dtype="int32") if mask is None else ops.cast(mask, "int32")
        count = ops.cumsum(valid, axis=1)
        wanted = index + 1 if index >= 0 else ops.sum(valid, axis=1, keepdims=True) + index + 1
        return ops.logical_and(ops.equal(count, wanted), ops.cast(valid, "bool"))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "cls_index": self.cls_index}


@BLOCKS.register("sequence_last")
@register
class SequenceLast(SequenceClsIndex):
    """The vector at the last position of each sequence; see :class:`SequenceClsIndex`.

    Args:
        cls_index: as of :class:`SequenceClsIndex`.

    Call arguments:
        inputs: (batch, length, dim), ragged or dense, or a :class:`TransformerOutput`.

    Returns:
        (batch, dim).

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> block = ml.BertBlock(d_model=16, n_head=2, n_layer=1, transformer_post=ml.SequenceLast())
        >>> block(np.ones((2, 5, 16))).shape
        TensorShape([2, 16])
    """

    def __init__(self, cls_index: int = -1, **kwargs: Any):
        super().__init__(cls_index, **kwargs)


@BLOCKS.register("sequence_first")
@register
class SequenceFirst(SequenceClsIndex):
    """The vector at the first position of each sequence; see :class:`SequenceClsIndex`.

    Args:
        cls_index: as of :class:`SequenceClsIndex`.

    Call arguments:
        inputs: (batch, length, dim), ragged or dense, or a :class:`TransformerOutput`.

    Returns:
        (batch, dim).

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> block = ml.BertBlock(d_model=16, n_head=2, n_layer=1, transformer_post=ml.SequenceFirst())
        >>> block(np.ones((2, 5, 16))).shape
        TensorShape([2, 16])
    """

    def __init__(self, cls_index: int = 0, **kwargs: Any):
        super().__init__(cls_index, **kwargs)


@BLOCKS.register("sequence_mean")
@register
class SequenceMean(SequenceAggregator):
    """The mean over the positions of each sequence, also of a ``TransformerOutput``; see :class:`SequenceAggregator`.

    Call arguments:
        inputs: (batch, length, dim), ragged or dense, or a :class:`TransformerOutput`.

    Returns:
        (batch, dim).

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> block = ml.BertBlock(d_model=16, n_head=2, n_layer=1, transformer_post=ml.SequenceMean())
        >>> block(np.ones((2, 5, 16))).shape
        TensorShape([2, 16])
    """

    def build(self, input_shape: Any) -> None:
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return super().call(inputs.last_hidden_state if isinstance(inputs, TransformerOutput) else inputs)
