"""StreamingItemFrequency: how often each item is in a batch, learned while training."""

from __future__ import annotations

import functools
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import register
from merlin_models.samplers.base import as_int64

# Odd numbers of 62 bits with about as many ones as zeros; products wrap around.
MULTIPLIERS = (0x1E3779B97F4A7C15, 0x3F58476D1CE4E5B9, 0x14D049BB133111EB, 0x2545F4914F6CDD1D)


@register
class StreamingItemFrequency(keras.layers.Layer):
    """Estimates the expected number of times that an item is in a batch, without a table of all items.

    Ids are hashed to buckets. A bucket holds the last step that it was seen at, and means of the gap between such steps
    and of its occurrences at such a step; the estimate is occurrences / gap. Where no item is twice in a batch this is the
    estimator of the paper, the probability 1 / gap. With several hash functions the smallest estimate counts, because
    items that share a bucket make it larger.

    The state is saved with the model; no gradient passes.

    Args:
        num_buckets: of each hash function, 20 bytes each.
        learning_rate: weight of the newest gap in the mean. The first ``1 / learning_rate`` gaps count equally, so that
            rare items do not wait for it.
        num_hashes: 1 to 4.

    Call arguments:
        ids: (...), integers.
        training: whether the ids are a batch to learn from, before the answer.

    Returns:
        (...) float32, the logarithm of the estimate. An id that was never seen counts as one that will be at the next step.

    Raises:
        TypeError: if ids are not integers.

    Example:
        >>> import numpy as np
        >>> import merlin_models.tf as ml
        >>> frequency = ml.StreamingItemFrequency(num_buckets=1000)
        >>> for step in range(40):
        ...     _ = frequency(np.array([7] if step % 4 else [7, 8, 8]), training=True)
        >>> np.exp(frequency(np.array([7, 8]))).round(1).tolist()  # once in each batch; twice in every fourth
        [1.0, 0.5]

    Reference:
        Yi et al., Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations, 2019,
        https://doi.org/10.1145/3298689.3346996
    """

    def __init__(self, num_buckets: int = 2**20, learning_rate: float = 0.01, num_hashes: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        if not isinstance(num_buckets, int) or num_buckets < 1:
            raise ValueError(f"num_buckets must be at least 1. Received: {num_buckets}")
        if not 0 < learning_rate <= 1:
            raise ValueError(f"learning_rate must be in (0, 1]. Received: {learning_rate}")
        if num_hashes not in range(1, len(MULTIPLIERS) + 1):
            raise ValueError(f"num_hashes must be in [1, {len(MULTIPLIERS)}]. Received: {num_hashes}")
        self.num_buckets, self.learning_rate, self.num_hashes = num_buckets, float(learning_rate), num_hashes
        self.step = self._state("step", (), "int64")
        # Bucket b of hash function h is at h * num_buckets + b.
        shape = (num_hashes * num_buckets,)
        self.last_seen = self._state("last_seen", shape, "int64")
        self.sightings = self._state("sightings", shape, "float32")
        self.gap = self._state("gap", shape, "float32")
        self.occurrences = self._state("occurrences", shape, "float32")

    def _state(self, name: str, shape: tuple[int, ...], dtype: str) -> keras.Variable:
        return self.add_weight(
            name=name, shape=shape, dtype=dtype, initializer="zeros", trainable=False, autocast=False
        )

    def call(self, ids: Any, training: bool | None = None) -> Any:
        ids = as_int64(ids)
        if training:
            self.observe(ids)
        places = self._places(ids)
        gap, occurrences = ops.take(self.gap, places), ops.take(self.occurrences, places)
        unseen = 1.0 / ops.cast(self.step + 1, "float32")
        estimates = ops.where(gap > 0, occurrences / ops.maximum(gap, 1.0), unseen)
        # ops.min refuses an empty batch.
        return ops.log(functools.reduce(ops.minimum, ops.unstack(estimates, self.num_hashes)))

    def observe(self, ids: Any) -> None:
        """Learns from the ids (...) of one batch."""
        places = ops.reshape(self._places(as_int64(ids)), (-1,))
        ones = ops.ones_like(places, dtype="float32")
        counts = ops.take(ops.segment_sum(ones, places, self.num_hashes * self.num_buckets), places)
        step = self.step + 1
        newest = ops.cast(step - ops.take(self.last_seen, places), "float32")
        sightings = ops.take(self.sightings, places) + 1.0
        weight = ops.maximum(self.learning_rate, 1.0 / sightings)

        def put(state: keras.Variable, values: Any) -> None:
            # Ids of one bucket have equal values, so that their order does not matter.
            state.assign(ops.scatter_update(state, ops.expand_dims(places, -1), values))

        for state, value in ((self.gap, newest), (self.occurrences, counts)):
            mean = ops.take(state, places)
            put(state, mean + weight * (value - mean))
        put(self.sightings, sightings)
        put(self.last_seen, ops.broadcast_to(step, ops.shape(places)))
        self.step.assign(step)

    def _places(self, ids: Any) -> Any:
        """Where the state of each id is, (num_hashes, ...) int32."""
        mixed = ops.bitwise_xor(ids, ops.right_shift(ids, ops.cast(32, "int64")))
        places = [
            ops.mod(ops.right_shift(mixed * ops.cast(multiplier, "int64"), ops.cast(17, "int64")), self.num_buckets)
            + index * self.num_buckets
            for index, multiplier in enumerate(MULTIPLIERS[: self.num_hashes])
        ]
        return ops.cast(ops.stack(places), "int32")

    def compute_output_spec(self, ids: Any, training: bool | None = None) -> keras.KerasTensor:
        return keras.KerasTensor(ids.shape, "float32")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_buckets": self.num_buckets,
            "learning_rate": self.learning_rate,
            "num_hashes": self.num_hashes,
        }
