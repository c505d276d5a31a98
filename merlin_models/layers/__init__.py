"""Keras layers over the compiled ops."""

from __future__ import annotations

from merlin_models.layers.dot_interaction import DotInteraction
from merlin_models.layers.embedding_bag import EmbeddingBag
from merlin_models.layers.embedding_bag_collection import EmbeddingBagCollection, FeatureConfig, TableConfig
from merlin_models.layers.inbatch_softmax import InbatchSoftmax
from merlin_models.layers.temperature import LogitsTemperature
from merlin_models.layers.top_k import BruteForceTopK, TopKPrediction

__all__ = [
    "BruteForceTopK",
    "DotInteraction",
    "EmbeddingBag",
    "EmbeddingBagCollection",
    "FeatureConfig",
    "InbatchSoftmax",
    "LogitsTemperature",
    "TableConfig",
    "TopKPrediction",
]
