"""Keras' layers on ragged sequences, which they do not take themselves."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from merlin_models.blocks.masking import with_mask
from merlin_models.blocks.symbolic import SymbolicBuild, rank_of
from merlin_models.ops import is_ragged, items_of_padded, to_padded

# Layers that compute each position by itself, or whose statistics are over all positions that there are.
_BY_POSITION = (
    layers.Activation,
    layers.BatchNormalization,
    layers.Dense,
    layers.Dropout,
    layers.ELU,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.LayerNormalization,
    layers.LeakyReLU,
    layers.ReLU,
    layers.RMSNormalization,
    layers.Rescaling,
)


def run_layer(layer: keras.layers.Layer, inputs: Any) -> Any:
    """The layer's output, also for ragged sequences (batch, None, dim).

    Blocks get these as they are. Keras' layers on positions get the items of all sequences as one; its other layers get the
    sequences padded, with a mask, and what they return for each position is made ragged again.
    """
    if not is_ragged(inputs) or isinstance(layer, SymbolicBuild):
        return layer(inputs)
    if isinstance(layer, _BY_POSITION):
        # As a batch of one sequence: of the rank that the layer is built for.
        return inputs.with_flat_values(layer(inputs.flat_values[None])[0])
    padded = with_mask(*to_padded(inputs))
    outputs = layer(padded)
    return keras.tree.map_structure(
        lambda x: items_of_padded(x, inputs) if rank_of(x) == rank_of(padded) else x, outputs
    )
