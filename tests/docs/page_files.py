"""The files that pages read: what their examples take for granted in the current folder."""

from __future__ import annotations

import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from merlin_models.schema import ColumnSchema, Schema, Tags

USERS, MOVIES, GENRES = 60, 120, 12


def movies_schema() -> Schema:
    """What an NVTabular workflow over MovieLens writes as schema.pbtxt."""
    create = ColumnSchema.create_categorical
    return Schema(
        [
            create("userId", USERS, tags=[Tags.USER_ID, Tags.USER]),
            create("movieId", MOVIES, tags=[Tags.ITEM_ID, Tags.ITEM]),
            create("genres", GENRES, value_count=(0, 4), tags=[Tags.ITEM]),
            ColumnSchema.create_continuous("age", tags=[Tags.USER]),
            ColumnSchema("rating_b", tags=[Tags.TARGET, Tags.BINARY_CLASSIFICATION], dtype="int32"),
        ]
    )


def ratings(rows: int, seed: int) -> pa.Table:
    """Ratings as they are encoded: 0 is for padding, ids from 1 on."""
    rng = np.random.default_rng(seed)
    movies = rng.integers(1, MOVIES, rows)
    genres = [rng.integers(1, GENRES, rng.integers(1, 5)) for _ in range(rows)]
    return pa.table(
        {
            "userId": rng.integers(1, USERS, rows),
            "movieId": movies,
            "genres": pa.array([list(row) for row in genres], pa.list_(pa.int64())),
            "age": rng.normal(size=rows).astype(np.float32),
            "rating_b": pa.array(rng.random(rows) < 0.3 + 0.4 * (movies % 2), pa.int32()),
        }
    )


def write_files(folder: pathlib.Path) -> None:
    """train/ and valid/: Parquet files, and their schema."""
    for seed, (part, rows) in enumerate({"train": 2000, "valid": 500}.items()):
        (folder / part).mkdir()
        table = ratings(rows, seed)
        for i in range(2):
            half = table.slice(i * rows // 2, rows // 2)
            pq.write_table(half, folder / part / f"part_{i}.parquet")
        movies_schema().save(folder / part)
