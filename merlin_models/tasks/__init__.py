"""Prediction tasks: the heads of models."""

from __future__ import annotations

from merlin_models.tasks.base import PredictionTask, TaskStep, computing_loss, is_computing_loss
from merlin_models.tasks.binary import BinaryClassificationTask
from merlin_models.tasks.parallel import ParallelPredictionBlock, tasks_of
from merlin_models.tasks.regression import RegressionTask
from merlin_models.tasks.retrieval import ItemRetrievalTask

__all__ = [
    "BinaryClassificationTask",
    "ItemRetrievalTask",
    "ParallelPredictionBlock",
    "PredictionTask",
    "RegressionTask",
    "TaskStep",
    "computing_loss",
    "is_computing_loss",
    "tasks_of",
]
