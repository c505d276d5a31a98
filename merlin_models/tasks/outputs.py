"""Model outputs: prediction tasks under the names of the older library's last releases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from merlin_models.blocks.base import Block, register
from merlin_models.blocks.embedding_table import EmbeddingTable
from merlin_models.blocks.weight_tying import EmbeddingTablePrediction
from merlin_models.layers.dense import Dense
from merlin_models.schema import ColumnSchema, Schema, Tags
from merlin_models.tasks.base import PredictionTask
from merlin_models.tasks.binary import BinaryClassificationTask
from merlin_models.tasks.class_targets import targets_for
from merlin_models.tasks.multi_class import loss_of_scores, match_classes, metric_of_scores, output_metrics
from merlin_models.tasks.parallel import ParallelPredictionBlock, targets_of
from merlin_models.tasks.regression import RegressionTask
from merlin_models.tasks.sample_weight import ColumnBasedSampleWeight


@register
class ModelOutput(PredictionTask):
    """A prediction task around any layer.

    Args:
        to_call: the layer that makes scores of the body's output.
        target: as ``target_name`` of :class:`PredictionTask`.
        pre: a layer before ``to_call``, or None.
        post: a layer on the predictions, a :class:`ColumnBasedSampleWeight`, or None.
        logits_temperature: what scores are divided by.
        loss: mean squared error by default.
        metrics: none by default.
        task_name, **kwargs: as in :class:`PredictionTask`.

    Call arguments:
        inputs: (batch, dim), or a dictionary of such tensors, which are concatenated.

    Returns:
        What ``to_call`` and ``post`` make, float32 also under a mixed dtype policy.

    Example:
        >>> import keras, merlin_models.tf as ml
        >>> output = ml.ModelOutput(keras.layers.Dense(1), target="rating", logits_temperature=2.0)
        >>> output.task_name
        'rating/model_output'
    """

    default_loss = "MeanSquaredError"

    def __init__(
        self,
        to_call: keras.layers.Layer | None = None,
        target: str | ColumnSchema | Schema | None = None,
        pre: keras.layers.Layer | None = None,
        post: keras.layers.Layer | ColumnBasedSampleWeight | None = None,
        logits_temperature: float = 1.0,
        **kwargs: Any,
    ):
        if to_call is not None and not isinstance(to_call, keras.layers.Layer):
            raise TypeError(f"to_call must be a Keras layer. Received: {to_call!r}")
        if not logits_temperature > 0:
            raise ValueError(f"logits_temperature must be positive. Received: {logits_temperature}")
        self.to_call, self.logits_temperature = to_call, float(logits_temperature)
        weighted = isinstance(post, ColumnBasedSampleWeight)
        if weighted and kwargs.get("sample_weight") is not None:
            raise ValueError("post and sample_weight must not both be a ColumnBasedSampleWeight.")
        if weighted:
            kwargs["sample_weight"] = post
        elif post is not None and not isinstance(post, keras.layers.Layer):
            raise TypeError(f"post must be a Keras layer or a ColumnBasedSampleWeight. Received: {post!r}")
        super().__init__(target, task_block=pre, **kwargs)
        self.post = None if weighted else post

    def make_head(self) -> keras.layers.Layer:
        if self.to_call is None:
            raise ValueError(f"to_call must be given to {type(self).__name__}. Received: None")
        return self.to_call

    def finish(self, outputs: Any) -> Any:
        outputs = keras.ops.cast(outputs, self.output_dtype)
        if self.logits_temperature != 1.0:
            outputs = outputs / self.logits_temperature
        outputs = self.activate(outputs)
        return outputs if self.post is None else self.post(outputs)

    def activate(self, scores: Any) -> Any:
        """Predictions of scores."""
        return scores

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        renamed = {"target": config.pop("target_name"), "pre": config.pop("task_block")}
        return {
            **config,
            **renamed,
            "to_call": keras.saving.serialize_keras_object(self.to_call),
            "post": keras.saving.serialize_keras_object(self.post),
            "logits_temperature": self.logits_temperature,
        }


@register
class BinaryOutput(ModelOutput):
    """:class:`BinaryClassificationTask` as a :class:`ModelOutput`.

    Args:
        target: see :class:`PredictionTask`; the tag is ``binary_classification``.
        to_call: a layer that makes one score a row, before the sigmoid; ``Dense(1)`` if None.
        **kwargs: as in :class:`ModelOutput`, with the loss and metrics of :class:`BinaryClassificationTask` by default.

    Call arguments:
        inputs: (batch, dim), or a dictionary of such tensors.

    Returns:
        Probabilities (batch, 1), float32 also under a mixed dtype policy.

    Example:
        >>> import merlin_models.tf as ml
        >>> ml.BinaryOutput("conversion", post=ml.ColumnBasedSampleWeight("click")).task_name
        'conversion/binary_output'
    """

    default_loss = BinaryClassificationTask.default_loss
    default_metrics = BinaryClassificationTask.default_metrics
    target_tag = Tags.BINARY_CLASSIFICATION
    takes_bias = True

    def __init__(self, target: Any = None, to_call: keras.layers.Layer | None = None, **kwargs: Any):
        super().__init__(to_call, target, **kwargs)

    def make_head(self) -> keras.layers.Layer:
        return Dense(1, dtype=self.output_dtype) if self.to_call is None else self.to_call

    def activate(self, scores: Any) -> Any:
        return keras.activations.sigmoid(scores)


@register
class RegressionOutput(ModelOutput):
    """:class:`RegressionTask` as a :class:`ModelOutput`.

    Args:
        target: see :class:`PredictionTask`; the tag is ``regression``.
        to_call: a layer that makes one number a row; ``Dense(1)`` if None.
        **kwargs: as in :class:`ModelOutput`, with the loss and metrics of :class:`RegressionTask` by default.

    Call arguments:
        inputs: (batch, dim), or a dictionary of such tensors.

    Returns:
        (batch, 1), float32 also under a mixed dtype policy.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> ml.RegressionOutput("price")(np.ones((2, 8))).shape
        TensorShape([2, 1])
    """

    default_loss = RegressionTask.default_loss
    default_metrics = RegressionTask.default_metrics
    target_tag = Tags.REGRESSION
    takes_bias = True

    def __init__(self, target: Any = None, to_call: keras.layers.Layer | None = None, **kwargs: Any):
        super().__init__(to_call, target, **kwargs)

    def make_head(self) -> keras.layers.Layer:
        return Dense(1, dtype=self.output_dtype) if self.to_call is None else self.to_call


@register
class CategoricalOutput(ModelOutput):
    """Scores of all classes, or of all items: the softmax is the loss's.

    Args:
        to_call: a column (or a schema with one) for a ``Dense`` layer of a unit a value; an :class:`EmbeddingTable`, whose
            rows score the output of the body (weight tying), see :class:`EmbeddingTablePrediction`; or a layer.
        target: as in :class:`ModelOutput`; the column's or the table's first column's name if None.
        **kwargs: as in :class:`ModelOutput`. The loss is sparse categorical cross-entropy by default; the metrics are
            recall, MRR, NDCG, mean average precision and precision at 10, or accuracy if there are no more than 10 classes.

    Call arguments:
        inputs: (batch, ..., dim), or a dictionary of such tensors; dim is the table's where there is one.

    Returns:
        (batch, ..., classes), float32.

    Example:
        >>> import merlin_models.tf as ml
        >>> movie = ml.ColumnSchema.create_categorical("movieId", 99, tags=[ml.Tags.ITEM_ID])
        >>> output = ml.CategoricalOutput(ml.EmbeddingTable(8, movie), logits_temperature=0.5)
        >>> output.compute_output_shape((None, 8)), output.target_name
        ((None, 100), 'movieId')

    Reference:
        Press and Wolf, Using the Output Embedding to Improve Language Models, 2017, https://arxiv.org/abs/1608.05859,
        for weight tying.
    """

    default_loss = "sparse_categorical_crossentropy"
    target_tag = Tags.MULTI_CLASS_CLASSIFICATION

    def __init__(self, to_call: Any, target: Any = None, metrics: Any = None, **kwargs: Any):
        classes = getattr(to_call, "units", None)
        if isinstance(to_call, Schema):
            to_call = _only_column(to_call)
        if isinstance(to_call, ColumnSchema):
            target = to_call.name if target is None else target
            classes = to_call.cardinality
            to_call = Dense(classes, **_dtype(kwargs))
        elif isinstance(to_call, EmbeddingTable):
            target = to_call.feature_names[0] if target is None else target
            to_call = EmbeddingTablePrediction(to_call, **_dtype(kwargs))
        if isinstance(to_call, EmbeddingTablePrediction):
            classes = to_call.table.input_dim
        metrics = output_metrics(classes) if metrics is None else metrics
        super().__init__(to_call, target, metrics=metrics, **kwargs)

    def as_loss(self, loss: Any) -> keras.losses.Loss:
        return loss_of_scores(loss, super().as_loss)

    def as_metric(self, metric: Any) -> keras.metrics.Metric:
        return metric_of_scores(metric, super().as_metric)

    def match(self, targets: Any, predictions: Any) -> tuple[Any, Any]:
        return match_classes(self.task_name, targets, predictions)

    def targets_for(self, consumer: Any, targets: Any, predictions: Any) -> Any:
        return targets_for(consumer, self.task_name, targets, predictions)


def _only_column(schema: Schema) -> ColumnSchema:
    columns = list(schema) if len(schema) == 1 else list(schema.select_by_tag(Tags.ITEM_ID))
    if len(columns) != 1:
        raise ValueError(f"to_call must be a schema with one column, or one item id. Received: {schema.column_names}")
    return columns[0]


def _dtype(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {"dtype": kwargs["dtype"]} if kwargs.get("dtype") is not None else {}


def OutputBlock(
    schema: Schema,
    model_outputs: Sequence[PredictionTask] | Mapping[str, PredictionTask] | None = None,
    task_blocks: keras.layers.Layer | Mapping[str, keras.layers.Layer] | None = None,
    task_weight_dict: Mapping[str, float] | None = None,
    bias_block: keras.layers.Layer | None = None,
    **kwargs: Any,
) -> Block:
    """An output for each target of a schema.

    Columns tagged ``binary_classification`` get a :class:`BinaryOutput`, ``regression`` a :class:`RegressionOutput`,
    ``multi_class_classification`` a :class:`CategoricalOutput`.

    Args:
        schema: of the data set.
        model_outputs: outputs for some of the targets, in the place of these; or a dictionary of them by target.
        task_blocks, bias_block: as in :class:`ParallelPredictionBlock`.
        task_weight_dict: its ``task_weights``.
        **kwargs: of the block.

    Returns:
        The only output, if there is one and no other argument needs the block; else a ``ParallelPredictionBlock``.

    Raises:
        ValueError: if the schema has no target; if an output's target is none of them.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> tags = (ml.Tags.TARGET, ml.Tags.BINARY_CLASSIFICATION)
        >>> schema = ml.Schema([ml.ColumnSchema(name, np.int64, tags) for name in ("click", "conversion")])
        >>> of_clicked = ml.BinaryOutput("conversion", post=ml.ColumnBasedSampleWeight("click"))
        >>> block = ml.OutputBlock(schema, [of_clicked])
        >>> [task.task_name for task in block.tasks]
        ['click/binary_output', 'conversion/binary_output']
    """
    given = list(model_outputs.values()) if isinstance(model_outputs, Mapping) else list(model_outputs or [])
    by_target = {output.target_name: output for output in given}
    found = targets_of(schema)
    unknown = sorted(str(name) for name in set(by_target) - {column.name for column, _ in found})
    if unknown or len(by_target) < len(given):
        known = [column.name for column, _ in found]
        raise ValueError(
            f"model_outputs must have targets of the schema, {known}, each once. "
            f"Received: {[output.target_name for output in given]}"
        )
    outputs = [by_target.get(column.name) or _output(column, kind) for column, kind in found]
    options = {"task_blocks": task_blocks, "task_weights": task_weight_dict, "bias_block": bias_block, **kwargs}
    if len(outputs) == 1 and all(option is None for option in options.values()):
        return outputs[0]
    return ParallelPredictionBlock(*outputs, **options)


def _output(column: ColumnSchema, kind: type[PredictionTask]) -> ModelOutput:
    if kind is BinaryClassificationTask:
        return BinaryOutput(column)
    return RegressionOutput(column) if kind is RegressionTask else CategoricalOutput(column)
