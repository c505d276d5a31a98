"""Blocks: the parts of a model, and what connects them."""

from __future__ import annotations

from merlin_models.blocks.aggregation import (
    AGGREGATIONS,
    AddLeft,
    Aggregation,
    ConcatFeatures,
    CosineSimilarity,
    ElementwiseMultiply,
    ElementwiseSum,
    ElementwiseSumItemMulti,
    StackFeatures,
    Sum,
    SumResidual,
)
from merlin_models.blocks.base import Block, right_shift_layer
from merlin_models.blocks.combinators import ParallelBlock, ResidualBlock, SequentialBlock
from merlin_models.blocks.control import Cond, MapValues
from merlin_models.blocks.cross import CrossBlock, DenseResidualBlock
from merlin_models.blocks.deep_fm import DeepFMBlock, NCFBlock
from merlin_models.blocks.dlrm import DLRMBlock
from merlin_models.blocks.dual_encoder import DualEncoderBlock
from merlin_models.blocks.embedding_features import EmbeddingFeatures, EmbeddingOptions
from merlin_models.blocks.embedding_table import Embeddings, EmbeddingTable, infer_embedding_dim
from merlin_models.blocks.encodings import CategoryEncoding, HashedCross, HashedCrossAll
from merlin_models.blocks.experts import ExpertsGate, MMOEBlock
from merlin_models.blocks.index import IndexBlock, TopKIndexBlock
from merlin_models.blocks.input_block_v2 import Continuous, ContinuousProjection, InputBlockV2
from merlin_models.blocks.inputs import ContinuousFeatures, InputBlock
from merlin_models.blocks.interactions import DotProductInteraction, FMPairwiseInteraction
from merlin_models.blocks.l2_norm import L2Norm
from merlin_models.blocks.linear import ContinuousEmbedding, LinearFeatures
from merlin_models.blocks.matrix_factorization import MatrixFactorizationBlock, QueryItemIdsEmbeddingsBlock
from merlin_models.blocks.mlp import MLPBlock
from merlin_models.blocks.positions import ReplaceMaskedEmbeddings
from merlin_models.blocks.prediction import Prediction
from merlin_models.blocks.pretrained import PretrainedEmbeddings
from merlin_models.blocks.progressive_experts import CGCBlock, PLEBlock
from merlin_models.blocks.registry import BLOCKS, Registry, get_block
from merlin_models.blocks.sequence_aggregator import AverageEmbeddingsByWeightFeature, SequenceAggregator
from merlin_models.blocks.sequence_embeddings import SequenceEmbeddingFeatures
from merlin_models.blocks.tabular import AsTabular, DebugBlock, Filter, NoOp, TabularBlock
from merlin_models.blocks.two_tower import TwoTowerBlock
from merlin_models.blocks.weight_tying import EmbeddingTablePrediction
from merlin_models.layers.embedding_files import TensorInitializer

__all__ = [
    "AGGREGATIONS",
    "BLOCKS",
    "AddLeft",
    "Aggregation",
    "AsTabular",
    "AverageEmbeddingsByWeightFeature",
    "Block",
    "CGCBlock",
    "CategoryEncoding",
    "ConcatFeatures",
    "Cond",
    "Continuous",
    "ContinuousEmbedding",
    "ContinuousFeatures",
    "ContinuousProjection",
    "CosineSimilarity",
    "CrossBlock",
    "DLRMBlock",
    "DebugBlock",
    "DeepFMBlock",
    "DenseResidualBlock",
    "DotProductInteraction",
    "DualEncoderBlock",
    "ElementwiseMultiply",
    "ElementwiseSum",
    "ElementwiseSumItemMulti",
    "EmbeddingFeatures",
    "EmbeddingOptions",
    "EmbeddingTable",
    "EmbeddingTablePrediction",
    "Embeddings",
    "ExpertsGate",
    "FMPairwiseInteraction",
    "Filter",
    "HashedCross",
    "HashedCrossAll",
    "IndexBlock",
    "InputBlock",
    "InputBlockV2",
    "L2Norm",
    "LinearFeatures",
    "MLPBlock",
    "MMOEBlock",
    "MapValues",
    "MatrixFactorizationBlock",
    "NCFBlock",
    "NoOp",
    "PLEBlock",
    "ParallelBlock",
    "Prediction",
    "PretrainedEmbeddings",
    "QueryItemIdsEmbeddingsBlock",
    "Registry",
    "ReplaceMaskedEmbeddings",
    "ResidualBlock",
    "SequenceAggregator",
    "SequenceEmbeddingFeatures",
    "SequentialBlock",
    "StackFeatures",
    "Sum",
    "SumResidual",
    "TabularBlock",
    "TensorInitializer",
    "TopKIndexBlock",
    "TwoTowerBlock",
    "get_block",
    "infer_embedding_dim",
    "right_shift_layer",
]
