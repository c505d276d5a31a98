"""Transforms: blocks without weights that change features, and with them targets."""

from __future__ import annotations

from merlin_models.transforms.broadcast import BroadcastToSequence
from merlin_models.transforms.features import (
    ContinuousPowers,
    ExpandDims,
    PrepareFeatures,
    PrepareListFeatures,
    Rename,
)
from merlin_models.transforms.in_batch_negatives import InBatchNegatives
from merlin_models.transforms.lists import (
    AsDenseFeatures,
    AsRaggedFeatures,
    AsSparseFeatures,
    ToDense,
    ToRagged,
    ToSparse,
)
from merlin_models.transforms.masking import (
    CausalLanguageModeling,
    MaskedLanguageModeling,
    SequenceMaskLast,
    SequenceMaskLastInference,
    SequenceMaskRandom,
)
from merlin_models.transforms.noise import StochasticSwapNoise
from merlin_models.transforms.sequence import (
    SequenceCausalLastInference,
    SequencePredictLast,
    SequencePredictNext,
    SequencePredictRandom,
    SequenceTargetAsInput,
)
from merlin_models.transforms.targets import CategoricalOneHot, LabelToOneHot, ToOneHot, ToTarget

__all__ = [
    "AsDenseFeatures",
    "AsRaggedFeatures",
    "AsSparseFeatures",
    "BroadcastToSequence",
    "CategoricalOneHot",
    "CausalLanguageModeling",
    "ContinuousPowers",
    "ExpandDims",
    "InBatchNegatives",
    "LabelToOneHot",
    "MaskedLanguageModeling",
    "PrepareFeatures",
    "PrepareListFeatures",
    "Rename",
    "SequenceCausalLastInference",
    "SequenceMaskLast",
    "SequenceMaskLastInference",
    "SequenceMaskRandom",
    "SequencePredictLast",
    "SequencePredictNext",
    "SequencePredictRandom",
    "SequenceTargetAsInput",
    "StochasticSwapNoise",
    "ToDense",
    "ToOneHot",
    "ToRagged",
    "ToSparse",
    "ToTarget",
]
