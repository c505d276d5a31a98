"""BruteForceTopK: the best candidates of a catalogue for each query, without the matrix of all scores."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from merlin_models.layers.catalogue import NO_ID, Catalogue, pad_lists


class TopKPrediction(NamedTuple):
    """The best candidates of each query, the best first.

    Attributes:
        scores: (batch, k) float32.
        identifiers: (batch, k) int64.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> top_k = ml.BruteForceTopK(k=2).index(np.eye(3, dtype="float32"), np.array([10, 20, 30]))
        >>> scores, ids = top_k(np.array([[0.1, 0.9, 0.5]], "float32"))
        >>> ids.numpy().tolist()
        [[20, 30]]
    """

    scores: Any
    identifiers: Any


@keras.saving.register_keras_serializable(package="merlin_models")
class BruteForceTopK(Catalogue):
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

    ranks = True

    def __init__(self, k: int = 10, capacity: int | None = None, chunk_size: int = 8192, **kwargs: Any):
        super().__init__(capacity, chunk_size, **kwargs)
        if not isinstance(k, int) or k < 1:
            raise ValueError(f"k must be at least 1. Received: {k}")
        if capacity is not None and capacity < k:
            raise ValueError(f"capacity must be at least k = {k}. Received: {capacity}")
        self._k = k

    @property
    def k(self) -> int:
        """How many candidates a query gets."""
        return self._k

    @k.setter
    def k(self, k: int) -> None:
        limit = self.num_candidates or self.capacity
        if not isinstance(k, int) or k < 1 or (limit is not None and k > limit):
            raise ValueError(f"k must be at least 1 and at most the number of candidates, {limit}. Received: {k}")
        self._k = k

    @property
    def min_candidates(self) -> int:
        """How many a catalogue must have at least."""
        return self._k

    def build(self, queries_shape: Any) -> None:
        self.allocate(queries_shape[-1])

    def call(self, queries: Any, exclude: Any = None) -> TopKPrediction:
        rows, dim = self.embeddings.shape
        if len(queries.shape) != 2 or queries.shape[1] != dim:
            raise ValueError(f"queries must have the shape (batch, {dim}). Received: {tuple(queries.shape)}")
        queries = ops.cast(queries, self.compute_dtype)
        embeddings = ops.convert_to_tensor(self.embeddings)
        hidden = None if exclude is None else self.places_of(as_excluded(exclude, queries.shape[0]))
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

    def compute_output_spec(self, queries: Any, exclude: Any = None) -> TopKPrediction:
        shape = (queries.shape[0], self.k)
        return TopKPrediction(keras.KerasTensor(shape, "float32"), keras.KerasTensor(shape, "int64"))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "k": self.k}


def as_excluded(exclude: Any, batch: int | None) -> Any:
    """Identifiers that queries must not get, as (batch, any number) int64.

    Raises:
        ValueError: for another rank, or another number of rows than ``batch`` where both are known.
        TypeError: if they are not integers.
    """
    exclude = pad_lists(exclude)
    if len(exclude.shape) != 2:
        raise ValueError(f"exclude must have the shape (batch, any number). Received: {tuple(exclude.shape)}")
    if None not in (batch, exclude.shape[0]) and exclude.shape[0] != batch:
        raise ValueError(f"exclude must have a row for each of {batch} queries. Received: {tuple(exclude.shape)}")
    return exclude


def _without(scores: Any, places: Any) -> Any:
    """Scores (batch, chunk) with -inf at places (batch, any number), as far as these are in the chunk."""
    batch, chunk = ops.shape(scores)[0], scores.shape[1]
    places = ops.where((places >= 0) & (places < chunk), places, chunk)
    rows = ops.broadcast_to(ops.expand_dims(ops.arange(batch, dtype="int32"), 1), (batch, ops.shape(places)[1]))
    indices = ops.reshape(ops.stack([rows, places], axis=-1), (-1, 2))
    # Places elsewhere go to one more column.
    wider = ops.pad(scores, [[0, 0], [0, 1]])
    return ops.scatter_update(wider, indices, ops.full((ops.shape(indices)[0],), -np.inf, dtype="float32"))[:, :chunk]
