"""Transformers on sequences of vectors."""

from __future__ import annotations

from merlin_models.transformers.attention import RelativeSelfAttention
from merlin_models.transformers.blocks import (
    AlbertBlock,
    BertBlock,
    GPT2Block,
    RobertaBlock,
    TransformerBlock,
    XLNetBlock,
)
from merlin_models.transformers.encoder import TransformerEncoder, TransformerLayer
from merlin_models.transformers.outputs import (
    AttentionWeights,
    HiddenStates,
    LastHiddenState,
    LastHiddenStateAndAttention,
    PoolerOutput,
    SequenceClsIndex,
    SequenceFirst,
    SequenceLast,
    SequenceMean,
    TransformerOutput,
)

__all__ = [
    "AlbertBlock",
    "AttentionWeights",
    "BertBlock",
    "GPT2Block",
    "HiddenStates",
    "LastHiddenState",
    "LastHiddenStateAndAttention",
    "PoolerOutput",
    "RelativeSelfAttention",
    "RobertaBlock",
    "SequenceClsIndex",
    "SequenceFirst",
    "SequenceLast",
    "SequenceMean",
    "TransformerBlock",
    "TransformerEncoder",
    "TransformerLayer",
    "TransformerOutput",
    "XLNetBlock",
]
