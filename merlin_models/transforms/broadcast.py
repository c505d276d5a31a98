"""BroadcastToSequence: features of a row, repeated at each position of its sequences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import Block, register
from merlin_models.blocks.masking import common_mask, mask_of
from merlin_models.blocks.symbolic import is_symbolic, rank_of
from merlin_models.ops import is_ragged, repeat_for_items
from merlin_models.schema import Schema


@register
class BroadcastToSequence(Block):
    """Repeats context features for each position of the sequences beside them, so that both can be concatenated.

    Args:
        context_schema: the features with one value a row.
        sequence_schema: the features with one value a position; at least one must be in the inputs.

    Call arguments:
        inputs: dictionary with sequences (batch, length, dim), or ids (batch, length), all ragged or all dense; and context
            (batch, dim), or ids (batch,) or (batch, 1). Others are passed on.

    Returns:
        The dictionary, in which context is (batch, length, dim), or (batch, length) beside ids; ragged beside ragged
        sequences, and with the Keras mask of dense ones.

    Raises:
        ValueError: if no sequence is there, or a context feature has another shape.

    Example:
        >>> import numpy as np
        >>> from merlin_models.schema import Schema
        >>> from merlin_models.transforms import BroadcastToSequence
        >>> broadcast = BroadcastToSequence(Schema(["user"]), Schema(["item"]))
        >>> broadcast({"user": np.ones((2, 4)), "item": np.ones((2, 3, 8))})["user"].shape
        TensorShape([2, 3, 4])
    """

    def __init__(self, context_schema: Schema, sequence_schema: Schema, **kwargs: Any):
        super().__init__(**kwargs)
        for name, schema in (("context_schema", context_schema), ("sequence_schema", sequence_schema)):
            if not isinstance(schema, Schema) or not len(schema):
                raise ValueError(f"{name} must be a Schema with at least one column. Received: {schema!r}")
        both = sorted(set(context_schema.column_names) & set(sequence_schema.column_names))
        if both:
            raise ValueError(f"Columns must be context or sequences. Received as both: {both}")
        self.context_schema, self.sequence_schema = context_schema, sequence_schema

    def call(self, inputs: Mapping[str, Any], training: bool | None = None) -> dict[str, Any]:
        sequence = next((inputs[name] for name in self._sequences(inputs)), None)
        if sequence is None:
            raise ValueError(
                f"Inputs must have one of the sequences {self.sequence_schema.column_names}. Received: {sorted(inputs)}"
            )
        return {
            name: _broadcast(name, value, sequence) if name in self.context_schema else value
            for name, value in inputs.items()
        }

    def compute_mask(self, inputs: Mapping[str, Any], previous_mask: Any = None) -> dict[str, Any]:
        mask = common_mask(mask_of(inputs[name]) for name in self._sequences(inputs))
        return {name: mask if name in self.context_schema else mask_of(value) for name, value in inputs.items()}

    def _sequences(self, inputs: Mapping[str, Any]) -> list[str]:
        return [name for name in self.sequence_schema.column_names if name in inputs]

    def get_config(self) -> dict[str, Any]:
        schemas = {"context_schema": self.context_schema.to_json(), "sequence_schema": self.sequence_schema.to_json()}
        return {**super().get_config(), **schemas}


def _broadcast(name: str, value: Any, sequence: Any) -> Any:
    of_ids = rank_of(sequence) == 2
    rank = None if is_ragged(value) else rank_of(value)
    if rank not in (1, 2) or (of_ids and rank == 2 and value.shape[1] not in (1, None)):
        raise ValueError(
            f"The context feature '{name}' must be {'(batch,) or (batch, 1)' if of_ids else '(batch, dim)'} beside sequences "
            f"of shape {tuple(sequence.shape)}. Received shape: {tuple(value.shape)}"
        )
    if of_ids:
        value = ops.reshape(value, (-1,))
    elif rank == 1:
        value = ops.expand_dims(value, -1)
    if is_symbolic(sequence):
        shape = (value.shape[0], sequence.shape[1], *value.shape[1:])
        return keras.KerasTensor(shape, value.dtype, ragged=sequence.ragged)
    if is_ragged(sequence):
        return repeat_for_items(value, sequence)
    length = sequence.shape[1] if sequence.shape[1] is not None else ops.shape(sequence)[1]
    return ops.repeat(ops.expand_dims(value, 1), length, axis=1)
