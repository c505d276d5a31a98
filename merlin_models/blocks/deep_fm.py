"""DeepFMBlock and NCFBlock: models' bodies whose parts share their inputs."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from merlin_models.blocks.aggregation import concat
from merlin_models.blocks.base import Block, register
from merlin_models.blocks.combinators import as_features
from merlin_models.blocks.embedding_features import EmbeddingFeatures, EmbeddingOptions
from merlin_models.blocks.inputs import TARGET_TAGS, ContinuousFeatures
from merlin_models.blocks.interactions import FMPairwiseInteraction
from merlin_models.blocks.linear import LinearFeatures
from merlin_models.blocks.mlp import MLPBlock
from merlin_models.layers.dense import Dense
from merlin_models.schema import Schema, Tags


@register
class DeepFMBlock(Block):
    """A factorization machine and a deep network over the same embeddings; their sum is a logit.

    logit = linear function of all features + sum over pairs of categorical features of v_i . v_j
    + Dense(1)(deep_block(all embeddings and continuous features)).

    Args:
        schema: of the data set; columns tagged as a target are left out. Needs a categorical column.
        embedding_dim: length of all embeddings.
        deep_block: a layer; ``MLPBlock([64])`` if None.
        embedding_options: further options of the tables; not together with ``embedding_dim``.
        embeddings: an ``EmbeddingFeatures`` for the categorical features, in the place of one made from the two above.

    Returns:
        (batch, 1)

    Raises:
        ValueError: if there are no categorical columns, or embeddings differ in length.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> schema = ml.Schema([ml.ColumnSchema.create_categorical(name, 9) for name in ("movie", "user")])
        >>> ml.DeepFMBlock(schema, 8)({"movie": np.array([1, 2]), "user": np.array([3, 4])}).shape
        TensorShape([2, 1])

    Reference:
        Guo et al., DeepFM: A Factorization-Machine based Neural Network for CTR Prediction, 2017,
        https://arxiv.org/abs/1703.04247
    """

    is_input = True

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int | None = None,
        deep_block: keras.layers.Layer | None = None,
        embedding_options: EmbeddingOptions | None = None,
        embeddings: EmbeddingFeatures | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        features = schema.remove_by_tag(TARGET_TAGS)
        categorical, continuous = features.select_by_tag(Tags.CATEGORICAL), features.select_by_tag(Tags.CONTINUOUS)
        if not len(categorical):
            raise ValueError(f"DeepFM requires categorical features. Received: {schema.column_names}")
        self._schema = categorical + continuous
        if embeddings is None:
            options = _options(embedding_dim, embedding_options)
            embeddings = EmbeddingFeatures.from_schema(categorical, options, dtype=self.dtype_policy)
        elif embedding_dim is not None or embedding_options is not None:
            raise ValueError("embeddings must not be given together with embedding_dim or embedding_options.")
        dims = {name: embeddings.table_config(name).output_dim for name in embeddings.feature_names}
        if len(set(dims.values())) > 1:
            raise ValueError(f"All embeddings of DeepFM must have one length. Received: {dims}")
        self.embeddings = embeddings
        self.continuous = None
        if len(continuous):
            self.continuous = ContinuousFeatures(schema=continuous, dtype=self.dtype_policy)
        self.linear = LinearFeatures(self._schema, dtype=self.dtype_policy)
        self.pairwise = FMPairwiseInteraction(dtype=self.dtype_policy)
        self.deep_block = deep_block if deep_block is not None else MLPBlock([64], dtype=self.dtype_policy)
        self.deep_logit = Dense(1, dtype=self.dtype_policy)

    @property
    def schema(self) -> Schema:
        return self._schema

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        inputs = as_features(inputs, self._schema)
        vectors = self.embeddings(inputs)
        pairs = self.pairwise(ops.stack([vectors[name] for name in sorted(vectors)], axis=1))
        second = ops.sum(ops.cast(pairs, "float32"), axis=-1, keepdims=True)
        deep = vectors if self.continuous is None else {**vectors, **self.continuous(inputs)}
        deep = self.deep_logit(self.deep_block(concat(deep, self.compute_dtype)))
        logit = ops.cast(self.linear(inputs), "float32") + second + ops.cast(deep, "float32")
        return ops.cast(logit, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "schema": self._schema.to_json(),
            "deep_block": keras.saving.serialize_keras_object(self.deep_block),
            "embeddings": keras.saving.serialize_keras_object(self.embeddings),
        }


@register
class NCFBlock(Block):
    """Neural collaborative filtering: the elementwise product of a user's and an item's embedding beside an MLP over
    another pair of embeddings.

    Args:
        schema: must have exactly one column tagged ``USER_ID`` and one tagged ``ITEM_ID``.
        embedding_dim: length of the embeddings.
        mlp_block: a layer for the second pair, concatenated.
        embedding_options: further options of the tables; not together with ``embedding_dim``.

    Returns:
        (batch, embedding_dim + width of the MLP)

    Raises:
        ValueError: if a column is missing, or there are several.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> user = ml.ColumnSchema.create_categorical("userId", 100, tags=[ml.Tags.USER_ID])
        >>> movie = ml.ColumnSchema.create_categorical("movieId", 1000, tags=[ml.Tags.ITEM_ID])
        >>> block = ml.NCFBlock(ml.Schema([user, movie]), embedding_dim=8, mlp_block=ml.MLPBlock([16]))
        >>> block({"userId": np.array([1, 2]), "movieId": np.array([3, 4])}).shape
        TensorShape([2, 24])

    Reference:
        He et al., Neural Collaborative Filtering, 2017, https://arxiv.org/abs/1708.05031
    """

    is_input = True

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int | None = None,
        mlp_block: keras.layers.Layer | None = None,
        embedding_options: EmbeddingOptions | None = None,
        tables: list[EmbeddingFeatures] | None = None,  # of get_config
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        chosen = Schema()
        for tag in (Tags.USER_ID, Tags.ITEM_ID):
            columns = schema.select_by_tag(tag)
            if len(columns) != 1:
                raise ValueError(
                    f"The schema of NCF must have one column tagged {tag}. Received: {columns.column_names}"
                )
            chosen = chosen + columns
        self._schema = chosen
        if tables is None:
            options = _options(embedding_dim, embedding_options)
            tables = [EmbeddingFeatures.from_schema(chosen, options, dtype=self.dtype_policy) for _ in range(2)]
        self.product_embeddings, self.mlp_embeddings = tables
        self.mlp_block = mlp_block if mlp_block is not None else MLPBlock([64, 32], dtype=self.dtype_policy)

    @property
    def schema(self) -> Schema:
        return self._schema

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        inputs = as_features(inputs, self._schema)
        user, item = (self.product_embeddings(inputs)[name] for name in self._schema.column_names)
        deep = self.mlp_block(concat(self.mlp_embeddings(inputs), self.compute_dtype))
        return ops.concatenate([ops.multiply(user, item), ops.cast(deep, user.dtype)], axis=-1)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "schema": self._schema.to_json(),
            "mlp_block": keras.saving.serialize_keras_object(self.mlp_block),
            "tables": [
                keras.saving.serialize_keras_object(part) for part in (self.product_embeddings, self.mlp_embeddings)
            ],
        }


def _options(dim: int | None, options: EmbeddingOptions | None) -> EmbeddingOptions:
    if dim is not None and options is not None:
        raise ValueError("embedding_dim and embedding_options must not be given together.")
    return options or (EmbeddingOptions() if dim is None else EmbeddingOptions(embedding_dim_default=dim))
