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
from merlin_models.blocks.cross import CrossBlock, DenseResidualBlock
from merlin_models.blocks.deep_fm import DeepFMBlock, NCFBlock
from merlin_models.blocks.dlrm import DLRMBlock
from merlin_models.blocks.embedding_features import EmbeddingFeatures, EmbeddingOptions
from merlin_models.blocks.embedding_files import TensorInitializer
from merlin_models.blocks.embedding_table import Embeddings, EmbeddingTable, infer_embedding_dim
from merlin_models.blocks.encodings import CategoryEncoding, HashedCross, HashedCrossAll
from merlin_models.blocks.inputs import ContinuousFeatures, InputBlock
from merlin_models.blocks.interactions import DotProductInteraction, FMPairwiseInteraction
from merlin_models.blocks.linear import ContinuousEmbedding, LinearFeatures
from merlin_models.blocks.mlp import MLPBlock
from merlin_models.blocks.prediction import Prediction
from merlin_models.blocks.registry import BLOCKS, Registry, get_block
from merlin_models.blocks.tabular import AsTabular, DebugBlock, Filter, NoOp, TabularBlock

__all__ = [
    "AGGREGATIONS",
    "BLOCKS",
    "Aggregation",
    "AsTabular",
    "Block",
    "CategoryEncoding",
    "ConcatFeatures",
    "ContinuousEmbedding",
    "ContinuousFeatures",
    "CosineSimilarity",
    "CrossBlock",
    "DLRMBlock",
    "DebugBlock",
    "DeepFMBlock",
    "DenseResidualBlock",
    "DotProductInteraction",
    "ElementwiseMultiply",
    "ElementwiseSum",
    "EmbeddingFeatures",
    "EmbeddingOptions",
    "EmbeddingTable",
    "Embeddings",
    "FMPairwiseInteraction",
    "Filter",
    "HashedCross",
    "HashedCrossAll",
    "InputBlock",
    "LinearFeatures",
    "MLPBlock",
    "NCFBlock",
    "NoOp",
    "ParallelBlock",
    "Prediction",
    "Registry",
    "ResidualBlock",
    "SequentialBlock",
    "StackFeatures",
    "Sum",
    "SumResidual",
    "TabularBlock",
    "TensorInitializer",
    "get_block",
    "infer_embedding_dim",
]
