"""A small schema and batch that tests of input blocks share."""

from __future__ import annotations

import numpy as np

from merlin_models.schema import ColumnSchema, Schema, Tags

SCHEMA = Schema(
    [
        ColumnSchema.create_categorical("userId", 4, tags=[Tags.USER_ID]),
        ColumnSchema.create_categorical("movieId", 5, tags=[Tags.ITEM_ID]),
        ColumnSchema.create_categorical("genres", 3, value_count=(0, 4), tags=[Tags.ITEM]),
        ColumnSchema.create_continuous("age", tags=[Tags.USER]),
        ColumnSchema.create_categorical("rating_b", 1, tags=[Tags.BINARY_CLASSIFICATION, Tags.TARGET]),
    ]
)
# Row r of a table is (r, 10 r): bags can be pooled by hand.
GENRES = np.array([[1, 3, 0, 0], [2, 0, 0, 0], [0, 0, 0, 0]])
POOLED = {
    "mean": [[2, 20], [2, 20], [0, 0]],
    "sum": [[4, 40], [2, 20], [0, 0]],
    "max": [[3, 30], [2, 20], [0, 0]],
}


def batch():
    return {
        "userId": np.array([1, 2, 4]),
        "movieId": np.array([[5], [0], [3]]),
        "genres": GENRES,
        "age": np.array([20, 30, 40]),
        "rating_b": np.array([0, 1, 1]),
    }


def count_rows(variable):
    """Fills a table so that row r is (r, 10 r, 100 r, ...)."""
    rows, dim = variable.shape
    variable.assign(np.outer(np.arange(rows), 10.0 ** np.arange(dim)))
