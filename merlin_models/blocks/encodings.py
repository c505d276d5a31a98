"""Wide encodings of categorical features: one-hot, multi-hot and counts, and hashed crosses of several features."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import register
from merlin_models.blocks.combinators import ParallelBlock, as_features
from merlin_models.blocks.registry import BLOCKS
from merlin_models.blocks.symbolic import is_symbolic
from merlin_models.blocks.tabular import TabularBlock
from merlin_models.ops import batch_of, encode_bags, to_bags
from merlin_models.schema import Schema

_MODES = ("one_hot", "multi_hot", "count")


@BLOCKS.register("category_encoding")
@register
class CategoryEncoding(TabularBlock):
    """Encodes each categorical feature as a vector as long as its cardinality.

    In list columns id 0 is padding, as for embeddings: it is left out.

    Args:
        schema: the categorical columns.
        output_mode: "one_hot" (for lists the same as "multi_hot"), "multi_hot": 1 at the ids of an example; "count": how
            often each occurs.
        sparse: for sparse tensors, which a Dense layer takes; not together with an aggregation. Where a feature has
            many ids, a linear layer over its encoding is better had as ``LinearFeatures``.
        count_weights: name of an input with one weight an id, which "count" adds up, or None.
        pre, post, aggregation: as in :class:`TabularBlock`.

    Call arguments:
        inputs: dictionary feature -> ids in any form that :func:`merlin_models.ops.to_bags` takes. Other entries are
            ignored.

    Returns:
        Dictionary feature -> (batch, cardinality) of the compute dtype.

    Raises:
        ValueError: for a schema without columns, or inputs without one of them.
        tf.errors.InvalidArgumentError: for ids out of range.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical("genre", 3)])
        >>> ml.CategoryEncoding(schema)({"genre": np.array([2, 0])})["genre"].numpy().tolist()
        [[0.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]]
    """

    is_input = True

    def __init__(
        self,
        schema: Schema,
        output_mode: str = "one_hot",
        sparse: bool = False,
        count_weights: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(schema=schema, **kwargs)
        if not len(schema):
            raise ValueError("schema must have a column to encode. Received: none")
        if output_mode not in _MODES:
            raise ValueError(f"output_mode must be one of {_MODES}. Received: {output_mode!r}")
        if count_weights is not None and output_mode != "count":
            raise ValueError(f"count_weights is for output_mode 'count'. Received: {output_mode!r}")
        if sparse and self.aggregation is not None:
            raise ValueError("sparse must not be combined with an aggregation.")
        self.output_mode, self.sparse, self.count_weights = output_mode, bool(sparse), count_weights
        self.supports_jit = False

    def transform(self, inputs: Any) -> dict[str, Any]:
        inputs = as_features(inputs, self.schema)
        _require(inputs, self.schema)
        return {column.name: self._encoded(column, inputs) for column in self.schema}

    def _encoded(self, column: Any, inputs: Mapping[str, Any]) -> Any:
        ids, depth = inputs[column.name], column.cardinality
        if is_symbolic(ids):
            return keras.KerasTensor((batch_of(ids), depth), self.compute_dtype, sparse=self.sparse)
        weights = None if self.count_weights is None else inputs[self.count_weights]
        bags = to_bags(ids, weights, 0 if column.is_list else None, column.name)
        encoded = encode_bags(bags, depth, self.output_mode, sparse=self.sparse, name=column.name)
        return ops.cast(encoded, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        own = {"output_mode": self.output_mode, "sparse": self.sparse, "count_weights": self.count_weights}
        return {**super().get_config(), **own}


@BLOCKS.register("hashed_cross")
@register
class HashedCross(TabularBlock):
    """A new categorical feature: the combination of several features' values, hashed into bins.

    The hash is a function of the ids alone: the same in every process and on every device.

    Args:
        schema: two or more categorical columns that are no lists.
        num_bins: number of bins, or None with ``infer_num_bins``.
        output_mode: "one_hot" for vectors, "int" for the bins' numbers (say, for an embedding).
        sparse: for a sparse tensor with "one_hot".
        infer_num_bins: as many bins as there are combinations, but not more than ``max_num_bins``.
        max_num_bins: for ``infer_num_bins``.
        output_name: of the new feature; ``cross_<names, sorted, joined by _>`` if None.

    Call arguments:
        inputs: dictionary feature -> ids (batch,) or (batch, 1). Other entries are ignored.

    Returns:
        ``{output_name: (batch, num_bins)}``, or (batch, 1) integers.

    Raises:
        ValueError: for fewer than two columns, for lists, or without a number of bins.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical(name, 9) for name in ("country", "age")])
        >>> out = ml.HashedCross(schema, num_bins=5)({"country": np.array([1, 2]), "age": np.array([3, 4])})
        >>> {name: tuple(value.shape) for name, value in out.items()}
        {'cross_age_country': (2, 5)}
    """

    is_input = True

    def __init__(
        self,
        schema: Schema,
        num_bins: int | None = None,
        output_mode: str = "one_hot",
        sparse: bool = False,
        infer_num_bins: bool = False,
        max_num_bins: int = 100_000,
        output_name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(schema=schema, **kwargs)
        names = sorted(schema.column_names)
        if len(names) < 2:
            raise ValueError(f"schema must have at least two columns to cross. Received: {names}")
        lists = [column.name for column in schema if column.is_list]
        if lists:
            raise ValueError(f"Columns to cross must not be lists. Received: {lists}")
        if output_mode not in ("one_hot", "int"):
            raise ValueError(f"output_mode must be 'one_hot' or 'int'. Received: {output_mode!r}")
        if (num_bins is None) != bool(infer_num_bins):
            raise ValueError(
                f"Either num_bins or infer_num_bins must be given. Received: {num_bins} and {infer_num_bins}"
            )
        if infer_num_bins:
            num_bins = min(math.prod(column.cardinality for column in schema), max_num_bins)
        self.num_bins, self.output_mode, self.sparse = num_bins, output_mode, bool(sparse)
        self.output_name = output_name or "_".join(["cross", *names])
        self.names = names
        self.supports_jit = False

    def transform(self, inputs: Any) -> dict[str, Any]:
        inputs = as_features(inputs, self.schema)
        _require(inputs, self.schema)
        values = [inputs[name] for name in self.names]
        if is_symbolic(values):
            width = self.num_bins if self.output_mode == "one_hot" else 1
            dtype = self.compute_dtype if self.output_mode == "one_hot" else "int64"
            return {self.output_name: keras.KerasTensor((batch_of(values[0]), width), dtype, sparse=self.sparse)}
        combined = _int64(0)
        for value in values:
            combined = _mixed(ops.bitwise_xor(combined, _mixed(ops.reshape(ops.cast(value, "int64"), (-1, 1)))))
        bins = ops.mod(ops.bitwise_and(combined, _int64(2**63 - 1)), self.num_bins)
        if self.output_mode == "int":
            return {self.output_name: bins}
        one_hot = encode_bags(to_bags(bins), self.num_bins, "one_hot", sparse=self.sparse, name=self.output_name)
        return {self.output_name: ops.cast(one_hot, self.compute_dtype)}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_bins": self.num_bins,
            "output_mode": self.output_mode,
            "sparse": self.sparse,
            "output_name": self.output_name,
        }


def HashedCrossAll(
    schema: Schema,
    num_bins: int | None = None,
    output_mode: str = "one_hot",
    sparse: bool = False,
    infer_num_bins: bool = False,
    max_num_bins: int = 100_000,
    max_level: int = 2,
    ignore_combinations: Sequence[Sequence[str]] = (),
    **kwargs: Any,
) -> ParallelBlock:
    """A ``HashedCross`` for every combination of two, and with ``max_level=3`` of three, columns.

    Args:
        schema, num_bins, output_mode, sparse, infer_num_bins, max_num_bins: as in :class:`HashedCross`.
        max_level: 2 or 3.
        ignore_combinations: sets of names for which there shall be no cross.
        **kwargs: of ``ParallelBlock``.

    Returns:
        A ``ParallelBlock`` whose output is a dictionary ``cross_<names>`` -> tensor.

    Example:
        >>> import merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical(name, 9) for name in "abc"])
        >>> list(ml.HashedCrossAll(schema, num_bins=5))
        ['cross_a_b', 'cross_a_c', 'cross_b_c']
    """
    if max_level not in (2, 3):
        raise ValueError(f"max_level must be 2 or 3. Received: {max_level!r}")
    ignored = {frozenset(names) for names in ignore_combinations}
    branches = {}
    for level in range(2, max_level + 1):
        for names in itertools.combinations(sorted(schema.column_names), level):
            if frozenset(names) in ignored:
                continue
            cross = HashedCross(
                schema.select_by_name(list(names)), num_bins, output_mode, sparse, infer_num_bins, max_num_bins
            )
            branches[cross.output_name] = cross
    if not branches:
        raise ValueError(f"schema must have columns to cross. Received: {schema.column_names}")
    return ParallelBlock(branches, is_input=True, **kwargs)


def _int64(number: int) -> Any:
    """An int64 of the same 64 bits."""
    return ops.convert_to_tensor(number - 2**64 if number >= 2**63 else number, dtype="int64")


def _mixed(x: Any) -> Any:
    """Hashes 64-bit integers one to one: the output function of SplitMix64 (Steele et al., 2014,
    https://doi.org/10.1145/2660193.2660195)."""
    x = x + _int64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x = ops.bitwise_xor(x, _shifted(x, shift)) * _int64(factor)
    return ops.bitwise_xor(x, _shifted(x, 31))


def _shifted(x: Any, bits: int) -> Any:
    """Shifted right, with zeros from the left."""
    return ops.bitwise_and(ops.right_shift(x, _int64(bits)), _int64(2 ** (64 - bits) - 1))


def _require(inputs: Mapping[str, Any], schema: Schema) -> None:
    missing = sorted(set(schema.column_names) - set(inputs))
    if missing:
        raise ValueError(
            f"Inputs must have the features {sorted(schema.column_names)}. Received: {sorted(inputs)}; "
            f"missing: {missing}"
        )
