"""DualEncoderBlock: two encoders side by side, each on its own features."""

from __future__ import annotations

from typing import Any

import keras

from merlin_models.blocks.aggregation import Aggregation
from merlin_models.blocks.base import Block, register
from merlin_models.blocks.combinators import ParallelBlock, SequentialBlock
from merlin_models.blocks.embedding_features import EmbeddingOptions
from merlin_models.blocks.inputs import TARGET_TAGS, InputBlock, checked_schema
from merlin_models.blocks.symbolic import parts_from_config
from merlin_models.schema import Schema, Tags


@register
class DualEncoderBlock(ParallelBlock):
    """Two encoders whose outputs stand under their names; ``block[left_name]`` is an encoder by itself.

    Args:
        left, right: layers, each from features to one vector (batch, dim).
        left_name, right_name: their keys.
        post, aggregation: as in :class:`TabularBlock`.
        is_input: whether the inputs are raw features; if None, whether both encoders say so.

    Returns:
        ``{left_name: (batch, dim), right_name: (batch, dim)}``, or what ``aggregation`` makes of it.

    Example:
        >>> import keras, numpy as np
        >>> from merlin_models.blocks import DualEncoderBlock
        >>> block = DualEncoderBlock(keras.layers.Dense(4), keras.layers.Dense(4), aggregation="cosine")
        >>> block(np.ones((2, 3))).shape
        TensorShape([2, 1])
    """

    def __init__(
        self,
        left: keras.layers.Layer,
        right: keras.layers.Layer,
        left_name: str = "left",
        right_name: str = "right",
        post: keras.layers.Layer | None = None,
        aggregation: str | Aggregation | None = None,
        is_input: bool | None = None,
        **kwargs: Any,
    ):
        if left_name == right_name:
            raise ValueError(f"left_name and right_name must differ. Received: {left_name!r} twice")
        branches = {left_name: left, right_name: right}
        if is_input is None:
            is_input = all(getattr(each, "is_input", False) for each in branches.values())
        super().__init__(branches, post=post, aggregation=aggregation, is_input=is_input, **kwargs)

    @property
    def left(self) -> keras.layers.Layer:
        return self.layers[0]

    @property
    def right(self) -> keras.layers.Layer:
        return self.layers[1]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        (left_name, left), (right_name, right) = config.pop("branches").items()
        return {**config, "left": left, "right": right, "left_name": left_name, "right_name": right_name}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        return cls(**parts_from_config(config))


def encoder_on(
    schema: Schema, tag: Tags | str, encoder: keras.layers.Layer, options: EmbeddingOptions | None
) -> keras.layers.Layer:
    """The encoder on an ``InputBlock`` of the columns with a tag; as it is if it begins with an input block.

    Raises:
        ValueError: if no column but targets has the tag.
    """
    if getattr(encoder, "is_input", False):
        return encoder
    # Other layers than blocks may not take a dictionary.
    aggregation = None if isinstance(encoder, Block) else "concat"
    inputs = InputBlock(columns_of(schema, tag), aggregation=aggregation, embedding_options=options)
    return SequentialBlock([inputs, encoder])


def columns_of(schema: Schema, tag: Tags | str) -> Schema:
    """The columns with a tag that are no targets.

    Raises:
        ValueError: if there is none.
    """
    columns = checked_schema(schema).select_by_tag(tag).remove_by_tag(TARGET_TAGS)
    if not len(columns):
        raise ValueError(f"The schema should contain features with the tag `{tag}`. Received: {schema.column_names}")
    return columns
