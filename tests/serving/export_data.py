"""Small models of each family, batches for them, and what a fresh process compares their exports with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import merlin_models.tf as ml


def schema(ids: Any = np.int64) -> ml.Schema:
    columns = [
        ml.ColumnSchema.create_categorical("user-id", 30, tags=[ml.Tags.USER_ID]),
        ml.ColumnSchema.create_categorical("movie", 40, tags=[ml.Tags.ITEM_ID, ml.Tags.ITEM]),
        ml.ColumnSchema.create_categorical("genres", 8, value_count=(0, 4), tags=[ml.Tags.ITEM]),
        ml.ColumnSchema.create_continuous("age", tags=[ml.Tags.USER]),
        ml.ColumnSchema.create_continuous("taste", shape=(3,), tags=[ml.Tags.USER]),
    ]
    targets = [
        ml.ColumnSchema("click", np.int64, tags=(ml.Tags.TARGET, ml.Tags.BINARY_CLASSIFICATION)),
        ml.ColumnSchema("seconds", np.float32, tags=(ml.Tags.TARGET, ml.Tags.REGRESSION)),
    ]
    columns = [column.with_dtype(ids) if column.has_tag(ml.Tags.CATEGORICAL) else column for column in columns]
    return ml.Schema([*columns, *targets])


SCHEMA = schema()
IDS = SCHEMA.select_by_name(["user-id", "movie"])
SESSIONS = ml.Schema([ml.ColumnSchema.create_categorical("item", 10, value_count=(0, 0), tags=[ml.Tags.ITEM_ID])])
LISTS = ("genres", "item", "movies")
DTYPES = {"age": np.float32, "taste": np.float32}


def batch(columns: ml.Schema, rows: int, seed: int = 3) -> dict[str, Any]:
    """Random features in NumPy; lists as (values, offsets), among which there are empty ones."""
    rng = np.random.default_rng(seed)
    features = {}
    for column in columns.remove_by_tag(ml.Tags.TARGET):
        if column.name in LISTS:
            lengths = rng.integers(0 if column.name == "genres" else 1, 5, rows)
            lengths[:1] = 0 if column.name == "genres" else 1
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            features[column.name] = rng.integers(1, column.cardinality, offsets[-1]).astype(column.dtype), offsets
        elif column.has_tag(ml.Tags.CATEGORICAL):
            features[column.name] = rng.integers(1, column.cardinality, rows).astype(column.dtype)
        else:
            features[column.name] = rng.normal(size=(rows, *(column.shape or ()))).astype(np.float32)
    return features


def as_features(features: dict[str, Any]) -> dict[str, Any]:
    return {
        name: tf.RaggedTensor.from_row_splits(*value) if isinstance(value, tuple) else tf.constant(value)
        for name, value in features.items()
    }


@dataclasses.dataclass
class Family:
    """A model, and the columns that it reads."""

    make: Callable[[], Any]
    columns: ml.Schema = SCHEMA
    tolerance: float = 1e-5


def ranking(name: str, columns: ml.Schema = SCHEMA) -> Any:
    task, mlp = ml.BinaryClassificationTask("click"), ml.MLPBlock([16, 8])
    options = ml.EmbeddingOptions(embedding_dim_default=8, combiner="sqrtn")
    if name == "dlrm":
        top = ml.MLPBlock([8])
        return ml.DLRMModel(columns, embedding_options=options, bottom_block=mlp, top_block=top, prediction_tasks=task)
    if name == "dcn":
        return ml.DCNModel(columns, 2, mlp, embedding_options=options, prediction_tasks=task)
    if name == "deepfm":
        return ml.DeepFMModel(columns, embedding_dim=8, deep_block=mlp, prediction_tasks=task)
    if name == "wide and deep":
        wide = ml.CategoryEncoding(IDS, sparse=True)
        return ml.WideAndDeepModel(columns, mlp, wide_schema=IDS, wide_preprocess=wide, prediction_tasks=task)
    if name == "ncf":
        return ml.NCFModel(columns, embedding_dim=8, mlp_block=mlp, prediction_tasks=task)
    return ml.Model(ml.InputBlock(columns, embedding_options=options), mlp, task)


def several_tasks() -> ml.Model:
    options = ml.EmbeddingOptions(embedding_dim_default=8, combiner="max")
    experts = ml.MMOEBlock(ml.PredictionTasks(SCHEMA), ml.MLPBlock([8]), num_experts=2)
    inputs = ml.InputBlock(SCHEMA, embedding_options=options, aggregation="concat")
    return ml.Model(inputs, experts, ml.PredictionTasks(SCHEMA))


def half_precision() -> ml.Model:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        return ranking("dlrm")
    finally:
        keras.config.set_dtype_policy("float32")


def two_towers() -> Any:
    return ml.TwoTowerModel(SCHEMA.remove_by_tag(ml.Tags.TARGET), query_tower=ml.MLPBlock([8]))


def recommender() -> ml.TopKEncoder:
    rng = np.random.default_rng(5)
    top_k = ml.BruteForceTopK(4, chunk_size=7).index(rng.normal(size=(40, 8)), np.arange(1, 41) + 2**33)
    return ml.TopKEncoder(ml.EmbeddingEncoder(IDS.select_by_name("user-id"), dim=8), top_k)


def sessions() -> ml.Model:
    table = ml.EmbeddingTable(8, SESSIONS["item"])
    output = ml.CategoricalOutput(table)
    return ml.Model(ml.InputBlockV2(SESSIONS, categorical=table), ml.GPT2Block(8, 2, 1), ml.MLPBlock([8]), output)


def watched() -> Any:
    columns = [
        ml.ColumnSchema.create_categorical("movies", 40, value_count=(0, 4), tags=[ml.Tags.ITEM_ID]),
        ml.ColumnSchema.create_categorical("user-id", 30, tags=[ml.Tags.USER_ID]),
    ]
    return ml.YoutubeDNNRetrievalModel(
        ml.Schema(columns), top_block=ml.MLPBlock([8]), num_sampled=10
    ).to_query_encoder()


WATCHED = ml.Schema(
    [ml.ColumnSchema.create_categorical("movies", 40, value_count=(0, 4)), IDS["user-id"]],
)
INT32 = schema(np.int32)
FAMILIES = {
    "mlp": Family(lambda: ranking("mlp")),
    "dlrm": Family(lambda: ranking("dlrm")),
    "dcn": Family(lambda: ranking("dcn")),
    "deepfm": Family(lambda: ranking("deepfm")),
    "wide_and_deep": Family(lambda: ranking("wide and deep")),
    "ncf": Family(lambda: ranking("ncf", IDS), IDS),
    "int32": Family(lambda: ranking("dlrm", INT32), INT32),
    "mixed_bfloat16": Family(half_precision, tolerance=0.03),
    "several_tasks": Family(several_tasks),
    "two_towers": Family(two_towers),
    "query_encoder": Family(
        lambda: two_towers().to_query_encoder(), SCHEMA.select_by_name(["user-id", "age", "taste"])
    ),
    "item_encoder": Family(lambda: two_towers().to_item_encoder(), SCHEMA.select_by_name(["movie", "genres"])),
    "recommender": Family(recommender, IDS.select_by_name("user-id")),
    "youtube": Family(watched, WATCHED),
    "sessions": Family(sessions, SESSIONS),
}


def cases_of(model: Any, family: Family) -> list[dict[str, Any]]:
    """Batches of several sizes, and what the model answers, in NumPy: all that a fresh process needs."""
    cases = []
    for rows in (7, 1, 0):
        features = batch(family.columns, rows)
        exclude = np.full((rows, 2), 2**33 + 3) if isinstance(model, ml.TopKEncoder) else None
        for unwanted in (None,) if exclude is None else (None, exclude):
            outputs = model.named_outputs(model.served(as_features(features), unwanted))
            expected = {}
            for name, output in outputs.items():
                if isinstance(output, tf.RaggedTensor):
                    expected |= {f"{name}__values": output.flat_values, f"{name}__offsets": output.row_splits}
                else:
                    expected[name] = output
            expected = {name: np.asarray(tf.cast(x, "float64")) for name, x in expected.items()}
            cases.append({"features": features, "exclude": unwanted, "expected": expected})
    return cases
