"""What an exported model takes: the schema's columns as tensors of a signature, in three forms."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from merlin_models.blocks.symbolic import shapes_of_schema
from merlin_models.schema import ColumnSchema, Schema, Tags
from merlin_models.serving.offsets import checked_lists

VALUES, OFFSETS = "__values", "__offsets"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]*")  # what TensorFlow lets variables be called


@dataclasses.dataclass(frozen=True)
class Input:
    """A column as an exported model takes it.

    Attributes:
        name, dtype: of the column.
        width: None for one number a row, "list" for lists of any length, else the length of a vector.
    """

    name: str
    dtype: tf.DType
    width: int | str | None = None

    @property
    def is_list(self) -> bool:
        return self.width == "list"

    @property
    def tensor_name(self) -> str:
        """Its name in signatures, where TensorFlow takes letters, digits and _ alone."""
        return re.sub(r"\W", "_", self.name)

    def callable_spec(self) -> Any:
        """What the callable takes: lists ragged, one number a row as (batch,) or (batch, 1)."""
        if self.is_list:
            return tf.RaggedTensorSpec([None, None], self.dtype, row_splits_dtype=tf.int64)
        return tf.TensorSpec([None, self.width] if self.width else None, self.dtype, name=self.tensor_name)

    def specs(self, padded: bool) -> dict[str, tf.TensorSpec]:
        """What a signature takes: lists padded, or as values and offsets."""
        name, dtype = self.tensor_name, self.dtype
        if not self.is_list:
            return {name: tf.TensorSpec([None, self.width] if self.width else [None], dtype, name=name)}
        if padded:
            return {name: tf.TensorSpec([None, None], dtype, name=name)}
        kinds = {name + VALUES: dtype, name + OFFSETS: tf.int64}
        return {part: tf.TensorSpec([None], kind, name=part) for part, kind in kinds.items()}

    def feature(self, value: Any) -> Any:
        """What the model takes, of what the callable does."""
        return tf.reshape(value, [-1, 1]) if self.width is None else value


def inputs_of(schema: Schema | None, input_signature: Any = None) -> list[Input]:
    """The inputs of a model, of its schema and of specs by name that replace the schema's.

    Raises:
        ValueError: without either, for a spec that is none of a column, a vector whose length is not known, or a name that
            TensorFlow does not take, or for two that one of the signatures would call the same.
    """
    given = _given(input_signature)
    if schema is None and not given:
        raise ValueError("input_signature must be given where the model has no schema. Received: None")
    unknown = sorted(set(given) - set(schema.column_names)) if schema is not None else []
    if unknown:
        raise ValueError(
            f"input_signature must be of the model's features, {schema.column_names}. Received others: {unknown}"
        )
    inputs = [_of_column(column) for column in schema or () if column.name not in given]
    inputs += [_of_spec(name, spec) for name, spec in given.items()]
    unfit = [each.name for each in inputs if not _NAME.fullmatch(each.name)]
    if unfit:
        raise ValueError(
            "Names of exported features must begin with a letter or digit and have only these and _ . / - behind it. "
            f"Received: {unfit}"
        )
    twice = set()
    for padded in (False, True) if has_padded_form(inputs) else (False,):
        names = [name for each in inputs for name in each.specs(padded)]
        twice |= {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"Names of a signature's inputs must be unique. Received twice: {sorted(twice)}")
    return inputs


def has_padded_form(inputs: Sequence[Input]) -> bool:
    """Whether lists can be told from their padding: there are some, all of ids."""
    lists = [each for each in inputs if each.is_list]
    return bool(lists) and all(each.dtype.is_integer for each in lists)


def features_of(inputs: Sequence[Input], tensors: Mapping[str, Any], padded: bool) -> dict[str, Any]:
    """What the callable takes, of what a signature does."""
    features = {each.name: tensors[each.tensor_name] for each in inputs if not each.is_list}
    lists = [each for each in inputs if each.is_list]
    if padded:
        return features | {each.name: _unpadded(tensors[each.tensor_name]) for each in lists}
    if lists:
        values, offsets = ([tensors[each.tensor_name + part] for each in lists] for part in (VALUES, OFFSETS))
        ragged = checked_lists([each.name + OFFSETS for each in lists], values, offsets)
        features |= {each.name: x for each, x in zip(lists, ragged, strict=True)}
    return features


def _unpadded(x: Any) -> tf.RaggedTensor:
    """Lists (batch, length) without the zeros at their ends."""
    length = tf.shape(x)[1]
    places = tf.where(tf.not_equal(x, 0), tf.range(1, length + 1), 0)
    lengths = tf.reduce_max(tf.pad(places, [[0, 0], [1, 0]]), axis=1)
    values = tf.boolean_mask(x, tf.sequence_mask(lengths, length))
    offsets = tf.pad(tf.cumsum(tf.cast(lengths, tf.int64)), [[1, 0]])
    return tf.RaggedTensor.from_row_splits(values, offsets, validate=False)


def _of_column(column: ColumnSchema) -> Input:
    ids = column.has_tag(Tags.CATEGORICAL)
    dtype = np.dtype(column.dtype or (np.int64 if ids else np.float32))
    if ids:
        dtype = dtype if dtype in (np.int32, np.int64) else np.dtype(np.int64)
    elif dtype == np.float64 or dtype.kind not in "iufb":
        dtype = np.dtype(np.float32)  # as the loader gives it
    shapes = shapes_of_schema(Schema([column]))
    if shapes is None:
        raise ValueError(
            f"Column '{column.name}' must have a shape in the schema, or a spec in input_signature. Received: neither"
        )
    shape = shapes[column.name]
    if shape == (None, None):
        return Input(column.name, tf.as_dtype(dtype), "list")
    return Input(column.name, tf.as_dtype(dtype), None if shape[1] == 1 else shape[1])


def _given(input_signature: Any) -> Mapping[str, Any]:
    if isinstance(input_signature, Sequence) and len(input_signature) == 1:
        (input_signature,) = input_signature  # as Keras has it: one entry an argument
    if input_signature is None:
        return {}
    if not isinstance(input_signature, Mapping):
        raise ValueError(
            "input_signature must be a dictionary from feature to spec. "
            f"Received: {type(input_signature).__name__} {input_signature!r}"
        )
    return input_signature


def _of_spec(name: str, spec: Any) -> Input:
    dtype = tf.as_dtype(getattr(spec, "dtype", None) or keras.config.floatx())
    if isinstance(spec, tf.RaggedTensorSpec):
        return Input(name, dtype, "list")
    shape = tuple(spec.shape or ()) if getattr(spec, "shape", None) is not None else ()
    if len(shape) not in (1, 2) or shape[0] is not None or (len(shape) == 2 and shape[1] is None):
        raise ValueError(
            f"The spec of '{name}' must have the shape (None,) or (None, length), or be a tf.RaggedTensorSpec for lists of "
            f"any length. Received: {spec}"
        )
    return Input(name, dtype, None if shape[1:] in ((), (1,)) else int(shape[1]))
