"""DLRMBlock: embeddings and a bottom MLP that interact by dot products, and a top MLP."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import Block, register
from merlin_models.blocks.combinators import as_features
from merlin_models.blocks.embedding_features import EmbeddingFeatures, EmbeddingOptions, checked_options
from merlin_models.blocks.inputs import TARGET_TAGS, ContinuousFeatures
from merlin_models.layers import DotInteraction
from merlin_models.schema import Schema, Tags

_WIDTH_MULTIPLE = 8  # of the top block's input: what tensor cores multiply at once


@register
class DLRMBlock(Block):
    """Facebook's deep learning recommendation model, without its last layer.

    The bottom block makes one vector of the continuous features; it and the embeddings of the categorical features
    interact by the dot products of all pairs; these and the bottom block's output go through the top block. The
    interaction is one op that reads each vector once and makes no copies (:func:`merlin_models.ops.dot_interaction`).

    Args:
        schema: of the data set; columns tagged as a target are left out.
        embedding_dim: length of all embeddings; if None, the units of the bottom block's last layer.
        bottom_block: a layer for the concatenated continuous features, such as ``MLPBlock([128, 64])``; must be given
            if the schema has any, and only then.
        top_block: a layer for the interactions and, before them, the bottom block's output; or None.
        embedding_options: further options of the tables; not together with ``embedding_dim``. Its
            ``embedding_dim_default`` gives way to the bottom block's units unless it is changed.
        embeddings: an ``EmbeddingFeatures`` for the categorical features, in the place of one made from the two above.

    Call arguments:
        inputs: dictionary feature -> tensor. Others are ignored.

    Returns:
        The top block's output. Without a top block the interactions, (batch, n (n - 1) / 2) for n vectors, ordered
        (0, 1), (0, 2), ..., (1, 2), ..., where 0 is the bottom block's and then come the features by name.

    Raises:
        ValueError: if the schema is missing or has no categorical column, or the blocks do not fit it.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> columns = [ml.ColumnSchema.create_categorical("movieId", 1000), ml.ColumnSchema.create_continuous("age")]
        >>> block = ml.DLRMBlock(ml.Schema(columns), bottom_block=ml.MLPBlock([16, 8]), top_block=ml.MLPBlock([4]))
        >>> block({"movieId": np.array([1, 2]), "age": np.array([20.0, 30.0])}).shape
        TensorShape([2, 4])

    Reference:
        Naumov et al., Deep Learning Recommendation Model for Personalization and Recommendation Systems, 2019,
        https://arxiv.org/abs/1906.00091
    """

    is_input = True

    def __init__(
        self,
        schema: Schema,
        embedding_dim: int | None = None,
        bottom_block: keras.layers.Layer | None = None,
        top_block: keras.layers.Layer | None = None,
        embedding_options: EmbeddingOptions | None = None,
        embeddings: EmbeddingFeatures | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if schema is None:
            raise ValueError("The schema is required by DLRM")
        features = schema.remove_by_tag(TARGET_TAGS)
        categorical, continuous = features.select_by_tag(Tags.CATEGORICAL), features.select_by_tag(Tags.CONTINUOUS)
        if not len(categorical):
            raise ValueError(f"DLRM requires categorical features. Received: {schema.column_names}")
        if len(continuous) and bottom_block is None:
            raise ValueError(
                "The bottom_block is required by DLRM when the schema has continuous features. "
                f"Received: none for {continuous.column_names}"
            )
        if bottom_block is not None and not len(continuous):
            raise ValueError("The bottom_block must be None where the schema has no continuous features.")
        self._schema = categorical + continuous
        self.bottom_block, self.top_block = bottom_block, top_block
        units = _units_of(bottom_block)
        if embeddings is None:
            options = _options(embedding_dim, embedding_options, units)
            embeddings = EmbeddingFeatures.from_schema(categorical, options, dtype=self.dtype_policy)
        elif embedding_dim is not None or embedding_options is not None:
            raise ValueError("embeddings must not be given together with embedding_dim or embedding_options.")
        _check_dims(embeddings, categorical, units)
        self.embeddings = embeddings
        self.continuous = None
        if bottom_block is not None:
            self.continuous = ContinuousFeatures(schema=continuous, aggregation="concat", dtype=self.dtype_policy)
        with_top = top_block is not None
        self.interaction = DotInteraction(
            order="upper",
            concat_first=with_top and bottom_block is not None,
            pad_to=_WIDTH_MULTIPLE if with_top else 1,
            dtype=self.dtype_policy,
        )

    @property
    def schema(self) -> Schema:
        return self._schema

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        inputs = as_features(inputs, self._schema)
        bottom = None
        if self.bottom_block is not None:
            bottom = self.bottom_block(self.continuous(inputs))
            dim = self.embeddings.collection.features[0].table.output_dim
            if bottom.shape[-1] != dim:
                raise ValueError(
                    "The embedding_dim needs to match the last layer of bottom MLP. "
                    f"Received: {dim} and {bottom.shape[-1]} units"
                )
            bottom = ops.cast(bottom, self.compute_dtype)
        outputs = self._interactions(inputs, bottom, training)
        return outputs if self.top_block is None else self.top_block(outputs)

    def _interactions(self, inputs: Any, bottom: Any, training: bool | None) -> Any:
        """By one op where that has a kernel for the inputs, else by one for lookups and one for products."""
        fused = self.interaction.of_lookups(self.embeddings.collection, self.embeddings.ids(inputs), bottom, training)
        if fused is not None:
            return fused
        vectors = self.embeddings(inputs)
        parts = [vectors[name] for name in sorted(vectors)]
        return self.interaction(parts if bottom is None else [bottom, *parts])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "schema": self._schema.to_json(),
            "bottom_block": keras.saving.serialize_keras_object(self.bottom_block),
            "top_block": keras.saving.serialize_keras_object(self.top_block),
            "embeddings": keras.saving.serialize_keras_object(self.embeddings),
        }


def _options(dim: int | None, options: EmbeddingOptions | None, units: int | None) -> EmbeddingOptions:
    """The options of the tables, sized by whichever of the arguments tells it."""
    if dim is not None and options is not None:
        raise ValueError("embedding_dim and embedding_options must not be given together.")
    if options is None:
        if dim is None and units is None:
            raise ValueError("embedding_dim must be given where no bottom_block tells it.")
        return EmbeddingOptions(embedding_dim_default=dim or units)
    options = checked_options(options)
    sized = options.embedding_dims is not None or options.infer_embedding_sizes
    if units is None or sized or options.embedding_dim_default != EmbeddingOptions.embedding_dim_default:
        return options
    return dataclasses.replace(options, embedding_dim_default=units)


def _check_dims(embeddings: EmbeddingFeatures, categorical: Schema, units: int | None) -> None:
    """Raises ValueError if the tables are of other features, or differ in dim from each other or the bottom block."""
    if sorted(embeddings.feature_names) != sorted(categorical.column_names):
        raise ValueError(
            f"embeddings must be of the categorical features {sorted(categorical.column_names)}. "
            f"Received: {sorted(embeddings.feature_names)}"
        )
    dims = {name: embeddings.table_config(name).output_dim for name in embeddings.feature_names}
    if len(set(dims.values())) > 1:
        raise ValueError(f"All embeddings of DLRM must have one length. Received: {dims}")
    (dim,) = set(dims.values())
    if units is not None and units != dim:
        raise ValueError(
            f"The embedding_dim needs to match the last layer of bottom MLP. Received: {dim} and {units} units"
        )


def _units_of(block: keras.layers.Layer | None) -> int | None:
    """The width of a block's output, if it tells."""
    dimensions = getattr(block, "dimensions", None)
    return dimensions[-1] if dimensions else getattr(block, "units", None)
