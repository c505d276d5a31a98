"""Ranking models from a schema: DLRM, DCN, DeepFM, Wide & Deep and neural collaborative filtering."""

from __future__ import annotations

from typing import Any

import keras

from merlin_models.blocks.aggregation import ElementwiseSum
from merlin_models.blocks.combinators import ParallelBlock, SequentialBlock
from merlin_models.blocks.cross import CrossBlock
from merlin_models.blocks.deep_fm import DeepFMBlock, NCFBlock
from merlin_models.blocks.dlrm import DLRMBlock
from merlin_models.blocks.embedding_features import EmbeddingFeatures, EmbeddingOptions
from merlin_models.blocks.inputs import TARGET_TAGS, InputBlock
from merlin_models.blocks.linear import LinearFeatures
from merlin_models.blocks.mlp import MLPBlock
from merlin_models.layers.dense import Dense
from merlin_models.models.model import Model
from merlin_models.schema import Schema


def DLRMModel(
    schema: Schema,
    *,
    embedding_dim: int | None = None,
    embedding_options: EmbeddingOptions | None = None,
    embeddings: EmbeddingFeatures | None = None,
    bottom_block: keras.layers.Layer | None = None,
    top_block: keras.layers.Layer | None = None,
    prediction_tasks: Any = None,
    **kwargs: Any,
) -> Model:
    """A DLRM: see :class:`merlin_models.blocks.DLRMBlock`.

    Args:
        schema: of the data set, with its targets.
        embedding_dim, embedding_options, embeddings, bottom_block, top_block: of the block.
        prediction_tasks: a task or several; one for each target of the schema if None.
        **kwargs: of ``Model``.

    Returns:
        A :class:`Model`, not compiled.

    Raises:
        ValueError: as of :class:`DLRMBlock`, or if the schema has no target and there is no task.

    Example:
        >>> import merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical("C1", 99), ml.ColumnSchema.create_continuous("I1")])
        >>> bottom, top = ml.MLPBlock([32, 16]), ml.MLPBlock([32])
        >>> task = ml.BinaryClassificationTask("label")
        >>> model = ml.DLRMModel(schema, bottom_block=bottom, top_block=top, prediction_tasks=task)
        >>> model.compile(optimizer="adagrad")
    """
    block = DLRMBlock(schema, embedding_dim, bottom_block, top_block, embedding_options, embeddings)
    return Model.from_block(block, schema, prediction_tasks, **kwargs)


def DCNModel(
    schema: Schema,
    depth: int,
    deep_block: keras.layers.Layer | None = None,
    stacked: bool = True,
    *,
    input_block: keras.layers.Layer | None = None,
    embedding_options: EmbeddingOptions | None = None,
    cross_block: keras.layers.Layer | None = None,
    prediction_tasks: Any = None,
    **kwargs: Any,
) -> Model:
    """DCN-v2: a cross network and a deep network, one after the other or side by side.

    Args:
        schema: of the data set, with its targets.
        depth: of the cross network.
        deep_block: a layer; ``MLPBlock([512, 256])`` if None.
        stacked: the deep block on the cross network's output. False: both on the inputs, their outputs concatenated.
        input_block: ``InputBlock(schema)`` if None.
        embedding_options: of that input block.
        cross_block: in the place of ``CrossBlock(depth)``, e.g. one with a ``low_rank_dim``.
        prediction_tasks, **kwargs: as in :func:`DLRMModel`.

    Returns:
        A :class:`Model`, not compiled.

    Raises:
        ValueError: if the schema has no target and there is no task, or if ``depth`` is below 1.

    Example:
        >>> import merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical("C1", 99), ml.ColumnSchema.create_continuous("I1")])
        >>> task = ml.BinaryClassificationTask("label")
        >>> model = ml.DCNModel(schema, depth=2, deep_block=ml.MLPBlock([32]), prediction_tasks=task)
        >>> model.compile(optimizer="adam")

    Reference:
        Wang et al., DCN V2: Improved Deep & Cross Network, 2020, https://arxiv.org/abs/2008.13535
    """
    cross = CrossBlock(depth) if cross_block is None else cross_block
    deep = MLPBlock([512, 256]) if deep_block is None else deep_block
    inputs = _inputs(schema, input_block, embedding_options)
    if stacked:
        body = SequentialBlock([inputs, cross, deep])
    else:
        body = SequentialBlock([inputs, ParallelBlock({"cross": cross, "deep": deep}, aggregation="concat")])
    return Model.from_block(body, schema, prediction_tasks, **kwargs)


def DeepFMModel(
    schema: Schema,
    embedding_dim: int | None = None,
    deep_block: keras.layers.Layer | None = None,
    *,
    embedding_options: EmbeddingOptions | None = None,
    prediction_tasks: Any = None,
    **kwargs: Any,
) -> Model:
    """DeepFM: see :class:`merlin_models.blocks.DeepFMBlock`; its logit goes to the tasks.

    Args:
        schema: of the data set, with its targets.
        embedding_dim, deep_block, embedding_options: of the block.
        prediction_tasks, **kwargs: as in :func:`DLRMModel`.

    Returns:
        A :class:`Model`, not compiled.

    Raises:
        ValueError: if the schema has no target and there is no task.

    Example:
        >>> import merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical("C1", 99), ml.ColumnSchema.create_continuous("I1")])
        >>> task = ml.BinaryClassificationTask("label")
        >>> model = ml.DeepFMModel(schema, embedding_dim=16, deep_block=ml.MLPBlock([32]), prediction_tasks=task)
        >>> model.compile(optimizer="adam")

    Reference:
        Guo et al., DeepFM: A Factorization-Machine based Neural Network for CTR Prediction, 2017,
        https://arxiv.org/abs/1703.04247
    """
    block = DeepFMBlock(schema, embedding_dim, deep_block, embedding_options)
    return Model.from_block(block, schema, prediction_tasks, **kwargs)


def WideAndDeepModel(
    schema: Schema,
    deep_block: keras.layers.Layer,
    wide_schema: Schema | None = None,
    deep_schema: Schema | None = None,
    wide_preprocess: keras.layers.Layer | None = None,
    *,
    deep_input_block: keras.layers.Layer | None = None,
    embedding_options: EmbeddingOptions | None = None,
    prediction_tasks: Any = None,
    **kwargs: Any,
) -> Model:
    """Wide & Deep: the sum of a linear function of features and crosses, and of a deep network's logit.

    Args:
        schema: of the data set, with its targets.
        deep_block: a layer, such as ``MLPBlock([128, 64])``.
        wide_schema: features of the wide part; if None, those of ``wide_preprocess``, or all.
        deep_schema: features of the deep part; all if None.
        wide_preprocess: a layer from raw features to vectors, or a dictionary of them, for the wide part's Dense layer:
            ``CategoryEncoding``, ``HashedCross`` and so on. If None, the wide part is ``LinearFeatures(wide_schema)``:
            what a Dense layer has over one-hot vectors, without these.
        deep_input_block: ``InputBlock(deep_schema)`` if None.
        embedding_options: of that input block.
        prediction_tasks, **kwargs: as in :func:`DLRMModel`.

    Returns:
        A :class:`Model`, not compiled.

    Raises:
        ValueError: if the schema has no target and there is no task.

    Example:
        >>> import merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical("C1", 99), ml.ColumnSchema.create_continuous("I1")])
        >>> task = ml.BinaryClassificationTask("label")
        >>> model = ml.WideAndDeepModel(schema, deep_block=ml.MLPBlock([32]), prediction_tasks=task)
        >>> model.compile(optimizer="adam")

    Reference:
        Cheng et al., Wide & Deep Learning for Recommender Systems, 2016, https://arxiv.org/abs/1606.07792
    """
    deep_schema = schema if deep_schema is None else deep_schema
    if wide_preprocess is None:
        wide: keras.layers.Layer = LinearFeatures(schema if wide_schema is None else wide_schema)
    else:
        if wide_schema is not None:
            wide_schema = wide_schema.remove_by_tag(TARGET_TAGS)
            wide_preprocess = ParallelBlock({"wide": wide_preprocess}, schema=wide_schema, is_input=True)
        wide = SequentialBlock([wide_preprocess, Dense(1)])
    deep = SequentialBlock([_inputs(deep_schema, deep_input_block, embedding_options), deep_block, Dense(1)])
    body = ParallelBlock({"wide": wide, "deep": deep}, aggregation=ElementwiseSum(), is_input=True)
    return Model.from_block(body, schema, prediction_tasks, **kwargs)


def NCFModel(
    schema: Schema,
    embedding_dim: int,
    mlp_block: keras.layers.Layer,
    *,
    prediction_tasks: Any = None,
    **kwargs: Any,
) -> Model:
    """Neural collaborative filtering: see :class:`merlin_models.blocks.NCFBlock`.

    Args:
        schema: of the data set, with its targets; user and item are the columns tagged ``USER_ID`` and ``ITEM_ID``.
        embedding_dim, mlp_block: of the block.
        prediction_tasks, **kwargs: as in :func:`DLRMModel`.

    Returns:
        A :class:`Model`, not compiled.

    Raises:
        ValueError: if the schema has no target and there is no task, or has not one column with each of the two tags.

    Example:
        >>> import merlin_models.tf as ml
        >>> user = ml.ColumnSchema.create_categorical("userId", 100, tags=[ml.Tags.USER_ID])
        >>> movie = ml.ColumnSchema.create_categorical("movieId", 1000, tags=[ml.Tags.ITEM_ID])
        >>> task = ml.BinaryClassificationTask("liked")
        >>> model = ml.NCFModel(ml.Schema([user, movie]), embedding_dim=8, mlp_block=ml.MLPBlock([16]), prediction_tasks=task)
        >>> model.compile(optimizer="adam")

    Reference:
        He et al., Neural Collaborative Filtering, 2017, https://arxiv.org/abs/1708.05031
    """
    return Model.from_block(NCFBlock(schema, embedding_dim, mlp_block), schema, prediction_tasks, **kwargs)


def _inputs(
    schema: Schema, input_block: keras.layers.Layer | None, options: EmbeddingOptions | None
) -> keras.layers.Layer:
    if input_block is not None and options is not None:
        raise ValueError("input_block and embedding_options must not be given together.")
    return InputBlock(schema, embedding_options=options) if input_block is None else input_block
