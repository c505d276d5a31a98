"""PopularityBasedSampler and FrequencyBasedSampler: ids by how often they occur."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from merlin_models.blocks.base import register
from merlin_models.metrics.catalogue import as_probabilities
from merlin_models.samplers.catalogue import CatalogueSampler


@register
class PopularityBasedSampler(CatalogueSampler):
    """Draws ids log-uniformly: from a catalogue that is sorted by popularity, the most popular first.

    The id min_id + k has the probability ln((k + 2) / (k + 1)) / ln(n + 1) in one draw, n being the number of ids.

    Args:
        max_id, min_id: the largest and the smallest id that can be drawn.
        max_num_samples: how many ids are drawn.
        seed, unique, item_encoder: as in :class:`CatalogueSampler`.

    Call arguments:
        embeddings, ids, training: as of :class:`ItemSampler`.

    Returns:
        :class:`Candidates`, as of :class:`CatalogueSampler`: (max_num_samples, dim), int64 ids and float32 ``log_q``.

    Example:
        >>> import keras, numpy as np
        >>> import merlin_models.tf as ml
        >>> table = keras.layers.Embedding(100, 8)
        >>> sampler = ml.PopularityBasedSampler(max_id=99, max_num_samples=5, item_encoder=table)
        >>> candidates = sampler(np.ones((2, 8), "float32"), np.array([3, 4]))
        >>> tuple(candidates.embeddings.shape), len(set(candidates.ids.numpy()))
        ((5, 8), 5)

    Reference:
        Jean et al., On Using Very Large Target Vocabulary for Neural Machine Translation, 2015, https://arxiv.org/abs/1412.2007
    """

    def __init__(
        self,
        max_id: int,
        min_id: int = 0,
        max_num_samples: int = 100,
        seed: int | None = None,
        unique: bool = True,
        item_encoder: Callable[[Any], Any] | None = None,
        **kwargs: Any,
    ):
        if not isinstance(max_id, int) or not isinstance(min_id, int) or not 0 <= min_id <= max_id:
            raise ValueError(f"min_id must be in [0, max_id]. Received: {min_id} with max_id={max_id}")
        super().__init__(max_id - min_id + 1, min_id, max_num_samples, unique, seed, item_encoder, **kwargs)
        self.max_id = max_id
        probabilities = np.log1p(1 / np.arange(1.0, self.num_ids + 1)) / math.log(self.num_ids + 1)
        self._count_draws(probabilities)

    def probability_of(self, places: Any) -> Any:
        return ops.log1p(1.0 / ops.cast(places + 1, "float32")) / math.log(self.num_ids + 1)

    def _draw(self) -> Any:
        # The inverse of the distribution function ln(k + 1) / ln(n + 1).
        places = ops.floor(ops.exp(self._uniform(self.max_num_samples) * math.log(self.num_ids + 1))) - 1
        return ops.clip(places, 0, self.num_ids - 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "max_id": self.max_id, "min_id": self.min_id}


@register
class FrequencyBasedSampler(CatalogueSampler):
    """Draws ids in proportion to given frequencies; uniformly if these are equal.

    Args:
        item_freq_probs: (items,), how often the ids min_id, min_id + 1, ... occur; or the number of items, for equal
            frequencies. They are saved as a weight, and a config has their number.
        is_prob_distribution: whether they sum to 1 already.
        power: exponent of the frequencies: 1 for these, 0.75 as word2vec has it, 0 for uniform draws of what occurs.
        min_id, max_num_samples, seed, unique, item_encoder: as in :class:`CatalogueSampler`.

    Call arguments:
        embeddings, ids, training: as of :class:`ItemSampler`.

    Returns:
        :class:`Candidates`, as of :class:`CatalogueSampler`: (max_num_samples, dim), int64 ids and float32 ``log_q``.

    Example:
        >>> import merlin_models.tf as ml
        >>> sampler = ml.FrequencyBasedSampler([5, 0, 3, 2], max_num_samples=3, seed=1)
        >>> sorted(sampler.sample_ids()[0].numpy().tolist())
        [0, 2, 3]
    """

    def __init__(
        self,
        item_freq_probs: Any,
        is_prob_distribution: bool = False,
        power: float = 1.0,
        min_id: int = 0,
        max_num_samples: int = 100,
        seed: int | None = None,
        unique: bool = True,
        item_encoder: Callable[[Any], Any] | None = None,
        **kwargs: Any,
    ):
        if isinstance(item_freq_probs, int):
            item_freq_probs, is_prob_distribution = np.ones(item_freq_probs), False
        frequencies = as_probabilities(item_freq_probs, is_prob_distribution).astype(np.float64)
        powers = np.where(frequencies > 0, np.maximum(frequencies, 1e-300) ** power, 0.0)
        probabilities = powers / powers.sum()
        super().__init__(len(probabilities), min_id, max_num_samples, unique, seed, item_encoder, **kwargs)
        self.power = float(power)
        self._count_draws(probabilities)
        options = {"dtype": "float32", "initializer": "zeros", "trainable": False, "autocast": False}
        self.probabilities = self.add_weight(name="probabilities", shape=(self.num_ids,), **options)
        self.probabilities.assign(probabilities)

    def probability_of(self, places: Any) -> Any:
        return ops.take(self.probabilities, places, axis=0)

    def _draw(self) -> Any:
        shares = ops.cumsum(ops.cast(self.probabilities, "float64"))
        places = ops.searchsorted(shares, self._uniform(self.max_num_samples) * shares[-1], side="right")
        return ops.clip(places, 0, self.num_ids - 1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "item_freq_probs": self.num_ids, "power": self.power, "min_id": self.min_id}
