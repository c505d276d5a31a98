"""What recommendations are made of: NoveltyAt, PopularityBiasAt, ItemCoverageAt."""

from __future__ import annotations

from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from merlin_models.metrics.top_k import weight_of_rows


def as_probabilities(item_freq_probs: Any, is_prob_distribution: bool = False) -> np.ndarray:
    """Probabilities of the ids 0, 1, ... from their frequencies, float32 (items,).

    Args:
        item_freq_probs: (items,), not negative.
        is_prob_distribution: whether they sum to 1 already.

    Raises:
        ValueError: for another rank, negative numbers, or a sum that is 0 or (of a distribution) not 1.
    """
    values = np.asarray(item_freq_probs, np.float64)
    if values.ndim != 1 or not len(values) or not np.all(values >= 0):
        raise ValueError(
            "item_freq_probs must have rank 1, with an entry of at least 0 for each item. "
            f"Received: shape {values.shape}, smallest {values.min() if values.size else None}"
        )
    total = values.sum()
    if total <= 0 or (is_prob_distribution and abs(total - 1) > 1e-3):
        raise ValueError(
            f"item_freq_probs must sum to {'1' if is_prob_distribution else 'more than 0'}. Received sum: {total}"
        )
    return (values / total).astype(np.float32)


class _PopularityMetric(keras.metrics.Mean):
    """The mean of a function of the popularity of the first k recommended items.

    Args:
        item_freq_probs: (items,), how often each id occurs in the training data.
        k: how many of a row's recommendations count.
        is_prob_distribution: whether ``item_freq_probs`` sums to 1 already.
    """

    stem: ClassVar[str] = ""
    named_by_arguments = True

    def __init__(
        self,
        item_freq_probs: Any,
        k: int = 10,
        is_prob_distribution: bool = False,
        name: str | None = None,
        dtype: Any = None,
    ):
        if not isinstance(k, int) or k < 1:
            raise ValueError(f"k must be at least 1. Received: {k}")
        probabilities = as_probabilities(item_freq_probs, is_prob_distribution)
        super().__init__(name=name or f"{self.stem}_{k}", dtype=dtype)
        self.k = k
        self.probabilities = self.add_variable(
            probabilities.shape, "zeros", dtype="float32", aggregation="mean", name="probabilities"
        )
        self.probabilities.assign(probabilities)

    def of_probabilities(self, probabilities: Any) -> Any:
        """The value of each recommendation, (batch, k)."""
        raise NotImplementedError(f"{type(self).__name__} must define of_probabilities().")

    def update_state(self, predicted_ids: Any, sample_weight: Any = None) -> None:
        """Adds rows.

        Args:
            predicted_ids: (batch, at least k), integers, the best first.
            sample_weight: (batch,).
        """
        ids = _first(predicted_ids, self.k)
        values = ops.mean(self.of_probabilities(ops.take(self.probabilities, ids, axis=0)), axis=-1)
        super().update_state(values, sample_weight=weight_of_rows(sample_weight, values))

    def update_candidate_probs(self, item_freq_probs: Any, is_prob_distribution: bool = False) -> None:
        """Takes other frequencies, for the same number of items."""
        self.probabilities.assign(as_probabilities(item_freq_probs, is_prob_distribution))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "item_freq_probs": ops.convert_to_numpy(self.probabilities).tolist(),
            "k": self.k,
            "is_prob_distribution": True,
        }


@keras.saving.register_keras_serializable(package="merlin_models")
class NoveltyAt(_PopularityMetric):
    """Mean self-information -ln p of the first k recommended items, in nats; p is at least 1e-16.

    Args:
        item_freq_probs: (items,), how often each id occurs in the training data.
        k: how many of a row's recommendations count.
        is_prob_distribution: whether ``item_freq_probs`` sums to 1 already.

    Example:
        >>> import merlin_models.tf as ml
        >>> metric = ml.NoveltyAt([1, 1, 2], k=1)
        >>> metric.update_state([[2, 0], [0, 1]])
        >>> round(float(metric.result()), 4)  # (ln 2 + ln 4) / 2
        1.0397

    Reference:
        Vargas and Castells, Rank and Relevance in Novelty and Diversity Metrics for Recommender Systems, 2011,
        https://doi.org/10.1145/2043932.2043955
    """

    stem = "novelty_at"

    def of_probabilities(self, probabilities: Any) -> Any:
        return -ops.log(ops.maximum(probabilities, 1e-16))


@keras.saving.register_keras_serializable(package="merlin_models")
class PopularityBiasAt(_PopularityMetric):
    """Mean probability, in the training data, of the first k recommended items.

    Args:
        item_freq_probs, k, is_prob_distribution: as in :class:`NoveltyAt`.

    Example:
        >>> import merlin_models.tf as ml
        >>> metric = ml.PopularityBiasAt([1, 1, 2], k=1)
        >>> metric.update_state([[2, 0], [0, 1]])
        >>> float(metric.result())  # (1/2 + 1/4) / 2
        0.375

    Reference:
        Abdollahpouri et al., Managing Popularity Bias in Recommender Systems with Personalized Re-ranking, 2019,
        https://arxiv.org/abs/1901.07555
    """

    stem = "popularity_bias_at"

    def of_probabilities(self, probabilities: Any) -> Any:
        return probabilities


@keras.saving.register_keras_serializable(package="merlin_models")
class ItemCoverageAt(keras.metrics.Metric):
    """The share of the catalogue that is among the first k recommendations of any row.

    Args:
        num_unique_items: ids are 0 to this, exclusive.
        k: how many of a row's recommendations count.

    Example:
        >>> import merlin_models.tf as ml
        >>> metric = ml.ItemCoverageAt(4, k=2)
        >>> metric.update_state([[0, 1, 3], [1, 0, 3]])
        >>> float(metric.result())
        0.5
    """

    named_by_arguments = True

    def __init__(self, num_unique_items: int, k: int = 10, name: str | None = None, dtype: Any = None):
        if not isinstance(k, int) or k < 1 or not isinstance(num_unique_items, int) or num_unique_items < 1:
            raise ValueError(f"k and num_unique_items must be at least 1. Received: {k} and {num_unique_items}")
        super().__init__(name=name or f"item_coverage_at_{k}", dtype=dtype)
        self.k, self.num_unique_items = k, num_unique_items
        self.recommended = self.add_variable((num_unique_items,), "zeros", dtype="int32", name="recommended")

    def update_state(self, predicted_ids: Any, sample_weight: Any = None) -> None:
        """Adds rows.

        Args:
            predicted_ids: (batch, at least k), integers, the best first.
            sample_weight: (batch,); rows of weight 0 are left out.
        """
        ids = _first(predicted_ids, self.k)
        rows = weight_of_rows(sample_weight, ops.cast(ids[:, 0], "float32"))
        counts = ops.broadcast_to(ops.cast(ops.expand_dims(rows != 0, -1), "int32"), ops.shape(ids))
        places = ops.reshape(ids, (-1, 1))
        self.recommended.assign(
            ops.scatter_update(self.recommended, places, ops.reshape(counts, (-1,)), reduction="max")
        )

    def result(self) -> Any:
        return ops.mean(ops.cast(self.recommended > 0, self.dtype))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "num_unique_items": self.num_unique_items, "k": self.k}


def _first(predicted_ids: Any, k: int) -> Any:
    ids = ops.convert_to_tensor(predicted_ids)
    if len(ids.shape) != 2 or (ids.shape[1] is not None and ids.shape[1] < k):
        raise ValueError(f"predicted_ids must have the shape (batch, at least {k}). Received: {tuple(ids.shape)}")
    return ids[:, :k]
