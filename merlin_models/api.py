"""MerlinModel: what every wrapper of another library can do."""

from __future__ import annotations

import os
import pathlib
from typing import Any, Protocol, runtime_checkable

from merlin_models.schema import Schema


@runtime_checkable
class MerlinModel(Protocol):
    """A model that finds its columns in rows by a schema.

    Rows are a data frame, a dictionary of columns, or whatever a loader reads: paths of Parquet files, an Arrow table, a
    ``Dataset``.

    Example:
        >>> from merlin_models.api import MerlinModel
        >>> from merlin_models.schema import ColumnSchema, Schema
        >>> from merlin_models.xgb import XGBoost
        >>> schema = Schema([ColumnSchema.create_continuous("age"), ColumnSchema("liked", dtype="int32", tags=["target"])])
        >>> isinstance(XGBoost(schema), MerlinModel)
        True
    """

    schema: Schema

    def fit(self, train: Any) -> MerlinModel:
        """Trains on rows, from the start. Returns itself."""

    def evaluate(self, data: Any, k: int = 10) -> dict[str, float]:
        """Metrics by name."""

    def predict(self, data: Any) -> Any:
        """What the model says of rows."""

    def save(self, path: str | os.PathLike) -> pathlib.Path:
        """Writes a folder, which is made where it is missing. Returns it."""

    @classmethod
    def load(cls, path: str | os.PathLike) -> MerlinModel:
        """Reads what :meth:`save` wrote."""
