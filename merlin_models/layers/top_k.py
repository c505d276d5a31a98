"""BruteForceTopK: the best candidates of a catalogue for each query, without the matrix of all scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

NO_ID = -1


class TopKPrediction(NamedTuple):
    """The best candidates of each query, the best first.

    Attributes:
        scores: (batch, k) float32.
        identifiers: (batch, k) int64.
    """

    scores: Any
    identifiers: Any


@keras.saving.register_keras_serializable(package="merlin_models")
class BruteForceTopK(keras.layers.Layer):
    """The k candidates with the greatest dot product with each query.

    Streams over the catalogue in chunks and keeps the best k so far: memory is O(batch (k + chunk_size)) beside the
    catalogue. Equal scores are in the order of their identifiers. The catalogue is saved with the layer.

    Args:
        k: how many candidates a query gets.
        capacity: the largest catalogue that the layer can hold. That of the first :meth:`index` if None: then later ones
            may only be smaller.
        chunk_size: candidates that are scored at once.

    Call arguments:
        queries: (batch, dim), float.
        exclude: identifiers that a query must not get, such as the items that its user has seen: (batch, any number)
            integers, where an identifier that is not in the catalogue (-1, say) is padding; or a list of lists, or a
            ragged tensor.

    Returns:
        :class:`TopKPrediction`. Where fewer than k candidates are left to a query, the score is -inf and the identifier -1.

    Raises:
        ValueError: if there is no catalogue, or shapes do not fit.

    Example:
        >>> import numpy as np
        >>> from merlin_models.layers import BruteForceTopK
        >>> top_k = BruteForceTopK(k=2).index(np.eye(3), [10, 20, 2**33 + 1])
        >>> top_k(np.array([[0.1, 0.3, 0.2]], "float32")).identifiers.numpy().tolist()
        [[20, 8589934593]]
        >>> top_k(np.array([[0.1, 0.3, 0.2]], "float32"), exclude=[[20]]).identifiers.numpy().tolist()
        [[8589934593, 10]]
    """

    def __init__(self, k: int = 10, capacity: int | None = None, chunk_size: int = 8192, **kwargs: Any):
        super().__init__(**kwargs)
        for name, value in (("k", k), ("capacity", capacity), ("chunk_size", chunk_size)):
            if (name != "capacity" or value is not None) and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be at least 1. Received: {value}")
        if capacity is not None and capacity < k:
            raise ValueError(f"capacity must be at least k = {k}. Received: {capacity}")
        self._k, self.capacity, self.chunk_size = k, capacity, chunk_size

    # ---- the catalogue ----

    def index(self, candidates: Any, identifiers: Any = None) -> BruteForceTopK:
        """Takes a catalogue in the place of the one before.

        Args:
            candidates: (candidates, dim), float.
            identifiers: (candidates,), integers, each once; 0, 1, ... if None.

        Returns:
            The layer.

        Raises:
            ValueError: if there are less than k candidates or more than the capacity, identifiers occur twice, or shapes do
                not fit.
        """
        candidates = np.asarray(ops.convert_to_numpy(candidates), np.float32)
        if candidates.ndim != 2:
            raise ValueError(f"candidates must have the shape (candidates, dim). Received: {candidates.shape}")
        number, dim = candidates.shape
        identifiers = np.arange(number) if identifiers is None else np.asarray(ops.convert_to_numpy(identifiers))
        if identifiers.shape not in ((number,), (number, 1)) or identifiers.dtype.kind not in "iu":
            raise ValueError(
                f"identifiers must be integers of the shape ({number},). "
                f"Received: {identifiers.dtype} {identifiers.shape}"
            )
        if number < self.k:
            raise ValueError(f"k must be at most the number of candidates, {number}. Received: {self.k}")
        if self.capacity is not None and number > self.capacity:
            raise ValueError(
                f"candidates must be at most the capacity, {self.capacity}, which is that of the first catalogue unless "
                f"given. Received: {number}"
            )
        order = np.argsort(identifiers.reshape(-1), kind="stable")
        identifiers = identifiers.reshape(-1)[order].astype(np.int64)
        repeated = identifiers[1:][identifiers[1:] == identifiers[:-1]]
        if len(repeated):
            raise ValueError(f"identifiers must be unique. Received twice: {repeated[:5].tolist()}")
        if self.built and dim != self.embeddings.shape[1]:
            raise ValueError(f"candidates must have the dim {self.embeddings.shape[1]}. Received: {dim}")
        self.capacity = self.capacity or number
        if not self.built:
            self.build((None, dim))
        padding = self.embeddings.shape[0] - number
        self.embeddings.assign(np.pad(candidates[order], [(0, padding), (0, 0)]))
        # Padding comes last in the order of identifiers.
        self.identifiers.assign(np.pad(identifiers, (0, padding), constant_values=np.iinfo(np.int64).max))
        self.count.assign(number)
        return self

    @property
    def k(self) -> int:
        return self._k

    @k.setter
    def k(self, k: int) -> None:
        limit = self.num_candidates or self.capacity
        if not isinstance(k, int) or k < 1 or (limit is not None and k > limit):
            raise ValueError(f"k must be at least 1 and at most the number of candidates, {limit}. Received: {k}")
        self._k = k

    @property
    def num_candidates(self) -> int:
        """The size of the catalogue; 0 before there is one."""
        return int(ops.convert_to_numpy(self.count.value)) if self.built else 0

    def build(self, queries_shape: Any) -> None:
        if self.capacity is None:
            raise ValueError("index() must be called, or capacity given, before the layer is used.")
        # A catalogue of several chunks has room for whole ones.
        chunk = min(self.chunk_size, self.capacity)
        rows = -(-self.capacity // chunk) * chunk
        options = {"initializer": "zeros", "trainable": False}
        self.embeddings = self.add_weight(name="embeddings", shape=(rows, queries_shape[-1]), **options)
        self.identifiers = self.add_weight(name="identifiers", shape=(rows,), dtype="int64", **options)
        self.count = self.add_weight(name="count", shape=(), dtype="int64", **options)

    # ---- queries ----

    def call(self, queries: Any, exclude: Any = None) -> TopKPrediction:
        rows, dim = self.embeddings.shape
        if len(queries.shape) != 2 or queries.shape[1] != dim:
            raise ValueError(f"queries must have the shape (batch, {dim}). Received: {tuple(queries.shape)}")
        queries = ops.cast(queries, self.compute_dtype)
        embeddings = ops.convert_to_tensor(self.embeddings)
        hidden = None if exclude is None else self._places_of(exclude)
        chunk = min(self.chunk_size, rows)
        batch = ops.shape(queries)[0]

        def merge(index: Any, best: Any, best_places: Any) -> tuple[Any, Any]:
            start = ops.cast(index, "int32") * chunk
            part = ops.slice(embeddings, (start, 0), (chunk, dim))
            scores = ops.cast(ops.matmul(queries, ops.transpose(part)), "float32")
            places = start + ops.arange(chunk, dtype="int32")
            scores = ops.where(places < ops.cast(self.count, "int32"), scores, -np.inf)
            if hidden is not None:
                scores = _without(scores, hidden - start)
            scores, at = ops.top_k(scores, min(self.k, chunk))
            # Earlier places come first, and top_k keeps the order of equal scores.
            scores = ops.concatenate([best, scores], axis=1)
            places = ops.concatenate([best_places, start + at], axis=1)
            scores, at = ops.top_k(scores, self.k)
            return scores, ops.take_along_axis(places, at, axis=1)

        best = ops.full((batch, self.k), -np.inf, dtype="float32"), ops.zeros((batch, self.k), dtype="int32")
        if rows == chunk:
            best = merge(0, *best)
        else:
            best = ops.fori_loop(0, rows // chunk, lambda index, state: merge(index, *state), best)
        scores, places = best
        identifiers = ops.where(ops.isneginf(scores), NO_ID, ops.take(self.identifiers, places, axis=0))
        return TopKPrediction(scores, identifiers)

    def _places_of(self, identifiers: Any) -> Any:
        """Where identifiers are in the catalogue, (batch, any number) int32; -1 for those that are not."""
        wanted = pad_lists(identifiers)
        if len(wanted.shape) != 2:
            raise ValueError(f"exclude must have the shape (batch, any number). Received: {tuple(wanted.shape)}")
        known = ops.convert_to_tensor(self.identifiers)
        places = ops.reshape(ops.searchsorted(known, ops.reshape(wanted, (-1,))), ops.shape(wanted))
        places = ops.minimum(ops.cast(places, "int32"), known.shape[0] - 1)
        found = (ops.take(known, places, axis=0) == wanted) & (places < ops.cast(self.count, "int32"))
        return ops.where(found, places, -1)

    def compute_output_spec(self, queries: Any, exclude: Any = None) -> TopKPrediction:
        shape = (queries.shape[0], self.k)
        return TopKPrediction(keras.KerasTensor(shape, "float32"), keras.KerasTensor(shape, "int64"))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k, "capacity": self.capacity, "chunk_size": self.chunk_size}


def _without(scores: Any, places: Any) -> Any:
    """Scores (batch, chunk) with -inf at places (batch, any number), as far as these are in the chunk."""
    batch, chunk = ops.shape(scores)[0], scores.shape[1]
    places = ops.where((places >= 0) & (places < chunk), places, chunk)
    rows = ops.broadcast_to(ops.expand_dims(ops.arange(batch, dtype="int32"), 1), ops.shape(places))
    indices = ops.reshape(ops.stack([rows, places], axis=-1), (-1, 2))
    # Places elsewhere go to one more column.
    wider = ops.pad(scores, [[0, 0], [0, 1]])
    return ops.scatter_update(wider, indices, ops.full((ops.shape(indices)[0],), -np.inf, dtype="float32"))[:, :chunk]


def pad_lists(ids: Any, padding_id: int = NO_ID) -> Any:
    """Lists of identifiers as one tensor (rows, longest) int64, padded on the right.

    Args:
        ids: a list of lists or arrays, a column of them, a ragged tensor, or a tensor that has such a form already.
        padding_id: what fills up.

    Raises:
        TypeError: if they are not integers.

    Example:
        >>> from merlin_models.layers.top_k import pad_lists
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
            padded[index, : len(row)] = row
        ids = padded
    ids = ops.convert_to_tensor(ids)
    if "int" not in keras.backend.standardize_dtype(ids.dtype):
        raise TypeError(f"Identifiers must be integers. Received: {keras.backend.standardize_dtype(ids.dtype)}")
    return ops.cast(ids, "int64")
