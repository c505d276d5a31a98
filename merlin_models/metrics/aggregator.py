"""TopKMetricsAggregator: several ranking metrics of one ranking, which is made once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from merlin_models.metrics.ordering import is_relevance, positive_rank, rank_labels
from merlin_models.metrics.top_k import AvgPrecisionAt, MRRAt, NDCGAt, PrecisionAt, RecallAt, TopKMetric


@keras.saving.register_keras_serializable(package="merlin_models")
class TopKMetricsAggregator(keras.metrics.Metric):
    """Sorts the candidates once for all its metrics.

    Args:
        *metrics: ranking metrics. Sorting is the aggregator's, so they have neither ``pre_sorted`` nor ``labels_onehot``.
        labels_onehot, seed: as in :class:`TopKMetric`.
        name: what comes before its last "/" is put before the names of the results.

    Returns:
        Of ``result``: a dictionary metric -> scalar.

    Example:
        >>> import merlin_models.tf as ml
        >>> metric = ml.TopKMetricsAggregator(ml.RecallAt(1), ml.NDCGAt(3))
        >>> metric.update_state([[0, 1, 0], [1, 0, 0]], [[0.1, 0.8, 0.7], [0.1, 0.3, 0.2]])
        >>> {name: float(value) for name, value in metric.result().items()}
        {'recall_at_1': 0.5, 'ndcg_at_3': 0.75}
    """

    named_by_arguments = True

    def __init__(
        self,
        *metrics: TopKMetric,
        labels_onehot: bool = False,
        seed: int = 0,
        name: str = "top_k_metrics",
        dtype: Any = None,
    ):
        super().__init__(name=name, dtype=dtype)
        if not metrics:
            raise ValueError("metrics must be ranking metrics such as RecallAt(10). Received: none")
        for metric in metrics:
            if not isinstance(metric, TopKMetric):
                raise TypeError(f"metrics must be ranking metrics such as RecallAt(10). Received: {metric!r}")
            if metric.pre_sorted or metric.labels_onehot:
                raise ValueError(
                    f"metrics must have neither pre_sorted nor labels_onehot, which are the aggregator's. "
                    f"Received: {metric.name}"
                )
        names = [each for metric in metrics for each in metric.result_names]
        if len(set(names)) != len(names):
            raise ValueError(f"metrics must have different names. Received: {names}")
        self.top_k_metrics = list(metrics)
        self.labels_onehot, self.seed = bool(labels_onehot), int(seed)
        self._generator = keras.random.SeedGenerator(self.seed)

    @classmethod
    def default_metrics(cls, top_ks: int | Sequence[int] = 10, **kwargs: Any) -> list[TopKMetricsAggregator]:
        """A list of one aggregator, of recall, MRR, NDCG, mean average precision and precision at each k."""
        ks = [top_ks] if isinstance(top_ks, int) else list(top_ks)
        kinds = (RecallAt, MRRAt, NDCGAt, AvgPrecisionAt, PrecisionAt)
        return [cls(*(kind(k) for k in ks for kind in kinds), **kwargs)]

    def update_state(
        self, y_true: Any, y_pred: Any, sample_weight: Any = None, label_relevant_counts: Any = None
    ) -> None:
        """Adds rows; arguments as in :meth:`TopKMetric.update_state`."""
        if self.labels_onehot and not is_relevance(y_true, y_pred):
            self.update_state_from_rank(positive_rank(y_true, y_pred, self._generator), sample_weight)
            return
        largest = max(k for metric in self.top_k_metrics for k in metric.ks)
        made = rank_labels(y_true, y_pred, label_relevant_counts, largest, self._generator)
        for metric in self.top_k_metrics:
            metric.update_state_from_ranking(made, sample_weight)

    def update_state_from_rank(self, rank: Any, sample_weight: Any = None) -> None:
        """Adds rows of one relevant candidate each; see :meth:`TopKMetric.update_state_from_rank`."""
        for metric in self.top_k_metrics:
            metric.update_state_from_rank(rank, sample_weight)

    def result(self) -> dict[str, Any]:
        prefix = self.name[: self.name.rfind("/") + 1]
        results: dict[str, Any] = {}
        for metric in self.top_k_metrics:
            value = metric.result()
            results.update(value if isinstance(value, dict) else {metric.name: value})
        return {prefix + name: value for name, value in results.items()}

    def reset_state(self) -> None:
        for metric in self.top_k_metrics:
            metric.reset_state()
        self._generator.state.assign(ops.convert_to_tensor([self.seed, 0], self._generator.state.dtype))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "metrics": [keras.metrics.serialize(metric) for metric in self.top_k_metrics],
            "labels_onehot": self.labels_onehot,
            "seed": self.seed,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> TopKMetricsAggregator:
        config = dict(config)
        return cls(*[keras.metrics.deserialize(each) for each in config.pop("metrics")], **config)
