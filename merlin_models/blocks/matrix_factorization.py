"""Matrix factorization: one embedding for each query id and one for each item id."""

from __future__ import annotations

from typing import Any

import keras

from merlin_models.blocks.aggregation import Aggregation, CosineSimilarity
from merlin_models.blocks.dual_encoder import DualEncoderBlock, columns_of
from merlin_models.blocks.embedding_features import EmbeddingFeatures, EmbeddingOptions
from merlin_models.schema import Schema, Tags


def QueryItemIdsEmbeddingsBlock(
    schema: Schema,
    dim: int | None = None,
    query_id_tag: Tags | str = Tags.USER_ID,
    item_id_tag: Tags | str = Tags.ITEM_ID,
    embedding_options: EmbeddingOptions | None = None,
    post: keras.layers.Layer | None = None,
    aggregation: str | Aggregation | None = None,
    **kwargs: Any,
) -> DualEncoderBlock:
    """An embedding of the query's id beside one of the item's id.

    Args:
        schema: must have exactly one column with each tag.
        dim: length of the embeddings.
        query_id_tag, item_id_tag: of the two columns.
        embedding_options: further options of the two tables; not together with ``dim``.
        post, aggregation: as in ``TabularBlock``.
        **kwargs: of ``DualEncoderBlock``.

    Returns:
        A block with the output ``{"query": (batch, dim), "item": (batch, dim)}``. Each of ``block["query"]`` and
        ``block["item"]`` is an ``EmbeddingFeatures``, so a table is written to a file by
        ``block["item"].export_embedding_table("item_id", path)``.

    Raises:
        ValueError: if the schema is missing, or does not have one column with each tag.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> user = ml.ColumnSchema.create_categorical("userId", 100, tags=[ml.Tags.USER_ID])
        >>> movie = ml.ColumnSchema.create_categorical("movieId", 1000, tags=[ml.Tags.ITEM_ID])
        >>> block = ml.QueryItemIdsEmbeddingsBlock(ml.Schema([user, movie]), dim=16)
        >>> vectors = block({"userId": np.array([1, 2]), "movieId": np.array([[3], [4]])})
        >>> {name: tuple(vector.shape) for name, vector in vectors.items()}
        {'query': (2, 16), 'item': (2, 16)}

    Reference:
        Koren et al., Matrix Factorization Techniques for Recommender Systems, Computer 42(8), 2009.
    """
    if schema is None:
        raise ValueError("The schema is required by MatrixFactorization. Received: None")
    if (dim is None) == (embedding_options is None):
        raise ValueError(
            "Either dim or embedding_options must be given. "
            f"Received: dim={dim} and embedding_options={embedding_options}"
        )
    options = embedding_options or EmbeddingOptions(embedding_dim_default=dim)
    dtype = {"dtype": kwargs["dtype"]} if kwargs.get("dtype") is not None else {}

    def encoder(tag: Tags | str) -> EmbeddingFeatures:
        columns = columns_of(schema, tag)
        if len(columns) > 1:
            raise ValueError(
                f"The schema should contain one feature with the tag `{tag}`. Received: {columns.column_names}"
            )
        return EmbeddingFeatures.from_schema(columns, options, aggregation="concat", **dtype)

    query, item = encoder(query_id_tag), encoder(item_id_tag)
    return DualEncoderBlock(query, item, "query", "item", post=post, aggregation=aggregation, **kwargs)


def MatrixFactorizationBlock(
    schema: Schema,
    dim: int | None = None,
    query_id_tag: Tags | str = Tags.USER_ID,
    item_id_tag: Tags | str = Tags.ITEM_ID,
    aggregation: str | Aggregation | None = None,
    **kwargs: Any,
) -> DualEncoderBlock:
    """The score of a query and an item from an embedding of each id.

    Args:
        schema, dim, query_id_tag, item_id_tag, **kwargs: as in :func:`QueryItemIdsEmbeddingsBlock`.
        aggregation: of the two vectors; ``CosineSimilarity()`` if None.

    Returns:
        A block with the output (batch, 1).

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> user = ml.ColumnSchema.create_categorical("userId", 100, tags=[ml.Tags.USER_ID])
        >>> movie = ml.ColumnSchema.create_categorical("movieId", 1000, tags=[ml.Tags.ITEM_ID])
        >>> block = ml.MatrixFactorizationBlock(ml.Schema([user, movie]), dim=16)
        >>> block({"userId": np.array([1, 2]), "movieId": np.array([3, 4])}).shape
        TensorShape([2, 1])
    """
    aggregation = CosineSimilarity() if aggregation is None else aggregation
    return QueryItemIdsEmbeddingsBlock(schema, dim, query_id_tag, item_id_tag, aggregation=aggregation, **kwargs)
