"""ApproximateTopK: nearly the best candidates of a catalogue, from a graph of neighbours that faiss keeps."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from merlin_models.layers.catalogue import NO_ID, as_candidates
from merlin_models.layers.top_k import TopKPrediction, as_excluded


@keras.saving.register_keras_serializable(package="merlin_models")
class ApproximateTopK(keras.layers.Layer):
    """The candidates with the greatest dot products, found by HNSW instead of by trying all of them.

    Has the calls of :class:`BruteForceTopK` and takes its place where the catalogue is large and queries are few. Runs on the
    CPU, outside of compiled functions (``run_eagerly=True``), on the package ``faiss-cpu`` (the extra ``ann``).

    Args:
        k: how many candidates a query gets.
        neighbours: links of an item in the graph; more find more, and need more memory.
        ef_construction: how many items a new one is compared with, at least.
        ef_search: how many items a query is compared with, at least. More find more, and take longer.

    Call arguments:
        queries: (batch, dim), float.
        exclude: as of :class:`BruteForceTopK`. That many more candidates are searched for.

    Returns:
        :class:`TopKPrediction`. Where fewer than k candidates are found, the score is -inf and the identifier -1.

    Raises:
        ImportError: without faiss.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> top_k = ml.ApproximateTopK(k=2).index(np.eye(3, dtype="float32"), np.array([10, 20, 30]))
        >>> top_k(np.array([[0.1, 0.9, 0.5]], "float32")).identifiers.numpy().tolist()
        [[20, 30]]

    Reference:
        Malkov and Yashunin, Efficient and robust approximate nearest neighbor search, 2016, https://arxiv.org/abs/1603.09320
    """

    def __init__(
        self, k: int = 10, neighbours: int = 32, ef_construction: int = 200, ef_search: int = 128, **kwargs: Any
    ):
        super().__init__(**kwargs)
        sizes = {"k": k, "neighbours": neighbours, "ef_construction": ef_construction, "ef_search": ef_search}
        for name, value in sizes.items():
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be at least 1. Received: {value}")
        self.k, self._sizes, self._graph, self.supports_jit = k, sizes, None, False

    def index(self, candidates: Any, identifiers: Any = None) -> ApproximateTopK:
        """Takes a catalogue in the place of the one before; as of :class:`BruteForceTopK`, but of any size."""
        candidates, identifiers = as_candidates(candidates, identifiers, ranked=True)
        self._check_k(len(candidates))
        faiss = _faiss()
        graph = faiss.IndexHNSWFlat(candidates.shape[1], self._sizes["neighbours"], faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = self._sizes["ef_construction"]
        self._graph = faiss.IndexIDMap2(graph)
        self._graph.add_with_ids(np.ascontiguousarray(candidates), identifiers)
        return self

    def _check_k(self, number: int) -> None:
        if not 1 <= self.k <= number:
            raise ValueError(f"k must be at most the number of candidates, {number}. Received: {self.k}")

    @property
    def num_candidates(self) -> int:
        """The size of the catalogue; 0 before there is one."""
        return 0 if self._graph is None else self._graph.ntotal

    def candidate_ids(self) -> np.ndarray:
        """Identifiers (candidates,) int64 of the catalogue."""
        return _faiss().vector_to_array(self._graph.id_map)

    @property
    def capacity(self) -> int | None:
        """The size of the catalogue, or None before there is one."""
        return self.num_candidates or None

    def call(self, queries: Any, exclude: Any = None) -> TopKPrediction:
        if not hasattr(ops.convert_to_tensor(queries), "numpy"):
            raise RuntimeError("ApproximateTopK must be called with values, outside of compiled functions.")
        if self._graph is None:
            raise ValueError("index() must be called before the layer is used.")
        self._check_k(self.num_candidates)
        queries = np.ascontiguousarray(ops.convert_to_numpy(queries), np.float32)
        if queries.ndim != 2 or queries.shape[1] != self._graph.d:
            raise ValueError(f"queries must have the shape (batch, {self._graph.d}). Received: {queries.shape}")
        unwanted = np.zeros((len(queries), 0))
        if exclude is not None:
            unwanted = ops.convert_to_numpy(as_excluded(exclude, len(queries)))
        number = min(self.k + unwanted.shape[1], self.num_candidates)
        options = _faiss().SearchParametersHNSW(efSearch=max(self._sizes["ef_search"], number))
        scores, found = self._graph.search(queries, number, params=options)
        left = found != NO_ID
        for row, ids in enumerate(unwanted):
            left[row] &= ~np.isin(found[row], ids)
        scores, found = np.where(left, scores, np.float32(-np.inf)), np.where(left, found, NO_ID)
        order = np.argsort(~left, axis=1, kind="stable")[:, : self.k]
        scores, found = (np.take_along_axis(each, order, axis=1) for each in (scores, found))
        return TopKPrediction(ops.convert_to_tensor(scores), ops.convert_to_tensor(found))

    def compute_output_spec(self, queries: Any, exclude: Any = None) -> TopKPrediction:
        shape = (queries.shape[0], self.k)
        return TopKPrediction(keras.KerasTensor(shape, "float32"), keras.KerasTensor(shape, "int64"))

    def save_own_variables(self, store: Any) -> None:
        if self._graph is not None:
            store["graph"] = _faiss().serialize_index(self._graph)

    def load_own_variables(self, store: Any) -> None:
        if "graph" in store:
            self._graph = _faiss().deserialize_index(np.array(store["graph"]))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._sizes, "k": self.k}


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError("ApproximateTopK needs faiss: pip install faiss-cpu") from error
    return faiss
