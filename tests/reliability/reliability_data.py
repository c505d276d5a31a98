"""A small model, its rows as arrays and as Parquet, and what several of these tests ask."""

from __future__ import annotations

import keras
import numpy as np
import pyarrow as pa

import merlin_models.tf as ml
from merlin_models.loader.tensorflow import KerasSequenceLoader

ITEMS = 20
SCHEMA = ml.Schema(
    [
        ml.ColumnSchema.create_categorical("item", ITEMS),
        ml.ColumnSchema.create_categorical("bag", 8, value_count=(0, 5)),
        ml.ColumnSchema.create_continuous("age"),
        ml.ColumnSchema("y", np.int64, tags=(ml.Tags.TARGET, ml.Tags.BINARY_CLASSIFICATION)),
    ]
)


def small_model(optimizer="adam", dim=8, dropout=None, seed=3, **options):
    keras.utils.set_random_seed(seed)
    model = ml.Model(
        ml.InputBlock(SCHEMA, embedding_options=ml.EmbeddingOptions(embedding_dim_default=dim)),
        ml.MLPBlock([8], dropout=dropout),
        ml.BinaryClassificationTask("y"),
    )
    model.compile(optimizer, **options)
    return model


def rows(count=256, seed=7, items=ITEMS):
    """Features, with bags padded by 0, and targets. Items are below ``items``."""
    rng = np.random.default_rng(seed)
    item = rng.integers(1, items, count)
    bags = rng.integers(1, 9, (count, 5)) * (np.arange(5) < rng.integers(0, 6, (count, 1)))
    age = rng.normal(size=count).astype(np.float32)
    return {"item": item, "bag": bags, "age": age}, (item % 2).astype(np.int64)


def table(count=256, seed=7):
    features, targets = rows(count, seed)
    bags = [row[row > 0].tolist() for row in features["bag"]]
    return pa.table(
        {"item": features["item"], "bag": pa.array(bags, pa.list_(pa.int64())), "age": features["age"], "y": targets}
    )


def loader(data, batch_size=32, **options):
    return KerasSequenceLoader(data, batch_size, label_names=["y"], **options)


def state(model):
    """All numbers of a model: weights, random states, and what the optimizer keeps."""
    optimizer = [] if model.optimizer is None else model.optimizer.variables
    return [np.array(variable) for variable in [*model.variables, *optimizer] if "metric" not in variable.path]


def assert_same_state(one, other):
    for mine, theirs in zip(state(one), state(other), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def outcome(call, *errors):
    """(what a call gives, None), or (None, its error) if that is of these types."""
    try:
        return call(), None
    except errors as error:
        return None, error
