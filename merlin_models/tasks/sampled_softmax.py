"""SampledSoftmaxTask: which of all items comes next, learned from a sample of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.aggregation import concat
from merlin_models.blocks.base import register
from merlin_models.blocks.embedding_table import EmbeddingTable
from merlin_models.blocks.l2_norm import L2Norm
from merlin_models.blocks.symbolic import symbolic_inputs
from merlin_models.layers import InbatchSoftmax, LogitsTemperature
from merlin_models.metrics import TopKMetricsAggregator
from merlin_models.samplers.base import as_ids
from merlin_models.schema import ColumnSchema, Schema
from merlin_models.tasks.base import PredictionTask, TaskStep, is_computing_loss
from merlin_models.tasks.negatives import Negatives, Pool
from merlin_models.tasks.rows import as_row_loss, row_weights, softmax_rows, update_from_rank


@register
class SampledSoftmaxTask(PredictionTask):
    """Finds the target among the rows of an item table: softmax cross-entropy over a sample of them, or over all.

    Targets are item ids, (batch,) or (batch, 1). Training compares the target's row with sampled ones, by one op that never
    holds the scores as a matrix (:func:`merlin_models.ops.inbatch_softmax`); evaluation compares it with all rows, so that
    metrics are those of the full catalogue.

    Args:
        items: the column of the items' ids, for a table of the task's own; or an ``EmbeddingTable`` of the model's inputs,
            which is then shared (weight tying). As long as the body's output.
        samplers: where negatives come from: item samplers, their classes or names ("in-batch": the targets of the batch).
            None for all rows, all of which get a gradient then.
        logq_correction: as of :class:`ItemRetrievalTask`.
        loss: softmax cross-entropy, the mean over the rows; "categorical_crossentropy" or a Keras
            ``CategoricalCrossentropy(from_logits=True, reduction=...)``; or a pairwise loss, see :class:`ItemRetrievalTask`.
        metrics: ranking metrics; recall, MRR, NDCG, mean average precision and precision at 10 by default.
        target_name, task_name, task_block: as in :class:`PredictionTask`.
        temperature: what scores are divided by.
        normalize: whether the body's output and the table's rows are divided by their length.
        learnable_temperature: whether the temperature is a weight; it begins with ``temperature``.
        min_id: smallest id of an item: rows before it are no candidates, but for a sampler that gives them.
        precision: of float32 scores on a GPU: "float32", "tf32", or None for TensorFlow's own setting.
        downscore_false_negatives: whether candidates with the id of a row's positive are no negatives of it.

    Call arguments:
        inputs: (batch, dim), or a dictionary of such tensors, which are concatenated.

    Returns:
        Scores of all ids, (batch, rows of the table) float32, where those before ``min_id`` are -inf. While a loss is
        computed, the vectors (batch, dim).

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> movie = ml.ColumnSchema.create_categorical("movieId", 1000, tags=[ml.Tags.ITEM_ID])
        >>> user = ml.ColumnSchema.create_categorical("userId", 100, tags=[ml.Tags.USER_ID])
        >>> task = ml.SampledSoftmaxTask(movie, samplers=ml.PopularityBasedSampler(max_id=1000), logq_correction=True)
        >>> model = ml.InputBlock(ml.Schema([user])).connect(ml.MLPBlock([32]), task)
        >>> model.compile(optimizer="adam")
        >>> history = model.fit({"userId": np.arange(4)}, np.array([11, 5, 8, 3]), verbose=0)

    Reference:
        Covington et al., Deep Neural Networks for YouTube Recommendations, RecSys 2016.
    """

    has_own_loss = True
    default_loss = "categorical_crossentropy"

    def __init__(
        self,
        items: ColumnSchema | EmbeddingTable,
        samplers: Any = "in-batch",
        logq_correction: Any = False,
        loss: Any = None,
        metrics: Sequence[Any] | None = None,
        target_name: Any = None,
        task_name: str | None = None,
        task_block: keras.layers.Layer | None = None,
        temperature: float = 1.0,
        normalize: bool = False,
        learnable_temperature: bool = False,
        min_id: int = 0,
        precision: str | None = None,
        downscore_false_negatives: bool = True,
        **kwargs: Any,
    ):
        if isinstance(items, str):
            items = Schema.from_json(items).first
        if not isinstance(items, ColumnSchema | EmbeddingTable):
            raise TypeError(f"items must be a ColumnSchema or an EmbeddingTable. Received: {type(items).__name__}")
        if isinstance(items, EmbeddingTable) and len(items.schema) != 1:
            raise ValueError(f"items must be a table that one column reads. Received: {items.schema.column_names}")
        metrics = TopKMetricsAggregator.default_metrics(10) if metrics is None else metrics
        super().__init__(target_name, task_name, task_block, loss, metrics, **kwargs)
        self.item_column = items if isinstance(items, ColumnSchema) else None
        self.table = items if isinstance(items, EmbeddingTable) else None
        rows = items.cardinality if isinstance(items, ColumnSchema) else items.input_dim
        if not isinstance(min_id, int) or not 0 <= min_id < rows:
            raise ValueError(f"min_id must be an id of the table, in [0, {rows}). Received: {min_id!r}")
        self.num_rows, self.min_id = rows, min_id
        if samplers is None and logq_correction is not False:
            raise ValueError("logq_correction must be False where all rows are candidates. Received a correction")
        if samplers is None and not downscore_false_negatives:
            raise ValueError("downscore_false_negatives must be True where all rows are candidates. Received: False")
        self.negatives = (
            None
            if samplers is None
            else Negatives(samplers, logq_correction, downscore_false_negatives, dtype=self.dtype_policy)
        )
        self.norm = L2Norm(dtype=self.dtype_policy) if normalize else None
        self.temperature = LogitsTemperature(temperature, learnable_temperature)
        self.softmax = InbatchSoftmax(precision=precision, dtype=self.dtype_policy)

    def make_head(self) -> None:
        return None

    def as_loss(self, loss: Any) -> keras.losses.Loss:
        return as_row_loss(loss, "sum_over_batch_size")

    @property
    def vector_layers(self) -> list[keras.layers.Layer]:
        """What the body's output goes through before vectors are multiplied."""
        return [layer for layer in (self.task_block, self.norm) if layer is not None]

    def build(self, input_shape: Any) -> None:
        if self.built:
            return
        query = self._query(symbolic_inputs(input_shape, None))
        if self.table is None:
            column = ColumnSchema.create_categorical(f"{self.item_column.name}_output", self.num_rows - 1)
            options = {"embeddings_initializer": keras.initializers.TruncatedNormal(stddev=0.05)}
            self.table = EmbeddingTable(query.shape[-1], column, dtype=self.dtype_policy, **options)
        if self.table.dim != query.shape[-1]:
            raise ValueError(
                f"The body's output must be as long as the rows of the item table, {self.table.dim}. Received: {query.shape}"
            )
        item = self._rows(keras.KerasTensor((None,), "int64"))
        self.temperature.build()
        if self.negatives is not None:
            self.negatives.build_from(item)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        query = self._query(inputs)
        if is_computing_loss():
            return query
        scores = ops.matmul(
            ops.cast(query, self.output_dtype), ops.transpose(ops.cast(self._all_rows(0), self.output_dtype))
        )
        scores = scores / ops.cast(self.temperature.value, scores.dtype)
        return ops.where(ops.arange(self.num_rows) >= self.min_id, scores, -float("inf")) if self.min_id else scores

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> keras.KerasTensor:
        query = self._query(inputs)
        if is_computing_loss():
            return query
        return keras.KerasTensor((query.shape[0], self.num_rows), self.output_dtype)

    def compute_loss(
        self, step: TaskStep, loss: keras.losses.Loss, metrics: Sequence[Any], weighted_metrics: Sequence[Any]
    ) -> Any:
        ids, _, weights = self.ids_and_weights(step)
        positives = self._rows(ids)
        if step.training and self.negatives is not None:
            pool = self.negatives(positives, ids, encode=self._lookup, finish=self._finish_rows, training=True)
        else:
            every = ops.arange(self.min_id, self.num_rows, dtype="int64")
            pool = Pool(ops.cast(self._all_rows(self.min_id), positives.dtype), positives, ids, every)
        value, rank = softmax_rows(
            self.softmax, step.outputs, pool, self.temperature.value, loss, weights, step.training
        )
        update_from_rank(metrics, rank, None)
        update_from_rank(weighted_metrics, rank, weights)
        return value

    def ids_and_weights(self, step: TaskStep) -> tuple[Any, Any, Any]:
        """The targets as ids, and what rows count to metrics and to the loss, as of :class:`ItemRetrievalTask`."""
        if step.targets is None:
            raise ValueError(f"Targets of task '{self.task_name}' must be item ids. Received: none")
        return as_ids(self.target_in(step.targets)), *row_weights(step._replace(targets=None), self.task_name)

    # ---- vectors ----

    def _query(self, inputs: Any) -> Any:
        if isinstance(inputs, Mapping):
            inputs = concat(inputs, self.compute_dtype)
        for layer in self.vector_layers:
            inputs = layer(inputs)
        return inputs

    def _finish_rows(self, rows: Any) -> Any:
        return rows if self.norm is None else self.norm(rows)

    def _rows(self, ids: Any) -> Any:
        """The vectors of ids (items,), trained by rows."""
        return self._finish_rows(self._lookup(ids))

    def _lookup(self, ids: Any) -> Any:
        return ops.reshape(self.table(ids), (-1, self.table.dim))  # of a list's column it has an axis more

    def _all_rows(self, first: int) -> Any:
        """The vectors of all ids from the first on."""
        table = ops.convert_to_tensor(self.table.table)
        return self._finish_rows(table[first:])

    def item_vectors(self) -> tuple[Any, Any]:
        """The ids (items,) and vectors (items, dim) of the catalogue."""
        return ops.arange(self.min_id, self.num_rows, dtype="int64"), self._all_rows(self.min_id)

    def get_config(self) -> dict[str, Any]:
        negatives = (
            {"samplers": None, "logq_correction": False, "downscore_false_negatives": True}
            if self.negatives is None
            else self.negatives.get_config()
        )
        column = self.item_column
        return {
            **super().get_config(),
            "items": keras.saving.serialize_keras_object(self.table) if column is None else Schema([column]).to_json(),
            "samplers": negatives["samplers"],
            "logq_correction": negatives["logq_correction"],
            "downscore_false_negatives": negatives["downscore_false_negatives"],
            "temperature": self.temperature.temperature,
            "normalize": self.norm is not None,
            "learnable_temperature": self.temperature.learnable,
            "min_id": self.min_id,
            "precision": self.softmax.precision,
        }
