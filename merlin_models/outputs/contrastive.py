"""ContrastiveOutput: positives among sampled negatives, for two towers or for an item table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from merlin_models.blocks.embedding_table import EmbeddingTable
from merlin_models.schema import ColumnSchema, Schema, Tags
from merlin_models.tasks.base import PredictionTask
from merlin_models.tasks.retrieval import ItemRetrievalTask
from merlin_models.tasks.rows import as_row_loss
from merlin_models.tasks.sampled_softmax import SampledSoftmaxTask


def ContrastiveOutput(
    to_call: ColumnSchema | Schema | EmbeddingTable | None = None,
    negative_samplers: Any = "in-batch",
    logits_temperature: float = 1.0,
    loss: Any = "categorical_crossentropy",
    metrics: Sequence[Any] | None = None,
    query_name: str = "query",
    candidate_name: str = "candidate",
    candidate_id: str | None = None,
    logq_sampling_correction: Any = False,
    downscore_false_negatives: bool = True,
    task_name: str = "contrastive_output",
    **kwargs: Any,
) -> PredictionTask:
    """A task that tells a positive item from sampled negatives, by softmax cross-entropy over their products with a query.

    Args:
        to_call: None for the products of two towers' vectors. A column of item ids (or a schema with one tagged ``item_id``)
            for a table of the task's own, or an ``EmbeddingTable`` of the inputs, which is then shared: targets are item ids.
        negative_samplers: item samplers, their classes or names, one or several; None for all rows of a table.
        logits_temperature: what scores are divided by.
        loss, metrics: of :class:`ItemRetrievalTask`; the loss is the mean over the rows.
        query_name, candidate_name: the keys of the two vectors of two towers.
        candidate_id: the feature of the candidates' ids, of two towers; that tagged ``item_id`` if None.
        logq_sampling_correction: see ``logq_correction`` of :class:`ItemRetrievalTask`.
        downscore_false_negatives: whether negatives with the id of a row's positive are left out of its softmax.
        task_name: what metrics begin with.
        **kwargs: of :class:`ItemRetrievalTask` or, with ``to_call``, :class:`SampledSoftmaxTask`.

    Returns:
        An :class:`ItemRetrievalTask` or a :class:`SampledSoftmaxTask`.

    Raises:
        ValueError: for a schema without exactly one column tagged ``item_id``, None as samplers of two towers, or
            ``downscore_false_negatives=False`` where all rows of a table are candidates.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> user = ml.ColumnSchema.create_categorical("userId", 100, tags=[ml.Tags.USER_ID])
        >>> movie = ml.ColumnSchema.create_categorical("movieId", 1000, tags=[ml.Tags.ITEM_ID])
        >>> queries, movies = (ml.EmbeddingEncoder(ml.Schema([column]), dim=16) for column in (user, movie))
        >>> model = ml.RetrievalModelV2(query=queries, candidate=movies, output=ml.ContrastiveOutput())
        >>> model.compile(optimizer="adam")
        >>> history = model.fit({"userId": np.arange(4), "movieId": np.arange(4)}, verbose=0)
        >>> "contrastive_output/recall_at_10" in history.history
        True
    """
    options = {
        "logq_correction": logq_sampling_correction,
        "downscore_false_negatives": downscore_false_negatives,
        "loss": loss,
        "metrics": metrics,
        "task_name": task_name,
    }
    if to_call is None:
        if negative_samplers is None:
            raise ValueError("negative_samplers must be given where to_call is None: there is no table of all items.")
        options["loss"] = as_row_loss(loss, "sum_over_batch_size")
        names = {"query_name": query_name, "item_name": candidate_name, "item_id_name": candidate_id}
        options = {"normalize": False, **names, **options, **kwargs}
        return ItemRetrievalTask(samplers=negative_samplers, softmax_temperature=logits_temperature, **options)
    if isinstance(to_call, Schema):
        columns = to_call.select_by_tag(Tags.ITEM_ID)
        if len(columns) != 1:
            raise ValueError(f"to_call must have one column tagged item_id. Received: {to_call.column_names}")
        to_call = columns.first
    return SampledSoftmaxTask(to_call, samplers=negative_samplers, temperature=logits_temperature, **options, **kwargs)
