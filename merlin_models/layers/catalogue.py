"""Catalogue: vectors under identifiers, in variables that are saved with the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import numpy as np
import pandas as pd
from keras import ops

from merlin_models._ids import as_int64

NO_ID = -1


@keras.saving.register_keras_serializable(package="merlin_models")
class Catalogue(keras.layers.Layer):
    """Holds the vectors of items, in the order of their identifiers, and finds them by these.

    Args:
        capacity: the largest number of items. That of the first :meth:`index` if None: then later ones may only be smaller.
        chunk_size: a catalogue of more items has room for a multiple of this.

    Call arguments:
        identifiers: (...), integers.

    Returns:
        (..., dim): their vectors; zeros for identifiers that are not there.

    Example:
        >>> import numpy as np
        >>> from merlin_models.layers.catalogue import Catalogue
        >>> catalogue = Catalogue().index([[1.0], [2.0]], [2**33 + 1, 7])
        >>> catalogue(np.array([7, 8, 2**33 + 1])).numpy().tolist()
        [[2.0], [0.0], [1.0]]
    """

    min_candidates = 1
    ranks: ClassVar[bool] = False  # whether vectors must have a place in an order, see as_candidates

    def __init__(self, capacity: int | None = None, chunk_size: int = 8192, **kwargs: Any):
        super().__init__(**kwargs)
        for name, value in (("capacity", capacity), ("chunk_size", chunk_size)):
            if (name != "capacity" or value is not None) and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be at least 1. Received: {value}")
        self.capacity, self.chunk_size = capacity, chunk_size

    def index(self, candidates: Any, identifiers: Any = None) -> Any:
        """Takes items in the place of those before.

        Args:
            candidates: (candidates, dim), float.
            identifiers: (candidates,), integers, each once. If None the index of a DataFrame, such as ``item_embeddings``
                returns, else 0, 1, ...

        Returns:
            The layer.

        Raises:
            ValueError: if there are fewer candidates than k, or more than the capacity, identifiers occur twice, or shapes
                do not fit; where they are ranked, for NaN or infinity and for the identifier -1, which stands for none.
        """
        candidates, identifiers = as_candidates(candidates, identifiers, self.ranks)
        number, dim = candidates.shape
        if number < self.min_candidates:
            raise ValueError(f"k must be at most the number of candidates, {number}. Received: {self.min_candidates}")
        if self.capacity is not None and number > self.capacity:
            raise ValueError(
                f"candidates must be at most the capacity, {self.capacity}, which is that of the first catalogue unless "
                f"given. Received: {number}"
            )
        if self.built and dim != self.embeddings.shape[1]:
            raise ValueError(f"candidates must have the dim {self.embeddings.shape[1]}. Received: {dim}")
        self.capacity = self.capacity or number
        if not self.built:
            self.allocate(dim)
        padding = self.embeddings.shape[0] - number
        self.embeddings.assign(np.pad(candidates, [(0, padding), (0, 0)]))
        # Padding comes last in the order of identifiers.
        self.identifiers.assign(np.pad(identifiers, (0, padding), constant_values=np.iinfo(np.int64).max))
        self.count.assign(number)
        return self

    @property
    def num_candidates(self) -> int:
        """The number of items; 0 before there are any."""
        return int(ops.convert_to_numpy(self.count.value)) if self.built else 0

    def candidate_ids(self) -> np.ndarray:
        """Identifiers (items,) int64 of the items that are there, in ascending order."""
        return ops.convert_to_numpy(self.identifiers)[: self.num_candidates]

    def items(self) -> tuple[np.ndarray, np.ndarray]:
        """Identifiers (items,) int64 and vectors (items, dim), in the order of identifiers."""
        if not self.built:
            raise ValueError("index() must be called before there are items.")
        number = self.num_candidates
        vectors = ops.convert_to_numpy(ops.cast(self.embeddings, "float32"))
        return ops.convert_to_numpy(self.identifiers)[:number], vectors[:number]

    def allocate(self, dim: int) -> None:
        """Makes the variables for vectors of this length.

        Raises:
            ValueError: if the capacity is not known.
        """
        if self.capacity is None:
            raise ValueError("index() must be called, or capacity given, before the layer is used.")
        chunk = min(self.chunk_size, self.capacity)
        rows = -(-self.capacity // chunk) * chunk
        options = {"initializer": "zeros", "trainable": False}
        self.embeddings = self.add_weight(name="embeddings", shape=(rows, dim), **options)
        self.identifiers = self.add_weight(name="identifiers", shape=(rows,), dtype="int64", **options)
        self.count = self.add_weight(name="count", shape=(), dtype="int64", **options)
        self.built = True

    def build(self, input_shape: Any) -> None:
        raise ValueError("index() must be called before the layer is used.")

    def get_build_config(self) -> dict[str, Any] | None:
        return {"dim": int(self.embeddings.shape[1])} if self.built else None

    def build_from_config(self, config: dict[str, Any]) -> None:
        if config:
            self.allocate(config["dim"])

    def places_of(self, identifiers: Any) -> Any:
        """Where identifiers (...) are in the catalogue, int32; -1 for those that are not."""
        wanted = ops.cast(identifiers, "int64")
        known = ops.convert_to_tensor(self.identifiers)
        places = ops.reshape(ops.searchsorted(known, ops.reshape(wanted, (-1,))), ops.shape(wanted))
        places = ops.minimum(ops.cast(places, "int32"), known.shape[0] - 1)
        found = (ops.take(known, places, axis=0) == wanted) & (places < ops.cast(self.count, "int32"))
        return ops.where(found, places, -1)

    def call(self, identifiers: Any) -> Any:
        places = self.places_of(identifiers)
        rows = ops.take(self.embeddings, ops.maximum(places, 0), axis=0)
        return ops.where(ops.expand_dims(places >= 0, -1), rows, ops.zeros_like(rows))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "capacity": self.capacity, "chunk_size": self.chunk_size}


def as_candidates(candidates: Any, identifiers: Any, ranked: bool) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (candidates, dim) float32 and identifiers (candidates,) int64, in the order of identifiers.

    Raises:
        ValueError: if shapes differ from these, identifiers are not integers, are 2**63 or more, or occur twice; where
            candidates are ``ranked``, for those that have no place in an order, and for the identifier that stands for none.
    """
    if isinstance(candidates, pd.DataFrame):
        identifiers = candidates.index.to_numpy() if identifiers is None else identifiers
        candidates = candidates.to_numpy()
    candidates = np.asarray(ops.convert_to_numpy(candidates), np.float32)
    if candidates.ndim != 2:
        raise ValueError(f"candidates must have the shape (candidates, dim). Received: {candidates.shape}")
    number = len(candidates)
    identifiers = np.arange(number) if identifiers is None else np.asarray(ops.convert_to_numpy(identifiers))
    if identifiers.shape not in ((number,), (number, 1)) or identifiers.dtype.kind not in "iu":
        raise ValueError(
            f"identifiers must be integers of the shape ({number},). Received: {identifiers.dtype} {identifiers.shape}"
        )
    identifiers = as_int64("identifiers", identifiers.reshape(-1))
    if ranked:
        rows = np.flatnonzero(~np.isfinite(candidates).all(axis=1))
        if len(rows):
            raise ValueError(
                f"candidates must be finite. Received: NaN or infinity in {len(rows)} of them, at {rows[:5].tolist()}"
            )
        if np.any(identifiers == NO_ID):
            raise ValueError(f"identifiers must not have {NO_ID}, which stands for none. Received: {NO_ID}")
    order = np.argsort(identifiers, kind="stable")
    identifiers = identifiers[order]
    repeated = identifiers[1:][identifiers[1:] == identifiers[:-1]]
    if len(repeated):
        raise ValueError(
            f"identifiers must be unique. Please make sure that `data` contains unique indices. "
            f"Received twice: {repeated[:5].tolist()}"
        )
    return candidates[order], identifiers


def pad_lists(ids: Any, padding_id: int = NO_ID) -> Any:
    """Lists of identifiers as one tensor (rows, longest) int64, padded on the right.

    Args:
        ids: a list of lists or arrays, a column of them, a ragged tensor, or a tensor that has such a form already.
        padding_id: what fills up.

    Raises:
        TypeError: if they are not integers.
        ValueError: for NumPy's integers from 2**63.

    Example:
        >>> from merlin_models.layers.catalogue import pad_lists
        >>> pad_lists([[5, 6], [], [7]]).numpy().tolist()
        [[5, 6], [-1, -1], [7, -1]]
    """
    if hasattr(ids, "to_tensor"):
        ids = ids.to_tensor(padding_id)
    elif isinstance(ids, Sequence) or (isinstance(ids, np.ndarray) and ids.dtype == object):
        rows = [np.asarray(row).reshape(-1) for row in ids]
        rows = [row if len(row) else row.astype(np.int64) for row in rows]
        kinds = {row.dtype.kind for row in rows}
        if not kinds <= {"i", "u"}:
            raise TypeError(f"Identifiers must be integers. Received kinds: {sorted(kinds)}")
        padded = np.full((len(rows), max(map(len, rows), default=0)), padding_id, np.int64)
        for index, row in enumerate(rows):
            padded[index, : len(row)] = as_int64("Identifiers", row)
        ids = padded
    elif isinstance(ids, np.ndarray) and ids.dtype.kind == "u":
        ids = as_int64("Identifiers", ids)
    ids = ops.convert_to_tensor(ids)
    if "int" not in keras.backend.standardize_dtype(ids.dtype):
        raise TypeError(f"Identifiers must be integers. Received: {keras.backend.standardize_dtype(ids.dtype)}")
    return ops.cast(ids, "int64")
