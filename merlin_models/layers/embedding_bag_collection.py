"""EmbeddingBagCollection: the embedding tables of a model, looked up and pooled by one op."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from merlin_models.layers.checkpoints import InCheckpoints
from merlin_models.layers.embedding_files import frame_of, matrix_of, write_parquet
from merlin_models.layers.embedding_options import EmbeddingOptions, selected
from merlin_models.layers.table_config import TABLE_DTYPES, FeatureConfig, TableConfig, factor_of
from merlin_models.ops.bags import Bags, batch_of, to_bags
from merlin_models.ops.embedding_bag import embedding_bag
from merlin_models.schema import Schema, Tags


@keras.saving.register_keras_serializable(package="merlin_models")
class EmbeddingBagCollection(InCheckpoints, keras.layers.Layer):
    """All embedding tables of a model, with one op for all lookups.

    Pools each feature's multi-hot ids over its table's rows; see :func:`merlin_models.ops.embedding_bag` for the maths and
    for what happens to ids out of range.

    Args:
        features: a :class:`FeatureConfig` a feature, names unique; :meth:`from_schema` makes them of a schema.
        output: "dict" for a dictionary name -> (batch, output_dim), or "concat" for one tensor
            (batch, sum of output_dims) in the order of ``features``.
        l2_reg: l, or a dictionary feature -> l, adds ``l * sum(e ** 2)`` over the outputs to the loss. For a penalty on the
            rows that are looked up see ``TableConfig.rows_l2_reg``. Neither reads or moves other rows.

    Call arguments:
        inputs: dictionary name -> ids, in any form that :func:`merlin_models.ops.to_bags` takes: dense (batch,) or
            (batch, length), ragged, sparse, or (values, row_splits). Other keys are ignored.
        weights: optional dictionary name -> weights, of the form of the ids, for some or all features.

    Returns:
        Tensors of the layer's compute dtype.

    Example:
        >>> import numpy as np
        >>> from merlin_models.layers import EmbeddingBagCollection, FeatureConfig, TableConfig
        >>> movies, genres = TableConfig("movie", 1000, 64), TableConfig("genre", 20, 16)
        >>> layer = EmbeddingBagCollection([FeatureConfig("movie", movies), FeatureConfig("genres", genres, 0)])
        >>> out = layer({"movie": np.array([7, 8]), "genres": np.array([[3, 4, 0], [5, 0, 0]])})
        >>> out["movie"].shape, out["genres"].shape
        (TensorShape([2, 64]), TensorShape([2, 16]))

    Reference:
        Naumov et al., Deep Learning Recommendation Model for Personalization and Recommendation Systems, 2019,
        https://arxiv.org/abs/1906.00091
    """

    def __init__(
        self,
        features: Sequence[FeatureConfig],
        output: str = "dict",
        l2_reg: float | Mapping[str, float] = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.features = list(features)
        if not self.features:
            raise ValueError("features must hold at least one FeatureConfig. Received: none")
        if output not in ("dict", "concat"):
            raise ValueError(f"output must be 'dict' or 'concat'. Received: {output!r}")
        self.output_form = output
        self.table_configs: dict[str, TableConfig] = {}
        for feature in self.features:
            known = self.table_configs.setdefault(feature.table.name, feature.table)
            if known is not feature.table and known.get_config() != feature.table.get_config():
                raise ValueError(
                    f"Tables of one name must be equal. Received: two different tables named '{feature.table.name}'"
                )
        names = [feature.name for feature in self.features]
        if len(set(names)) != len(names):
            raise ValueError(f"Names of features must be unique. Received: {names}")
        self.l2_reg = _checked(l2_reg, names)
        dtypes = {table.dtype or self.variable_dtype for table in self.table_configs.values()}
        if len(dtypes) > 1:
            raise ValueError(f"Tables of one collection must have one dtype. Received: {sorted(dtypes)}")
        self.table_dtype = dtypes.pop()
        if self.table_dtype not in TABLE_DTYPES:
            raise ValueError(f"Tables must be float32, float16 or bfloat16. Received: {self.table_dtype}")
        self._output_dtype = self._choose_output_dtype()
        self._tables: dict[str, keras.Variable] = {}
        self.supports_jit = False  # the op has no XLA kernel

    @classmethod
    def from_schema(
        cls,
        schema: Schema,
        embedding_options: EmbeddingOptions | None = None,
        tags: Tags | str | Sequence[str] | None = None,
        **kwargs: Any,
    ) -> EmbeddingBagCollection:
        """Tables for a schema's columns, the same as those of ``EmbeddingFeatures.from_schema``.

        Columns whose domains have one name share a table of that name, of ``int_domain.max + 1`` rows. In list columns id 0
        is padding. The features are in the order of their names.

        Args:
            schema: the columns; all must have an int_domain.
            embedding_options: sizes, initializers, combiner and penalties.
            tags: only columns with any of these.
            **kwargs: of the class.

        Raises:
            TypeError: for embedding_options of another kind.
            ValueError: if no column is left, one has no int_domain, or columns of one domain differ in their largest id or
                their options.

        Example:
            >>> from merlin_models.layers import EmbeddingBagCollection, EmbeddingOptions
            >>> from merlin_models.schema import ColumnSchema, Schema
            >>> schema = Schema([ColumnSchema.create_categorical("movieId", 9999)])
            >>> layer = EmbeddingBagCollection.from_schema(schema, EmbeddingOptions(infer_embedding_sizes=True))
            >>> layer.table_config("movieId").output_dim
            20
        """
        options = EmbeddingOptions() if embedding_options is None else embedding_options
        if not isinstance(options, EmbeddingOptions):
            raise TypeError(f"embedding_options must be EmbeddingOptions. Received: {options!r}")
        kwargs.setdefault("l2_reg", options.embeddings_l2_reg)
        return cls(options.features(selected(schema, tags)), **kwargs)

    def _choose_output_dtype(self) -> str:
        """What the op writes: the compute dtype where it can, else float32, which is then cast."""
        fits = self.compute_dtype in ("float32", self.table_dtype)
        fits |= self.table_dtype == "float32" and self.compute_dtype in TABLE_DTYPES
        return self.compute_dtype if fits else "float32"

    def build(self, input_shape: Any = None) -> None:
        if self.built:
            return
        for table in self.table_configs.values():
            self._tables[table.name] = self.add_weight(
                name=table.name,
                shape=(table.input_dim, table.output_dim),
                initializer=keras.initializers.get(table.initializer),
                regularizer=keras.regularizers.get(table.regularizer),
                dtype=self.table_dtype,
                autocast=False,  # the op reads the variable itself, in place
            )
            self._tables[table.name].row_sparse = True  # see merlin_models.optimizers.RowSparse
            self._tables[table.name].trainable = table.trainable  # now, so that unfreezing the layer changes it
        self.built = True

    @property
    def tables(self) -> dict[str, keras.Variable]:
        """Table name -> Keras variable (rows, dim); builds the layer."""
        self.build()
        return dict(self._tables)

    def call(self, inputs: dict[str, Any], weights: dict[str, Any] | None = None) -> Any:
        bags = self.bags(inputs, weights)
        outputs = self._lookup(
            self.features,
            bags,
            [feature.table.combiner for feature in self.features],
            concat=self.output_form == "concat",
            output_dtype=self._output_dtype,
        )
        self._penalize_rows(bags, outputs)
        if self._output_dtype != self.compute_dtype:
            outputs = keras.tree.map_structure(lambda x: ops.cast(x, self.compute_dtype), outputs)
        self._penalize_outputs(outputs)
        if self.output_form == "concat":
            return outputs
        return {feature.name: output for feature, output in zip(self.features, outputs, strict=True)}

    def _lookup(self, features: Sequence[FeatureConfig], bags: list[Bags], combiners: list[str], **options: Any) -> Any:
        order = list(self.table_configs)
        return embedding_bag(
            [self._tables[name] for name in order],
            bags,
            [order.index(feature.table.name) for feature in features],
            combiners,
            names=[feature.name for feature in features],
            **options,
        )

    # ---- penalties ----

    @property
    def penalizes(self) -> bool:
        """Whether a call adds to the loss."""
        return any(self._l2_of(feature) or feature.table.rows_l2_reg for feature in self.features)

    def _l2_of(self, feature: FeatureConfig) -> float:
        return self.l2_reg.get(feature.name, 0.0) if isinstance(self.l2_reg, Mapping) else self.l2_reg

    def _penalize_outputs(self, outputs: Any) -> None:
        factors = [self._l2_of(feature) for feature in self.features]
        if self.output_form == "concat":
            if any(factors):
                factors = np.repeat(factors, [feature.table.output_dim for feature in self.features])
                self.add_loss(ops.sum(ops.square(ops.cast(outputs, "float32")) * factors.astype("float32")))
            return
        for factor, output in zip(factors, outputs, strict=True):
            if factor:
                self.add_loss(factor * _squares(output))

    def _penalize_rows(self, bags: list[Bags], outputs: Any) -> None:
        """Adds the tables' ``rows_l2_reg``. Bags of one id are rows already; the ids of others are looked up one by one."""
        apart: list[tuple[FeatureConfig, Bags]] = []
        for f, (feature, own) in enumerate(zip(self.features, bags, strict=True)):
            if not (feature.table.rows_l2_reg and self._tables[feature.table.name].trainable):
                continue
            one_id = own.row_splits is None and own.values.shape[1] == 1 and own.weights is None
            if one_id and self.output_form == "dict" and self._output_dtype == "float32":
                self.add_loss(feature.table.rows_l2_reg * _squares(outputs[f]))
            else:
                ids = ops.reshape(own.values, (-1, 1))
                apart.append((feature, Bags(ids, padding_id=own.padding_id)))
        if not apart:
            return
        features, one_by_one = zip(*apart, strict=True)
        rows = self._lookup(features, list(one_by_one), ["sum"] * len(apart), output_dtype="float32")
        for feature, vectors in zip(features, rows, strict=True):
            self.add_loss(feature.table.rows_l2_reg * _squares(vectors))

    # ---- tables by name ----

    def trains(self, table: str) -> bool:
        """Whether a table, by its name, is trained where the layer is: as it is now, not as it was configured."""
        if self.built and self.trainable:
            return self._tables[table].trainable
        return self.table_configs[table].trainable

    def table_config(self, feature: str) -> TableConfig:
        """The table that a feature reads. Raises KeyError for an unknown feature."""
        for config in self.features:
            if config.name == feature:
                return config.table
        raise KeyError(f"The layer has no feature {feature!r}; it has {[config.name for config in self.features]}")

    def table(self, name: str) -> keras.Variable:
        """The variable (rows, dim) of a table, by its name or a feature's. Raises KeyError for others."""
        tables = self.tables
        return tables[name] if name in tables else tables[self.table_config(name).name]

    def embedding_table_df(self, name: str, l2_normalization: bool = False) -> Any:
        """A table, by its name or a feature's, as a pandas DataFrame: a row an id, a column a dimension.

        Args:
            name: of the table or a feature.
            l2_normalization: whether rows are divided by their norm.
        """
        return frame_of(self._numbers(name), l2_normalization)

    def export_embedding_table(self, name: str, path: str | os.PathLike) -> None:
        """Writes a table, by its name or a feature's, as a Parquet file with the columns "id" and "embedding"."""
        write_parquet(self._numbers(name), path)

    def load_embedding_table(self, name: str, data: Any) -> None:
        """Sets a table, by its name or a feature's, to the rows of a Parquet file, a DataFrame or an array.

        Raises:
            ValueError: if their number or length is not the table's.
        """
        table, matrix = self.table(name), matrix_of(data)
        if matrix.shape != tuple(table.shape):
            raise ValueError(
                f"data must have the shape of table '{name}', {tuple(table.shape)}. Received: {matrix.shape}"
            )
        table.assign(ops.cast(matrix, table.dtype))

    def _numbers(self, name: str) -> Any:
        return ops.convert_to_numpy(ops.cast(self.table(name), "float32"))

    # ---- inputs ----

    def bags(self, inputs: dict[str, Any], weights: dict[str, Any] | None = None) -> list[Bags]:
        """What the op gets for the inputs of a call, in the order of ``features``."""
        self._check_inputs(inputs, weights)
        return [
            self._bags(feature, inputs[feature.name], (weights or {}).get(feature.name)) for feature in self.features
        ]

    def _bags(self, feature: FeatureConfig, ids: Any, weights: Any) -> Bags:
        return to_bags(ids, weights, feature.padding_id, feature.name)

    def _check_inputs(self, inputs: Any, weights: Any) -> None:
        names = [feature.name for feature in self.features]
        for argument, value in (("inputs", inputs), ("weights", weights)):
            if value is not None and not isinstance(value, dict):
                raise TypeError(
                    f"{argument} must be a dictionary from feature to tensor. Received: {type(value).__name__}"
                )
        missing = [name for name in names if name not in inputs]
        if missing:
            raise ValueError(f"inputs must have the features {names}. Received: {sorted(inputs)}; missing: {missing}")
        unknown = sorted(set(weights or {}) - set(names))
        if unknown:
            raise ValueError(f"weights must belong to one of the features {names}. Received: {unknown}")

    def compute_output_spec(self, inputs: dict[str, Any], weights: dict[str, Any] | None = None) -> Any:
        self._check_inputs(inputs, weights)
        batches = {feature.name: batch_of(inputs[feature.name]) for feature in self.features}
        dims = {feature.name: feature.table.output_dim for feature in self.features}
        if self.output_form == "concat":
            return keras.KerasTensor((next(iter(batches.values())), sum(dims.values())), self.compute_dtype)
        return {name: keras.KerasTensor((batches[name], dims[name]), self.compute_dtype) for name in batches}

    # ---- saving ----

    def get_config(self) -> dict[str, Any]:
        tables = [{**table.get_config(), "trainable": self.trains(name)} for name, table in self.table_configs.items()]
        features = [
            {"name": feature.name, "table": feature.table.name, "padding_id": feature.padding_id}
            for feature in self.features
        ]
        l2_reg = dict(self.l2_reg) if isinstance(self.l2_reg, Mapping) else self.l2_reg
        own = {"tables": tables, "features": features, "output": self.output_form, "l2_reg": l2_reg}
        return {**super().get_config(), **own}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EmbeddingBagCollection:
        config = dict(config)
        tables = {table["name"]: TableConfig(**table) for table in config.pop("tables")}
        features = [
            FeatureConfig(feature["name"], tables[feature["table"]], feature["padding_id"])
            for feature in config.pop("features")
        ]
        return cls(features, **config)


def _squares(vectors: Any) -> Any:
    return ops.sum(ops.square(ops.cast(vectors, "float32")))


def _checked(l2_reg: Any, names: list[str]) -> float | dict[str, float]:
    if not isinstance(l2_reg, Mapping):
        return factor_of("l2_reg", l2_reg)
    unknown = sorted(set(l2_reg) - set(names))
    if unknown:
        raise ValueError(f"l2_reg must be given for features of the layer, {names}. Received: {unknown}")
    return {name: factor_of(f"l2_reg of feature '{name}'", factor) for name, factor in l2_reg.items()}
