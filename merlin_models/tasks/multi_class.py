"""MultiClassClassificationTask: one of many classes, or items."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import register
from merlin_models.blocks.symbolic import rank_of
from merlin_models.layers.dense import Dense
from merlin_models.metrics import TopKMetricsAggregator, ranking_metrics
from merlin_models.schema import ColumnSchema, Schema, Tags
from merlin_models.tasks.base import PredictionTask, snake_case
from merlin_models.tasks.class_targets import targets_for


@register
class MultiClassClassificationTask(PredictionTask):
    """Scores of all classes: one linear unit a class. The softmax is the loss's.

    Args:
        target_name: see :class:`PredictionTask`; the tag is ``multi_class_classification``. The target is the class's
            number, or with the loss "categorical_crossentropy" a row of numbers, one a class; that loss takes both.
        num_classes: number of classes; that of the column (its largest id plus one) if None and ``target_name`` is a
            column or a schema.
        task_name, task_block, sample_weight: as in :class:`PredictionTask`.
        loss: sparse categorical cross-entropy by default. The names of categorical cross-entropies stand for those on
            scores (``from_logits=True``).
        metrics: NDCG, recall and mean average precision at 10 and 20 by default, as far as there are more classes than
            that; accuracy if there are no more than 10.

    Call arguments:
        inputs: (batch, ..., dim), or a dictionary of such tensors.

    Returns:
        Scores (batch, ..., num_classes), float32 also under a mixed dtype policy.

    Raises:
        ValueError: if the number of classes is not known or below 2.

    Example:
        >>> import merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical("movieId", 99, tags=[ml.Tags.ITEM_ID])])
        >>> ml.MultiClassClassificationTask.from_schema(schema).compute_output_shape((None, 8))
        (None, 100)
    """

    default_loss = "sparse_categorical_crossentropy"
    target_tag = Tags.MULTI_CLASS_CLASSIFICATION

    def __init__(
        self,
        target_name: str | ColumnSchema | Schema | None = None,
        num_classes: int | None = None,
        metrics: Any = None,
        **kwargs: Any,
    ):
        if num_classes is None and isinstance(target_name, Schema):
            target_name = target_name[self._name_of(target_name)]
        if num_classes is None and isinstance(target_name, ColumnSchema):
            num_classes = target_name.cardinality
        self.num_classes = checked_classes(num_classes)
        metrics = _default_metrics(self.num_classes) if metrics is None else metrics
        super().__init__(target_name, metrics=metrics, **kwargs)

    @classmethod
    def from_schema(
        cls, schema: Schema, feature_name: str | Tags = Tags.ITEM_ID, **kwargs: Any
    ) -> MultiClassClassificationTask:
        """The task over the values of a column, say over all items.

        Args:
            schema: of the data set.
            feature_name: the column's name, or the tag of one column.
            **kwargs: of the class.

        Raises:
            ValueError: if the schema has not one such column.
        """
        chosen = [feature_name] if feature_name in schema else schema.select_by_tag(feature_name).column_names
        if len(chosen) != 1:
            raise ValueError(f"schema must have one column '{feature_name}', by name or tag. Received: {chosen}")
        return cls(schema[chosen[0]], **kwargs)

    def make_head(self) -> keras.layers.Layer:
        return Dense(self.num_classes, dtype=self.output_dtype)

    def as_loss(self, loss: Any) -> keras.losses.Loss:
        return loss_of_scores(loss, super().as_loss)

    def as_metric(self, metric: Any) -> keras.metrics.Metric:
        return metric_of_scores(metric, super().as_metric)

    def match(self, targets: Any, predictions: Any) -> tuple[Any, Any]:
        return match_classes(self.task_name, targets, predictions)

    def targets_for(self, consumer: Any, targets: Any, predictions: Any) -> Any:
        return targets_for(consumer, self.task_name, targets, predictions)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_classes": self.num_classes}


def checked_classes(num_classes: Any) -> int:
    """The number of classes. Raises ValueError if it is not known or below 2."""
    if not isinstance(num_classes, int) or num_classes < 2:
        raise ValueError(
            "num_classes must be an integer of at least 2, or target_name a column with an int_domain. "
            f"Received: {num_classes!r}"
        )
    return num_classes


def _default_metrics(num_classes: int) -> list[Any]:
    top_ks = [k for k in (10, 20) if k < num_classes]
    return list(ranking_metrics(top_ks, labels_onehot=True)) if top_ks else [_accuracy()]


def output_metrics(num_classes: int | None) -> list[Any]:
    """The metrics of ``CategoricalOutput``: five at 10 in one, or accuracy if there are no more than 10 classes."""
    if num_classes is not None and num_classes <= 10:
        return [_accuracy()]
    return TopKMetricsAggregator.default_metrics(10, labels_onehot=True)


def _accuracy() -> keras.metrics.Metric:
    return keras.metrics.SparseCategoricalAccuracy(name="sparse_categorical_accuracy")


_OF_SCORES = {
    "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
    "sparse_categorical_crossentropy": keras.losses.SparseCategoricalCrossentropy,
}


def loss_of_scores(loss: Any, otherwise: Any) -> keras.losses.Loss:
    """A loss object; the names and classes of categorical cross-entropies become those on scores."""
    by_class = {kind: kind for kind in _OF_SCORES.values()} | {kind.__name__: kind for kind in _OF_SCORES.values()}
    known = {**_OF_SCORES, **by_class}
    if isinstance(loss, str | type) and loss in known:
        return known[loss](from_logits=True)
    return otherwise(loss)


def metric_of_scores(metric: Any, otherwise: Any) -> keras.metrics.Metric:
    """A metric object; the names and classes of categorical cross-entropies become those on scores."""
    kinds = (keras.metrics.CategoricalCrossentropy, keras.metrics.SparseCategoricalCrossentropy)
    for kind in kinds:
        name = snake_case(kind.__name__)
        if isinstance(metric, str | type) and metric in (kind, kind.__name__, name):
            return kind(name=name, from_logits=True)
    return otherwise(metric)


def match_classes(task_name: str, targets: Any, predictions: Any) -> tuple[Any, Any]:
    """Targets (batch, ...) or (batch, ..., 1) as (batch, ...) beside predictions (batch, ..., classes); a row of numbers, one
    a class, as it is.

    Raises:
        ValueError: if the targets are missing or their shape does not fit.
    """
    if targets is None:
        raise ValueError(f"Task '{task_name}' must get targets. Received: none")
    rank = rank_of(targets)
    if rank is None:
        return ops.reshape(targets, ops.shape(predictions)[:-1]), predictions
    wanted, classes = rank_of(predictions), predictions.shape[-1]
    if rank == wanted - 1:
        return targets, predictions
    if rank == wanted and targets.shape[-1] == 1:
        return ops.squeeze(targets, -1), predictions
    if rank == wanted and targets.shape[-1] == classes:
        return targets, predictions
    raise ValueError(
        f"Targets of task '{task_name}' must be classes (batch,) or (batch, 1), or have the shape of its predictions, "
        f"{tuple(predictions.shape)}. Received: {tuple(targets.shape)}"
    )
