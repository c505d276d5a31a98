"""Prediction tasks: the heads of models."""

from __future__ import annotations

from merlin_models.tasks.base import PredictionTask, TaskStep, computing_loss, is_computing_loss
from merlin_models.tasks.binary import BinaryClassificationTask
from merlin_models.tasks.multi_class import MultiClassClassificationTask
from merlin_models.tasks.outputs import BinaryOutput, CategoricalOutput, ModelOutput, OutputBlock, RegressionOutput
from merlin_models.tasks.parallel import ParallelPredictionBlock, PredictionTasks, tasks_of, with_weights_of
from merlin_models.tasks.regression import RegressionTask
from merlin_models.tasks.retrieval import ItemRetrievalTask
from merlin_models.tasks.sample_weight import ColumnBasedSampleWeight
from merlin_models.tasks.sampled_softmax import SampledSoftmaxTask

__all__ = [
    "BinaryClassificationTask",
    "BinaryOutput",
    "CategoricalOutput",
    "ColumnBasedSampleWeight",
    "ItemRetrievalTask",
    "ModelOutput",
    "MultiClassClassificationTask",
    "OutputBlock",
    "ParallelPredictionBlock",
    "PredictionTask",
    "PredictionTasks",
    "RegressionOutput",
    "RegressionTask",
    "SampledSoftmaxTask",
    "TaskStep",
    "computing_loss",
    "is_computing_loss",
    "tasks_of",
    "with_weights_of",
]
