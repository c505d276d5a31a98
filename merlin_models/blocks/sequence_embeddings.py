"""SequenceEmbeddingFeatures: embeddings that keep the positions of lists."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import copy_of, register
from merlin_models.blocks.embedding_features import EmbeddingFeatures, EmbeddingOptions
from merlin_models.blocks.masking import with_mask
from merlin_models.blocks.ragged_layers import run_layer
from merlin_models.blocks.symbolic import is_symbolic, rank_of
from merlin_models.layers import FeatureConfig
from merlin_models.layers.embedding_options import selected
from merlin_models.schema import Schema, Tags


@register
class SequenceEmbeddingFeatures(EmbeddingFeatures):
    """:class:`EmbeddingFeatures` that give a vector for each id of a list, instead of one for the list.

    Args:
        features, l2_reg, weight_features: as in :class:`EmbeddingFeatures`.
        sequence_combiners: feature -> a layer on (batch, length, dim), or None to keep that; these are the lists that stay
            lists. Others are pooled by their table's combiner.
        mask_zero: whether vectors of dense lists get a Keras mask, (batch, length): where the id is not ``padding_idx``.
        padding_idx: the id that is padding: its vector is zeros, and its row of the table is not trained.
        pre, post, aggregation, schema: as in :class:`TabularBlock`.

    Call arguments:
        inputs: dictionary feature -> ids; lists that stay lists are (batch, length) or ragged.

    Returns:
        Dictionary feature -> (batch, length, dim), ragged for ragged ids; other features (batch, dim).

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import SequenceEmbeddingFeatures
        >>> from merlin_models.schema import ColumnSchema, Schema
        >>> schema = Schema([ColumnSchema.create_categorical("seen", 1000, value_count=(0, 20))])
        >>> SequenceEmbeddingFeatures.from_schema(schema)({"seen": np.array([[5, 6, 0]])})["seen"].shape
        TensorShape([1, 3, 64])
    """

    def __init__(
        self,
        features: Sequence[FeatureConfig],
        l2_reg: float | Mapping[str, float] = 0.0,
        weight_features: Mapping[str, str] | None = None,
        sequence_combiners: Mapping[str, keras.layers.Layer | None] | None = None,
        mask_zero: bool = True,
        padding_idx: int = 0,
        **kwargs: Any,
    ):
        sequences = dict(sequence_combiners or {})
        features = [
            dataclasses.replace(feature, padding_id=int(padding_idx)) if feature.name in sequences else feature
            for feature in features
        ]
        super().__init__(features, l2_reg, weight_features, **kwargs)
        self.sequence_combiners = sequences
        self.mask_zero, self.padding_idx = bool(mask_zero), int(padding_idx)
        names = set(self.sequence_combiners)
        unknown = sorted(names - set(self.feature_names) | names & set(self.weight_features))
        if unknown:
            raise ValueError(
                f"sequence_combiners must be given for features of the block that have no weights. Received: {unknown}"
            )

    @classmethod
    def from_schema(
        cls,
        schema: Schema,
        embedding_options: EmbeddingOptions | None = None,
        tags: Tags | str | Sequence[str] | None = None,
        sequence_combiner: keras.layers.Layer | None = None,
        **kwargs: Any,
    ) -> SequenceEmbeddingFeatures:
        """Tables for a schema's columns, whose lists stay lists.

        Args:
            schema, embedding_options, tags: as in :meth:`EmbeddingFeatures.from_schema`.
            sequence_combiner: a layer for the vectors of a list, which is copied for each list; or None.
            **kwargs: of the class.
        """
        schema = selected(schema, tags)
        combiners = {column.name: copied(sequence_combiner) for column in schema if column.is_list}
        return super().from_schema(schema, embedding_options, sequence_combiners=combiners, **kwargs)

    def transform(self, inputs: Any) -> dict[str, Any]:
        ids, restore = self.ids(inputs), {}
        for name in self.sequence_combiners:
            if name in ids:
                dim = self.table_config(name).output_dim
                padding = self.padding_idx if self.mask_zero else None
                ids[name], restore[name] = one_by_one(name, ids[name], dim, padding)
        outputs = dict(self.collection(ids, self.weights_of_ids(inputs)))
        for name, form in restore.items():
            outputs[name] = form(outputs[name])
        for name, combiner in self.sequence_combiners.items():
            if combiner is not None:
                outputs[name] = run_layer(combiner, outputs[name])
        return outputs

    def get_config(self) -> dict[str, Any]:
        combiners = {
            name: keras.saving.serialize_keras_object(combiner) for name, combiner in self.sequence_combiners.items()
        }
        own = {"sequence_combiners": combiners, "mask_zero": self.mask_zero, "padding_idx": self.padding_idx}
        return {**super().get_config(), **own}


def copied(layer: keras.layers.Layer | None) -> keras.layers.Layer | None:
    """A layer of the same configuration, or None."""
    return None if layer is None else copy_of(layer)


def one_by_one(name: str, ids: Any, dim: int, padding_idx: int | None = None) -> tuple[Any, Callable[[Any], Any]]:
    """The ids of a list as bags of one, and what gives their vectors the list's form again.

    Args:
        name: for error messages.
        ids: (batch, length), or ragged.
        dim: of the vectors.
        padding_idx: the id that a mask on the vectors of dense lists leaves out, or None for no mask.
    """
    if hasattr(ids, "with_values"):
        return ids.values, ids.with_values
    if isinstance(ids, tuple | list) or hasattr(ids, "dense_shape"):
        raise ValueError(
            f"The list '{name}' must be a dense or ragged tensor without a sequence_combiner. "
            f"Received: {type(ids).__name__}"
        )
    ids = ops.convert_to_tensor(ids)
    if rank_of(ids) != 2:
        return ops.reshape(ids, (-1, 1)), lambda rows: ops.reshape(rows, (-1, 1, dim))
    mask = None if padding_idx is None else ops.not_equal(ids, padding_idx)
    shape = ops.shape(ids)
    if is_symbolic(ids):
        return ops.reshape(ids, (-1, 1)), lambda rows: with_mask(keras.KerasTensor((*shape, dim), rows.dtype), mask)
    return ops.reshape(ids, (-1, 1)), lambda rows: with_mask(ops.reshape(rows, (*shape, dim)), mask)
