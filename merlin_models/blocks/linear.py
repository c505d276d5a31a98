"""LinearFeatures: a linear function of raw features; ContinuousEmbedding: one embedding of all continuous features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.aggregation import Aggregation, get_aggregation
from merlin_models.blocks.base import Block, register
from merlin_models.blocks.combinators import as_features
from merlin_models.blocks.embedding_features import EmbeddingFeatures, EmbeddingOptions
from merlin_models.blocks.inputs import TARGET_TAGS, ContinuousFeatures
from merlin_models.blocks.tabular import TabularBlock
from merlin_models.schema import Schema, Tags


@register
class LinearFeatures(Block):
    """A linear function of the features: the wide part of Wide & Deep, the first-order term of a factorization machine.

    A weight for each id of the categorical features, which is what a Dense layer of one unit has over their one-hot
    vectors; but as tables of one column, of which an example reads its ids only. Lists add up their ids' weights, without
    the padding id 0. Continuous features get a weight each.

    Args:
        schema: the features; columns tagged as a target are left out.
        use_bias: with a constant.

    Call arguments:
        inputs: dictionary feature -> tensor. Others are ignored.

    Returns:
        (batch, 1)

    Raises:
        ValueError: if the schema has no categorical and no continuous column.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical("movieId", 1000)])
        >>> ml.LinearFeatures(schema)({"movieId": np.array([1, 2])}).shape
        TensorShape([2, 1])

    Reference:
        Cheng et al., Wide & Deep Learning for Recommender Systems, 2016, https://arxiv.org/abs/1606.07792
    """

    is_input = True

    def __init__(self, schema: Schema, use_bias: bool = True, **kwargs: Any):
        super().__init__(**kwargs)
        features = schema.remove_by_tag(TARGET_TAGS)
        categorical, continuous = features.select_by_tag(Tags.CATEGORICAL), features.select_by_tag(Tags.CONTINUOUS)
        if not len(categorical) and not len(continuous):
            raise ValueError(f"schema must have categorical or continuous columns. Received: {schema.column_names}")
        self._schema, self.use_bias = categorical + continuous, bool(use_bias)
        self.weights_of_ids = self.continuous = self.dense = None
        if len(categorical):
            options = EmbeddingOptions(embedding_dim_default=1, combiner="sum", embeddings_initializers="zeros")
            self.weights_of_ids = EmbeddingFeatures.from_schema(categorical, options, dtype=self.dtype_policy)
        if len(continuous):
            self.continuous = ContinuousFeatures(schema=continuous, aggregation="concat", dtype=self.dtype_policy)
            self.dense = keras.layers.Dense(1, use_bias=False, dtype=self.dtype_policy)

    def build(self, input_shape: Any) -> None:
        if not self.built and self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(1,), initializer="zeros")
        super().build(input_shape)

    @property
    def schema(self) -> Schema:
        return self._schema

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        inputs = as_features(inputs, self._schema)
        parts = []
        if self.weights_of_ids is not None:
            parts.extend(self.weights_of_ids(inputs).values())
        if self.dense is not None:
            parts.append(self.dense(self.continuous(inputs)))
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total + ops.cast(self.bias, total.dtype) if self.use_bias else total

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "schema": self._schema.to_json(), "use_bias": self.use_bias}


@register
class ContinuousEmbedding(TabularBlock):
    """One embedding of all continuous features beside the others: they are concatenated and go through a layer.

    Args:
        inputs: an input block, such as ``InputBlock(schema)``, whose output is a dictionary.
        embedding_block: a layer for the concatenated continuous features, such as ``MLPBlock([64])``.
        aggregation: for the resulting dictionary.
        continuous_aggregation: for the continuous features, before the layer.
        continuous_features: their names; the columns of the input block's schema tagged continuous if None.
        post: a layer for the resulting dictionary.

    Returns:
        The dictionary of ``inputs``, with the entry "continuous" in place of the continuous features.

    Raises:
        ValueError: if there are no continuous features.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_continuous(name) for name in ("age", "price")])
        >>> block = ml.ContinuousEmbedding(ml.InputBlock(schema), ml.MLPBlock([8]))
        >>> block({"age": np.array([20.0]), "price": np.array([3.0])})["continuous"].shape
        TensorShape([1, 8])
    """

    is_input = True

    def __init__(
        self,
        inputs: keras.layers.Layer,
        embedding_block: keras.layers.Layer,
        aggregation: str | Aggregation | None = None,
        continuous_aggregation: str | Aggregation = "concat",
        continuous_features: Sequence[str] | None = None,
        **kwargs: Any,
    ):
        super().__init__(aggregation=aggregation, **kwargs)
        self.continuous_aggregation = get_aggregation(continuous_aggregation)
        schema = getattr(inputs, "schema", None)
        if continuous_features is None and schema is not None:
            continuous_features = schema.select_by_tag(Tags.CONTINUOUS).column_names
        if not continuous_features:
            raise ValueError("continuous_features must be given, or inputs have continuous columns. Received: none")
        self.inputs_block, self.embedding_block = inputs, embedding_block
        self.continuous_features = sorted(continuous_features)

    @property
    def schema(self) -> Schema | None:
        return getattr(self.inputs_block, "schema", None)

    def transform(self, inputs: Any) -> dict[str, Any]:
        outputs = dict(self.inputs_block(inputs))
        missing = [name for name in self.continuous_features if name not in outputs]
        if missing:
            raise ValueError(f"inputs must return {self.continuous_features}. Received: {sorted(outputs)}")
        continuous = {name: outputs.pop(name) for name in self.continuous_features}
        return {**outputs, "continuous": self.embedding_block(self.continuous_aggregation(continuous))}

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["schema"]
        return {
            **config,
            "inputs": keras.saving.serialize_keras_object(self.inputs_block),
            "embedding_block": keras.saving.serialize_keras_object(self.embedding_block),
            "continuous_aggregation": keras.saving.serialize_keras_object(self.continuous_aggregation),
            "continuous_features": list(self.continuous_features),
        }
