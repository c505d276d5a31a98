"""CatalogueSampler: what samplers that draw from all items share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from merlin_models.samplers.base import Candidates, ItemSampler, as_int64


class CatalogueSampler(ItemSampler):
    """Draws ids from all of a catalogue, whatever the batch is.

    Subclasses write ``probability_of`` and ``_draw``.

    Args:
        num_ids, min_id: ids are min_id, min_id + 1, ..., min_id + num_ids - 1.
        max_num_samples: how many ids are drawn.
        unique: whether each id is drawn at most once: they are drawn one after the other, those that came up before being
            passed over, until there are ``max_num_samples`` of them.
        seed: of the draws.
        item_encoder: a layer or registered function from ids (items,) to embeddings (items, dim), such as the item tower or
            an ``EmbeddingTable``. May be set later.

    Returns:
        :class:`Candidates` with ``log_q``: the logarithm of the expected number of times that an id is drawn, which is its
        share of ``max_num_samples`` draws, or with ``unique`` the probability to come up among the draws that it takes until
        there are so many different ids. Embeddings have the encoder's gradient.

    Raises:
        ValueError: if ``max_num_samples`` is below 1, or with ``unique`` above the number of ids that can be drawn.

    Example:
        >>> import merlin_models.tf as ml
        >>> from merlin_models.samplers.catalogue import CatalogueSampler
        >>> isinstance(ml.PopularityBasedSampler(max_id=1000), CatalogueSampler)
        True
    """

    def __init__(
        self,
        num_ids: int,
        min_id: int,
        max_num_samples: int,
        unique: bool,
        seed: int | None,
        item_encoder: Callable[[Any], Any] | None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not isinstance(max_num_samples, int) or max_num_samples < 1:
            raise ValueError(f"max_num_samples must be at least 1. Received: {max_num_samples}")
        self.num_ids, self.min_id, self.max_num_samples = num_ids, int(min_id), max_num_samples
        self.unique, self.seed, self.item_encoder = bool(unique), seed, item_encoder
        self.seed_generator = keras.random.SeedGenerator(seed)
        # Variables, so that a file holds them where the probabilities are weights.
        options = {"shape": (), "dtype": "float32", "initializer": "ones", "trainable": False, "autocast": False}
        self.num_draws = self.add_weight(name="num_draws", **options)
        self.smallest_probability = self.add_weight(name="smallest_probability", **options)

    def _count_draws(self, probabilities: np.ndarray) -> None:
        """Finds how many draws a sample takes, from the ids' probabilities in float64."""
        possible = int(np.count_nonzero(probabilities))
        if self.unique and self.max_num_samples > possible:
            raise ValueError(
                f"Number of items to sample `{self.max_num_samples}` must be at most the number of ids that can be drawn, "
                f"`{possible}`, with unique=True."
            )
        self.num_draws.assign(draws_until(probabilities, self.max_num_samples) if self.unique else self.max_num_samples)
        self.smallest_probability.assign(probabilities[probabilities > 0].min())

    def probability_of(self, places: Any) -> Any:
        """The probability of an id in one draw, float32 (...), from its place (...) int64 in the catalogue."""
        raise NotImplementedError(f"{type(self).__name__} must define probability_of().")

    def log_q(self, ids: Any) -> Any:
        """What is to be subtracted from the logits of ids, float32 of their shape; see ``log_q`` of the samples.

        Ids that are never drawn count as the rarest that are.
        """
        places = as_int64(ids) - self.min_id
        known = (places >= 0) & (places < self.num_ids)
        probability = self.probability_of(ops.where(known, places, 0))
        probability = ops.where(known & (probability > 0), probability, self.smallest_probability)
        times = probability * self.num_draws
        return ops.log(-ops.expm1(-times) if self.unique else times)

    def sample_ids(self) -> tuple[Any, Any]:
        """Ids (max_num_samples,) int64 and their ``log_q``, for those who have their own way from ids to logits."""
        places = self._draw_unique() if self.unique else self._draw()
        ids = ops.stop_gradient(ops.cast(places, "int64") + self.min_id)
        return ids, self.log_q(ids)

    def _uniform(self, number: int) -> Any:
        return keras.random.uniform((number,), dtype="float64", seed=self.seed_generator)

    def _draw(self) -> Any:
        """Places of ``max_num_samples`` draws with replacement."""
        raise NotImplementedError(f"{type(self).__name__} must define _draw().")

    def _draw_unique(self) -> Any:
        # The first to arrive of exponential clocks whose rates are the probabilities: Gumbel's trick.
        probabilities = ops.cast(self.probability_of(ops.arange(self.num_ids, dtype="int64")), "float64")
        arrivals = ops.log(probabilities) - ops.log(-ops.log(self._uniform(self.num_ids)))
        return ops.top_k(arrivals, self.max_num_samples)[1]

    def sample_for(self, embeddings: Any, ids: Any, training: bool) -> Candidates:
        if self.item_encoder is None:
            raise ValueError("item_encoder must be given, or set, before the sampler is called. Received: None")
        drawn, log_q = self.sample_ids()
        return Candidates(self.item_encoder(drawn), drawn, log_q)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "max_num_samples": self.max_num_samples,
            "unique": self.unique,
            "seed": self.seed,
            "item_encoder": keras.saving.serialize_keras_object(self.item_encoder),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> CatalogueSampler:
        return cls(**keras.saving.deserialize_keras_object(dict(config)))


def draws_until(probabilities: np.ndarray, number: int) -> float:
    """How many draws with replacement are expected to bring up ``number`` different ids; infinite if that is all.

    Solves sum_i (1 - exp(-p_i t)) = number for t. The sum is concave in t, so that Newton's method approaches from below.
    """
    probabilities = probabilities[probabilities > 0]
    if number >= len(probabilities):
        return math.inf
    draws = float(number)
    for _ in range(100):
        missed = np.exp(-probabilities * draws)
        missing = number - (len(missed) - missed.sum())
        if missing <= 1e-6 * number:
            break
        draws += missing / float(probabilities @ missed)
    return draws
