"""ItemRetrievalTask: which item is the query's, learned from the items of the batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import keras

from merlin_models.blocks.base import register
from merlin_models.blocks.l2_norm import L2Norm
from merlin_models.blocks.symbolic import symbolic_inputs
from merlin_models.layers import InbatchSoftmax, LogitsTemperature
from merlin_models.metrics import TopKMetricsAggregator
from merlin_models.tasks.base import PredictionTask, TaskStep, is_computing_loss
from merlin_models.tasks.negatives import Negatives
from merlin_models.tasks.rows import as_row_loss, item_ids, row_weights, softmax_rows, update_from_rank


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
            ``CategoricalCrossentropy(from_logits=True, reduction=...)`` for another reduction. Or a pairwise loss, such as
            "bpr", the mean over all pairs of a positive and a negative: these do hold the scores, (batch, candidates).
        metrics: ranking metrics, updated with the rank of the row's item among the negatives; by default recall, MRR, NDCG,
            mean average precision and precision at 10.
        extra_pre_call: a layer for each of the two vectors, after the normalization.
        target_name, task_name: as in :class:`PredictionTask`.
        task_block: a layer for each of the two vectors, before the normalization; one with weights shares them.
        softmax_temperature: what scores are divided by.
        samplers: where negatives come from: item samplers, their classes or names; "in-batch" if there is none. Those that
            draw ids (``PopularityBasedSampler``) need an ``item_encoder``, unless the item tower reads nothing but the id.
        logq_correction: whether scores are lowered, in training, by the logarithm of how often an item is expected among the
            candidates, of all samplers together; or a ``PopularityLogitsCorrection`` that has the frequencies of items.
        normalize: whether vectors are divided by their length, so that scores are cosines.
        learnable_temperature: whether the temperature is a weight; it begins with ``softmax_temperature``.
        symmetric: the mean with the loss of the items among the queries of the batch, as CLIP has it.
        query_name, item_name: the keys of the two vectors.
        item_id_name: the feature that tells which items are the same; that tagged ``item_id`` if None.
        precision: of float32 scores on a GPU: "float32", "tf32", or None for TensorFlow's own setting.
        downscore_false_negatives: whether candidates with the id of a row's positive are no negatives of it.
        logits_temperature: the later name of ``softmax_temperature``, in its place.

    Call arguments:
        inputs: ``{"query": (batch, dim), "item": (batch, dim)}``

    Returns:
        (batch, 1) float32: the product of the row's two vectors (not divided by the temperature). While a loss is computed,
        a pair of vectors, (batch, dim) each: ``query`` and ``item``.

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
    needs_targets = False
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
        samplers: Sequence[Any] = (),
        logq_correction: Any = False,
        symmetric: bool = False,
        query_name: str = "query",
        item_name: str = "item",
        item_id_name: str | None = None,
        precision: str | None = None,
        downscore_false_negatives: bool = True,
        logits_temperature: float | None = None,
        **kwargs: Any,
    ):
        if logits_temperature is not None:
            if softmax_temperature != 1.0:
                raise ValueError(
                    "softmax_temperature must not be given beside logits_temperature, its later name. "
                    f"Received: {softmax_temperature} and {logits_temperature}"
                )
            softmax_temperature = logits_temperature
        metrics = TopKMetricsAggregator.default_metrics(10) if metrics is None else metrics
        super().__init__(target_name, task_name, task_block, loss, metrics, **kwargs)
        self.extra_pre_call, self.item_id_name = extra_pre_call, item_id_name
        self.query_name, self.item_name = query_name, item_name
        self.norm = L2Norm(dtype=self.dtype_policy) if normalize else None
        self.temperature = LogitsTemperature(softmax_temperature, learnable_temperature)
        self.negatives = Negatives(samplers, logq_correction, downscore_false_negatives, dtype=self.dtype_policy)
        if symmetric and not self.negatives.only_in_batch:
            raise ValueError(
                "symmetric must be False unless the items of the batch are the only candidates. Received: True"
            )
        self.softmax = InbatchSoftmax(symmetric, precision, dtype=self.dtype_policy)
        self.__dict__["_item_tower"] = None  # not tracked: it is a part of the model

    def make_head(self) -> keras.layers.Layer:
        return keras.layers.Dot(axes=-1, dtype=self.output_dtype)

    def as_loss(self, loss: Any) -> keras.losses.Loss:
        return as_row_loss(loss, "sum")

    def set_item_tower(self, tower: keras.layers.Layer) -> None:
        """Lets samplers that draw ids have them encoded by the tower, if it reads nothing but the id."""
        schema = getattr(tower, "schema", None)
        self.__dict__["_item_tower"] = tower if schema is not None and len(schema) == 1 else None

    @property
    def vector_layers(self) -> list[keras.layers.Layer]:
        """What a tower's output goes through before vectors are multiplied."""
        return [layer for layer in (self.task_block, self.norm, self.extra_pre_call) if layer is not None]

    def finish(self, vectors: Any) -> Any:
        """A tower's output after ``vector_layers``."""
        for layer in self.vector_layers:
            vectors = layer(vectors)
        return vectors

    def build(self, input_shape: Any) -> None:
        if self.built:
            return
        super().build(input_shape)
        self.temperature.build()
        self.negatives.build_from(self.finish(symbolic_inputs(input_shape[self.item_name], None)))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        if not isinstance(inputs, Mapping) or not {self.query_name, self.item_name} <= set(inputs):
            received = sorted(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__
            raise ValueError(
                f"Inputs of {type(self).__name__} must be a dictionary with '{self.query_name}' and '{self.item_name}', "
                f"as of TwoTowerBlock. Received: {received}"
            )
        query, item = self.finish(inputs[self.query_name]), self.finish(inputs[self.item_name])
        if query.shape[-1] != item.shape[-1]:
            raise ValueError(
                f"The vectors of '{self.query_name}' and '{self.item_name}' must have one length, as their products are the "
                f"scores. Received: {query.shape[-1]} and {item.shape[-1]}"
            )
        return Vectors(query, item) if is_computing_loss() else self.head([query, item])

    def compute_loss(
        self, step: TaskStep, loss: keras.losses.Loss, metrics: Sequence[Any], weighted_metrics: Sequence[Any]
    ) -> Any:
        ids, counted, weights = self.ids_and_weights(step)
        name = self.item_id_name or getattr(step.schema, "item_id_column_name", None)
        if name is not None and step.schema is not None and name in step.schema:
            self.negatives.check_frequencies(step.schema[name])
        encoders = {"encode": self.__dict__["_item_tower"], "finish": self.finish}
        pool = self.negatives(step.outputs.item, ids, **encoders, training=step.training)
        value, rank = softmax_rows(
            self.softmax, step.outputs.query, pool, self.temperature.value, loss, weights, step.training
        )
        update_from_rank(metrics, rank, counted)
        update_from_rank(weighted_metrics, rank, weights)
        return value

    def ids_and_weights(self, step: TaskStep) -> tuple[Any, Any, Any]:
        """The ids of the rows' items, or None where they are not known, and what rows count to metrics and to the loss."""
        step = step._replace(targets=self.target_in(step.targets))
        return item_ids(step, self.item_id_name), *row_weights(step, self.task_name)

    def get_config(self) -> dict[str, Any]:
        negatives = self.negatives.get_config()
        return {
            **super().get_config(),
            "extra_pre_call": keras.saving.serialize_keras_object(self.extra_pre_call),
            "softmax_temperature": self.temperature.temperature,
            "normalize": self.norm is not None,
            "learnable_temperature": self.temperature.learnable,
            "samplers": negatives["samplers"],
            "logq_correction": negatives["logq_correction"],
            "downscore_false_negatives": negatives["downscore_false_negatives"],
            "symmetric": self.softmax.symmetric,
            "query_name": self.query_name,
            "item_name": self.item_name,
            "item_id_name": self.item_id_name,
            "precision": self.softmax.precision,
        }
