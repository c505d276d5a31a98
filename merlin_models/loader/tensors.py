"""From NumPy columns to tensors on a device."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from merlin_models.loader.columns import Column


def to_tensor(column: Column) -> tf.Tensor | tf.RaggedTensor:
    """(rows, 1), (rows, length), or ragged (rows, None) for lists."""
    if column.row_splits is not None:
        return tf.RaggedTensor.from_row_splits(column.values, column.row_splits, validate=False)
    values = column.values
    return tf.convert_to_tensor(values.reshape(-1, 1) if values.ndim == 1 else values)


def flatten_features(features: Mapping[str, Any], lists: Collection[str]) -> dict[str, tf.Tensor]:
    """Features as the older library's loader has them: one value a row as (rows,), a ragged list as two tensors.

    Args:
        features: from :func:`to_tensor`.
        lists: names of columns that hold lists, padded or not; padded ones stay as they are.

    Returns:
        Per ragged column ``<name>__values`` and ``<name>__offsets``, per other column its tensor.
    """
    flat = {}
    for name, tensor in features.items():
        if isinstance(tensor, tf.RaggedTensor):
            flat[f"{name}__values"], flat[f"{name}__offsets"] = tensor.values, tensor.row_splits
        else:
            flat[name] = tensor if name in lists or tensor.shape.rank != 2 else tf.squeeze(tensor, axis=1)
    return flat


def mapped(batch: tuple[Any, ...], functions: Sequence[Callable]) -> tuple[Any, ...]:
    """(features, labels), or with sample weights, after the functions given to `map`; TypeError where one returns else."""
    for fn in functions:
        batch = fn(*batch)
        if not isinstance(batch, tuple) or len(batch) not in (2, 3):
            raise TypeError(
                "A function given to map must return (features, labels) or (features, labels, "
                f"sample_weights). Received: {type(batch).__name__}."
            )
    return batch


def device_name(device: int | str | None) -> str:
    """TensorFlow's name for the loader's `device`; ValueError where there is no such device."""
    if device is None or device == "cpu":
        return "CPU:0"
    number = 0 if device == "gpu" else device
    if isinstance(number, bool) or not isinstance(number, (int, np.integer)) or number < 0:
        raise ValueError(f"device must be None, 'cpu', 'gpu' or the number of a GPU. Received: {device!r}.")
    count = len(tf.config.list_physical_devices("GPU"))
    if number >= count:
        raise ValueError(f"device must be one of the {count} GPUs that TensorFlow sees. Received: {device!r}.")
    return f"GPU:{number}"
