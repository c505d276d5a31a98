"""Generated ratings, shaped like the seed tutorial's MovieLens, that models can learn from."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

import merlin_models.tf as ml

SCHEMA = ml.Schema(
    [
        ml.ColumnSchema.create_categorical("movieId", 40, tags=[ml.Tags.ITEM_ID]),
        ml.ColumnSchema.create_categorical("userId", 30, tags=[ml.Tags.USER_ID]),
        ml.ColumnSchema.create_categorical("genres", 8, value_count=(0, 10), tags=[ml.Tags.ITEM]),
        ml.ColumnSchema("rating_b", np.int64, tags=(ml.Tags.TARGET, ml.Tags.BINARY_CLASSIFICATION)),
    ]
)
TASK = "rating_b/binary_classification_task"
METRICS = {f"{TASK}/{name}" for name in ("precision", "recall", "binary_accuracy", "auc")}
LOGS = METRICS | {"loss", "regularization_loss", "total_loss"}


def ratings(rows=512, seed=7):
    """Features with genres as dense (rows, 10), and targets (rows,) that follow from users and movies."""
    rng = np.random.default_rng(seed)
    users, movies = rng.integers(1, 31, (rows, 1)), rng.integers(1, 41, (rows, 1))
    lengths = rng.integers(1, 6, rows)
    genres = rng.integers(1, 9, (rows, 10)) * (np.arange(10) < lengths[:, None])
    targets = ((users[:, 0] % 3 == 0) ^ (movies[:, 0] % 2 == 0)).astype(np.int64)
    return {"movieId": movies, "userId": users, "genres": genres}, targets


def with_ragged_genres(features):
    ids = tf.constant(features["genres"])
    return {**features, "genres": tf.RaggedTensor.from_tensor(ids, padding=0)}


def with_genres_as(features, form):
    """The features with genres in another form, and scalars (batch,) or (batch, 1)."""
    if form == "flat":
        return {name: value if name == "genres" else value[:, 0] for name, value in features.items()}
    if form == "int32":
        return {name: value.astype(np.int32) for name, value in features.items()}
    ragged = with_ragged_genres(features)
    if form == "pair":
        genres = ragged["genres"]
        return {**features, "genres": (genres.values.numpy(), genres.row_splits.numpy())}
    return ragged if form == "ragged" else features


def small_model(dim=8, **options):
    embedding_options = ml.EmbeddingOptions(embedding_dim_default=dim, **options)
    return ml.Model(
        ml.InputBlock(SCHEMA, embedding_options=embedding_options),
        ml.MLPBlock([16]),
        ml.BinaryClassificationTask("rating_b"),
    )
