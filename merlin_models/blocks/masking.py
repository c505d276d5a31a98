"""Keras' masks, (batch, length): which positions of padded sequences hold something."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from keras import ops


def mask_of(tensor: Any) -> Any:
    """The mask that layers put on a tensor, or None."""
    return getattr(tensor, "_keras_mask", None)


def with_mask(tensor: Any, mask: Any) -> Any:
    """The tensor, with a mask unless that is None."""
    if mask is not None:
        tensor._keras_mask = mask
    return tensor


def common_mask(masks: Iterable[Any]) -> Any:
    """The positions that all masks keep; None where there is none."""
    found = None
    for mask in masks:
        if mask is not None:
            found = mask if found is None or found is mask else ops.logical_and(found, mask)
    return found
