"""Keras layers: over the compiled ops, and for retrieval."""

from __future__ import annotations

from merlin_models.layers.approximate_top_k import ApproximateTopK
from merlin_models.layers.dense import Dense
from merlin_models.layers.dot_interaction import DotInteraction
from merlin_models.layers.embedding_bag import EmbeddingBag
from merlin_models.layers.embedding_bag_collection import EmbeddingBagCollection
from merlin_models.layers.embedding_files import TensorInitializer
from merlin_models.layers.embedding_options import EmbeddingOptions, infer_embedding_dim
from merlin_models.layers.fifo_queue import FIFOQueue
from merlin_models.layers.inbatch_softmax import InbatchSoftmax
from merlin_models.layers.table_config import FeatureConfig, TableConfig
from merlin_models.layers.temperature import LogitsTemperature
from merlin_models.layers.top_k import BruteForceTopK, TopKPrediction

__all__ = [
    "ApproximateTopK",
    "BruteForceTopK",
    "Dense",
    "DotInteraction",
    "EmbeddingBag",
    "EmbeddingBagCollection",
    "EmbeddingOptions",
    "FIFOQueue",
    "FeatureConfig",
    "InbatchSoftmax",
    "LogitsTemperature",
    "TableConfig",
    "TensorInitializer",
    "TopKPrediction",
    "infer_embedding_dim",
]
