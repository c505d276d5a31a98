"""EmbeddingTable: one table, read by the columns of one domain; Embeddings: the tables of a schema."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import register
from merlin_models.blocks.combinators import as_features
from merlin_models.blocks.embedding_features import EmbeddingFeatures, weight_columns
from merlin_models.blocks.ragged_layers import run_layer
from merlin_models.blocks.sequence_aggregator import AverageEmbeddingsByWeightFeature, as_combiner
from merlin_models.blocks.sequence_embeddings import SequenceEmbeddingFeatures, one_by_one
from merlin_models.blocks.symbolic import is_symbolic, parts_from_config
from merlin_models.blocks.tabular import TabularBlock
from merlin_models.layers import EmbeddingBagCollection, FeatureConfig, TableConfig
from merlin_models.layers.embedding_files import TensorInitializer, frame_of, matrix_of, write_parquet
from merlin_models.layers.embedding_options import check_names, infer_embedding_dim, is_by_feature, only_value
from merlin_models.schema import ColumnSchema, Schema, Tags


@register
class EmbeddingTable(TabularBlock):
    """An embedding table for one or several columns of a domain.

    Args:
        dim: length of a row.
        *col_schemas: the columns that read the table, at least one; all of one domain. The table has
            ``int_domain.max + 1`` rows.
        sequence_combiner: how the ids of a list become one vector: "mean", "sum", "sqrtn", "max", an
            ``AverageEmbeddingsByWeightFeature`` (id 0 is padding then), or a layer on (batch, length, dim). None keeps
            (batch, length, dim).
        mask_zero: whether the vectors of dense lists have a Keras mask of the ids that are not 0; for lists without a
            combiner, and for combiners that are layers.
        trainable: False freezes the table, until ``trainable`` is set to True and the model is compiled again.
        l2_batch_regularization_factor: f adds ``f * sum(e ** 2)`` over the batch's outputs to the loss, after the combiner.
        embeddings_initializer, embeddings_regularizer: Keras identifiers or objects. A regularizer is one of all rows: such
            a table is not trained by rows.
        rows_l2_reg: f adds ``f * sum(row ** 2)`` over the rows that a batch looks up; see ``TableConfig``.
        schema: the columns, in the place of ``col_schemas``.
        pre, post, aggregation: as in :class:`TabularBlock`.

    Call arguments:
        inputs: dictionary column -> ids, (batch,), (batch, 1) or, for lists, (batch, length), ragged, sparse or (values,
            row_splits); or bare ids where one column reads the table.

    Returns:
        Dictionary column -> (batch, dim), or for lists without a combiner (batch, length, dim), ragged for ragged ids; for
        bare ids the bare tensor.

    Raises:
        ValueError: if columns differ in domain or largest id; for sparse lists without a combiner.

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import EmbeddingTable
        >>> from merlin_models.schema import ColumnSchema
        >>> table = EmbeddingTable(16, ColumnSchema.create_categorical("movieId", 1000))
        >>> table(np.array([1, 2])).shape
        TensorShape([2, 16])
    """

    is_input = True

    def __init__(
        self,
        dim: int,
        *col_schemas: ColumnSchema,
        sequence_combiner: str | keras.layers.Layer | None = None,
        mask_zero: bool = False,
        trainable: bool = True,
        l2_batch_regularization_factor: float = 0.0,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        rows_l2_reg: float = 0.0,
        schema: Schema | None = None,
        **kwargs: Any,
    ):
        if col_schemas and schema is not None:
            raise ValueError("schema must be None where col_schemas are given: it is another way to give them.")
        columns = list(col_schemas) or list(schema or ())
        if not columns or not all(isinstance(column, ColumnSchema) for column in columns):
            raise ValueError(f"col_schemas must hold at least one ColumnSchema. Received: {columns}")
        sequence_combiner = as_combiner(sequence_combiner)
        if l2_batch_regularization_factor < 0:
            raise ValueError(
                f"l2_batch_regularization_factor must not be negative. Received: {l2_batch_regularization_factor}"
            )
        for column in columns[1:]:
            _check_same_domain(columns[0], column)
        # With a combiner that is a layer, the table alone is frozen.
        own = trainable or isinstance(sequence_combiner, keras.layers.Layer)
        super().__init__(schema=Schema(columns), trainable=own, **kwargs)
        self.dim, self.sequence_combiner, self.mask_zero = dim, sequence_combiner, bool(mask_zero)
        self.l2_batch_regularization_factor = float(l2_batch_regularization_factor)
        self.table_config = TableConfig(
            columns[0].domain_name,
            columns[0].cardinality,
            dim,
            combiner=sequence_combiner
            if isinstance(sequence_combiner, str)
            else "mean"
            if self._weight_name
            else "sum",
            initializer=embeddings_initializer,
            regularizer=embeddings_regularizer,
            trainable=trainable,
            rows_l2_reg=rows_l2_reg,
        )
        self.collection = EmbeddingBagCollection([self._feature(c) for c in columns], dtype=self.dtype_policy)

    # ---- made of data ----

    @classmethod
    def from_pretrained(
        cls, data: Any, *col_schemas: ColumnSchema, name: str = "embeddings", trainable: bool = True, **kwargs: Any
    ) -> EmbeddingTable:
        """A table of given rows.

        Args:
            data: array (rows, dim), DataFrame or the path of a Parquet file; row i is that of id i.
            *col_schemas: the columns; a column ``name`` if there are none.
            trainable, **kwargs: as for the class.

        Raises:
            ValueError: if the rows are not as many as the domain has ids.
        """
        matrix = matrix_of(data)
        columns = col_schemas or (ColumnSchema.create_categorical(name, len(matrix) - 1),)
        if columns[0].cardinality != len(matrix):
            raise ValueError(
                f"data must have {columns[0].cardinality} rows, one for each id of '{columns[0].domain_name}'. "
                f"Received: {len(matrix)}"
            )
        initializer = TensorInitializer(matrix)
        return cls(matrix.shape[1], *columns, trainable=trainable, embeddings_initializer=initializer, **kwargs)

    @classmethod
    def from_dataset(cls, data: Any, *col_schemas: ColumnSchema, **kwargs: Any) -> EmbeddingTable:
        """:meth:`from_pretrained` of a DataFrame or the path of a Parquet file, such as :meth:`to_dataset` writes."""
        return cls.from_pretrained(data, *col_schemas, **kwargs)

    def to_df(self, l2_normalization: bool = False) -> Any:
        """A pandas DataFrame: a row an id, a column a dimension."""
        return frame_of(ops.convert_to_numpy(ops.cast(self.table, "float32")), l2_normalization)

    def to_dataset(self, path: str | os.PathLike) -> None:
        """Writes a Parquet file with the columns "id" and "embedding"."""
        write_parquet(ops.convert_to_numpy(ops.cast(self.table, "float32")), path)

    # ---- its parts ----

    @property
    def schema(self) -> Schema:
        """The columns, and the weights of their ids."""
        return self._schema + weight_columns({self._weight_name} - {None, *self._schema.column_names})

    @property
    def _weight_name(self) -> str | None:
        combiner = self.sequence_combiner
        return combiner.weight_feature_name if isinstance(combiner, AverageEmbeddingsByWeightFeature) else None

    @property
    def table(self) -> keras.Variable:
        """The variable (rows, dim)."""
        return self.collection.tables[self.table_config.name]

    @property
    def input_dim(self) -> int:
        """Number of rows."""
        return self.table_config.input_dim

    @property
    def feature_names(self) -> list[str]:
        """The columns that read the table."""
        return [feature.name for feature in self.collection.features]

    def add_feature(self, col_schema: ColumnSchema) -> None:
        """Lets another column of the domain read the table.

        Raises:
            ValueError: if its domain or its largest id is another one, or the table has a column of that name.
        """
        _check_same_domain(self._schema.first, col_schema)
        if col_schema.name in self.feature_names:
            raise ValueError(
                f"col_schema must have a new name. Received: {col_schema.name!r}, known: {self.feature_names}"
            )
        self._schema = Schema([*self._schema, col_schema])
        self.collection.features.append(self._feature(col_schema))

    def select_by_tag(self, tags: Tags | str | Sequence[str]) -> EmbeddingTable | None:
        """The table, if any of its columns has any of the tags, or None."""
        return self if len(self._schema.select_by_tag(tags)) else None

    def _feature(self, column: ColumnSchema) -> FeatureConfig:
        return FeatureConfig(column.name, self.table_config, padding_id=0 if self._pools(column) else None)

    def _pools(self, column: ColumnSchema) -> bool:
        """Whether the lookup itself makes one vector of the column's lists."""
        return column.is_list and (isinstance(self.sequence_combiner, str) or self._weight_name is not None)

    # ---- running ----

    def transform(self, inputs: Any) -> Any:
        bare = not isinstance(inputs, Mapping)
        inputs = as_features(inputs, self.schema)
        missing = [name for name in self.schema.column_names if name not in inputs]
        if missing:
            raise ValueError(
                f"inputs must have the columns {self.schema.column_names}. Received: {sorted(inputs)}; missing: {missing}"
            )
        ids, weights, form = {}, {}, {}
        for column in self._schema:
            name = column.name
            ids[name] = inputs[name]
            if column.is_list and not self._pools(column):
                ids[name], form[name] = one_by_one(name, ids[name], self.dim, 0 if self.mask_zero else None)
            elif column.is_list and self._weight_name is not None:
                weights[name] = inputs[self._weight_name]
        outputs = dict(self.collection(ids, weights or None))
        for name, in_form in form.items():
            outputs[name] = in_form(outputs[name])
            if self.sequence_combiner is not None:
                outputs[name] = run_layer(self.sequence_combiner, outputs[name])
        if self.l2_batch_regularization_factor and not is_symbolic(outputs):
            for output in outputs.values():
                flat = getattr(output, "flat_values", output)
                squares = ops.sum(ops.square(ops.cast(flat, "float32")))
                self.add_loss(self.l2_batch_regularization_factor * squares)
        return next(iter(outputs.values())) if bare else outputs

    # ---- saving ----

    def get_config(self) -> dict[str, Any]:
        table = self.table_config.get_config()
        combiner = self.sequence_combiner
        return {
            **super().get_config(),
            "dim": self.dim,
            "sequence_combiner": combiner if combiner is None or isinstance(combiner, str) else _serialized(combiner),
            "mask_zero": self.mask_zero,
            "trainable": self.trainable and self.collection.trains(table["name"]),
            "block_trainable": self.trainable,
            "l2_batch_regularization_factor": self.l2_batch_regularization_factor,
            "embeddings_initializer": table["initializer"],
            "embeddings_regularizer": table["regularizer"],
            "rows_l2_reg": table["rows_l2_reg"],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EmbeddingTable:
        config = parts_from_config(config)
        block_trainable = config.pop("block_trainable", True)
        table = cls(**config)
        if not block_trainable:
            table.trainable = False
        return table


def _serialized(layer: keras.layers.Layer) -> dict[str, Any]:
    return keras.saving.serialize_keras_object(layer)


def _check_same_domain(first: ColumnSchema, other: ColumnSchema) -> None:
    if (other.domain_name, other.cardinality) != (first.domain_name, first.cardinality):
        raise ValueError(
            f"Columns of a table must have one domain: '{first.domain_name}' with ids up to {first.cardinality - 1}. "
            f"Received: '{other.domain_name}' with ids up to {other.cardinality - 1}, of column '{other.name}'"
        )


def Embeddings(
    schema: Schema,
    dim: int | Mapping[str, int] | None = None,
    infer_dim_fn: Callable[[ColumnSchema], int] = infer_embedding_dim,
    sequence_combiner: Any = "mean",
    embeddings_initializer: Any = "uniform",
    embeddings_regularizer: Any = None,
    trainable: bool | Mapping[str, bool] = True,
    l2_batch_regularization_factor: float | Mapping[str, float] = 0.0,
    rows_l2_reg: float | Mapping[str, float] = 0.0,
    **kwargs: Any,
) -> EmbeddingFeatures:
    """The tables of a schema's categorical columns, all read by one op.

    Args:
        schema: the columns; those of one domain share a table.
        dim: of all tables, or a dictionary by column or domain name; where it says nothing ``infer_dim_fn`` does.
        infer_dim_fn: length of the rows for a column.
        sequence_combiner: how lists are pooled: "mean", "sum", "sqrtn", "max", an ``AverageEmbeddingsByWeightFeature``, a
            layer on (batch, length, dim), which is copied for each list, or None to keep that; or a dictionary of these by
            column or domain name, "mean" where it says nothing. Columns of one table must not name different ones.
        embeddings_initializer, embeddings_regularizer: one for all, or a dictionary by column or domain name.
        trainable: the same.
        l2_batch_regularization_factor: f adds ``f * sum(e ** 2)`` over the batch's outputs to the loss: over pooled
            vectors, and over those of each id for lists that are kept or get a layer. One for all, or a dictionary by column.
        rows_l2_reg: f adds ``f * sum(row ** 2)`` over the rows that a batch looks up (``TableConfig``). One for all, or a
            dictionary by column or domain name.
        **kwargs: of :class:`EmbeddingFeatures`.

    Returns:
        A block whose tables are reachable by name: ``block.table("movieId")``; a ``SequenceEmbeddingFeatures`` if a list
        stays one.

    Raises:
        ValueError: if an option names what is no column or domain, of the schema or of what it was selected from; if what
            it says of columns of one table differs.

    Example:
        >>> from merlin_models.blocks import Embeddings
        >>> from merlin_models.schema import ColumnSchema, Schema
        >>> block = Embeddings(Schema([ColumnSchema.create_categorical("movieId", 1000)]), dim=16)
        >>> tuple(block.table("movieId").shape)
        (1001, 16)
    """
    options = {
        "dim": dim,
        "embeddings_initializer": embeddings_initializer,
        "embeddings_regularizer": embeddings_regularizer,
        "trainable": trainable,
        "rows_l2_reg": rows_l2_reg,
    }
    for name, option in {**options, "sequence_combiner": sequence_combiner}.items():
        check_names(name, option, schema)
    by_name = sequence_combiner if isinstance(sequence_combiner, Mapping) else None
    combiners = {
        column.name: as_combiner(
            sequence_combiner if by_name is None else by_name.get(column.name, by_name.get(column.domain_name, "mean"))
        )
        for column in schema
        if column.is_list
    }
    domains: dict[str, list[ColumnSchema]] = {}
    for column in schema:
        domains.setdefault(column.domain_name, []).append(column)
        _check_same_domain(domains[column.domain_name][0], column)
    tables: dict[str, TableConfig] = {}
    for domain, columns in domains.items():
        given = {name: _of_table(name, option, domain, columns) for name, option in options.items()}
        initializer = keras.initializers.get(given["embeddings_initializer"] or "uniform")
        tables[domain] = TableConfig(
            domain,
            columns[0].cardinality,
            given["dim"] or infer_dim_fn(columns[0]),
            combiner=_table_combiner(domain, [combiners[column.name] for column in columns if column.is_list]),
            initializer=type(initializer).from_config(initializer.get_config())
            if not isinstance(initializer, TensorInitializer)
            else initializer,
            regularizer=given["embeddings_regularizer"],
            trainable=True if given["trainable"] is None else given["trainable"],
            rows_l2_reg=given["rows_l2_reg"] or 0.0,
        )
    weights = {
        name: combiner.weight_feature_name
        for name, combiner in combiners.items()
        if isinstance(combiner, AverageEmbeddingsByWeightFeature)
    }
    sequences = {name: combiner for name, combiner in combiners.items() if not _is_pooled(combiner)}
    features = [
        FeatureConfig(
            column.name,
            tables[column.domain_name],
            padding_id=0 if column.is_list else None,
        )
        for column in sorted(schema, key=lambda column: column.name)
    ]
    if "l2_reg" in kwargs and l2_batch_regularization_factor:
        raise ValueError("l2_reg and l2_batch_regularization_factor are one thing and must not be given together.")
    shared = {
        "l2_reg": kwargs.pop("l2_reg", l2_batch_regularization_factor),
        "weight_features": weights,
        "schema": schema,
    }
    if sequences:
        return SequenceEmbeddingFeatures(features, sequence_combiners=sequences, **shared, **kwargs)
    return EmbeddingFeatures(features, **shared, **kwargs)


def _of_table(name: str, option: Any, domain: str, columns: Sequence[ColumnSchema]) -> Any:
    """What an option, which may be a dictionary by column or domain, says of a table, or None."""
    if not is_by_feature(option):
        return option
    return only_value(name, option, domain, [column.name for column in columns])


def _table_combiner(name: str, combiners: Sequence[Any]) -> str:
    """The combiner of a table, which is that of all the lists that it pools."""
    found = {"mean" if isinstance(c, AverageEmbeddingsByWeightFeature) else c for c in combiners if _is_pooled(c)}
    if len(found) > 1:
        raise ValueError(f"Lists of one table, '{name}', must have one combiner. Received: {sorted(found)}")
    return found.pop() if found else "mean"


def _is_pooled(combiner: Any) -> bool:
    return isinstance(combiner, str | AverageEmbeddingsByWeightFeature)
