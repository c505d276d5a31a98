"""Negatives for a batch of items, and what corrects for how they were sampled."""

from __future__ import annotations

from merlin_models.samplers.base import SAMPLERS, Candidates, EmbeddingWithMetadata, ItemSampler, as_sampler
from merlin_models.samplers.frequency import StreamingItemFrequency
from merlin_models.samplers.in_batch import InBatchSampler

__all__ = [
    "SAMPLERS",
    "Candidates",
    "EmbeddingWithMetadata",
    "InBatchSampler",
    "ItemSampler",
    "StreamingItemFrequency",
    "as_sampler",
]
