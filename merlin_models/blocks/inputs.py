"""Input blocks: from the raw features of a schema to tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.aggregation import Aggregation
from merlin_models.blocks.base import register
from merlin_models.blocks.combinators import ParallelBlock, SequentialBlock, as_features
from merlin_models.blocks.embedding_features import EmbeddingFeatures, EmbeddingOptions
from merlin_models.blocks.symbolic import rank_of
from merlin_models.blocks.tabular import TabularBlock
from merlin_models.schema import Schema, Tags

TARGET_TAGS = (Tags.TARGET, Tags.BINARY_CLASSIFICATION, Tags.REGRESSION, Tags.MULTI_CLASS_CLASSIFICATION)


@register
class ContinuousFeatures(TabularBlock):
    """Selects continuous features and casts them to the compute dtype; (batch,) becomes (batch, 1).

    Args:
        features: names, or None for all columns of ``schema``.
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

    def __init__(self, features: Sequence[str] | None = None, **kwargs: Any):
        super().__init__(**kwargs)
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
        if not hasattr(value, "shape") or hasattr(value, "row_splits") or hasattr(value, "dense_shape"):
            raise ValueError(
                f"The continuous feature '{name}' must be a dense tensor (batch, ...). Received: {type(value).__name__}"
            )
        value, rank = ops.cast(value, self.compute_dtype), rank_of(value)
        return ops.reshape(value, (-1, 1)) if rank in (None, 1) else value

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "features": list(self.feature_names)}


def InputBlock(
    schema: Schema,
    branches: Mapping[str, keras.layers.Layer] | None = None,
    post: keras.layers.Layer | None = None,
    aggregation: str | Aggregation | None = None,
    add_continuous_branch: bool = True,
    continuous_tags: Tags | str | Sequence[str] = (Tags.CONTINUOUS,),
    continuous_projection: keras.layers.Layer | None = None,
    add_embedding_branch: bool = True,
    embedding_options: EmbeddingOptions | None = None,
    categorical_tags: Tags | str | Sequence[str] = (Tags.CATEGORICAL,),
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
        add_continuous_branch, continuous_tags: whether there is a branch "continuous", and what it takes.
        continuous_projection: a layer (say, an ``MLPBlock``) for the concatenated continuous features; its
            output has the name "continuous".
        add_embedding_branch, categorical_tags: the same for the branch "categorical".
        embedding_options: of the embedding tables; ``EmbeddingOptions()`` if None.
        **kwargs: of ``ParallelBlock``.

    Returns:
        A ``ParallelBlock`` with the branches "continuous" and "categorical". Its output is a dictionary
        feature -> (batch, dim), without an aggregation.

    Raises:
        ValueError: if no column is left for any branch.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> from merlin_models.schema import ColumnSchema, Schema
        >>> movie = ColumnSchema.create_categorical("movieId", 1000)
        >>> schema = Schema([movie, ColumnSchema.create_continuous("age")])
        >>> out = ml.InputBlock(schema)({"movieId": np.array([1, 2]), "age": np.array([20.0, 30.0])})
        >>> {name: tuple(value.shape) for name, value in sorted(out.items())}
        {'age': (2, 1), 'movieId': (2, 64)}
    """
    features = schema.remove_by_tag(TARGET_TAGS)
    chosen: dict[str, keras.layers.Layer] = {}
    continuous = features.select_by_tag(continuous_tags)
    if add_continuous_branch and len(continuous):
        chosen["continuous"] = ContinuousFeatures(
            schema=continuous, aggregation=None if continuous_projection is None else "concat"
        )
        if continuous_projection is not None:
            chosen["continuous"] = SequentialBlock([chosen["continuous"], continuous_projection])
    elif continuous_projection is not None:
        raise ValueError("continuous_projection must be None where there is no continuous branch.")
    categorical = features.select_by_tag(categorical_tags)
    if add_embedding_branch and len(categorical):
        chosen["categorical"] = EmbeddingFeatures.from_schema(categorical, embedding_options)
    chosen.update(branches or {})
    if not chosen:
        raise ValueError(
            f"schema must have a column tagged {_text(continuous_tags)} or {_text(categorical_tags)} "
            "that is no target. "
            f"Received: {[f'{column.name} {list(column.tags)}' for column in schema]}"
        )
    return ParallelBlock(chosen, post=post, aggregation=aggregation, is_input=True, **kwargs)


def _text(tags: Tags | str | Sequence[str]) -> str:
    return str(tags) if isinstance(tags, str) else " or ".join(str(tag) for tag in tags)
