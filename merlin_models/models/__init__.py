"""Models: blocks that end in prediction tasks, and encoders."""

from __future__ import annotations

from merlin_models.models.callbacks import ExamplesPerSecondCallback, StopOnNonFinite
from merlin_models.models.encoder import EmbeddingEncoder, Encoder
from merlin_models.models.model import Model
from merlin_models.models.ranking import DCNModel, DeepFMModel, DLRMModel, NCFModel, WideAndDeepModel
from merlin_models.models.retrieval import RetrievalModel
from merlin_models.models.retrieval_models import (
    MatrixFactorizationModel,
    MatrixFactorizationModelV2,
    RetrievalModelV2,
    TwoTowerModel,
    TwoTowerModelV2,
    YoutubeDNNRetrievalModel,
    YoutubeDNNRetrievalModelV2,
)
from merlin_models.models.seen import SeenItems
from merlin_models.models.top_k_encoder import TopKEncoder

__all__ = [
    "DCNModel",
    "DLRMModel",
    "DeepFMModel",
    "EmbeddingEncoder",
    "Encoder",
    "ExamplesPerSecondCallback",
    "MatrixFactorizationModel",
    "MatrixFactorizationModelV2",
    "Model",
    "NCFModel",
    "RetrievalModel",
    "RetrievalModelV2",
    "SeenItems",
    "StopOnNonFinite",
    "TopKEncoder",
    "TwoTowerModel",
    "TwoTowerModelV2",
    "WideAndDeepModel",
    "YoutubeDNNRetrievalModel",
    "YoutubeDNNRetrievalModelV2",
]
