"""TopKEncoder: from a query's features to the best items of a catalogue."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from merlin_models.blocks.base import register
from merlin_models.blocks.combinators import as_features
from merlin_models.blocks.symbolic import SymbolicBuild, shapes_of_schema
from merlin_models.layers.catalogue import Catalogue
from merlin_models.layers.top_k import BruteForceTopK, TopKPrediction
from merlin_models.metrics import TopKMetricsAggregator
from merlin_models.models.batches import Batch, batches_of, id_column, ids_of, warn_of_random_order
from merlin_models.models.encoder import Encoder
from merlin_models.models.exporting import Exportable
from merlin_models.models.saving import SavedWhole
from merlin_models.models.seen import NO_ID, as_seen
from merlin_models.schema import Schema, Tags
from merlin_models.tasks.rows import update_from_rank

STRATEGIES = {"brute-force-topk": BruteForceTopK}


@register
class TopKEncoder(Exportable, SavedWhole, SymbolicBuild, keras.Model):
    """Recommends: encodes queries, and finds the best candidates of a catalogue that it holds.

    The catalogue is saved with the model.

    Args:
        query_encoder: an ``Encoder`` of queries.
        topk_layer: "brute-force-topk", or a layer: ``BruteForceTopK``, ``ApproximateTopK``.
        candidates: the catalogue, see :meth:`index_candidates`; it may also be indexed later.
        candidate_encoder: an ``Encoder`` of candidates, or None where candidates come as vectors.
        k: how many candidates a query gets.
        candidate_id: the column of the candidates' ids: a name or a tag.

    Call arguments:
        inputs: the query encoder's.
        exclude: ids that a query must not get, (batch, any number), with -1 for none; see ``BruteForceTopK``.

    Returns:
        ``TopKPrediction``: scores (batch, k) float32 and identifiers (batch, k) int64, the best first.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> user = ml.ColumnSchema.create_categorical("userId", 100, tags=[ml.Tags.USER_ID])
        >>> movie = ml.ColumnSchema.create_categorical("movieId", 1000, tags=[ml.Tags.ITEM_ID])
        >>> users, movies = (ml.EmbeddingEncoder(ml.Schema([column]), dim=16) for column in (user, movie))
        >>> catalogue = {"movieId": np.arange(1, 1001)}
        >>> recommender = ml.TopKEncoder(users, candidates=catalogue, candidate_encoder=movies, k=5)
        >>> recommender({"userId": np.array([1, 2])}).identifiers.shape
        TensorShape([2, 5])
    """

    def __init__(
        self,
        query_encoder: Encoder,
        topk_layer: str | keras.layers.Layer = "brute-force-topk",
        candidates: Any = None,
        candidate_encoder: Encoder | None = None,
        k: int = 10,
        candidate_id: str | Tags = Tags.ITEM_ID,
        name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        if isinstance(topk_layer, str):
            if topk_layer not in STRATEGIES:
                raise ValueError(f"topk_layer must be a layer or one of {sorted(STRATEGIES)}. Received: {topk_layer!r}")
            topk_layer = STRATEGIES[topk_layer](k, dtype="float32")
        for argument, encoder in (("query_encoder", query_encoder), ("candidate_encoder", candidate_encoder)):
            if not isinstance(encoder, Encoder) and not (encoder is None and argument == "candidate_encoder"):
                raise TypeError(f"{argument} must be an Encoder. Received: {type(encoder).__name__}")
        self.query_encoder, self.candidate_encoder, self.topk_layer = query_encoder, candidate_encoder, topk_layer
        self._candidate_id = candidate_id
        self._set_ranking_metrics(None)
        if candidates is not None:
            self.index_candidates(candidates)
        self._build_from_schema()

    def _build_from_schema(self) -> None:
        shapes = None if self.schema is None else shapes_of_schema(self.schema)
        if shapes is not None and (self.topk_layer.built or not isinstance(self.topk_layer, Catalogue)):
            self.build(shapes)

    @property
    def schema(self) -> Schema | None:
        """The features of queries."""
        return self.query_encoder.schema

    @property
    def k(self) -> int:
        """How many candidates a query gets."""
        return self.topk_layer.k

    @property
    def candidate_id(self) -> str | None:
        """The name of the candidates' ids, or None where only a tag and no schema is known."""
        schema = None if self.candidate_encoder is None else self.candidate_encoder.schema
        if isinstance(self._candidate_id, Tags) and schema is None:
            return None
        return id_column(schema, self._candidate_id, Tags.ITEM_ID)

    def index_candidates(self, candidates: Any, identifiers: Any = None, batch_size: int = 1024) -> TopKEncoder:
        """Takes a catalogue in the place of the one before.

        Args:
            candidates: with a candidate encoder: features, a row a candidate, in any form that ``Encoder.encode`` takes.
                Without: vectors (candidates, dim), as an array or a DataFrame whose index are the ids.
            identifiers: (candidates,) integers, of an array; 0, 1, ... if None.
            batch_size: candidates that are encoded at once.

        Raises:
            ValueError: if ids occur twice, there are less candidates than k, or sizes do not fit.
        """
        if self.candidate_encoder is not None:
            if identifiers is not None:
                raise ValueError("identifiers must be None where candidates are features, which hold the ids.")
            ids, vectors = self.candidate_encoder.vectors(candidates, self.candidate_id, batch_size)
        elif hasattr(candidates, "columns"):
            ids, vectors = np.asarray(candidates.index), candidates.to_numpy(np.float32)
        else:
            ids, vectors = identifiers, candidates
        self.topk_layer.index(vectors, ids)
        self._build_from_schema()
        return self

    # ---- running ----

    def call(self, inputs: Any, exclude: Any = None, training: bool | None = None) -> TopKPrediction:
        return self.topk_layer(self.query_encoder(inputs), exclude=exclude)

    def compute_output_spec(self, inputs: Any, exclude: Any = None, training: bool | None = None) -> Any:
        return super().compute_output_spec(inputs)

    def recommend(
        self, queries: Any, k: int | None = None, exclude_seen: Any = None, batch_size: int = 1024
    ) -> TopKPrediction:
        """The best candidates for each row of a data set.

        Args:
            queries: features of queries, in any form that ``Encoder.encode`` takes; or the bare ids of the only feature. A
                loader must have ``shuffle=False``: with another one the rows come in a random order, and it warns.
            k: how many; the model's own if None.
            exclude_seen: ``SeenItems``, or a DataFrame or dictionary with the columns of the queries' and the candidates'
                ids: a query does not get candidates that it occurs with there. ``queries`` must have the ids.
            batch_size: rows that are encoded at once, where ``queries`` is not in batches.

        Returns:
            ``TopKPrediction`` of NumPy arrays (rows, k). Where fewer candidates are left, identifiers are -1.
        """
        warn_of_random_order(queries)
        before = self.k
        self.topk_layer.k = before if k is None else k
        try:
            self._check_indexed()
            found = [self._prediction(*each) for each in self._with_seen(queries, exclude_seen, batch_size)]
        finally:
            self.topk_layer.k = before
        return TopKPrediction(*(np.concatenate(parts) for parts in zip(*found, strict=True)))

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """As ``keras.Model.predict``; warns of a loader with ``shuffle=True``, whose rows come in a random order."""
        warn_of_random_order(x)
        return super().predict(x, *args, **kwargs)

    def batch_predict(self, dataset: Any, batch_size: int = 1024) -> TopKPrediction:
        """:meth:`recommend` of a data set's rows."""
        return self.recommend(dataset, batch_size=batch_size)

    def _check_indexed(self) -> None:
        if not self.topk_layer.num_candidates:
            raise ValueError("index_candidates() must be called before candidates can be recommended.")

    def _with_seen(
        self,
        queries: Any,
        exclude_seen: Any,
        batch_size: int,
        targets: Any = None,
        sample_weight: Any = None,
        also: Sequence[str] = (),
    ) -> Iterator[tuple[Batch, np.ndarray | None]]:
        """The batches of a data set, each with what its rows do not get, or None; arguments as of :meth:`evaluate`."""
        user = None
        if exclude_seen is not None:
            user = id_column(self.schema, None, Tags.USER_ID)
        seen = as_seen(exclude_seen, user, self.candidate_id)
        if isinstance(queries, np.ndarray | Sequence) and not isinstance(queries, str):
            queries = as_features(np.asarray(queries), self.schema)
        for batch in batches_of(queries, self.schema, batch_size, targets, sample_weight, also):
            yield batch, None if seen is None else seen.of(ids_of(batch.features, user))

    def _prediction(self, batch: Batch, exclude: np.ndarray | None) -> TopKPrediction:
        features = self.schema.filter_columns_from_dict(batch.features) if self.schema else batch.features
        return TopKPrediction(*map(np.asarray, self(features, exclude=exclude, training=False)))

    def ranks(
        self,
        queries: Any,
        truth_of: Callable[[Batch], tuple[Any, ...]],
        exclude_seen: Any,
        batch_size: int,
        *others: Any,
        also: Sequence[str] = (),
    ) -> Iterator[tuple[Any, ...]]:
        """The places of each batch's own candidates, and what ``truth_of`` tells of a batch beside their ids (rows,).

        A place is -1 where the candidate is not among the first k. Rows get their own candidates although they are seen. A
        UserWarning tells how many are not in the catalogue. Arguments as of :meth:`evaluate`; ``also`` are columns of
        integers that ``truth_of`` reads beside the query's.
        """
        self._check_indexed()
        known, rows, missing = self.topk_layer.candidate_ids(), 0, 0
        for batch, exclude in self._with_seen(queries, exclude_seen, batch_size, *others, also=also):
            own, *more = truth_of(batch)
            ids = np.asarray(own)
            if exclude is not None:
                exclude = np.where(exclude == ids[:, np.newaxis], NO_ID, exclude)
            rows, missing = rows + len(ids), missing + int(np.count_nonzero(~np.isin(ids, known)))
            yield rank_in(self._prediction(batch, exclude), ids), *more
        if missing:
            warnings.warn(
                f"{missing} of {rows} rows have an item that is not in the catalogue. They count as misses.",
                stacklevel=3,
            )

    # ---- evaluating ----

    def compile(self, metrics: Sequence[Any] | None = None, k: int | None = None, **kwargs: Any) -> None:
        """Sets the ranking metrics of :meth:`evaluate`, and ``k``.

        Args:
            metrics: recall, MRR, NDCG, mean average precision and precision at k if None.
            k: how many candidates a query gets.
            **kwargs: of ``keras.Model.compile``.
        """
        if k is not None:
            self.topk_layer.k = k
        super().compile(**kwargs)
        self._set_ranking_metrics(list(metrics or TopKMetricsAggregator.default_metrics(self.k)))

    def _set_ranking_metrics(self, metrics: list[keras.metrics.Metric] | None) -> None:
        self.__dict__["_ranking_metrics"] = (
            metrics  # not tracked: a built model takes no more state, and files have none
        )

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int = 1024,
        sample_weight: Any = None,
        exclude_seen: Any = None,
        return_dict: bool = False,
        verbose: int | str = 0,
    ) -> Any:
        """The ranking metrics of each row's true candidate among all that are indexed.

        A row's own candidate is never excluded for that row, also where its user has seen it. One that is not indexed is a
        miss; a UserWarning tells how many are.

        Args:
            x: features of queries, in any form that ``Encoder.encode`` takes; with targets, if in batches.
            y: (rows,) integers, the ids of the true candidates, where ``x`` is a dictionary of arrays.
            batch_size, exclude_seen: as of :meth:`recommend`.
            sample_weight: (rows,), of the metrics.
            return_dict: whether the results are a dictionary; else a list.
            verbose: nothing is printed; for the calls of Keras.

        Raises:
            ValueError: without targets, or if a metric looks further than k.
        """
        metrics = self._ranking_metrics or TopKMetricsAggregator.default_metrics(self.k)
        check_reach(metrics, self.k)
        for metric in metrics:
            metric.reset_state()
        for rank, weights in self.ranks(x, _truth_of, exclude_seen, batch_size, y, sample_weight):
            update_from_rank(metrics, rank, weights)
        results = results_of(metrics)
        return results if return_dict else list(results.values())

    # ---- saving ----

    takes_excluded = True

    def _check_exportable(self) -> None:
        if not isinstance(self.topk_layer, BruteForceTopK):
            raise ValueError(
                f"topk_layer must be a BruteForceTopK to be exported. Received: {type(self.topk_layer).__name__}"
            )
        if not self.topk_layer.num_candidates:
            raise ValueError("index_candidates() must be called before the encoder is exported.")
        super()._check_exportable()

    def named_outputs(self, outputs: TopKPrediction) -> dict[str, Any]:
        return outputs._asdict()

    def get_config(self) -> dict[str, Any]:
        parts = {name: getattr(self, name) for name in ("query_encoder", "topk_layer", "candidate_encoder")}
        return {
            "name": self.name,
            "dtype": self.dtype_policy.name,
            **{name: keras.saving.serialize_keras_object(part) for name, part in parts.items()},
            "candidate_id": str(self._candidate_id),
            "candidate_id_is_tag": isinstance(self._candidate_id, Tags),
        }

    def get_compile_config(self) -> dict[str, Any] | None:
        metrics = self._ranking_metrics
        return None if metrics is None else {"metrics": [keras.saving.serialize_keras_object(each) for each in metrics]}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(metrics=keras.saving.deserialize_keras_object(config["metrics"]))

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> TopKEncoder:
        config = keras.saving.deserialize_keras_object(dict(config), custom_objects=custom_objects)
        if config.pop("candidate_id_is_tag"):
            config["candidate_id"] = Tags(config["candidate_id"])
        return cls(**config)


def _truth_of(batch: Batch) -> tuple[np.ndarray, Any]:
    """The ids of a batch's own candidates, and their weights."""
    if batch.targets is None:
        raise ValueError("Targets must be the ids of the true candidates. Received: none")
    return ids_of({"targets": batch.targets}, "targets"), batch.sample_weight


def rank_in(prediction: TopKPrediction, ids: np.ndarray) -> np.ndarray:
    """The place of each row's id (rows,) in its prediction, -1 where it is not there."""
    hits = np.asarray(prediction.identifiers) == ids[:, np.newaxis]
    return np.where(hits.any(axis=1), hits.argmax(axis=1), -1)


def check_reach(metrics: Sequence[keras.metrics.Metric], k: int) -> None:
    """Raises ValueError if a metric looks further than the k candidates that there are."""
    reach = furthest(metrics)
    if reach > k:
        raise ValueError(f"Metrics must look at no more than the k = {k} candidates of a query. Received: {reach}")


def furthest(metrics: Sequence[keras.metrics.Metric]) -> int:
    """The largest k of ranking metrics."""
    single = [each for metric in metrics for each in getattr(metric, "top_k_metrics", [metric])]
    return max((k for metric in single for k in metric.ks), default=0)


def results_of(metrics: Sequence[keras.metrics.Metric]) -> dict[str, float]:
    """Name -> value, also of metrics with several results."""
    results: dict[str, float] = {}
    for metric in metrics:
        value = metric.result()
        named = value if isinstance(value, Mapping) else {metric.name: value}
        results.update({name: float(each) for name, each in named.items()})
    return results
