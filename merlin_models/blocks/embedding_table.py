"""EmbeddingTable: one table, read by the columns of one domain; Embeddings: the tables of a schema."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import register
from merlin_models.blocks.combinators import as_features
from merlin_models.blocks.embedding_features import EmbeddingFeatures
from merlin_models.blocks.embedding_files import TensorInitializer, frame_of, matrix_of, write_parquet
from merlin_models.blocks.symbolic import is_symbolic, parts_from_config, rank_of
from merlin_models.blocks.tabular import TabularBlock
from merlin_models.layers import EmbeddingBagCollection, FeatureConfig, TableConfig
from merlin_models.schema import ColumnSchema, Schema, Tags

_COMBINERS = ("mean", "sum", "sqrtn", "max")


@register
class EmbeddingTable(TabularBlock):
    """An embedding table for one or several columns of a domain.

    Args:
        dim: length of a row.
        *col_schemas: the columns that read the table, at least one; all of one domain. The table has
            ``int_domain.max + 1`` rows.
        sequence_combiner: how the ids of a list become one vector: "mean", "sum", "sqrtn", "max" (id 0 is padding then), or
            a layer on (batch, length, dim). None keeps (batch, length, dim).
        mask_zero: whether lists without a combiner get a mask of the ids that are not 0.
        trainable: False freezes the table.
        l2_batch_regularization_factor: f adds ``f * sum(e ** 2)`` over the batch's outputs to the loss.
        embeddings_initializer, embeddings_regularizer: Keras identifiers or objects. A regularizer is one of all rows: such
            a table is not trained by rows.
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
        schema: Schema | None = None,
        **kwargs: Any,
    ):
        columns = list(col_schemas) or list(schema or ())
        if not columns or not all(isinstance(column, ColumnSchema) for column in columns):
            raise ValueError(f"col_schemas must hold at least one ColumnSchema. Received: {columns}")
        if isinstance(sequence_combiner, str) and sequence_combiner not in _COMBINERS:
            raise ValueError(
                f"sequence_combiner must be None, a layer or one of {_COMBINERS}. Received: {sequence_combiner!r}"
            )
        if l2_batch_regularization_factor < 0:
            raise ValueError(
                f"l2_batch_regularization_factor must not be negative. Received: {l2_batch_regularization_factor}"
            )
        for column in columns[1:]:
            _check_same_domain(columns[0], column)
        super().__init__(schema=Schema(columns), **kwargs)
        self.dim, self.sequence_combiner, self.mask_zero = dim, sequence_combiner, bool(mask_zero)
        self.l2_batch_regularization_factor = float(l2_batch_regularization_factor)
        self.table_config = TableConfig(
            columns[0].domain_name,
            columns[0].cardinality,
            dim,
            combiner=sequence_combiner if isinstance(sequence_combiner, str) else "sum",
            initializer=embeddings_initializer,
            regularizer=embeddings_regularizer,
            trainable=trainable,
        )
        self.collection = EmbeddingBagCollection([self._feature(c) for c in columns], dtype=self.dtype_policy)
        self.supports_masking = True

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
    def table(self) -> keras.Variable:
        """The variable (rows, dim)."""
        return self.collection.tables[self.table_config.name]

    @property
    def input_dim(self) -> int:
        return self.table_config.input_dim

    @property
    def feature_names(self) -> list[str]:
        return [feature.name for feature in self.collection.features]

    def add_feature(self, col_schema: ColumnSchema) -> None:
        """Lets another column of the domain read the table.

        Raises:
            ValueError: if its domain or its largest id is another one, or the table has a column of that name.
        """
        _check_same_domain(self.schema.first, col_schema)
        if col_schema.name in self.feature_names:
            raise ValueError(
                f"col_schema must have a new name. Received: {col_schema.name!r}, known: {self.feature_names}"
            )
        self._schema = Schema([*self.schema, col_schema])
        self.collection.features.append(self._feature(col_schema))

    def select_by_tag(self, tags: Tags | str | Sequence[str]) -> EmbeddingTable | None:
        """The table, if any of its columns has any of the tags, or None."""
        return self if len(self.schema.select_by_tag(tags)) else None

    def _feature(self, column: ColumnSchema) -> FeatureConfig:
        pooled = column.is_list and isinstance(self.sequence_combiner, str)
        return FeatureConfig(column.name, self.table_config, padding_id=0 if pooled else None)

    # ---- running ----

    def transform(self, inputs: Any) -> Any:
        bare = not isinstance(inputs, Mapping)
        inputs = as_features(inputs, self.schema)
        missing = [name for name in self.feature_names if name not in inputs]
        if missing:
            raise ValueError(
                f"inputs must have the columns {self.feature_names}. Received: {sorted(inputs)}; missing: {missing}"
            )
        ids, shape_again = {}, {}
        for column in self.schema:
            value = inputs[column.name]
            if column.is_list and not isinstance(self.sequence_combiner, str):
                ids[column.name], shape_again[column.name] = _one_by_one(column.name, value, self.dim)
            else:
                ids[column.name] = value
        outputs = dict(self.collection(ids))
        for name, shape in shape_again.items():
            outputs[name] = shape(outputs[name])
            if self.sequence_combiner is not None:
                outputs[name] = self.sequence_combiner(outputs[name])
        if self.l2_batch_regularization_factor and not is_symbolic(outputs):
            for output in outputs.values():
                flat = getattr(output, "flat_values", output)
                squares = ops.sum(ops.square(ops.cast(flat, "float32")))
                self.add_loss(self.l2_batch_regularization_factor * squares)
        return next(iter(outputs.values())) if bare else outputs

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        if not self.mask_zero or self.sequence_combiner is not None:
            return None
        if isinstance(inputs, Mapping):
            return {name: self._mask(inputs.get(name)) for name in self.feature_names}
        return self._mask(inputs)

    def _mask(self, ids: Any) -> Any:
        is_dense = hasattr(ids, "shape") and not hasattr(ids, "row_splits") and not hasattr(ids, "dense_shape")
        return ops.not_equal(ids, 0) if is_dense and rank_of(ids) == 2 else None

    # ---- saving ----

    def get_config(self) -> dict[str, Any]:
        table = self.table_config.get_config()
        combiner = self.sequence_combiner
        return {
            **super().get_config(),
            "dim": self.dim,
            "sequence_combiner": combiner if combiner is None or isinstance(combiner, str) else _serialized(combiner),
            "mask_zero": self.mask_zero,
            "trainable": table["trainable"],
            "l2_batch_regularization_factor": self.l2_batch_regularization_factor,
            "embeddings_initializer": table["initializer"],
            "embeddings_regularizer": table["regularizer"],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EmbeddingTable:
        return cls(**parts_from_config(config))


def _serialized(layer: keras.layers.Layer) -> dict[str, Any]:
    return keras.saving.serialize_keras_object(layer)


def _check_same_domain(first: ColumnSchema, other: ColumnSchema) -> None:
    if (other.domain_name, other.cardinality) != (first.domain_name, first.cardinality):
        raise ValueError(
            f"Columns of a table must have one domain: '{first.domain_name}' with ids up to {first.cardinality - 1}. "
            f"Received: '{other.domain_name}' with ids up to {other.cardinality - 1}, of column '{other.name}'"
        )


def _one_by_one(name: str, ids: Any, dim: int) -> tuple[Any, Callable[[Any], Any]]:
    """The ids of a list as bags of one, and what gives the rows the list's form again."""
    if hasattr(ids, "with_values"):
        return ids.values, ids.with_values
    if isinstance(ids, tuple | list) or hasattr(ids, "dense_shape"):
        raise ValueError(
            f"The list '{name}' must be a dense or ragged tensor without a sequence_combiner. "
            f"Received: {type(ids).__name__}"
        )
    ids = ops.convert_to_tensor(ids)
    length = ids.shape[1] if rank_of(ids) == 2 else 1
    length = ops.shape(ids)[1] if length is None else length
    return ops.reshape(ids, (-1, 1)), lambda rows: ops.reshape(rows, (-1, length, dim))


def infer_embedding_dim(column: ColumnSchema, multiplier: float = 2.0, multiple_of_8: bool = True) -> int:
    """``ceil(cardinality ** 0.25 * multiplier)``, rounded up to a multiple of 8.

    Example:
        >>> from merlin_models.blocks import infer_embedding_dim
        >>> from merlin_models.schema import ColumnSchema
        >>> infer_embedding_dim(ColumnSchema.create_categorical("movieId", 10_000))
        24
    """
    dim = math.ceil(column.cardinality**0.25 * multiplier)
    return math.ceil(dim / 8) * 8 if multiple_of_8 else dim


def Embeddings(
    schema: Schema,
    dim: int | Mapping[str, int] | None = None,
    infer_dim_fn: Callable[[ColumnSchema], int] = infer_embedding_dim,
    sequence_combiner: str = "mean",
    embeddings_initializer: Any = "uniform",
    embeddings_regularizer: Any = None,
    trainable: bool | Mapping[str, bool] = True,
    **kwargs: Any,
) -> EmbeddingFeatures:
    """The tables of a schema's categorical columns, all read by one op.

    Args:
        schema: the columns; those of one domain share a table.
        dim: of all tables, or a dictionary by column or domain name; where it says nothing ``infer_dim_fn`` does.
        infer_dim_fn: length of the rows for a column.
        sequence_combiner: how lists are pooled.
        embeddings_initializer, embeddings_regularizer: one for all, or a dictionary by column or domain name.
        trainable: the same.
        **kwargs: of :class:`EmbeddingFeatures`.

    Returns:
        A block whose tables are reachable by name: ``block.table("movieId")``.

    Example:
        >>> from merlin_models.blocks import Embeddings
        >>> from merlin_models.schema import ColumnSchema, Schema
        >>> block = Embeddings(Schema([ColumnSchema.create_categorical("movieId", 1000)]), dim=16)
        >>> tuple(block.table("movieId").shape)
        (1001, 16)
    """
    tables: dict[str, TableConfig] = {}
    first: dict[str, ColumnSchema] = {}
    for column in schema:
        domain = column.domain_name
        _check_same_domain(first.setdefault(domain, column), column)

        def given(option: Any, default: Any, column: ColumnSchema = column, domain: str = domain) -> Any:
            if not isinstance(option, Mapping) or "class_name" in option:
                return default if option is None else option
            return option.get(column.name, option.get(domain, default))

        if domain in tables:
            continue
        initializer = keras.initializers.get(given(embeddings_initializer, "uniform"))
        tables[domain] = TableConfig(
            domain,
            column.cardinality,
            given(dim, None) or infer_dim_fn(column),
            combiner=sequence_combiner,
            initializer=type(initializer).from_config(initializer.get_config())
            if not isinstance(initializer, TensorInitializer)
            else initializer,
            regularizer=given(embeddings_regularizer, None),
            trainable=given(trainable, True),
        )
    features = [
        FeatureConfig(column.name, tables[column.domain_name], padding_id=0 if column.is_list else None)
        for column in sorted(schema, key=lambda column: column.name)
    ]
    return EmbeddingFeatures(features, schema=schema, **kwargs)
