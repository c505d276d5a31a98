"""EmbeddingBagCollection: the embedding tables of a model, looked up and pooled by one op."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras

from merlin_models.ops.bags import Bags, batch_of, to_bags
from merlin_models.ops.embedding_bag import COMBINERS, embedding_bag

TABLE_DTYPES = ("float32", "float16", "bfloat16")


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """An embedding table.

    Attributes:
        name: of the variable; unique in a collection.
        input_dim: number of rows; ids are in [0, input_dim).
        output_dim: length of a row.
        combiner: how a bag's rows become one: "sum", "mean", "sqrtn" or "max".
        initializer, regularizer: a Keras identifier, config or object.
        dtype: "float32", "float16" or "bfloat16"; None for the layer's variable dtype.
        trainable: False freezes the table.
    """

    name: str
    input_dim: int
    output_dim: int
    combiner: str = "mean"
    initializer: Any = "uniform"
    regularizer: Any = None
    dtype: str | None = None
    trainable: bool = True

    def __post_init__(self) -> None:
        for argument in ("input_dim", "output_dim"):
            value = getattr(self, argument)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{argument} of table '{self.name}' must be a positive integer. Received: {value!r}")
        if self.combiner not in COMBINERS:
            raise ValueError(f"combiner of table '{self.name}' must be one of {COMBINERS}. Received: {self.combiner!r}")
        if self.dtype is not None and self.dtype not in TABLE_DTYPES:
            raise ValueError(f"dtype of table '{self.name}' must be one of {TABLE_DTYPES}. Received: {self.dtype!r}")

    def get_config(self) -> dict[str, Any]:
        config = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        # Names and configs stay as they are. Keras tells shared objects by their id(): a temporary object here would seem
        # shared with whatever gets its address next.
        for argument, serialize in (
            ("initializer", keras.initializers.serialize),
            ("regularizer", keras.regularizers.serialize),
        ):
            value = config[argument]
            config[argument] = value if value is None or isinstance(value, str | dict) else serialize(value)
        return config


@dataclasses.dataclass(frozen=True)
class FeatureConfig:
    """A feature that reads an embedding table.

    Attributes:
        name: its key in the layer's inputs and outputs.
        table: the table it reads; features with one table (the same object, or an equal one) share its rows.
        padding_id: an id that stands for nothing and is skipped (0 in right-padded dense lists), or None.
    """

    name: str
    table: TableConfig
    padding_id: int | None = None


@keras.saving.register_keras_serializable(package="merlin_models")
class EmbeddingBagCollection(keras.layers.Layer):
    """All embedding tables of a model, with one op for all lookups.

    Pools each feature's multi-hot ids over its table's rows; see :func:`merlin_models.ops.embedding_bag` for the maths and
    for what happens to ids out of range.

    Args:
        features: a :class:`FeatureConfig` a feature, names unique.
        output: "dict" for a dictionary name -> (batch, output_dim), or "concat" for one tensor
            (batch, sum of output_dims) in the order of ``features``.

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

    def __init__(self, features: Sequence[FeatureConfig], output: str = "dict", **kwargs: Any):
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
        dtypes = {table.dtype or self.variable_dtype for table in self.table_configs.values()}
        if len(dtypes) > 1:
            raise ValueError(f"Tables of one collection must have one dtype. Received: {sorted(dtypes)}")
        self.table_dtype = dtypes.pop()
        if self.table_dtype not in TABLE_DTYPES:
            raise ValueError(f"Tables must be float32, float16 or bfloat16. Received: {self.table_dtype}")
        self._output_dtype = self._choose_output_dtype()
        self._tables: dict[str, keras.Variable] = {}
        self.supports_jit = False  # the op has no XLA kernel

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
                trainable=table.trainable,
                dtype=self.table_dtype,
                autocast=False,  # the op reads the variable itself, in place
            )
            self._tables[table.name].row_sparse = True  # see merlin_models.optimizers.RowSparse
        self.built = True

    @property
    def tables(self) -> dict[str, keras.Variable]:
        """Table name -> Keras variable (rows, dim); builds the layer."""
        self.build()
        return dict(self._tables)

    def call(self, inputs: dict[str, Any], weights: dict[str, Any] | None = None) -> Any:
        order = list(self.table_configs)
        bags = self.bags(inputs, weights)
        outputs = embedding_bag(
            [self._tables[name] for name in order],
            bags,
            [order.index(feature.table.name) for feature in self.features],
            [feature.table.combiner for feature in self.features],
            concat=self.output_form == "concat",
            output_dtype=self._output_dtype,
            names=[feature.name for feature in self.features],
        )
        if self._output_dtype != self.compute_dtype:
            outputs = keras.tree.map_structure(lambda x: keras.ops.cast(x, self.compute_dtype), outputs)
        if self.output_form == "concat":
            return outputs
        return {feature.name: output for feature, output in zip(self.features, outputs, strict=True)}

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

    def get_config(self) -> dict[str, Any]:
        tables = [table.get_config() for table in self.table_configs.values()]
        features = [
            {"name": feature.name, "table": feature.table.name, "padding_id": feature.padding_id}
            for feature in self.features
        ]
        return {**super().get_config(), "tables": tables, "features": features, "output": self.output_form}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> EmbeddingBagCollection:
        config = dict(config)
        tables = {table["name"]: TableConfig(**table) for table in config.pop("tables")}
        features = [
            FeatureConfig(feature["name"], tables[feature["table"]], feature["padding_id"])
            for feature in config.pop("features")
        ]
        return cls(features, **config)
