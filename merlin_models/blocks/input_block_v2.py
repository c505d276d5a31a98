"""InputBlockV2: an input block whose parts are chosen by tags or given as layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from merlin_models.blocks.aggregation import Aggregation
from merlin_models.blocks.combinators import ParallelBlock, SequentialBlock
from merlin_models.blocks.embedding_table import Embeddings
from merlin_models.blocks.inputs import TARGET_TAGS, ContinuousFeatures, checked_schema
from merlin_models.blocks.pretrained import PretrainedEmbeddings
from merlin_models.schema import Schema, Tags


def Continuous(inputs: Schema | Sequence[str], **kwargs: Any) -> ContinuousFeatures:
    """The continuous features of a schema, or of these names: see :class:`ContinuousFeatures`.

    Args:
        inputs: a schema, or names of features.
        **kwargs: of :class:`ContinuousFeatures`.

    Returns:
        A :class:`ContinuousFeatures`.

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import Continuous
        >>> sorted(Continuous(["age"])({"age": np.ones(2), "id": np.ones(2)}))
        ['age']
    """
    if isinstance(inputs, Schema):
        return ContinuousFeatures(schema=inputs, **kwargs)
    return ContinuousFeatures(inputs, **kwargs)


def ContinuousProjection(schema: Schema, projection: keras.layers.Layer) -> SequentialBlock:
    """The continuous features of a schema, concatenated, then a layer.

    Args:
        schema: the columns.
        projection: say, an ``MLPBlock``.

    Returns:
        A :class:`SequentialBlock`, to (batch, width of the projection).

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import ContinuousProjection, MLPBlock
        >>> from merlin_models.schema import Schema
        >>> ContinuousProjection(Schema(["age", "price"]), MLPBlock([4]))({"age": np.ones(2), "price": np.ones(2)}).shape
        TensorShape([2, 4])
    """
    inputs = ContinuousFeatures(schema=schema, aggregation="concat")
    return SequentialBlock([inputs, projection], block_name="continuous_projection")


_TAG_TO_BLOCK: dict[str, Callable[[Schema], keras.layers.Layer]] = {
    Tags.CONTINUOUS: Continuous,
    Tags.CATEGORICAL: Embeddings,
    Tags.EMBEDDING: PretrainedEmbeddings,
}


def InputBlockV2(
    schema: Schema,
    categorical: Tags | str | keras.layers.Layer | None = Tags.CATEGORICAL,
    continuous: Tags | str | keras.layers.Layer | None = Tags.CONTINUOUS,
    pretrained_embeddings: Tags | str | keras.layers.Layer | None = Tags.EMBEDDING,
    pre: keras.layers.Layer | str | None = None,
    post: keras.layers.Layer | str | None = None,
    aggregation: str | Aggregation | None = "concat",
    tag_to_block: Mapping[str, Callable[[Schema], keras.layers.Layer]] | None = None,
    **branches: Tags | str | keras.layers.Layer,
) -> ParallelBlock:
    """The block that takes a data set's features, of parts that are layers or made for the columns of a tag.

    Columns tagged as a target are left out. A part that is a tag is left out if no column has the tag. Columns tagged
    ``embedding`` do not count as continuous.

    Args:
        schema: of the data set.
        categorical: a tag, or a layer in the place of ``Embeddings(schema.select_by_tag(Tags.CATEGORICAL))``; None for none.
        continuous: the same, for ``Continuous``.
        pretrained_embeddings: the same, for ``PretrainedEmbeddings``.
        pre, post: layers, or names of blocks, for the dictionaries before and after.
        aggregation: how the parts' outputs become one tensor; None to keep the dictionary.
        tag_to_block: tag -> function from a schema to a layer: what is made for the columns of a tag. Others are
            as above.
        **branches: further parts by name.

    Returns:
        A ``ParallelBlock`` with the branches "categorical", "continuous", "pretrained_embeddings" and the further ones.

    Raises:
        ValueError: if no column is selected for any part.
        KeyError: for a tag without a block.
        TypeError: if ``schema`` is no ``Schema``.

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import Embeddings, InputBlockV2
        >>> from merlin_models.schema import ColumnSchema, Schema
        >>> schema = Schema([ColumnSchema.create_categorical("movieId", 9), ColumnSchema.create_continuous("age")])
        >>> block = InputBlockV2(schema, categorical=Embeddings(schema.select_by_name("movieId"), dim=4))
        >>> block({"movieId": np.array([1, 2]), "age": np.array([20.0, 30.0])}).shape
        TensorShape([2, 5])
    """
    features = checked_schema(schema).remove_by_tag(TARGET_TAGS)
    makers = {**_TAG_TO_BLOCK, **(tag_to_block or {})}
    parts = {"categorical": categorical, "continuous": continuous, "pretrained_embeddings": pretrained_embeddings}
    parts = {name: part for name, part in parts.items() if part is not None} | branches
    chosen: dict[str, keras.layers.Layer] = {}
    for name, part in parts.items():
        if isinstance(part, keras.layers.Layer):
            chosen[name] = part
            continue
        if not isinstance(part, str):
            raise TypeError(f"{name} must be a tag or a layer. Received: {part!r}")
        if part not in makers:
            raise KeyError(f"{name} must be a layer or a tag with a block, {sorted(makers)}. Received: {part!r}")
        columns = features.select_by_tag(part)
        if part == Tags.CONTINUOUS:
            columns = columns.remove_by_tag(Tags.EMBEDDING)
        if len(columns):
            chosen[name] = makers[part](columns)
    if not chosen:
        tags = [str(part) for part in parts.values()]
        raise ValueError(
            f"No columns selected for the input block: schema must have a column with a tag of {tags} that is no target. "
            f"Received: {[f'{column.name} {list(column.tags)}' for column in schema]}"
        )
    return ParallelBlock(chosen, pre=pre, post=post, aggregation=aggregation, is_input=True)
