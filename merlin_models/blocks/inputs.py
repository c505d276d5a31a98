"""Input blocks: from the raw features of a schema to tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.aggregation import Aggregation
from merlin_models.blocks.base import register
from merlin_models.blocks.combinators import ParallelBlock, SequentialBlock, as_features
from merlin_models.blocks.control import MapValues
from merlin_models.blocks.embedding_features import EmbeddingFeatures, EmbeddingOptions, checked_options
from merlin_models.blocks.masking import mask_of, with_mask
from merlin_models.blocks.sequence_aggregator import SequenceAggregator
from merlin_models.blocks.sequence_embeddings import SequenceEmbeddingFeatures, copied
from merlin_models.blocks.symbolic import rank_of
from merlin_models.blocks.tabular import TabularBlock
from merlin_models.ops import is_ragged
from merlin_models.schema import Schema, Tags

TARGET_TAGS = (Tags.TARGET, Tags.BINARY_CLASSIFICATION, Tags.REGRESSION, Tags.MULTI_CLASS_CLASSIFICATION)


@register
class ContinuousFeatures(TabularBlock):
    """Selects continuous features and casts them to the compute dtype.

    (batch,) becomes (batch, 1). Sequences, which are ragged features, lists with the tag ``sequence``, and with ``seq`` all
    lists of the schema, get an axis for their one number at each position: (batch, length, 1).

    Args:
        features: names, or None for all columns of ``schema``.
        seq: whether lists are sequences of numbers, not vectors.
        pre, post, aggregation, schema: as in :class:`TabularBlock`.

    Raises:
        ValueError: when called without one of the features.

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import ContinuousFeatures
        >>> ContinuousFeatures(["age"])({"age": np.array([20, 30]), "id": np.array([1, 2])})["age"].shape
        TensorShape([2, 1])
    """

    is_input = True

    def __init__(self, features: Sequence[str] | None = None, seq: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.seq = bool(seq)
        if seq and self._schema is None:
            raise ValueError("schema must be given with seq, to tell which features are lists.")
        if features is None and self.schema is not None:
            features = self.schema.column_names
        self.feature_names = sorted(features or ())
        if not self.feature_names:
            raise ValueError("features must have a name, or schema a column. Received: none")

    @classmethod
    def from_schema(
        cls, schema: Schema, tags: Tags | str | Sequence[str] | None = None, **kwargs: Any
    ) -> ContinuousFeatures:
        """All columns of the schema, or those with any of the tags."""
        return cls(schema=schema if tags is None else schema.select_by_tag(tags), **kwargs)

    def transform(self, inputs: Any) -> dict[str, Any]:
        inputs = as_features(inputs, self.schema)
        missing = [name for name in self.feature_names if name not in inputs]
        if missing:
            raise ValueError(
                f"Inputs must have the continuous features {self.feature_names}. "
                f"Received: {sorted(inputs)}; missing: {missing}"
            )
        return {name: self._column(name, inputs[name]) for name in self.feature_names}

    def _column(self, name: str, value: Any) -> Any:
        if not hasattr(value, "shape") or hasattr(value, "dense_shape"):
            raise ValueError(
                f"The continuous feature '{name}' must be a dense or ragged tensor. Received: {type(value).__name__}"
            )
        value, rank = ops.cast(value, self.compute_dtype), rank_of(value)
        if rank == 2 and (is_ragged(value) or self._is_sequence(name)):
            return with_mask(ops.expand_dims(value, -1), mask_of(value))
        return ops.reshape(value, (-1, 1)) if rank in (None, 1) else value

    def _is_sequence(self, name: str) -> bool:
        if self._schema is None or name not in self._schema:
            return False
        column = self._schema[name]
        return column.is_list and (self.seq or column.has_tag(Tags.SEQUENCE))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "features": list(self.feature_names), "seq": self.seq}


def checked_schema(schema: Any) -> Schema:
    """The schema. Raises TypeError for anything else, such as a path."""
    if not isinstance(schema, Schema):
        raise TypeError(f"schema must be a Schema, as Schema.load(folder) reads one. Received: {type(schema).__name__}")
    return schema


def InputBlock(
    schema: Schema,
    branches: Mapping[str, keras.layers.Layer] | None = None,
    post: keras.layers.Layer | None = None,
    aggregation: str | Aggregation | None = None,
    seq: bool = False,
    add_continuous_branch: bool = True,
    continuous_tags: Tags | str | Sequence[str] = (Tags.CONTINUOUS,),
    continuous_projection: keras.layers.Layer | None = None,
    add_embedding_branch: bool = True,
    embedding_options: EmbeddingOptions | None = None,
    categorical_tags: Tags | str | Sequence[str] = (Tags.CATEGORICAL,),
    split_sparse: bool = False,
    seq_aggregator: keras.layers.Layer | None = None,
    **kwargs: Any,
) -> ParallelBlock:
    """The block that takes a data set's features, built from its schema.

    Columns tagged as a target are left out. A branch exists only if its tags select a column.

    Args:
        schema: of the data set, or of the part of it that this block shall take.
        branches: further branches by name; one called "continuous" or "categorical" replaces that one.
        post: a layer for the dictionary of features.
        aggregation: "concat" and so on, or None to keep the dictionary, which Dense layers and MLPBlock
            concatenate in the order of names.
        seq: whether lists stay sequences, (batch, length, dim); else a list's embeddings are pooled.
        add_continuous_branch, continuous_tags: whether there is a branch "continuous", and what it takes.
        continuous_projection: a layer (say, an ``MLPBlock``) for the concatenated continuous features; its
            output has the name "continuous".
        add_embedding_branch, categorical_tags: the same for the branch "categorical".
        embedding_options: of the embedding tables; ``EmbeddingOptions()`` if None.
        split_sparse: whether lists are pooled by ``seq_aggregator`` and not by the lookup's combiner.
        seq_aggregator: a layer from (batch, length, dim) to (batch, dim) for ``split_sparse``;
            ``SequenceAggregator("mean")`` if None. Copied for each list of ids, and for the lists of numbers.
        **kwargs: of ``ParallelBlock``.

    Returns:
        A ``ParallelBlock`` with the branches "continuous" and "categorical". Its output is a dictionary
        feature -> (batch, dim), without an aggregation.

    Raises:
        ValueError: if no column is left for any branch, or options contradict each other.
        TypeError: if ``schema`` is no ``Schema``, or ``embedding_options`` no ``EmbeddingOptions``.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> from merlin_models.schema import ColumnSchema, Schema
        >>> movie = ColumnSchema.create_categorical("movieId", 1000)
        >>> schema = Schema([movie, ColumnSchema.create_continuous("age")])
        >>> out = ml.InputBlock(schema)({"movieId": np.array([1, 2]), "age": np.array([20.0, 30.0])})
        >>> {name: tuple(value.shape) for name, value in sorted(out.items())}
        {'age': (2, 1), 'movieId': (2, 64)}
    """
    if seq and split_sparse:
        raise ValueError("seq and split_sparse must not be given together: lists stay sequences, or are pooled.")
    if seq_aggregator is not None and not split_sparse:
        raise ValueError("seq_aggregator must be None unless split_sparse is True.")
    embedding_options = checked_options(embedding_options)
    aggregator = seq_aggregator or SequenceAggregator("mean") if split_sparse else None
    features = checked_schema(schema).remove_by_tag(TARGET_TAGS)
    pools = {column.name for column in schema if split_sparse and column.is_list}
    chosen: dict[str, keras.layers.Layer] = {}
    continuous = features.select_by_tag(continuous_tags)
    if add_continuous_branch and len(continuous):
        chosen["continuous"] = ContinuousFeatures(
            schema=continuous,
            seq=seq or split_sparse,
            post=_pooling([name for name in continuous.column_names if name in pools], aggregator),
            aggregation=None if continuous_projection is None else "concat",
        )
        if continuous_projection is not None:
            chosen["continuous"] = SequentialBlock([chosen["continuous"], continuous_projection])
    elif continuous_projection is not None:
        raise ValueError("continuous_projection must be None where there is no continuous branch.")
    categorical = features.select_by_tag(categorical_tags)
    if add_embedding_branch and len(categorical):
        if seq or split_sparse:
            chosen["categorical"] = SequenceEmbeddingFeatures.from_schema(
                categorical, embedding_options, sequence_combiner=aggregator
            )
        else:
            chosen["categorical"] = EmbeddingFeatures.from_schema(categorical, embedding_options)
    chosen.update(branches or {})
    if not chosen:
        raise ValueError(
            f"schema must have a column tagged {_text(continuous_tags)} or {_text(categorical_tags)} "
            "that is no target. "
            f"Received: {[f'{column.name} {list(column.tags)}' for column in schema]}"
        )
    return ParallelBlock(chosen, post=post, aggregation=aggregation, is_input=True, **kwargs)


def _pooling(names: list[str], aggregator: keras.layers.Layer | None) -> keras.layers.Layer | None:
    """The aggregator's copy on these features, or None if there are none."""
    if not names:
        return None
    return MapValues(SequentialBlock([copied(aggregator)]), filter=names)


def _text(tags: Tags | str | Sequence[str]) -> str:
    return str(tags) if isinstance(tags, str) else " or ".join(str(tag) for tag in tags)
