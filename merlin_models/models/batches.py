"""Batches of features from whatever users have data in."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from merlin_models._ids import as_int64
from merlin_models.blocks.inputs import TARGET_TAGS
from merlin_models.schema import ColumnSchema, Schema, Tags


class Batch(NamedTuple):
    """Attributes: features: name -> tensor. targets, sample_weight: as they came with them, or None."""

    features: dict[str, Any]
    targets: Any = None
    sample_weight: Any = None


def batches_of(
    data: Any,
    schema: Schema | None,
    batch_size: int,
    targets: Any = None,
    sample_weight: Any = None,
    also: Sequence[str] = (),
) -> Iterator[Batch]:
    """The rows of a data set in batches, in the order that it has; without any rows one empty batch, unless it is in batches.

    Args:
        data: dictionary feature -> array of all rows; a ``KerasSequenceLoader`` or other ``PyDataset``, or a
            ``tf.data.Dataset``, of batches as they are; or what a loader is made of: a DataFrame, Parquet files.
        schema: the columns to read from a DataFrame or from files.
        batch_size: rows a batch, where ``data`` is not in batches.
        targets, sample_weight: arrays of all rows, only where ``data`` is a dictionary of arrays.
        also: further columns to read, of integers.

    Raises:
        ValueError: if the arrays of a dictionary differ in length.
        TypeError: for data of another kind.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1. Received: {batch_size}")
    if isinstance(data, Mapping):
        yield from _slices(data, batch_size, targets, sample_weight)
        return
    if targets is not None or sample_weight is not None:
        raise ValueError(
            f"y and sample_weight must be None unless x is a dictionary of arrays. Received x: {type(data).__name__}"
        )
    if not (isinstance(data, keras.utils.PyDataset) or hasattr(data, "element_spec")):
        data = _loader(data, schema, batch_size, also)
        if not len(data):
            yield Batch(no_rows(Schema() if schema is None else schema, also))
            return
    for batch in data:
        features, *rest = keras.utils.unpack_x_y_sample_weight(batch)
        yield Batch(features, *rest)


def no_rows(schema: Schema, also: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The features of a batch without rows; ``also`` are further columns of integers."""
    features = {
        column.name: np.zeros(
            (0, *(column.shape or (1,))), np.int64 if column.has_tag(Tags.CATEGORICAL) else np.float32
        )
        for column in schema
    }
    return features | {name: np.zeros((0, 1), np.int64) for name in also}


def ids_of(features: Mapping[str, Any], name: str) -> np.ndarray:
    """A column of ids as (batch,) int64.

    Raises:
        ValueError: if the features do not have it, it has several ids a row, or ids from 2**63.
    """
    if name not in features:
        raise ValueError(f"Data must have the ids '{name}'. Received: {sorted(features)}")
    ids = np.asarray(features[name])
    if ids.dtype.kind not in "iu" or ids.ndim > 2 or (ids.ndim == 2 and ids.shape[1] != 1):
        raise ValueError(
            f"The ids '{name}' must be integers of the shape (batch,) or (batch, 1). Received: {ids.dtype} {ids.shape}"
        )
    return as_int64(f"The ids '{name}'", ids.reshape(-1))


def warn_of_random_order(data: Any) -> None:
    """Warns the caller's caller where predictions would come in an order that nothing tells: those of a shuffled loader."""
    from merlin_models.loader.tensorflow import KerasSequenceLoader

    if isinstance(data, KerasSequenceLoader) and data.shuffle:
        warnings.warn(
            "A loader must have shuffle=False for its predictions to be in the order of its rows. Received: a loader with "
            "shuffle=True, the default, whose predictions come in a random order.",
            stacklevel=3,
        )


def id_column(schema: Schema | None, index: Any, tag: Tags) -> ColumnSchema | str:
    """The name of the column of ids that an argument means: a name, a ColumnSchema, a tag, or None for ``tag``.

    Raises:
        ValueError: if not exactly one column of the schema has the tag.
    """
    if isinstance(index, ColumnSchema):
        return index.name
    if isinstance(index, Schema):
        names = index.column_names
    elif index is None or isinstance(index, Tags):
        tag = index or tag
        names = [] if schema is None else schema.select_by_tag(tag).column_names
    else:
        return str(index)
    if len(names) != 1:
        raise ValueError(f"Exactly one column must have the tag `{tag}`, or be named. Received: {names}")
    return names[0]


def _slices(data: Mapping[str, Any], batch_size: int, targets: Any, sample_weight: Any) -> Iterator[Batch]:
    arrays = {name: value if hasattr(value, "shape") else np.asarray(value) for name, value in data.items()}
    more = {"y": targets, "sample_weight": sample_weight}
    lengths = {name: int(v.shape[0]) for name, v in {**arrays, **more}.items() if v is not None}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"Arrays must be of one length. Received: {lengths}")
    for start in range(0, max(1, next(iter(lengths.values()))), batch_size):
        rows = slice(start, start + batch_size)
        features = {name: value[rows] for name, value in arrays.items()}
        yield Batch(features, *(None if each is None else each[rows] for each in more.values()))


def _loader(data: Any, schema: Schema | None, batch_size: int, also: Sequence[str]) -> Any:
    from merlin_models.loader.tensorflow import KerasSequenceLoader

    columns = Schema() if schema is None else schema.remove_by_tag(TARGET_TAGS)
    continuous = columns.select_by_tag(Tags.CONTINUOUS).column_names
    categorical = [name for name in (*columns.column_names, *also) if name not in continuous]
    names = list(dict.fromkeys(categorical))
    return KerasSequenceLoader(data, batch_size, cat_names=names, cont_names=continuous, shuffle=False)
