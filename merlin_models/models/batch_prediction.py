"""Predictions beside the rows that they are for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import pandas as pd

from merlin_models.loader.tensorflow import KerasSequenceLoader
from merlin_models.models.batches import no_rows
from merlin_models.schema import Schema, Tags


def batch_predict(model: Any, dataset: Any, batch_size: int) -> Any:
    """See ``Model.batch_predict``."""
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a positive integer. Received: {batch_size!r}")
    if isinstance(dataset, Mapping):
        features = dict(dataset) if model.schema is None else model.schema.filter_columns_from_dict(dataset)
        if any(values.shape[0] == 0 for values in features.values() if hasattr(values, "shape")):
            predictions = _of_no_rows(model, features)
        else:
            predictions = model.predict(features, batch_size=batch_size, verbose=0)
        return {**dataset, **_named(model, predictions, list(dataset))}
    if isinstance(dataset, str | os.PathLike):
        dataset = pd.read_parquet(dataset)
    if not isinstance(dataset, pd.DataFrame):
        raise TypeError(
            f"dataset must be a data frame, a path of Parquet files or a dictionary. Received: {type(dataset).__name__}"
        )
    if model.schema is None:
        raise ValueError("dataset must be a dictionary where the model's first block has no schema.")
    missing = [name for name in model.schema.column_names if name not in dataset.columns]
    if missing:
        raise ValueError(
            f"dataset must have all features of the model, {sorted(model.schema.column_names)}. "
            f"Received: {sorted(dataset.columns)}; missing: {missing}"
        )
    if len(dataset):
        predictions = model.predict(_batches(dataset, model.schema, batch_size), verbose=0)
    else:
        predictions = _of_no_rows(model, no_rows(model.schema))
    columns = _named(model, predictions, list(dataset.columns))
    return dataset.assign(**{name: _column(values) for name, values in columns.items()})


def _batches(frame: pd.DataFrame, schema: Schema, batch_size: int) -> KerasSequenceLoader:
    categorical = [column.name for column in schema if column.has_tag(Tags.CATEGORICAL)]
    vectors = {column.name: column.shape[0] for column in schema if column.shape and column.name not in categorical}
    return KerasSequenceLoader(
        frame[schema.column_names].reset_index(drop=True),
        batch_size,
        label_names=[],
        cat_names=categorical,
        cont_names=[name for name in schema.column_names if name not in categorical],
        shuffle=False,
        sparse_max=vectors or None,
        sparse_as_dense=bool(vectors),
        schema=schema,
    )


def _of_no_rows(model: Any, features: Mapping[str, Any]) -> Any:
    return keras.tree.map_structure(np.asarray, model(features))  # Keras' predict fails without a batch


def _named(model: Any, predictions: Any, taken: list[str]) -> dict[str, np.ndarray]:
    """Predictions by task name."""
    if not isinstance(predictions, Mapping):
        predictions = {model.prediction_tasks[0].task_name: predictions}
    again = sorted(set(predictions) & set(taken))
    if again:
        raise ValueError(f"dataset must not have columns named like the model's predictions. Received: {again}")
    return dict(predictions)


def _column(values: np.ndarray) -> Any:
    values = np.asarray(values)
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else list(values)
