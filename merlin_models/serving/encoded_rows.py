"""Encoded features as the tensors of a signature: numbers that its dtypes hold, or an error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import tensorflow as tf

from merlin_models.serving.inputs import OFFSETS, VALUES, Input


def tensors_of(inputs: Sequence[Input], features: pd.DataFrame, nulls: bool) -> dict[str, tf.Tensor]:
    """What ``serving_default`` takes, of a row a list, a vector or a number each.

    Args:
        inputs: of the model.
        features: a column for each.
        nulls: whether floats may be NaN. Layers need not answer with NaN then: ReLU may make 0 of it.

    Raises:
        ValueError: if a feature is none of its input's dtype, such as a null among ids.
    """
    tensors = {}
    for each in inputs:
        values = features[each.name].to_numpy()
        if each.is_list:
            parts = [np.asarray(value) for value in values if len(value)]  # empty ones have another dtype
            tensors[each.tensor_name + VALUES] = _numbers(each, nulls, np.concatenate(parts) if parts else np.zeros(0))
            tensors[each.tensor_name + OFFSETS] = tf.constant(np.cumsum([0, *map(len, values)], dtype=np.int64))
        elif each.width is None:
            tensors[each.tensor_name] = _numbers(each, nulls, values)
        else:
            tensors[each.tensor_name] = _numbers(each, nulls, np.asarray([*values]).reshape(len(values), each.width))
    return tensors


def _numbers(each: Input, nulls: bool, values: np.ndarray) -> tf.Tensor:
    """Nulls are NaN, which floats alone have; what else the cast would change is no number of the dtype."""
    dtype = np.dtype(each.dtype.as_numpy_dtype)
    if values.dtype == object:  # such as of pandas' nullable columns
        values = np.array(np.where(pd.isna(values), np.nan, values).tolist())
    with np.errstate(invalid="ignore", over="ignore"):
        cast = values.astype(dtype)
    changed = np.isinf(cast) & ~np.isinf(values) if dtype.kind == "f" else cast != values
    if changed.any():
        raise ValueError(
            f"Feature '{each.name}' must have numbers of {dtype.name} when it leaves the workflow. "
            f"Received: {values[changed][0]}"
        )
    if dtype.kind == "f" and not nulls and np.isnan(cast).any():
        raise ValueError(
            f"Feature '{each.name}' must have no nulls when it leaves the workflow, where FillMissing fills them. "
            f"Received: {int(np.isnan(cast).sum())} of {cast.size} null"
        )
    return tf.constant(cast)
