"""Gradient-boosted trees of the library ``xgboost``, with columns by a schema."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from merlin_models._files import replacing, write_text
from merlin_models.schema import Schema
from merlin_models.wrappers.columns import read_columns, require_schema, targets_of
from merlin_models.wrappers.rankings import ranking_metrics_of, require_k

__all__ = ["XGBoost"]

CONFIG, BOOSTER = "config.json", "booster.json"


class XGBoost:
    """Trees on all columns of a schema but the targets and the query's. Ids of categories enter as numbers.

    Args:
        schema: of columns with one number a row.
        target_columns: one name or several; the columns tagged TARGET if None.
        qid_column: for objectives ``rank:...``, which rows are ranked together; the column tagged USER_ID if None.
        objective: of XGBoost.
        **params: of ``xgboost.train``: max_depth, eta, seed, ...

    Raises:
        ImportError: without xgboost.
        TypeError: if ``schema`` is no schema.
        ValueError: for a schema without target or feature or with columns of lists, several targets in a ranking, a ranking
            without queries, and queries without a ranking.

    Example:
        >>> import numpy as np
        >>> from merlin_models.schema import ColumnSchema, Schema, Tags
        >>> from merlin_models.xgb import XGBoost
        >>> schema = Schema([
        ...     ColumnSchema.create_continuous("age"), ColumnSchema("click", tags=[Tags.BINARY_CLASSIFICATION, Tags.TARGET])
        ... ])
        >>> rows = {"age": np.arange(100.0), "click": np.arange(100) >= 50}
        >>> model = XGBoost(schema, objective="binary:logistic").fit(rows)
        >>> [bool(p > 0.5) for p in model.predict({"age": np.array([10.0, 90.0])})]
        [False, True]

    Reference:
        Chen and Guestrin, XGBoost: A Scalable Tree Boosting System, 2016, https://arxiv.org/abs/1603.02754
    """

    def __init__(
        self,
        schema: Schema,
        *,
        target_columns: str | Sequence[str] | None = None,
        qid_column: str | None = None,
        objective: str = "reg:squarederror",
        **params: Any,
    ):
        _import_xgboost()
        self.schema = require_schema(schema)
        self.target_columns = targets_of(schema, target_columns)
        self._ranks = objective.startswith("rank:")
        if qid_column is not None and not self._ranks:
            raise ValueError(
                f"qid_column must be None unless objective is rank:... Received: {qid_column}, {objective}."
            )
        self.qid_column = schema.user_id_column_name if self._ranks and qid_column is None else qid_column
        if self._ranks and (self.qid_column is None or self.qid_column not in schema):
            raise ValueError(
                f"qid_column must be one of the columns {schema.column_names}. Received: {self.qid_column}."
            )
        others = [*self.target_columns, *([self.qid_column] if self.qid_column else [])]
        features = schema.remove_by_name(others)
        self.feature_columns = features.column_names
        lists = [column.name for column in features if column.is_list]
        if lists:
            raise ValueError(f"schema must have no columns of lists: use schema.remove_by_name(). Received: {lists}.")
        if not self.target_columns or not self.feature_columns or (self._ranks and len(self.target_columns) > 1):
            raise ValueError(
                "schema must have a target (of a ranking: one) and a feature. "
                f"Received: targets {self.target_columns}, features {self.feature_columns}."
            )
        self.objective, self.params, self.booster = objective, params, None

    def fit(
        self, train: Any, valid: Any = None, num_boost_round: int = 10, early_stopping_rounds: int | None = None
    ) -> XGBoost:
        """Trains on rows, from the start.

        Args:
            train: a data frame, a dictionary of columns, or whatever a loader reads, such as paths of Parquet files.
            valid: rows to stop by; needs ``early_stopping_rounds``.
            num_boost_round: how many rounds of trees, at most.
            early_stopping_rounds: how many rounds without progress on ``valid`` end the training.

        Returns:
            Itself; ``booster`` is the ``xgboost.Booster``.

        Raises:
            ValueError: if one of valid and early_stopping_rounds comes alone, or for unfit columns.
        """
        if (valid is None) != (early_stopping_rounds is None):
            raise ValueError(
                "valid and early_stopping_rounds must be given together. "
                f"Received: valid={'None' if valid is None else 'rows'}, early_stopping_rounds={early_stopping_rounds}."
            )
        evals = [] if valid is None else [(self._matrix(valid), "valid")]
        self.booster = _import_xgboost().train(
            {"objective": self.objective, **self.params},
            self._matrix(train),
            num_boost_round=num_boost_round,
            evals=evals,
            early_stopping_rounds=early_stopping_rounds,
            verbose_eval=False,
        )
        return self

    def predict(self, data: Any) -> np.ndarray:
        """Scores in the order of the rows, float32 (rows,), or (rows, classes or targets)."""
        self._require_fit()
        features = read_columns(data, self.feature_columns)
        rows = len(features[self.feature_columns[0]])
        if not rows:  # of which XGBoost 3.4 has another shape
            features = dict.fromkeys(features, np.zeros(1, np.float32))
        return self.booster.predict(self._as_matrix(features))[:rows]

    def evaluate(self, data: Any, k: int = 10) -> dict[str, float]:
        """Recall, precision, MAP, NDCG and MRR at k of rankings, means over queries with a relevant row; else XGBoost's.

        Args:
            data: rows with targets.
            k: of rankings.

        Returns:
            Such as ``ndcg_at_10``, or ``rmse``; params["eval_metric"] chooses the latter.

        Raises:
            RuntimeError: before ``fit``.
            ValueError: if no query has a relevant row, or for unfit columns.
        """
        self._require_fit()
        if not self._ranks:
            message = self.booster.eval(self._matrix(data), name="data")
            values = [entry.rsplit(":", 1) for entry in message.split("\t")[1:]]
            return {name.removeprefix("data-"): float(value) for name, value in values}
        k = require_k(k)
        columns = read_columns(data, [*self.feature_columns, self.target_columns[0], self.qid_column])
        scores = self.booster.predict(self._as_matrix({name: columns[name] for name in self.feature_columns}))
        labels = np.asarray(columns[self.target_columns[0]], np.float32)
        relevance = _by_query(columns[self.qid_column], labels, scores, k)
        relevance = relevance[(relevance > 0).any(axis=1)]
        if not len(relevance):
            raise ValueError(f"data must have a row of '{self.target_columns[0]}' above 0. Received: none.")
        return ranking_metrics_of(relevance, k)

    def save(self, path: str | os.PathLike) -> pathlib.Path:
        """Writes the schema, the parameters and the trees into a folder. Returns the folder.

        Raises:
            RuntimeError: before ``fit``.
            TypeError: for parameters that are no JSON values.
        """
        self._require_fit()
        names = ("target_columns", "objective", "params")
        config = {name: getattr(self, name) for name in names} | {"qid_column": self.qid_column}
        text = json.dumps(config)
        path = pathlib.Path(path)
        path.mkdir(parents=True, exist_ok=True)
        self.schema.save(path)
        with replacing(path / BOOSTER) as part:
            self.booster.save_model(part)
        write_text(path / CONFIG, text + "\n")
        return path

    @classmethod
    def load(cls, path: str | os.PathLike) -> XGBoost:
        """Reads what ``save`` wrote; FileNotFoundError if there is none."""
        path = pathlib.Path(path)
        config = json.loads((path / CONFIG).read_text())
        params = config.pop("params")
        model = cls(Schema.load(path), **config, **params)
        model.booster = _import_xgboost().Booster(params, model_file=path / BOOSTER)
        return model

    def _require_fit(self) -> None:
        if self.booster is None:
            raise RuntimeError("fit() must be called before this XGBoost is used.")

    def _matrix(self, data: Any) -> Any:
        """Features and targets; in a ranking sorted by query, as XGBoost wants them."""
        names = [*self.feature_columns, *self.target_columns, *([self.qid_column] if self.qid_column else [])]
        columns = read_columns(data, names)
        if not len(columns[names[0]]):
            raise ValueError("data must have rows. Received: none.")
        if not self._ranks:
            return self._as_matrix(columns)
        order = np.argsort(columns[self.qid_column], kind="stable")
        columns = {name: column[order] for name, column in columns.items()}
        _, numbers = np.unique(columns[self.qid_column], return_inverse=True)
        return self._as_matrix(columns, qid=numbers)

    def _as_matrix(self, columns: dict[str, np.ndarray], qid: np.ndarray | None = None) -> Any:
        values = np.stack([np.asarray(columns[name], np.float32) for name in self.feature_columns], axis=1)
        label = None
        if self.target_columns[0] in columns:
            label = np.stack([np.asarray(columns[name], np.float32) for name in self.target_columns], axis=1)
            label = label[:, 0] if len(self.target_columns) == 1 else label
        return _import_xgboost().DMatrix(values, label, qid=qid, feature_names=self.feature_columns)


def _by_query(queries: np.ndarray, labels: np.ndarray, scores: np.ndarray, k: int) -> np.ndarray:
    """Labels (queries, at least k), the best score first, filled with 0."""
    _, query, counts = np.unique(queries, return_inverse=True, return_counts=True)
    order = np.lexsort((-scores, query))
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    relevance = np.zeros((len(counts), max(k, int(counts.max(initial=0)))), np.float32)
    relevance[query[order], place] = labels[order]
    return relevance


def _import_xgboost() -> Any:
    try:
        import xgboost
    except ImportError as error:
        raise ImportError("merlin_models.xgb needs xgboost: pip install 'merlin-models-keras[xgboost]'") from error
    return xgboost
