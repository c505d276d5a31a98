"""Users who like movies of one kind, for tests of retrieval models."""

from __future__ import annotations

import numpy as np

import merlin_models.tf as ml

USERS, MOVIES, KINDS = 24, 40, 4
SCHEMA = ml.Schema(
    [
        ml.ColumnSchema.create_categorical("userId", USERS, tags=[ml.Tags.USER_ID]),
        ml.ColumnSchema.create_categorical("movieId", MOVIES, tags=[ml.Tags.ITEM_ID]),
        ml.ColumnSchema.create_categorical("genres", KINDS, value_count=(0, 2), tags=[ml.Tags.ITEM]),
    ]
)
IDS = SCHEMA.remove_by_name("genres")
CATALOGUE = {
    "movieId": np.arange(1, MOVIES + 1),
    "genres": np.stack([np.arange(MOVIES) % KINDS + 1, np.zeros(MOVIES, np.int64)], axis=1),
}


def interactions(rows=512, seed=3):
    """User u likes movies m with u % KINDS == (m - 1) % KINDS."""
    rng = np.random.default_rng(seed)
    users = rng.integers(1, USERS + 1, rows)
    movies = rng.integers(0, MOVIES // KINDS, rows) * KINDS + users % KINDS + 1
    return {"userId": users, "movieId": movies, "genres": CATALOGUE["genres"][movies - 1]}


def likes(users, movies):
    """Whether users (rows,) like movies (rows, k)."""
    return np.asarray(users)[:, None] % KINDS == (np.asarray(movies) - 1) % KINDS
