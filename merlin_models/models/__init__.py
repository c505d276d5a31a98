"""Models: blocks that end in prediction tasks."""

from __future__ import annotations

from merlin_models.models.callbacks import ExamplesPerSecondCallback
from merlin_models.models.model import Model
from merlin_models.models.ranking import DCNModel, DeepFMModel, DLRMModel, NCFModel, WideAndDeepModel

__all__ = [
    "DCNModel",
    "DLRMModel",
    "DeepFMModel",
    "ExamplesPerSecondCallback",
    "Model",
    "NCFModel",
    "WideAndDeepModel",
]
