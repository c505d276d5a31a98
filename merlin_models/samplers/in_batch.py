"""InBatchSampler: the items of the batch are each other's negatives."""

from __future__ import annotations

from typing import Any

import keras

from merlin_models.blocks.base import register
from merlin_models.samplers.base import SAMPLERS, Candidates, ItemSampler


@SAMPLERS.register("in-batch")
@register
class InBatchSampler(ItemSampler):
    """All items of the batch, with their gradients.

    Args:
        item_frequency: a :class:`StreamingItemFrequency`, which learns how often each item is in a batch and gives
            ``log_q``; without one ``log_q`` is None.

    Call arguments:
        embeddings, ids, training: as of :class:`ItemSampler`.

    Returns:
        :class:`Candidates`: the batch, (batch, dim) and (batch,) int64.

    Example:
        >>> import numpy as np
        >>> import merlin_models.tf as ml
        >>> candidates = ml.InBatchSampler()(np.ones((3, 8), "float32"), np.array([7, 2**33 + 1, 7]))
        >>> candidates.ids.numpy().tolist()
        [7, 8589934593, 7]
    """

    def __init__(self, item_frequency: Any = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.item_frequency = item_frequency

    def sample_for(self, embeddings: Any, ids: Any, training: bool) -> Candidates:
        log_q = None if self.item_frequency is None else self.item_frequency(ids, training=training)
        return Candidates(embeddings, ids, log_q)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "item_frequency": keras.saving.serialize_keras_object(self.item_frequency)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> InBatchSampler:
        return cls(**keras.saving.deserialize_keras_object(dict(config)))
