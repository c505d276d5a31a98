"""EmbeddingFeatures: the embedding tables of a model, sized from its schema."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import register
from merlin_models.blocks.combinators import as_features
from merlin_models.blocks.symbolic import parts_from_config, rank_of
from merlin_models.blocks.tabular import TabularBlock
from merlin_models.layers import EmbeddingBagCollection, EmbeddingOptions, FeatureConfig, TableConfig
from merlin_models.layers.embedding_options import selected
from merlin_models.schema import ColumnSchema, Schema, Tags


@register
class EmbeddingFeatures(TabularBlock):
    """The embeddings of categorical features: all tables in one ``EmbeddingBagCollection``, that is one op.

    Args:
        features: a ``FeatureConfig`` a feature; see :meth:`from_schema`.
        l2_reg: see ``EmbeddingOptions.embeddings_l2_reg``; or a dictionary feature -> l.
        weight_features: list feature -> name of the input with a weight for each of its ids, for combiners "mean", "sum" and
            "sqrtn"; see :class:`AverageEmbeddingsByWeightFeature`.
        pre, post, aggregation, schema: as in :class:`TabularBlock`.

    Call arguments:
        inputs: dictionary feature -> ids: (batch,), (batch, 1), (batch, length), ragged, sparse or (values,
            row_splits). Other entries are ignored. A single feature may come as a bare tensor.

    Returns:
        Dictionary feature -> (batch, dim), without an aggregation.

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import EmbeddingFeatures
        >>> from merlin_models.schema import ColumnSchema, Schema
        >>> schema = Schema([ColumnSchema.create_categorical("movieId", 1000)])
        >>> EmbeddingFeatures.from_schema(schema)({"movieId": np.array([1, 2])})["movieId"].shape
        TensorShape([2, 64])
    """

    is_input = True

    def __init__(
        self,
        features: Sequence[FeatureConfig],
        l2_reg: float | Mapping[str, float] = 0.0,
        weight_features: Mapping[str, str] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.weight_features = dict(weight_features or {})
        unknown = sorted(set(self.weight_features) - {feature.name for feature in features})
        if unknown:
            raise ValueError(f"weight_features must be given for features of the block. Received: {unknown}")
        self.collection = EmbeddingBagCollection(features, l2_reg=l2_reg, dtype=self.dtype_policy)

    @classmethod
    def from_schema(
        cls,
        schema: Schema,
        embedding_options: EmbeddingOptions | None = None,
        tags: Tags | str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> EmbeddingFeatures:
        """Tables for a schema's columns.

        Columns whose domains have one name share a table of that name, of ``int_domain.max + 1`` rows. In list columns
        id 0 is padding, in whatever form the lists come: it is not looked up, and does not count in a mean.

        Args:
            schema: the columns.
            embedding_options: sizes, initializers and combiner.
            tags: only columns with any of these.
        """
        schema = selected(schema, tags)
        options = checked_options(embedding_options)
        return cls(options.features(schema), l2_reg=options.embeddings_l2_reg, schema=schema, **kwargs)

    @property
    def l2_reg(self) -> float | Mapping[str, float]:
        """The factor of the outputs' penalty, or one a feature."""
        return self.collection.l2_reg

    @property
    def schema(self) -> Schema | None:
        """The features, and the weights of their ids."""
        known = None if self._schema is None else self._schema.column_names
        return self._schema and self._schema + weight_columns(set(self.weight_features.values()) - set(known))

    @property
    def feature_names(self) -> list[str]:
        """The columns that are looked up."""
        return [feature.name for feature in self.collection.features]

    def table_config(self, feature: str) -> TableConfig:
        """The table that a feature reads. Raises KeyError for an unknown feature."""
        return self.collection.table_config(feature)

    def table(self, name: str) -> keras.Variable:
        """The variable (rows, dim) of a table, by its name or a feature's. Raises KeyError for others."""
        return self.collection.table(name)

    def embedding_table_df(self, name: str | Tags, l2_normalization: bool = False) -> Any:
        """A table as a pandas DataFrame: a row an id, a column a dimension.

        Args:
            name: of the table or a feature, or the tag of a feature.
            l2_normalization: whether rows are divided by their norm.
        """
        return self.collection.embedding_table_df(self._untagged(name), l2_normalization)

    def export_embedding_table(self, name: str | Tags, path: str | os.PathLike) -> None:
        """Writes a table as a Parquet file with the columns "id" and "embedding"."""
        self.collection.export_embedding_table(self._untagged(name), path)

    def load_embedding_table(self, name: str | Tags, data: Any) -> None:
        """Sets a table to the rows of a Parquet file, a DataFrame or an array.

        Raises:
            ValueError: if their number or length is not the table's.
        """
        self.collection.load_embedding_table(self._untagged(name), data)

    def _untagged(self, name: str | Tags) -> str:
        """The name of a table or a feature, where a tag may stand for a feature that has it."""
        known = (*self.collection.table_configs, *self.feature_names)
        tagged = [] if name in known or self.schema is None else self.schema.select_by_tag(name).column_names
        return tagged[0] if tagged else name

    def ids(self, inputs: Any) -> dict[str, Any]:
        """The inputs as the collection takes them."""
        inputs = dict(as_features(inputs, self.schema))
        for column in self._schema or ():
            if not column.is_list and hasattr(inputs.get(column.name), "shape"):
                inputs[column.name] = _one_id(column.name, inputs[column.name])
        return inputs

    def weights_of_ids(self, inputs: Any) -> dict[str, Any] | None:
        """For each feature of ``weight_features`` the weights among the inputs, or None."""
        missing = sorted(set(self.weight_features.values()) - set(inputs if self.weight_features else ()))
        if missing:
            raise ValueError(f"Inputs must have the weights {missing}. Received: {sorted(inputs)}")
        return {name: inputs[weight] for name, weight in self.weight_features.items()} or None

    def transform(self, inputs: Any) -> dict[str, Any]:
        return self.collection(self.ids(inputs), self.weights_of_ids(inputs))

    def get_config(self) -> dict[str, Any]:
        collection = self.collection.get_config()
        shared = {name: collection[name] for name in ("features", "tables", "l2_reg")}
        return {**super().get_config(), "weight_features": dict(self.weight_features), **shared}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EmbeddingFeatures:
        config = dict(config)
        tables = {table["name"]: _table_from_config(table) for table in config.pop("tables")}
        features = [
            FeatureConfig(feature["name"], tables[feature["table"]], feature["padding_id"])
            for feature in config.pop("features")
        ]
        return cls(features, **parts_from_config(config))


def weight_columns(names: Iterable[str]) -> Schema:
    """Columns for the weights of ids: lists of numbers, as long as the lists of ids."""
    return Schema(ColumnSchema(name, tags=(Tags.CONTINUOUS, Tags.SEQUENCE, Tags.LIST)) for name in sorted(names))


def _table_from_config(config: dict[str, Any]) -> TableConfig:
    # Objects, not configs: in a file Keras marks what is shared by the identity of living objects.
    parts = {
        "initializer": keras.initializers.deserialize(config["initializer"]),
        "regularizer": keras.regularizers.deserialize(config["regularizer"]),
    }
    return TableConfig(**{**config, **parts})


def _one_id(name: str, ids: Any) -> Any:
    """The ids of a column that is no list, of known rank.

    Raises:
        ValueError: if there are several an example: what is padding is only known for lists.
    """
    rank = rank_of(ids)
    if rank is None:
        return ops.reshape(ids, (-1, 1))
    if rank == 2 and ids.shape[1] not in (1, None):
        raise ValueError(
            f"Column '{name}' must be a list in the schema (a value_count, or the tag 'list') to have "
            f"several ids an example. Received shape: {tuple(ids.shape)}"
        )
    return ids


def checked_options(options: Any) -> EmbeddingOptions:
    """The options of tables, the default ones for None. Raises TypeError if they are none."""
    if options is not None and not isinstance(options, EmbeddingOptions):
        raise TypeError(
            "embedding_options must be an EmbeddingOptions, such as EmbeddingOptions(embedding_dim_default=8), or None. "
            f"Received: {options!r}"
        )
    return EmbeddingOptions() if options is None else options
