"""Streaming ranking metrics: RecallAt, PrecisionAt, AvgPrecisionAt, NDCGAt, MRRAt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from merlin_models.metrics import ranking as formulas
from merlin_models.metrics.ordering import Ranking, is_relevance, positive_rank, rank_labels


class TopKMetric(keras.metrics.Metric):
    """The mean over rows of a ranking metric at k, each row by its sample weight.

    Subclasses set ``stem`` and write ``of_ranking`` and ``of_rank``.

    Args:
        k: how many candidates count; 10 if neither k nor top_ks is given. The result is a scalar.
        top_ks: several such numbers instead. The result is a dictionary ``<name>_<k>`` -> scalar.
        pre_sorted: whether relevance comes with the best candidate first; scores are not needed then, and
            ``label_relevant_counts`` is.
        labels_onehot: whether targets are the place of the only relevant candidate, (batch,) or (batch, 1), rather than
            relevance: the metric makes the one-hot rows, so to say. It takes rows of relevance, too.
        seed: of the order among equal scores. Results repeat after ``reset_state``; no other random state is touched.
        name: ``<stem>_<k>``, or ``<stem>`` for several k, if None.

    Example:
        >>> import merlin_models.tf as ml
        >>> metric = ml.RecallAt(2)
        >>> metric.update_state([[0, 1, 0], [1, 0, 0]], [[0.9, 0.8, 0.7], [0.1, 0.3, 0.2]])
        >>> metric.name, float(metric.result())
        ('recall_at_2', 0.5)
    """

    stem: ClassVar[str] = ""
    named_by_arguments = True

    def __init__(
        self,
        k: int | None = None,
        top_ks: Sequence[int] | None = None,
        pre_sorted: bool = False,
        labels_onehot: bool = False,
        seed: int = 0,
        name: str | None = None,
        dtype: Any = None,
    ):
        if k is not None and top_ks is not None:
            raise ValueError(f"k and top_ks must not be given together. Received: {k} and {top_ks}")
        single = top_ks is None
        ks = [10 if k is None else k] if single else list(top_ks)
        if not ks or any(not isinstance(each, int) or each < 1 for each in ks) or len(set(ks)) != len(ks):
            raise ValueError(f"{'k' if single else 'top_ks'} must be at least 1, each once. Received: {ks}")
        if pre_sorted and labels_onehot:
            raise ValueError("pre_sorted and labels_onehot must not be given together.")
        super().__init__(name=name or (f"{self.stem}_{ks[0]}" if single else self.stem), dtype=dtype)
        self.k, self.top_ks = (ks[0], None) if single else (None, ks)
        self.pre_sorted, self.labels_onehot, self.seed = bool(pre_sorted), bool(labels_onehot), int(seed)
        self.total = self.add_variable((len(ks),), "zeros", dtype="float32", name="total")
        self.count = self.add_variable((), "zeros", dtype="float32", name="count")
        self._generator = keras.random.SeedGenerator(self.seed)

    def of_ranking(self, ranking: Ranking, k: int) -> Any:
        """The value of each row, (...) float32."""
        raise NotImplementedError(f"{type(self).__name__} must define of_ranking().")

    def of_rank(self, rank: Any, k: int) -> Any:
        """The value of a row whose only relevant candidate has this rank below k, float32."""
        raise NotImplementedError(f"{type(self).__name__} must define of_rank().")

    @property
    def ks(self) -> list[int]:
        """The numbers of candidates, in their order."""
        return [self.k] if self.top_ks is None else list(self.top_ks)

    @property
    def result_names(self) -> list[str]:
        """The keys of the results in the order of ``ks``."""
        return [self.name] if self.top_ks is None else [f"{self.name}_{k}" for k in self.ks]

    # ---- updates ----

    def update_state(
        self, y_true: Any, y_pred: Any = None, sample_weight: Any = None, label_relevant_counts: Any = None
    ) -> None:
        """Adds rows.

        Args:
            y_true: (..., candidates), relevance: 0 or 1, or a grade (which NDCG uses). With ``labels_onehot`` (batch,), too.
            y_pred: (..., candidates), scores, float; unused with ``pre_sorted``.
            sample_weight: (...) or a shape that broadcasts to it.
            label_relevant_counts: (...), the number of relevant candidates, if ``y_true`` does not hold them all.

        Raises:
            ValueError: if there are less than k candidates, or an argument is missing.
        """
        if self.labels_onehot and not is_relevance(y_true, y_pred):
            self.update_state_from_rank(positive_rank(y_true, y_pred, self._generator), sample_weight)
            return
        if self.pre_sorted and label_relevant_counts is None:
            raise ValueError("label_relevant_counts must be given to a metric with pre_sorted=True. Received: none")
        if not self.pre_sorted and y_pred is None:
            raise ValueError("y_pred must be given to a metric without pre_sorted=True. Received: none")
        scores = None if self.pre_sorted else y_pred
        made = rank_labels(y_true, scores, label_relevant_counts, max(self.ks), self._generator)
        self.update_state_from_ranking(made, sample_weight)

    def update_state_from_rank(self, rank: Any, sample_weight: Any = None) -> None:
        """Adds rows of one relevant candidate each, by its rank.

        Args:
            rank: (...), integers, 0 for the best; a negative number for a candidate that is not in the ranking.
            sample_weight: (...) or a shape that broadcasts to it.
        """
        rank = ops.cast(rank, "float32")
        found = ops.maximum(rank, 0.0)
        values = [ops.where((rank >= 0) & (rank < k), self.of_rank(found, k), 0.0) for k in self.ks]
        self._add(values, sample_weight)

    def update_state_from_ranking(self, ranking: Ranking, sample_weight: Any = None) -> None:
        """Adds rows that are sorted already, up to the largest k at least."""
        self._add([self.of_ranking(ranking, k) for k in self.ks], sample_weight)

    def _add(self, values: list[Any], sample_weight: Any) -> None:
        values = ops.stack(values, axis=-1)
        weight = weight_of_rows(sample_weight, values[..., 0])
        rows = tuple(range(len(weight.shape)))
        self.total.assign_add(ops.sum(values * ops.expand_dims(weight, -1), axis=rows))
        self.count.assign_add(ops.sum(weight))

    # ---- results ----

    def result(self) -> Any:
        means = ops.cast(ops.divide_no_nan(self.total, self.count), self.dtype)
        if self.top_ks is None:
            return means[0]
        return {name: means[index] for index, name in enumerate(self.result_names)}

    def reset_state(self) -> None:
        super().reset_state()
        self._generator.state.assign(ops.convert_to_tensor([self.seed, 0], self._generator.state.dtype))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "k": self.k,
            "top_ks": self.top_ks,
            "pre_sorted": self.pre_sorted,
            "labels_onehot": self.labels_onehot,
            "seed": self.seed,
        }


def weight_of_rows(sample_weight: Any, values: Any) -> Any:
    """Weights in the shape of the values, float32; ones if there are none. (batch, 1) is (batch,) to values (batch,).

    Raises:
        ValueError: if the weights have more axes.
    """
    if sample_weight is None:
        return ops.ones_like(values)
    weight = ops.cast(sample_weight, "float32")
    if len(weight.shape) == len(values.shape) + 1 and weight.shape[-1] == 1:
        weight = ops.squeeze(weight, -1)
    if len(weight.shape) > len(values.shape):
        raise ValueError(
            f"sample_weight must broadcast to the rows, of shape {tuple(values.shape)}. Received: {tuple(weight.shape)}"
        )
    while len(weight.shape) < len(values.shape):
        weight = ops.expand_dims(weight, -1)
    return ops.broadcast_to(weight, ops.shape(values))


def _register(cls: type) -> type:
    return keras.saving.register_keras_serializable(package="merlin_models")(cls)


@_register
class RecallAt(TopKMetric):
    """Recall at k: see :class:`TopKMetric` and :func:`merlin_models.metrics.recall_at`.

    Args:
        k, top_ks, pre_sorted, labels_onehot, seed, name: as of :class:`TopKMetric`.

    Example:
        >>> import merlin_models.tf as ml
        >>> metric = ml.RecallAt(2)
        >>> metric.update_state([[0, 1, 0], [1, 0, 0]], [[0.9, 0.8, 0.7], [0.1, 0.3, 0.2]])
        >>> metric.name, round(float(metric.result()), 4)
        ('recall_at_2', 0.5)
    """

    stem = "recall_at"

    def of_ranking(self, ranking: Ranking, k: int) -> Any:
        return formulas.recall(ranking, k)

    def of_rank(self, rank: Any, k: int) -> Any:
        return ops.ones_like(rank)


@_register
class PrecisionAt(TopKMetric):
    """Precision at k: see :class:`TopKMetric` and :func:`merlin_models.metrics.precision_at`.

    Args:
        k, top_ks, pre_sorted, labels_onehot, seed, name: as of :class:`TopKMetric`.

    Example:
        >>> import merlin_models.tf as ml
        >>> metric = ml.PrecisionAt(2)
        >>> metric.update_state([[0, 1, 0], [1, 0, 0]], [[0.9, 0.8, 0.7], [0.1, 0.3, 0.2]])
        >>> metric.name, round(float(metric.result()), 4)
        ('precision_at_2', 0.25)
    """

    stem = "precision_at"

    def of_ranking(self, ranking: Ranking, k: int) -> Any:
        return formulas.precision(ranking, k)

    def of_rank(self, rank: Any, k: int) -> Any:
        return ops.full_like(rank, 1.0 / k)


@_register
class AvgPrecisionAt(TopKMetric):
    """Mean average precision at k: see :class:`TopKMetric` and :func:`merlin_models.metrics.average_precision_at`.

    Args:
        k, top_ks, pre_sorted, labels_onehot, seed, name: as of :class:`TopKMetric`.

    Example:
        >>> import merlin_models.tf as ml
        >>> metric = ml.AvgPrecisionAt(2)
        >>> metric.update_state([[0, 1, 0], [1, 0, 0]], [[0.9, 0.8, 0.7], [0.1, 0.3, 0.2]])
        >>> metric.name, round(float(metric.result()), 4)
        ('map_at_2', 0.25)
    """

    stem = "map_at"

    def of_ranking(self, ranking: Ranking, k: int) -> Any:
        return formulas.average_precision(ranking, k)

    def of_rank(self, rank: Any, k: int) -> Any:
        return 1.0 / (rank + 1.0)


@_register
class NDCGAt(TopKMetric):
    """Normalized discounted cumulative gain at k: see :class:`TopKMetric` and :func:`merlin_models.metrics.ndcg_at`.

    Args:
        k, top_ks, pre_sorted, labels_onehot, seed, name: as of :class:`TopKMetric`.

    Example:
        >>> import merlin_models.tf as ml
        >>> metric = ml.NDCGAt(2)
        >>> metric.update_state([[0, 1, 0], [1, 0, 0]], [[0.9, 0.8, 0.7], [0.1, 0.3, 0.2]])
        >>> metric.name, round(float(metric.result()), 4)
        ('ndcg_at_2', 0.3155)
    """

    stem = "ndcg_at"

    def of_ranking(self, ranking: Ranking, k: int) -> Any:
        return formulas.ndcg(ranking, k)

    def of_rank(self, rank: Any, k: int) -> Any:
        return 1.0 / ops.log2(rank + 2.0)


@_register
class MRRAt(TopKMetric):
    """Mean reciprocal rank at k: see :class:`TopKMetric` and :func:`merlin_models.metrics.mrr_at`.

    Args:
        k, top_ks, pre_sorted, labels_onehot, seed, name: as of :class:`TopKMetric`.

    Example:
        >>> import merlin_models.tf as ml
        >>> metric = ml.MRRAt(2)
        >>> metric.update_state([[0, 1, 0], [1, 0, 0]], [[0.9, 0.8, 0.7], [0.1, 0.3, 0.2]])
        >>> metric.name, round(float(metric.result()), 4)
        ('mrr_at_2', 0.25)
    """

    stem = "mrr_at"

    def of_ranking(self, ranking: Ranking, k: int) -> Any:
        return formulas.reciprocal_rank(ranking, k)

    def of_rank(self, rank: Any, k: int) -> Any:
        return 1.0 / (rank + 1.0)


def ranking_metrics(top_ks: Sequence[int], **kwargs: Any) -> tuple[TopKMetric, ...]:
    """NDCG, recall and mean average precision at several k.

    Args:
        top_ks: how many candidates count, in each of the metrics.
        **kwargs: of each metric, as of :class:`TopKMetric`.

    Returns:
        ``(NDCGAt, RecallAt, AvgPrecisionAt)``.

    Raises:
        ValueError: as of :class:`TopKMetric`.

    Example:
        >>> from merlin_models.metrics import ranking_metrics
        >>> [metric.result_names for metric in ranking_metrics([10, 20])][0]
        ['ndcg_at_10', 'ndcg_at_20']
    """
    return tuple(metric(top_ks=list(top_ks), **kwargs) for metric in (NDCGAt, RecallAt, AvgPrecisionAt))
