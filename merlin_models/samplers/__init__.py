"""Negatives for a batch of items, and what corrects for how they were sampled."""

from __future__ import annotations

from merlin_models.samplers.base import SAMPLERS, Candidates, EmbeddingWithMetadata, ItemSampler, as_sampler
from merlin_models.samplers.bias import PopularityLogitsCorrection
from merlin_models.samplers.cached import CachedCrossBatchSampler, CachedUniformSampler
from merlin_models.samplers.frequency import StreamingItemFrequency
from merlin_models.samplers.in_batch import InBatchSampler
from merlin_models.samplers.popularity import FrequencyBasedSampler, PopularityBasedSampler

__all__ = [
    "SAMPLERS",
    "CachedCrossBatchSampler",
    "CachedUniformSampler",
    "Candidates",
    "EmbeddingWithMetadata",
    "FrequencyBasedSampler",
    "InBatchSampler",
    "ItemSampler",
    "PopularityBasedSampler",
    "PopularityLogitsCorrection",
    "StreamingItemFrequency",
    "as_sampler",
]
