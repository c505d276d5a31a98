"""Retrieval models from a schema: two towers, matrix factorization, YouTube's candidate generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from merlin_models.blocks.aggregation import Aggregation
from merlin_models.blocks.dual_encoder import DualEncoderBlock
from merlin_models.blocks.embedding_features import EmbeddingOptions
from merlin_models.blocks.embedding_table import EmbeddingTable
from merlin_models.blocks.inputs import TARGET_TAGS, InputBlock
from merlin_models.blocks.matrix_factorization import QueryItemIdsEmbeddingsBlock
from merlin_models.blocks.mlp import MLPBlock
from merlin_models.blocks.two_tower import TwoTowerBlock
from merlin_models.models.encoder import EmbeddingEncoder, Encoder
from merlin_models.models.retrieval import RetrievalModel
from merlin_models.outputs.contrastive import ContrastiveOutput
from merlin_models.samplers import PopularityBasedSampler
from merlin_models.schema import ColumnSchema, Schema, Tags
from merlin_models.tasks import ItemRetrievalTask, PredictionTask, SampledSoftmaxTask


def TwoTowerModel(
    schema: Schema,
    query_tower: keras.layers.Layer,
    item_tower: keras.layers.Layer | None = None,
    query_tower_tag: Tags | str = Tags.USER,
    item_tower_tag: Tags | str = Tags.ITEM,
    embedding_options: EmbeddingOptions | None = None,
    post: keras.layers.Layer | None = None,
    loss: Any = None,
    metrics: Sequence[Any] | None = None,
    logits_temperature: float = 1.0,
    samplers: Sequence[Any] = (),
    task_options: dict[str, Any] | None = None,
    **kwargs: Any,
) -> RetrievalModel:
    """A two-tower model: see :class:`merlin_models.blocks.TwoTowerBlock` and :class:`merlin_models.tasks.ItemRetrievalTask`.

    Args:
        schema, query_tower, item_tower, query_tower_tag, item_tower_tag, embedding_options, post: of the block.
        loss, metrics, samplers: of the task; ``logits_temperature`` is its ``softmax_temperature``.
        task_options: further arguments of the task.
        **kwargs: of ``RetrievalModel``.

    Returns:
        A :class:`RetrievalModel`, not compiled.

    Raises:
        ValueError: if no feature of the schema has one of the two tags.

    Example:
        >>> import merlin_models.tf as ml
        >>> user = ml.ColumnSchema.create_categorical("userId", 100, tags=[ml.Tags.USER_ID])
        >>> movie = ml.ColumnSchema.create_categorical("movieId", 1000, tags=[ml.Tags.ITEM_ID])
        >>> model = ml.TwoTowerModel(ml.Schema([user, movie]), query_tower=ml.MLPBlock([32, 16]), logits_temperature=0.1)
        >>> model.compile(optimizer="adam")
    """
    block = TwoTowerBlock(
        schema,
        query_tower,
        item_tower,
        query_tower_tag,
        item_tower_tag,
        embedding_options=embedding_options,
        post=post,
    )
    task = ItemRetrievalTask(
        loss, metrics, softmax_temperature=logits_temperature, samplers=samplers, **(task_options or {})
    )
    return RetrievalModel(block, task, **kwargs)


def MatrixFactorizationModel(
    schema: Schema,
    dim: int | None = None,
    query_id_tag: Tags | str = Tags.USER_ID,
    item_id_tag: Tags | str = Tags.ITEM_ID,
    embedding_options: EmbeddingOptions | None = None,
    post: keras.layers.Layer | None = None,
    loss: Any = None,
    metrics: Sequence[Any] | None = None,
    logits_temperature: float = 1.0,
    samplers: Sequence[Any] = (),
    task_options: dict[str, Any] | None = None,
    **kwargs: Any,
) -> RetrievalModel:
    """A matrix factorization: an embedding of each query's id and one of each item's.

    Args:
        schema, dim, query_id_tag, item_id_tag, embedding_options, post: of
            :func:`merlin_models.blocks.QueryItemIdsEmbeddingsBlock`.
        loss, metrics, logits_temperature, samplers, task_options, **kwargs: as of :func:`TwoTowerModel`.

    Returns:
        A :class:`RetrievalModel`, not compiled.

    Raises:
        ValueError: if the schema has not one column with each of the two tags.

    Example:
        >>> import merlin_models.tf as ml
        >>> user = ml.ColumnSchema.create_categorical("userId", 100, tags=[ml.Tags.USER_ID])
        >>> movie = ml.ColumnSchema.create_categorical("movieId", 1000, tags=[ml.Tags.ITEM_ID])
        >>> model = ml.MatrixFactorizationModel(ml.Schema([user, movie]), dim=32)
        >>> model.compile(optimizer="adam")
    """
    block = QueryItemIdsEmbeddingsBlock(schema, dim, query_id_tag, item_id_tag, embedding_options, post)
    task = ItemRetrievalTask(
        loss, metrics, softmax_temperature=logits_temperature, samplers=samplers, **(task_options or {})
    )
    return RetrievalModel(block, task, **kwargs)


def YoutubeDNNRetrievalModel(
    schema: Schema,
    aggregation: str | Aggregation = "concat",
    top_block: keras.layers.Layer | None = None,
    l2_normalization: bool = True,
    logits_temperature: float = 1.0,
    sampled_softmax: bool = True,
    num_sampled: int = 100,
    min_sampled_id: int = 0,
    embedding_options: EmbeddingOptions | None = None,
    metrics: Sequence[Any] | None = None,
    **kwargs: Any,
) -> RetrievalModel:
    """YouTube's candidate generation: an MLP over the pooled history, and a softmax over a table of all items.

    Targets are the ids of the next items, (batch,) or (batch, 1). Negatives are drawn log-uniformly, so ids should be sorted
    by frequency, as NVTabular's are; scores are corrected for it.

    Args:
        schema: must have one column tagged ``item_id``, a list: the history.
        aggregation: of the features.
        top_block: a layer on them; ``MLPBlock([64])`` if None.
        l2_normalization: whether scores are cosines.
        logits_temperature: what they are divided by.
        sampled_softmax: False for a softmax over all items at each step.
        num_sampled: how many items are drawn for a batch.
        min_sampled_id: the smallest id of an item.
        embedding_options: of the input tables.
        metrics: of the task.
        **kwargs: of ``RetrievalModel``.

    Returns:
        A :class:`RetrievalModel`, not compiled.

    Raises:
        ValueError: if the schema has not one list tagged ``item_id``.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> history = ml.ColumnSchema.create_categorical("movieId", 1000, value_count=(0, 20), tags=[ml.Tags.ITEM_ID])
        >>> model = ml.YoutubeDNNRetrievalModel(ml.Schema([history]), num_sampled=20)
        >>> model.compile(optimizer="adam")
        >>> _ = model.fit({"movieId": np.array([[3, 5, 0], [7, 0, 0]])}, np.array([4, 9]), verbose=0)
        >>> model.to_top_k_encoder(k=5)({"movieId": np.array([[3, 5]])}).identifiers.shape
        TensorShape([1, 5])

    Reference:
        Covington et al., Deep Neural Networks for YouTube Recommendations, RecSys 2016.
    """
    item = _history(schema)
    inputs = InputBlock(schema, aggregation=aggregation, embedding_options=embedding_options)
    top_block = MLPBlock([64]) if top_block is None else top_block
    scores = {"normalize": l2_normalization, "temperature": logits_temperature}
    task = _youtube_task(item, item, sampled_softmax, num_sampled, min_sampled_id, metrics=metrics, **scores)
    return RetrievalModel(inputs, top_block, task, **kwargs)


def RetrievalModelV2(
    query: Encoder,
    output: PredictionTask,
    candidate: Encoder | None = None,
    query_name: str = "query",
    candidate_name: str = "candidate",
    **kwargs: Any,
) -> RetrievalModel:
    """A retrieval model from encoders.

    Args:
        query, candidate: encoders; without ``candidate`` the output has the items.
        output: a task, as of ``ContrastiveOutput``.
        query_name, candidate_name: the keys of the vectors that the output takes.
        **kwargs: of ``RetrievalModel``.

    Returns:
        A :class:`RetrievalModel`, not compiled.

    Example:
        >>> import merlin_models.tf as ml
        >>> user = ml.ColumnSchema.create_categorical("userId", 100, tags=[ml.Tags.USER_ID])
        >>> movie = ml.ColumnSchema.create_categorical("movieId", 1000, tags=[ml.Tags.ITEM_ID])
        >>> query, candidate = (ml.Encoder(ml.Schema([column]), ml.MLPBlock([16])) for column in (user, movie))
        >>> model = ml.RetrievalModelV2(query, ml.ItemRetrievalTask(), candidate, candidate_name="item")
        >>> model.compile(optimizer="adam")
    """
    if candidate is None:
        return RetrievalModel(query, output, **kwargs)
    return RetrievalModel(DualEncoderBlock(query, candidate, query_name, candidate_name), output, **kwargs)


def TwoTowerModelV2(
    query_tower: Encoder,
    candidate_tower: Encoder,
    candidate_id_tag: Tags | str = Tags.ITEM_ID,
    outputs: PredictionTask | None = None,
    logits_temperature: float = 1.0,
    negative_samplers: Any = "in-batch",
    **kwargs: Any,
) -> RetrievalModel:
    """A two-tower model from encoders.

    Args:
        query_tower, candidate_tower: encoders.
        candidate_id_tag: of the column of the candidates' ids, in the candidate tower's schema.
        outputs: a task; ``ContrastiveOutput`` with the next two arguments if None.
        logits_temperature, negative_samplers: of that.
        **kwargs: of ``RetrievalModel``.

    Returns:
        A :class:`RetrievalModel`, not compiled.

    Raises:
        ValueError: if the candidate tower has not one column with the tag.

    Example:
        >>> import merlin_models.tf as ml
        >>> user = ml.ColumnSchema.create_categorical("userId", 100, tags=[ml.Tags.USER_ID])
        >>> movie = ml.ColumnSchema.create_categorical("movieId", 1000, tags=[ml.Tags.ITEM_ID])
        >>> towers = [ml.Encoder(ml.Schema([column]), ml.MLPBlock([32, 16])) for column in (user, movie)]
        >>> model = ml.TwoTowerModelV2(*towers)
        >>> model.compile(optimizer="adam")
    """
    if outputs is None:
        names = candidate_tower.schema.select_by_tag(candidate_id_tag).column_names
        if len(names) != 1:
            raise ValueError(
                f"The candidate_tower must have one feature with the tag `{candidate_id_tag}`. Received: {names}"
            )
        outputs = ContrastiveOutput(
            negative_samplers=negative_samplers, logits_temperature=logits_temperature, candidate_id=names[0]
        )
    return RetrievalModelV2(query_tower, outputs, candidate_tower, **kwargs)


def MatrixFactorizationModelV2(
    schema: Schema,
    dim: int | None = None,
    query_id_tag: Tags | str = Tags.USER_ID,
    candidate_id_tag: Tags | str = Tags.ITEM_ID,
    embedding_options: EmbeddingOptions | None = None,
    post: keras.layers.Layer | None = None,
    outputs: PredictionTask | None = None,
    logits_temperature: float = 1.0,
    negative_samplers: Any = "in-batch",
    **kwargs: Any,
) -> RetrievalModel:
    """A matrix factorization from encoders.

    Args:
        schema: must have exactly one column with each tag.
        dim, embedding_options, post: of ``EmbeddingEncoder``.
        query_id_tag, candidate_id_tag: of the two columns.
        outputs, logits_temperature, negative_samplers, **kwargs: as of :func:`TwoTowerModelV2`.

    Returns:
        A :class:`RetrievalModel`, not compiled.

    Raises:
        ValueError: if the schema has not one column with each of the two tags.

    Example:
        >>> import merlin_models.tf as ml
        >>> user = ml.ColumnSchema.create_categorical("userId", 100, tags=[ml.Tags.USER_ID])
        >>> movie = ml.ColumnSchema.create_categorical("movieId", 1000, tags=[ml.Tags.ITEM_ID])
        >>> model = ml.MatrixFactorizationModelV2(ml.Schema([user, movie]), dim=32)
        >>> model.compile(optimizer="adam")
    """
    query, candidate = (
        EmbeddingEncoder(schema.select_by_tag(tag).remove_by_tag(TARGET_TAGS), dim, embedding_options, post)
        for tag in (query_id_tag, candidate_id_tag)
    )
    scores = {"logits_temperature": logits_temperature, "negative_samplers": negative_samplers}
    return TwoTowerModelV2(query, candidate, candidate_id_tag, outputs, **scores, **kwargs)


def YoutubeDNNRetrievalModelV2(
    schema: Schema,
    aggregation: str | Aggregation = "concat",
    top_block: keras.layers.Layer | None = None,
    l2_normalization: bool = True,
    logits_temperature: float = 1.0,
    num_sampled: int = 100,
    min_sampled_id: int = 0,
    dim: int = 64,
    embedding_options: EmbeddingOptions | None = None,
    metrics: Sequence[Any] | None = None,
    **kwargs: Any,
) -> RetrievalModel:
    """:func:`YoutubeDNNRetrievalModel` whose items have one table, for the history and for the softmax.

    Args:
        dim: length of the item table's rows, and of the top block's output; ``MLPBlock([dim])`` if that is None.
        top_block: as there, but for its width.
        schema, aggregation, l2_normalization, logits_temperature, num_sampled: as there.
        min_sampled_id, embedding_options, metrics, **kwargs: as there.

    Returns:
        A :class:`RetrievalModel`, not compiled.

    Raises:
        ValueError: if the schema has not one list tagged ``item_id``.

    Example:
        >>> import merlin_models.tf as ml
        >>> history = ml.ColumnSchema.create_categorical("movieId", 1000, value_count=(0, 20), tags=[ml.Tags.ITEM_ID])
        >>> model = ml.YoutubeDNNRetrievalModelV2(ml.Schema([history]), dim=32, num_sampled=20)
        >>> model.compile(optimizer="adam")
    """
    item = _history(schema)
    table = EmbeddingTable(dim, item, sequence_combiner="mean")
    others = schema.remove_by_name([item.name])
    inputs = InputBlock(others, {"items": table}, aggregation=aggregation, embedding_options=embedding_options)
    top_block = MLPBlock([dim]) if top_block is None else top_block
    scores = {"normalize": l2_normalization, "temperature": logits_temperature}
    task = _youtube_task(item, table, True, num_sampled, min_sampled_id, metrics=metrics, **scores)
    return RetrievalModel(inputs, top_block, task, **kwargs)


def _history(schema: Schema) -> ColumnSchema:
    columns = schema.select_by_tag(Tags.ITEM_ID).remove_by_tag(TARGET_TAGS)
    if len(columns) != 1 or not columns.first.is_list:
        raise ValueError(
            "The schema should contain one list with the tag `item_id`, the history of items. "
            f"Received: {[f'{column.name}{[] if column.is_list else str()}' for column in columns]}"
        )
    return columns.first


def _youtube_task(
    item: ColumnSchema,
    items: ColumnSchema | EmbeddingTable,
    sampled: bool,
    num_sampled: int,
    min_id: int,
    **options: Any,
) -> SampledSoftmaxTask:
    samplers = None
    if sampled:
        samplers = PopularityBasedSampler(max_id=item.cardinality - 1, min_id=min_id, max_num_samples=num_sampled)
    return SampledSoftmaxTask(items, samplers=samplers, logq_correction=sampled, min_id=min_id, **options)
