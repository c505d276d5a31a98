"""ItemRetrievalTask: which item is the query's, learned from the items of the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras

from merlin_models.blocks.base import register
from merlin_models.blocks.l2_norm import L2Norm
from merlin_models.layers import InbatchSoftmax, LogitsTemperature
from merlin_models.metrics import TopKMetricsAggregator
from merlin_models.tasks.base import PredictionTask, TaskStep, is_computing_loss
from merlin_models.tasks.rows import as_row_loss, item_ids, reduce_rows, row_weights, update_from_rank


class Vectors(NamedTuple):
    """What the loss is computed from, (batch, dim) each."""

    query: Any
    item: Any


@register
class ItemRetrievalTask(PredictionTask):
    """Finds the query's item among the items of the batch: softmax cross-entropy over all of them.

    The loss and the metrics come from one op that never holds the scores of the batch as a matrix
    (:func:`merlin_models.ops.inbatch_softmax`). With the item ids at hand (the feature tagged ``item_id``, or
    ``item_id_name``) the items of a batch that have the id of a row's own are no negatives for it.

    Targets are optional, 0 or 1 (or a weight) a row: a row of target 0 adds no loss, its item stays a negative of the others.

    Args:
        loss: softmax cross-entropy from logits, summed over the rows ("categorical_crossentropy"). A Keras
            ``CategoricalCrossentropy(from_logits=True, reduction=...)`` for another reduction.
        metrics: ranking metrics, updated with the rank of the row's item among the negatives; by default recall, MRR, NDCG,
            mean average precision and precision at 10.
        extra_pre_call: a layer for each of the two vectors, after the normalization.
        target_name, task_name: as in :class:`PredictionTask`.
        task_block: a layer for each of the two vectors, before the normalization; one with weights shares them.
        softmax_temperature: what scores are divided by.
        normalize: whether vectors are divided by their length, so that scores are cosines.
        learnable_temperature: whether the temperature is a weight; it begins with ``softmax_temperature``.
        symmetric: the mean with the loss of the items among the queries of the batch, as CLIP has it.
        item_id_name: the feature that tells which items are the same; that tagged ``item_id`` if None.
        precision: of float32 scores on a GPU: "float32", "tf32", or None for TensorFlow's own setting.

    Call arguments:
        inputs: ``{"query": (batch, dim), "item": (batch, dim)}``

    Returns:
        (batch, 1) float32: the product of the row's two vectors (not divided by the temperature). While a loss is computed,
        :class:`Vectors`.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> user = ml.ColumnSchema.create_categorical("userId", 100, tags=[ml.Tags.USER_ID])
        >>> movie = ml.ColumnSchema.create_categorical("movieId", 1000, tags=[ml.Tags.ITEM_ID])
        >>> towers = ml.TwoTowerBlock(ml.Schema([user, movie]), query_tower=ml.MLPBlock([32, 16]))
        >>> model = towers.connect(ml.ItemRetrievalTask(softmax_temperature=2))
        >>> model.compile(optimizer="adam")
        >>> history = model.fit({"userId": np.arange(4), "movieId": np.arange(4)}, np.ones(4), verbose=0)
        >>> model.predict({"userId": np.arange(4), "movieId": np.arange(4)}, verbose=0).shape
        (4, 1)

    Reference:
        Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations, RecSys 2019.
    """

    has_own_loss = True
    default_loss = "categorical_crossentropy"

    def __init__(
        self,
        loss: Any = None,
        metrics: Sequence[Any] | None = None,
        extra_pre_call: keras.layers.Layer | None = None,
        target_name: Any = None,
        task_name: str | None = None,
        task_block: keras.layers.Layer | None = None,
        softmax_temperature: float = 1.0,
        normalize: bool = True,
        learnable_temperature: bool = False,
        symmetric: bool = False,
        item_id_name: str | None = None,
        precision: str | None = None,
        **kwargs: Any,
    ):
        metrics = TopKMetricsAggregator.default_metrics(10) if metrics is None else metrics
        super().__init__(target_name, task_name, task_block, loss, metrics, **kwargs)
        self.extra_pre_call, self.item_id_name = extra_pre_call, item_id_name
        self.norm = L2Norm(dtype=self.dtype_policy) if normalize else None
        self.temperature = LogitsTemperature(softmax_temperature, learnable_temperature)
        self.softmax = InbatchSoftmax(symmetric, precision, dtype=self.dtype_policy)

    def make_head(self) -> keras.layers.Layer:
        return keras.layers.Dot(axes=-1, dtype=self.output_dtype)

    def as_loss(self, loss: Any) -> keras.losses.Loss:
        return as_row_loss(loss, "sum")

    @property
    def vector_layers(self) -> list[keras.layers.Layer]:
        """What a tower's output goes through before vectors are multiplied."""
        return [layer for layer in (self.task_block, self.norm, self.extra_pre_call) if layer is not None]

    def build(self, input_shape: Any) -> None:
        if self.built:
            return
        self.temperature.build()
        super().build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not isinstance(inputs, Mapping) or not {"query", "item"} <= set(inputs):
            received = sorted(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__
            raise ValueError(
                f"Inputs of {type(self).__name__} must be a dictionary with 'query' and 'item', as of TwoTowerBlock. "
                f"Received: {received}"
            )
        query, item = inputs["query"], inputs["item"]
        for layer in self.vector_layers:
            query, item = layer(query), layer(item)
        return Vectors(query, item) if is_computing_loss() else self.head([query, item])

    def compute_loss(
        self, step: TaskStep, loss: keras.losses.Loss, metrics: Sequence[Any], weighted_metrics: Sequence[Any]
    ) -> Any:
        counted, weights = row_weights(step, self.task_name)
        rows = self.softmax(
            step.outputs.query,
            step.outputs.item,
            temperature=self.temperature.value,
            candidate_ids=item_ids(step, self.item_id_name),
            training=step.training,
        )
        update_from_rank(metrics, rows.rank, counted)
        update_from_rank(weighted_metrics, rows.rank, weights)
        return reduce_rows(rows.loss, weights, loss.reduction)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "extra_pre_call": keras.saving.serialize_keras_object(self.extra_pre_call),
            "softmax_temperature": self.temperature.temperature,
            "normalize": self.norm is not None,
            "learnable_temperature": self.temperature.learnable,
            "symmetric": self.softmax.symmetric,
            "item_id_name": self.item_id_name,
            "precision": self.softmax.precision,
        }
