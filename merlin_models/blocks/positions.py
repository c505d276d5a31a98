"""Positions of sequences that are masked, or whose outputs are predicted: their way from the features into a model."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import Block, register
from merlin_models.blocks.masking import mask_of, with_mask
from merlin_models.blocks.registry import BLOCKS
from merlin_models.blocks.symbolic import is_symbolic, rank_of
from merlin_models.ops import is_ragged, mask_like, select_positions

# Entries beside the features, booleans (batch, length) or ragged. A transform makes them; a model takes them out.
MASKED = "__masked__"
SELECTED = "__selected__"

_current = threading.local()


class Positions:
    """What is known of a batch's positions while a model runs on it.

    Args:
        masked: whose vectors :class:`ReplaceMaskedEmbeddings` replaces, or None.
        selected: whose outputs the tasks get, or None for all.
    """

    def __init__(self, masked: Any = None, selected: Any = None):
        self.masked, self.selected, self.replaced = masked, selected, False

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Within it, blocks find the masked positions.

        Raises:
            ValueError: at its end, if there are some and no block replaced their vectors: what is to be predicted would have
                been among the inputs.
        """
        before, _current.positions = getattr(_current, "positions", None), self
        try:
            yield
        finally:
            _current.positions = before
        if self.masked is not None and not self.replaced:
            raise ValueError(
                "A model of masked sequences must have a ReplaceMaskedEmbeddings block, for example as the pre of its "
                "transformer block. Received: masked positions, and no such block"
            )

    def rows(self, outputs: Any) -> Any:
        """Sequences (batch, length, dim) as one row for each selected position; other tensors as they are."""
        if isinstance(outputs, Mapping):
            return {name: self.rows(value) for name, value in outputs.items()}
        if is_symbolic(outputs) or rank_of(outputs) != 3:
            return outputs
        if self.selected is not None:
            return select_positions(outputs, self.selected)
        return outputs.flat_values if is_ragged(outputs) else outputs

    def sequences(self, predictions: Any, outputs: Any) -> Any:
        """Predictions for all rows of ragged outputs as ragged again."""
        first = next(iter(outputs.values())) if isinstance(outputs, Mapping) else outputs
        if self.selected is not None or not is_ragged(first):
            return predictions
        return keras.tree.map_structure(first.with_flat_values, predictions)


def split_positions(features: Any) -> tuple[Any, Positions]:
    """The features, and the positions that a transform put beside them."""
    if not isinstance(features, Mapping) or not {MASKED, SELECTED} & set(features):
        return features, Positions()
    rest = {name: value for name, value in features.items() if name not in (MASKED, SELECTED)}
    return rest, Positions(features.get(MASKED), features.get(SELECTED))


def rows_of(structure: Any) -> Any:
    """A structure of tensors, of which ragged ones become one row for each item."""
    return keras.tree.map_structure(lambda x: x.flat_values if is_ragged(x) else x, structure)


def target_rows(targets: Any, features: Any, predictions: Any) -> Any:
    """Targets of sequences as :func:`rows_of` has them.

    Raises:
        ValueError: for lists where predictions are one for each row: their values would be taken for those of other rows.
    """
    of_sequences = isinstance(features, Mapping) and SELECTED in features
    if not of_sequences and not any(is_ragged(x) for x in keras.tree.flatten(predictions)):
        named = targets if isinstance(targets, Mapping) else {"": targets}
        lists = [name for name, target in named.items() if is_ragged(target)]
        if lists:
            raise ValueError(
                "Targets must be one for each row where predictions are, and no lists. Received: a ragged tensor"
                + "".join(f" '{name}'" for name in lists if name)
            )
    return rows_of(targets)


@BLOCKS.register("replace_masked_embeddings")
@register
class ReplaceMaskedEmbeddings(Block):
    """Puts one trained vector in the place of those at the batch's masked positions.

    A transform such as ``SequenceMaskRandom`` says which these are; without one, as in inference on whole sequences, all
    stay.

    Args:
        initializer: of the vector, a Keras identifier or object.

    Call arguments:
        inputs: (batch, length, dim), ragged or dense; of all of a position's features together.

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import ReplaceMaskedEmbeddings
        >>> ReplaceMaskedEmbeddings()(np.ones((2, 3, 8))).shape
        TensorShape([2, 3, 8])

    Reference:
        Sun et al., BERT4Rec: Sequential Recommendation with Bidirectional Encoder Representations from Transformer, 2019,
        https://arxiv.org/abs/1904.06690
    """

    def __init__(self, initializer: Any = None, **kwargs: Any):
        super().__init__(**kwargs)
        default = keras.initializers.TruncatedNormal(stddev=0.05)
        self.initializer = default if initializer is None else keras.initializers.get(initializer)

    def build(self, input_shape: Any) -> None:
        if self.built:
            return
        if isinstance(input_shape, Mapping) or len(input_shape) != 3:
            raise ValueError(f"Inputs must be one tensor (batch, length, dim). Received shape: {input_shape}")
        self.vector = self.add_weight(name="vector", shape=(input_shape[-1],), initializer=self.initializer)
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        positions = getattr(_current, "positions", None)
        if positions is None or positions.masked is None or is_symbolic(inputs):
            return inputs
        positions.replaced = True
        mask = ops.expand_dims(mask_like(positions.masked, inputs), -1)
        vector = ops.cast(self.vector, inputs.dtype)
        if is_ragged(inputs):
            return inputs.with_flat_values(ops.where(mask, vector, inputs.flat_values))
        return with_mask(ops.where(mask, vector, inputs), mask_of(inputs))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "initializer": keras.initializers.serialize(self.initializer)}
