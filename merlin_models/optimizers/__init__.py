"""Optimizers that step embedding tables by the rows that a batch touches."""

from __future__ import annotations

from merlin_models.optimizers.multi import MultiOptimizer, OptimizerBlocks, split_embeddings_on_size
from merlin_models.optimizers.row_sparse import RowSparse, is_table, row_sparse_of, with_row_sparse
from merlin_models.optimizers.rules import (
    SGD,
    Adagrad,
    EmbeddingOptimizer,
    Ftrl,
    LazyAdam,
    LazyAdamW,
    RMSprop,
    RowwiseAdagrad,
    keras_like,
    rule_like,
    why_no_rule,
)
from merlin_models.optimizers.training import RowSparseTraining

__all__ = [
    "SGD",
    "Adagrad",
    "EmbeddingOptimizer",
    "Ftrl",
    "LazyAdam",
    "LazyAdamW",
    "MultiOptimizer",
    "OptimizerBlocks",
    "RMSprop",
    "RowSparse",
    "RowSparseTraining",
    "RowwiseAdagrad",
    "is_table",
    "keras_like",
    "row_sparse_of",
    "rule_like",
    "split_embeddings_on_size",
    "why_no_rule",
    "with_row_sparse",
]
