"""EmbeddingOptions: the tables that a schema's columns need."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from merlin_models.layers.embedding_files import TensorInitializer
from merlin_models.layers.table_config import FeatureConfig, TableConfig
from merlin_models.schema import ColumnSchema, Schema, Tags


@dataclasses.dataclass(frozen=True)
class EmbeddingOptions:
    """How embedding tables are sized, initialized and pooled.

    Attributes:
        embedding_dims: feature or table -> length of the table's rows; comes first.
        embedding_dim_default: for features that the others do not size.
        infer_embedding_sizes: whether to size the rest by ``ceil(cardinality ** 0.25 * multiplier)``.
        infer_embedding_sizes_multiplier: the multiplier.
        infer_embeddings_ensure_dim_multiple_of_8: whether inferred sizes are rounded up to a multiple of 8.
        embeddings_initializers: a Keras initializer for all tables, or feature or table -> initializer. Truncated
            normal of standard deviation 0.05 where there is none.
        embeddings_l2_reg: l adds ``l * sum(e ** 2)`` over the batch's embeddings to the loss, as Merlin Models does: over the
            vectors that come out, for a list the pooled one. Rows that a batch does not read are not changed by it.
        combiner: how several ids of an example become one vector: "mean", "sum", "sqrtn" or "max".
        embeddings_regularizer: a Keras regularizer for all tables, or None. It is one of all rows, so such tables are not
            trained by rows; ``embeddings_l2_reg`` and ``embeddings_rows_l2_reg`` are the forms for what a batch reads.
        embeddings_rows_l2_reg: l, or feature or table -> l, adds ``l * sum(row ** 2)`` over the rows that a batch looks up;
            see ``TableConfig.rows_l2_reg``.

    Options by name may go to several blocks, each with a part of a schema: names of the whole schema are known to what
    ``select_by_...`` and ``remove_by_...`` make of it. A feature's name comes before its table's, the domain's.

    Raises:
        ValueError: in the blocks that take it, for a name that is no feature or table of theirs.

    Example:
        >>> import merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical(name, 9_999) for name in ("userId", "movieId")])
        >>> options = ml.EmbeddingOptions(infer_embedding_sizes=True, embedding_dims={"movieId": 32})
        >>> {feature.name: feature.table.output_dim for feature in options.features(schema)}
        {'movieId': 32, 'userId': 20}
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
    embeddings_rows_l2_reg: float | Mapping[str, float] = 0.0

    def features(self, schema: Schema) -> list[FeatureConfig]:
        """A feature for each of the schema's columns, in the order of names. In lists id 0 is padding.

        Raises:
            ValueError: as :meth:`table_configs`.
        """
        tables = self.table_configs(schema)
        return [
            FeatureConfig(column.name, tables[column.domain_name], padding_id=0 if column.is_list else None)
            for column in sorted(schema, key=lambda column: column.name)
        ]

    def table_configs(self, schema: Schema) -> dict[str, TableConfig]:
        """Table name -> table, one for each domain of the schema's columns.

        Raises:
            ValueError: if a column has no int_domain, or columns of one domain differ in their largest id or
                their options; if an option names what is no feature or table of the schema.
        """
        for option in ("embedding_dims", "embeddings_initializers", "embeddings_rows_l2_reg"):
            check_names(option, getattr(self, option), schema)
        groups: dict[str, list[ColumnSchema]] = {}
        for column in schema:
            groups.setdefault(column.domain_name, []).append(column)
        return {name: self._table(name, columns) for name, columns in groups.items()}

    def _table(self, name: str, columns: list[ColumnSchema]) -> TableConfig:
        rows = {column.name: column.cardinality for column in columns}
        if len(set(rows.values())) > 1:
            raise ValueError(f"Columns of the domain '{name}' must have one largest id. Received rows: {rows}")
        cardinality = next(iter(rows.values()))
        dim = only_value("embedding_dims", self.embedding_dims or {}, name, rows)
        if dim is None:
            dim = self._inferred(columns[0]) if self.infer_embedding_sizes else self.embedding_dim_default
        initializer = self.embeddings_initializers
        if is_by_feature(initializer):
            initializer = only_value("embeddings_initializers", initializer, name, rows)
        if initializer is None:
            initializer = keras.initializers.TruncatedNormal(stddev=0.05)
        initializer = keras.initializers.get(initializer)
        if not isinstance(initializer, TensorInitializer):
            # A copy a table: one initializer object gives every table of a shape the same numbers.
            initializer = type(initializer).from_config(initializer.get_config())
        rows_l2_reg: Any = self.embeddings_rows_l2_reg
        if isinstance(rows_l2_reg, Mapping):
            rows_l2_reg = only_value("embeddings_rows_l2_reg", rows_l2_reg, name, rows) or 0.0
        return TableConfig(
            name,
            cardinality,
            dim,
            combiner=self.combiner,
            initializer=initializer,
            regularizer=keras.regularizers.get(self.embeddings_regularizer),
            rows_l2_reg=rows_l2_reg,
        )

    def _inferred(self, column: ColumnSchema) -> int:
        multiple_of_8 = self.infer_embeddings_ensure_dim_multiple_of_8
        return infer_embedding_dim(column, self.infer_embedding_sizes_multiplier, multiple_of_8)


def check_names(option: str, value: Any, schema: Schema) -> None:
    """Checks an option by name; others pass.

    Raises:
        ValueError: if a name is no feature or table, of the schema or of what it was selected from.
    """
    known = schema.table_keys
    unknown = sorted(str(name) for name in value if name not in known) if is_by_feature(value) else []
    if unknown:
        raise ValueError(f"{option} must name features or tables of the schema, {sorted(known)}. Received: {unknown}")


def only_value(option: str, by_feature: Mapping[str, Any], table: str, features: Iterable[str]) -> Any:
    """What an option says of a table through any of its features, else by the table's name, or None.

    Raises:
        ValueError: if it says different things.
    """
    given = {name: by_feature[name] for name in features if name in by_feature}
    values = list(given.values())
    if any(value != values[0] for value in values):
        raise ValueError(f"{option} must agree for features of one table, '{table}'. Received: {given}")
    return values[0] if values else by_feature.get(table)


def is_by_feature(option: Any) -> bool:
    """Whether an option is one by name, not the config of an initializer."""
    return isinstance(option, Mapping) and "class_name" not in option


def selected(schema: Schema, tags: Tags | str | Sequence[str] | None = None) -> Schema:
    """The columns with any of the tags, or all.

    Raises:
        ValueError: if there is none.
    """
    chosen = schema if tags is None else schema.select_by_tag(tags)
    if not len(chosen):
        raise ValueError(f"schema must have a column for an embedding. Received: none (tags: {tags})")
    return chosen


def infer_embedding_dim(column: ColumnSchema, multiplier: float = 2.0, multiple_of_8: bool = True) -> int:
    """``ceil(cardinality ** 0.25 * multiplier)``, rounded up to a multiple of 8.

    Args:
        column: with an ``int_domain``.
        multiplier: see above.
        multiple_of_8: whether the result is rounded up.

    Returns:
        An int.

    Raises:
        ValueError: if the column has no ``int_domain``.

    Example:
        >>> from merlin_models.blocks import infer_embedding_dim
        >>> from merlin_models.schema import ColumnSchema
        >>> infer_embedding_dim(ColumnSchema.create_categorical("movieId", 10_000))
        24
    """
    dim = math.ceil(column.cardinality**0.25 * multiplier)
    return math.ceil(dim / 8) * 8 if multiple_of_8 else dim
