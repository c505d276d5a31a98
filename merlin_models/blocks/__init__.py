"""Blocks: the parts of a model, and what connects them."""

from __future__ import annotations

from merlin_models.blocks.aggregation import (
    AGGREGATIONS,
    Aggregation,
    ConcatFeatures,
    CosineSimilarity,
    ElementwiseMultiply,
    ElementwiseSum,
    StackFeatures,
    Sum,
    SumResidual,
)
from merlin_models.blocks.base import Block
from merlin_models.blocks.combinators import ParallelBlock, ResidualBlock, SequentialBlock
from merlin_models.blocks.embedding_features import EmbeddingFeatures, EmbeddingOptions
from merlin_models.blocks.embedding_files import TensorInitializer
from merlin_models.blocks.embedding_table import Embeddings, EmbeddingTable, infer_embedding_dim
from merlin_models.blocks.inputs import ContinuousFeatures, InputBlock
from merlin_models.blocks.mlp import MLPBlock
from merlin_models.blocks.registry import Registry
from merlin_models.blocks.tabular import AsTabular, DebugBlock, Filter, NoOp, TabularBlock

__all__ = [
    "AGGREGATIONS",
    "Aggregation",
    "AsTabular",
    "Block",
    "ConcatFeatures",
    "ContinuousFeatures",
    "CosineSimilarity",
    "DebugBlock",
    "ElementwiseMultiply",
    "ElementwiseSum",
    "EmbeddingFeatures",
    "EmbeddingOptions",
    "EmbeddingTable",
    "Embeddings",
    "Filter",
    "InputBlock",
    "MLPBlock",
    "NoOp",
    "ParallelBlock",
    "Registry",
    "ResidualBlock",
    "SequentialBlock",
    "StackFeatures",
    "Sum",
    "SumResidual",
    "TabularBlock",
    "TensorInitializer",
    "infer_embedding_dim",
]
