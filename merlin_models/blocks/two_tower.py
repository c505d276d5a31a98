"""TwoTowerBlock: a tower for queries and a tower for items, from a schema."""

from __future__ import annotations

from typing import Any

import keras

from merlin_models.blocks.base import copy_of, register
from merlin_models.blocks.dual_encoder import DualEncoderBlock, encoder_on
from merlin_models.blocks.embedding_features import EmbeddingOptions
from merlin_models.schema import Schema, Tags


@register
class TwoTowerBlock(DualEncoderBlock):
    """Two towers that share nothing: one from the user's features to a vector, one from the item's.

    Each tower is an ``InputBlock`` of the columns with its tag (``Tags.USER_ID`` counts as ``Tags.USER`` and
    ``Tags.ITEM_ID`` as ``Tags.ITEM``; targets and columns without either tag are left out), then the given layer.
    ``block["query"]`` and ``block["item"]`` are the towers; each takes a dictionary of its features, or a bare tensor if it
    has just one.

    Args:
        schema: of the data set.
        query_tower: a layer such as ``MLPBlock([512, 256])``. One that begins with an input block is taken as it is.
        item_tower: the same for items; a copy of ``query_tower``, with weights of its own, if None.
        query_tower_tag, item_tower_tag: of the columns.
        embedding_dim_default: length of all embeddings; 64 if None.
        embedding_options: further options of the tables; not together with ``embedding_dim_default``.
        post: a layer for the dictionary of both outputs, such as ``L2Norm()``.

    Call arguments:
        inputs: dictionary feature -> tensor. Others are ignored.

    Returns:
        ``{"query": (batch, dim), "item": (batch, dim)}``

    Raises:
        ValueError: if the schema or the query tower is missing, or no column has a tower's tag.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> user = ml.ColumnSchema.create_categorical("userId", 100, tags=[ml.Tags.USER_ID])
        >>> movie = ml.ColumnSchema.create_categorical("movieId", 1000, tags=[ml.Tags.ITEM_ID])
        >>> block = ml.TwoTowerBlock(ml.Schema([user, movie]), query_tower=ml.MLPBlock([32, 16]))
        >>> block["query"](np.array([1, 2])).shape
        TensorShape([2, 16])

    Reference:
        Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations, RecSys 2019.
    """

    def __init__(
        self,
        schema: Schema,
        query_tower: keras.layers.Layer,
        item_tower: keras.layers.Layer | None = None,
        query_tower_tag: Tags | str = Tags.USER,
        item_tower_tag: Tags | str = Tags.ITEM,
        embedding_dim_default: int | None = None,
        embedding_options: EmbeddingOptions | None = None,
        post: keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        if schema is None:
            raise ValueError("The schema is required by TwoTower. Received: None")
        if query_tower is None:
            raise ValueError("The query_tower is required by TwoTower. Received: None")
        if embedding_dim_default is not None and embedding_options is not None:
            raise ValueError("embedding_dim_default and embedding_options must not be given together.")
        if embedding_dim_default is not None:
            embedding_options = EmbeddingOptions(embedding_dim_default=embedding_dim_default)
        if item_tower is None:
            if getattr(query_tower, "is_input", False):
                raise ValueError(
                    "item_tower must be given where query_tower begins with an input block: its inputs are the query's."
                )
            item_tower = copy_of(query_tower)
        super().__init__(
            encoder_on(schema, query_tower_tag, query_tower, embedding_options),
            encoder_on(schema, item_tower_tag, item_tower, embedding_options),
            left_name="query",
            right_name="item",
            post=post,
            **kwargs,
        )
        self._whole_schema = schema

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["left_name"], config["right_name"]
        towers = {"query_tower": config.pop("left"), "item_tower": config.pop("right")}
        return {**config, **towers, "schema": self._whole_schema.to_json()}
