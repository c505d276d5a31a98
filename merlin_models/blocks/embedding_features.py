"""EmbeddingFeatures: the embedding tables of a model, sized from its schema."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import register
from merlin_models.blocks.combinators import as_features
from merlin_models.blocks.embedding_files import TensorInitializer, frame_of, matrix_of, write_parquet
from merlin_models.blocks.symbolic import is_symbolic, parts_from_config, rank_of
from merlin_models.blocks.tabular import TabularBlock
from merlin_models.layers import EmbeddingBagCollection, FeatureConfig, TableConfig
from merlin_models.schema import ColumnSchema, Schema, Tags


@dataclasses.dataclass(frozen=True)
class EmbeddingOptions:
    """How embedding tables are sized, initialized and pooled.

    Attributes:
        embedding_dims: feature -> length of its table's rows; comes first.
        embedding_dim_default: for features that the others do not size.
        infer_embedding_sizes: whether to size the rest by ``ceil(cardinality ** 0.25 * multiplier)``.
        infer_embedding_sizes_multiplier: the multiplier.
        infer_embeddings_ensure_dim_multiple_of_8: whether inferred sizes are rounded up to a multiple of 8.
        embeddings_initializers: a Keras initializer for all tables, or feature -> initializer. Truncated
            normal of standard deviation 0.05 where there is none.
        embeddings_l2_reg: l adds ``l * sum(e ** 2)`` over the batch's pooled embeddings to the loss; rows
            that a batch does not read are not changed by it.
        combiner: how several ids of an example become one vector: "mean", "sum", "sqrtn" or "max".
        embeddings_regularizer: a Keras regularizer for all tables, or None. It is one of all rows, so such tables are not
            trained by rows; ``embeddings_l2_reg`` is the form for the rows that a batch reads.
    """

    embedding_dims: Mapping[str, int] | None = None
    embedding_dim_default: int = 64
    infer_embedding_sizes: bool = False
    infer_embedding_sizes_multiplier: float = 2.0
    infer_embeddings_ensure_dim_multiple_of_8: bool = False
    embeddings_initializers: Any = None
    embeddings_l2_reg: float = 0.0
    combiner: str = "mean"
    embeddings_regularizer: Any = None

    def table_configs(self, schema: Schema) -> dict[str, TableConfig]:
        """Table name -> table, one for each domain of the schema's columns.

        Raises:
            ValueError: if a column has no int_domain, or columns of one domain differ in their largest id or
                their options.
        """
        groups: dict[str, list[ColumnSchema]] = {}
        for column in schema:
            groups.setdefault(column.domain_name, []).append(column)
        return {name: self._table(name, columns) for name, columns in groups.items()}

    def _table(self, name: str, columns: list[ColumnSchema]) -> TableConfig:
        rows = {column.name: column.cardinality for column in columns}
        if len(set(rows.values())) > 1:
            raise ValueError(f"Columns of the domain '{name}' must have one largest id. Received rows: {rows}")
        cardinality = next(iter(rows.values()))
        dim = self._only("embedding_dims", self.embedding_dims or {}, name, rows)
        if dim is None:
            dim = self._inferred(cardinality) if self.infer_embedding_sizes else self.embedding_dim_default
        initializer = self.embeddings_initializers
        if _is_by_feature(initializer):
            initializer = self._only("embeddings_initializers", initializer, name, rows)
        if initializer is None:
            initializer = keras.initializers.TruncatedNormal(stddev=0.05)
        initializer = keras.initializers.get(initializer)
        if not isinstance(initializer, TensorInitializer):
            # A copy a table: one initializer object gives every table of a shape the same numbers.
            initializer = type(initializer).from_config(initializer.get_config())
        regularizer = keras.regularizers.get(self.embeddings_regularizer)
        return TableConfig(
            name, cardinality, dim, combiner=self.combiner, initializer=initializer, regularizer=regularizer
        )

    def _inferred(self, cardinality: int) -> int:
        dim = math.ceil(cardinality**0.25 * self.infer_embedding_sizes_multiplier)
        return math.ceil(dim / 8) * 8 if self.infer_embeddings_ensure_dim_multiple_of_8 else dim

    @staticmethod
    def _only(option: str, by_feature: Mapping[str, Any], table: str, features: Mapping[str, int]) -> Any:
        """What the option says of a table through any of its features, or None."""
        given = {name: by_feature[name] for name in features if name in by_feature}
        values = list(given.values())
        if any(value != values[0] for value in values):
            raise ValueError(f"{option} must agree for features of one table, '{table}'. Received: {given}")
        return values[0] if values else None


@register
class EmbeddingFeatures(TabularBlock):
    """The embeddings of categorical features: all tables in one ``EmbeddingBagCollection``, that is one op.

    Args:
        features: a ``FeatureConfig`` a feature; see :meth:`from_schema`.
        l2_reg: see ``EmbeddingOptions.embeddings_l2_reg``.
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
        l2_reg: float = 0.0,
        weight_features: Mapping[str, str] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if l2_reg < 0:
            raise ValueError(f"l2_reg must not be negative. Received: {l2_reg}")
        self.l2_reg, self.weight_features = l2_reg, dict(weight_features or {})
        unknown = sorted(set(self.weight_features) - {feature.name for feature in features})
        if unknown:
            raise ValueError(f"weight_features must be given for features of the block. Received: {unknown}")
        self.collection = EmbeddingBagCollection(features, dtype=self.dtype_policy)

    @classmethod
    def from_schema(
        cls,
        schema: Schema,
        embedding_options: EmbeddingOptions | None = None,
        tags: Tags | str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> EmbeddingFeatures:
        """Tables for a schema's columns.

        Columns whose domains have one name share a table of that name, of ``int_domain.max + 1`` rows. In
        list columns
        id 0 is padding, in whatever form the lists come: it is not looked up, and does not count in a mean.

        Args:
            schema: the columns.
            embedding_options: sizes, initializers and combiner.
            tags: only columns with any of these.
        """
        if tags is not None:
            schema = schema.select_by_tag(tags)
        if not len(schema):
            raise ValueError(f"schema must have a column for an embedding. Received: none (tags: {tags})")
        options = embedding_options or EmbeddingOptions()
        tables = options.table_configs(schema)
        columns = sorted(schema, key=lambda column: column.name)
        features = [
            FeatureConfig(column.name, tables[column.domain_name], padding_id=0 if column.is_list else None)
            for column in columns
        ]
        return cls(features, l2_reg=options.embeddings_l2_reg, schema=schema, **kwargs)

    @property
    def schema(self) -> Schema | None:
        """The features, and the weights of their ids."""
        known = None if self._schema is None else self._schema.column_names
        return self._schema and self._schema + weight_columns(set(self.weight_features.values()) - set(known))

    @property
    def feature_names(self) -> list[str]:
        return [feature.name for feature in self.collection.features]

    def table_config(self, feature: str) -> TableConfig:
        """The table that a feature reads. Raises KeyError for an unknown feature."""
        for config in self.collection.features:
            if config.name == feature:
                return config.table
        raise KeyError(f"The block has no feature {feature!r}; it has {self.feature_names}")

    def table(self, name: str) -> keras.Variable:
        """The variable (rows, dim) of a table, by its name or a feature's. Raises KeyError for others."""
        tables = self.collection.tables
        return tables[name] if name in tables else tables[self.table_config(name).name]

    def embedding_table_df(self, name: str | Tags, l2_normalization: bool = False) -> Any:
        """A table as a pandas DataFrame: a row an id, a column a dimension.

        Args:
            name: of the table or a feature, or the tag of a feature.
            l2_normalization: whether rows are divided by their norm.
        """
        return frame_of(self._numbers(name), l2_normalization)

    def export_embedding_table(self, name: str | Tags, path: str | os.PathLike) -> None:
        """Writes a table as a Parquet file with the columns "id" and "embedding"."""
        write_parquet(self._numbers(name), path)

    def load_embedding_table(self, name: str | Tags, data: Any) -> None:
        """Sets a table to the rows of a Parquet file, a DataFrame or an array.

        Raises:
            ValueError: if their number or length is not the table's.
        """
        table, matrix = self._named_or_tagged(name), matrix_of(data)
        if matrix.shape != tuple(table.shape):
            raise ValueError(
                f"data must have the shape of table '{name}', {tuple(table.shape)}. Received: {matrix.shape}"
            )
        table.assign(ops.cast(matrix, table.dtype))

    def _numbers(self, name: str | Tags) -> Any:
        return ops.convert_to_numpy(ops.cast(self._named_or_tagged(name), "float32"))

    def _named_or_tagged(self, name: str | Tags) -> keras.Variable:
        known = (*self.collection.tables, *self.feature_names)
        tagged = [] if name in known or self.schema is None else self.schema.select_by_tag(name).column_names
        return self.table(tagged[0] if tagged else name)

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
        return self._regularized(self.collection(self.ids(inputs), self.weights_of_ids(inputs)))

    def _regularized(self, outputs: dict[str, Any]) -> dict[str, Any]:
        if self.l2_reg and not is_symbolic(outputs):
            for output in outputs.values():
                flat = getattr(output, "flat_values", output)
                self.add_loss(self.l2_reg * ops.sum(ops.square(ops.cast(flat, "float32"))))
        return outputs

    def get_config(self) -> dict[str, Any]:
        collection = self.collection.get_config()
        config = {**super().get_config(), "l2_reg": self.l2_reg, "weight_features": dict(self.weight_features)}
        return {**config, "features": collection["features"], "tables": collection["tables"]}

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


def _is_by_feature(initializers: Any) -> bool:
    """Whether these are initializers by feature, not the config of one."""
    return isinstance(initializers, Mapping) and "class_name" not in initializers
