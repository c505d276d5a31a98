"""Ids as NumPy arrays, for the loader, catalogues and wrappers alike; needs neither Keras nor TensorFlow."""

from __future__ import annotations

import numpy as np


def as_int64(name: str, ids: np.ndarray) -> np.ndarray:
    """Integers as int64. Raises ValueError for those from 2**63, which would become negative ones."""
    if ids.dtype.kind == "u" and ids.size and ids.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must be less than 2**63. Received: {ids.max()}")
    return ids.astype(np.int64, copy=False)
