"""Losses on logits: pointwise, listwise and pairwise, and their registry."""

from __future__ import annotations

from merlin_models.losses.listwise import BinaryCrossEntropy, CategoricalCrossEntropy, SparseCategoricalCrossEntropy
from merlin_models.losses.pairwise import (
    BPRLoss,
    BPRmaxLoss,
    HingeLoss,
    LogisticLoss,
    PairwiseLoss,
    TOP1Loss,
    TOP1maxLoss,
    TOP1v2Loss,
)
from merlin_models.losses.registry import LossType, loss_registry

__all__ = [
    "BPRLoss",
    "BPRmaxLoss",
    "BinaryCrossEntropy",
    "CategoricalCrossEntropy",
    "HingeLoss",
    "LogisticLoss",
    "LossType",
    "PairwiseLoss",
    "SparseCategoricalCrossEntropy",
    "TOP1Loss",
    "TOP1maxLoss",
    "TOP1v2Loss",
    "loss_registry",
]
