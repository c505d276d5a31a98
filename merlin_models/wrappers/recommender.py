"""Recommender: users' and items' vectors by another library; the recommendations and their metrics by us."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from merlin_models._files import replacing, write_text
from merlin_models.schema import Schema
from merlin_models.wrappers.columns import read_columns, require_ids, require_schema, targets_of
from merlin_models.wrappers.rankings import ranking_metrics_of, require_k

CONFIG, ARRAYS = "config.json", "recommender.npz"
_SCORED_AT_ONCE = 1 << 24  # scores in memory, of a chunk of users


class Recommendations(NamedTuple):
    """The best items of users.

    Attributes:
        users: (users,) int64, each once and ascending.
        items: (users, k) int64, the best first; -1 where there are no more.
        scores: (users, k) float32; -inf where there are no more.

    Example:
        >>> import numpy as np
        >>> from merlin_models.wrappers.recommender import Recommendations
        >>> users, items, scores = Recommendations(np.array([3]), np.array([[7, 5]]), np.array([[0.9, 0.4]], "float32"))
        >>> items.shape
        (1, 2)
    """

    users: np.ndarray
    items: np.ndarray
    scores: np.ndarray


class Recommender:
    """A matrix factorization of who liked what.

    Subclasses write ``build`` and ``factorize``.

    Args:
        schema: has a column tagged USER_ID and one tagged ITEM_ID.
        target_column: how much the user likes the item, 0 for a row that does not count; the column tagged TARGET if None.
            In a schema without one, each row counts 1. Values of the same user and item are added up.
        **params: of the wrapped class.

    Raises:
        ImportError: without the wrapped library.
        TypeError: if ``schema`` is no schema, or the wrapped class has no such parameter.
        ValueError: for a schema without these columns, or with several targets to choose from.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> from merlin_models.wrappers.recommender import Recommender
        >>> class Popularity(Recommender):
        ...     def build(self):
        ...         return None
        ...
        ...     def factorize(self, interactions):
        ...         users, _ = interactions.shape
        ...         return np.ones((users, 1), "float32"), np.asarray(interactions.sum(axis=0), "float32").T
        >>> user = ml.ColumnSchema.create_categorical("user", 2, tags=[ml.Tags.USER_ID])
        >>> item = ml.ColumnSchema.create_categorical("item", 3, tags=[ml.Tags.ITEM_ID])
        >>> model = Popularity(ml.Schema([user, item])).fit({"user": [1, 2, 2], "item": [3, 3, 1]})
        >>> model.predict({"user": [1]}, k=1).items.tolist()  # which user 1 has not had
        [[1]]
    """

    def __init__(self, schema: Schema, *, target_column: str | None = None, **params: Any):
        self.schema = require_schema(schema)
        names = {"USER_ID": schema.user_id_column_name, "ITEM_ID": schema.item_id_column_name}
        for tag, name in names.items():
            if name is None:
                raise ValueError(f"schema must have a column tagged {tag}. Received: {schema.column_names}.")
        targets = targets_of(schema, target_column)
        if len(targets) > 1:
            raise ValueError(f"target_column must name one of the schema's targets. Received: None, with {targets}.")
        self._user, self._item = names.values()
        self._target = targets[0] if targets else None
        self.target_column, self.params = target_column, params
        self.build()
        self._vectors: tuple[np.ndarray, np.ndarray] | None = None
        self._seen = np.zeros(0, np.int64)

    def build(self) -> Any:
        """A model of the wrapped library, not trained."""
        raise NotImplementedError(f"{type(self).__name__} must define build().")

    def factorize(self, interactions: Any) -> tuple[Any, Any]:
        """Trains on a CSR matrix (users, items). Returns (users, dim) and (items, dim), whose dot products are scores."""
        raise NotImplementedError(f"{type(self).__name__} must define factorize().")

    def fit(self, train: Any) -> Recommender:
        """Trains on rows, from the start.

        Args:
            train: a data frame, a dictionary of columns, or whatever a loader reads, such as paths of Parquet files.

        Returns:
            Itself.

        Raises:
            ValueError: for ids that are not integers from 0 up to the maxima that the schema gives, or no row that counts.
        """
        from scipy.sparse import csr_matrix

        users, items, values = self._interactions(train)
        if not len(users):
            raise ValueError("train must have rows whose target is not 0. Received: none.")
        shape = self._size(self._user, users), self._size(self._item, items)
        keys, places = np.unique(users * shape[1] + items, return_inverse=True)
        values = np.bincount(places, values).astype(np.float32)
        # Every cell that is there once, and none twice: values that add up to 0 stay as seen.
        matrix = csr_matrix((values, (keys // shape[1], keys % shape[1])), shape=shape)
        vectors = self.factorize(matrix)
        self._vectors, self._seen = tuple(np.asarray(each, np.float32) for each in vectors), keys
        return self

    def predict(self, data: Any, k: int = 10, exclude_seen: bool = True) -> Recommendations:
        """The k best items of the users in some rows, among the items that ``fit`` saw.

        Args:
            data: rows, of which the users' column is read.
            k: how many items.
            exclude_seen: whether to leave out what the user had in ``fit``.

        Raises:
            RuntimeError: before ``fit``.
            ValueError: for a user that ``fit`` did not see, or a k above the number of items.
        """
        self._require_fit()
        users = np.unique(require_ids(self._user, read_columns(data, [self._user])[self._user]))
        unknown = users[~np.isin(users, self._seen_users())]
        if len(unknown):
            raise ValueError(f"data must have users that fit() saw. Received: {len(unknown)} others, as {unknown[:5]}.")
        return self._best(users, require_k(k, self._num_items), exclude_seen)

    def evaluate(self, data: Any, k: int = 10, exclude_seen: bool = True) -> dict[str, float]:
        """Recall, precision, MAP, NDCG and MRR at k of all items' ranking, as means over users.

        An item is relevant to a user where the target is above 0. With ``exclude_seen``, what the user had in ``fit`` is
        neither recommended nor relevant. Users that ``fit`` did not see, and those without a relevant item, are left out.

        Args:
            data: rows, as ``fit`` takes them.
            k: how many items.
            exclude_seen: whether only new items count.

        Returns:
            ``recall_at_10``, ``precision_at_10``, ``map_at_10``, ``ndcg_at_10``, ``mrr_at_10``.

        Raises:
            RuntimeError: before ``fit``.
            ValueError: if no user is left, or for a k above the number of items.
        """
        self._require_fit()
        k = require_k(k, self._num_items)
        users, items, values = self._interactions(data)
        wanted = (values > 0) & np.isin(users, self._seen_users())
        # An item beyond those of fit() cannot be found, but is relevant all the same.
        width = max(self._num_items, int(items.max(initial=0)) + 1)
        keys = np.unique(users[wanted] * width + items[wanted])
        if exclude_seen:
            keys = keys[~np.isin(keys, self._seen // self._num_items * width + self._seen % self._num_items)]
        if not len(keys):
            raise ValueError("data must have relevant items of users that fit() saw. Received: none.")
        found, counts = np.unique(keys // width, return_counts=True)
        best = self._best(found, k, exclude_seen)
        relevance = np.isin(found[:, None] * width + best.items, keys) & (best.items >= 0)
        return ranking_metrics_of(relevance.astype(np.float32), k, counts)

    def _best(self, users: np.ndarray, k: int, exclude_seen: bool) -> Recommendations:
        of_users, of_items = self._vectors
        absent = np.ones(self._num_items, bool)
        absent[self._seen % self._num_items] = False
        items, scores = np.zeros((len(users), k), np.int64), np.zeros((len(users), k), np.float32)
        step = max(1, _SCORED_AT_ONCE // self._num_items)
        for start in range(0, len(users), step):
            chunk = users[start : start + step]
            score = of_users[chunk] @ of_items.T
            score[:, absent] = -np.inf
            if exclude_seen:
                first = np.searchsorted(self._seen, chunk * self._num_items)
                last = np.searchsorted(self._seen, (chunk + 1) * self._num_items)
                for row, (begin, end) in enumerate(zip(first, last, strict=True)):
                    score[row, self._seen[begin:end] % self._num_items] = -np.inf
            order = np.argsort(-score, axis=1, kind="stable")[:, :k]
            items[start : start + step], scores[start : start + step] = order, np.take_along_axis(score, order, axis=1)
        return Recommendations(users, np.where(np.isneginf(scores), -1, items), scores)

    def save(self, path: str | os.PathLike) -> pathlib.Path:
        """Writes the schema, the parameters, the vectors and what each user had, into a folder. Returns the folder.

        Raises:
            RuntimeError: before ``fit``.
            TypeError: for parameters that are no JSON values.
        """
        self._require_fit()
        config = json.dumps({"class": type(self).__name__, "target_column": self.target_column, "params": self.params})
        path = pathlib.Path(path)
        path.mkdir(parents=True, exist_ok=True)
        self.schema.save(path)
        with replacing(path / ARRAYS) as part:
            np.savez(part, users=self._vectors[0], items=self._vectors[1], seen=self._seen)
        write_text(path / CONFIG, config + "\n")
        return path

    @classmethod
    def load(cls, path: str | os.PathLike) -> Recommender:
        """Reads what ``save`` wrote. The model predicts as before; ``fit`` trains it from the start.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if another class wrote it.
        """
        path = pathlib.Path(path)
        config = json.loads((path / CONFIG).read_text())
        if config["class"] != cls.__name__:
            raise ValueError(f"'{path}' must hold a {cls.__name__}. Received: a {config['class']}.")
        model = cls(Schema.load(path), target_column=config["target_column"], **config["params"])
        with np.load(path / ARRAYS) as arrays:
            model._vectors, model._seen = (arrays["users"], arrays["items"]), arrays["seen"]
        return model

    # ---- rows ----

    @property
    def _num_items(self) -> int:
        return len(self._vectors[1])

    def _seen_users(self) -> np.ndarray:
        return np.unique(self._seen // self._num_items)

    def _require_fit(self) -> None:
        if self._vectors is None:
            raise RuntimeError(f"fit() must be called before this {type(self).__name__} is used.")

    def _interactions(self, data: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        names = [self._user, self._item, *([self._target] if self._target else [])]
        columns = read_columns(data, names)
        users, items = (require_ids(name, columns[name]) for name in names[:2])
        values = np.asarray(columns[self._target] if self._target else np.ones(len(users)), np.float64)
        if not np.all(np.isfinite(values)):
            raise ValueError(f"Column '{self._target}' must hold finite numbers. Received: NaN or infinity.")
        kept = values != 0
        return users[kept], items[kept], values[kept]

    def _size(self, name: str, ids: np.ndarray) -> int:
        column, most = self.schema[name], int(ids.max())
        if column.int_domain is None:
            return most + 1
        if most >= column.cardinality:
            raise ValueError(f"Ids of column '{name}' must be below {column.cardinality}. Received: {most}.")
        return column.cardinality
