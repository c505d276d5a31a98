"""PretrainedEmbeddings: vectors that come with the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from merlin_models.blocks.base import register
from merlin_models.blocks.combinators import as_features
from merlin_models.blocks.ragged_layers import run_layer
from merlin_models.blocks.registry import get_block
from merlin_models.blocks.sequence_aggregator import SequenceAggregator
from merlin_models.blocks.symbolic import parts_from_config, rank_of
from merlin_models.blocks.tabular import TabularBlock
from merlin_models.layers.dense import Dense
from merlin_models.ops import is_ragged
from merlin_models.schema import Schema


@register
class PretrainedEmbeddings(TabularBlock):
    """Takes features that are vectors already: normalizes them, projects them, and pools sequences of them.

    Args:
        schema: the columns, usually those with the tag ``embedding``.
        output_dims: length that vectors are projected to, by a Dense layer without activation; one for all, or a dictionary
            by column, and others keep their length. None for no projection.
        sequence_combiner: how a sequence of vectors becomes one: "mean", "sum", "max", "min" or a layer on (batch, length,
            dim); None keeps the sequence.
        normalizer: a layer, or the name of a block such as "l2-norm", for the vectors as they come; None for none.
        pre, post, aggregation: as in :class:`TabularBlock`.

    Call arguments:
        inputs: dictionary column -> (batch, dim), or (batch, length, dim), dense or ragged. Others are ignored.

    Returns:
        Dictionary column -> (batch, output_dim), or, for sequences that stay, (batch, length, output_dim).

    Raises:
        ValueError: for a schema without columns; dims for another column; inputs without one of the columns, or of another
            rank.

    Example:
        >>> import numpy as np
        >>> from merlin_models.blocks import PretrainedEmbeddings
        >>> from merlin_models.schema import ColumnSchema, Schema
        >>> schema = Schema([ColumnSchema("title_vector", tags=("embedding",))])
        >>> PretrainedEmbeddings(schema, output_dims=8)({"title_vector": np.ones((2, 300))})["title_vector"].shape
        TensorShape([2, 8])
    """

    is_input = True

    def __init__(
        self,
        schema: Schema,
        output_dims: int | Mapping[str, int] | None = None,
        sequence_combiner: str | keras.layers.Layer | None = "mean",
        normalizer: str | keras.layers.Layer | None = None,
        **kwargs: Any,
    ):
        super().__init__(schema=schema, **kwargs)
        if not len(schema):
            raise ValueError("schema must have a column. Received: none")
        names = schema.column_names
        dims = dict(output_dims) if isinstance(output_dims, Mapping) else {name: output_dims for name in names}
        unknown = sorted(set(dims) - set(names))
        if unknown:
            raise ValueError(f"output_dims must be given for columns of the schema, {names}. Received: {unknown}")
        self.output_dims = dict(output_dims) if isinstance(output_dims, Mapping) else output_dims
        self.sequence_combiner = (
            SequenceAggregator(sequence_combiner) if isinstance(sequence_combiner, str) else sequence_combiner
        )
        self.normalizer = get_block(normalizer)
        self.projections = {
            name: Dense(dim, name=f"{name}_projection", dtype=self.dtype_policy)
            for name, dim in dims.items()
            if dim is not None
        }

    def transform(self, inputs: Any) -> dict[str, Any]:
        inputs = as_features(inputs, self._schema)
        missing = sorted(set(self._schema.column_names) - set(inputs))
        if missing:
            raise ValueError(
                f"Inputs must have the columns {self._schema.column_names}. Received: {sorted(inputs)}; missing: {missing}"
            )
        return {name: self._one(name, inputs[name]) for name in self._schema.column_names}

    def _one(self, name: str, x: Any) -> Any:
        if rank_of(x) not in (2, 3):
            raise ValueError(
                f"'{name}' must have the shape (batch, dim) or (batch, length, dim). Received: {tuple(x.shape)}"
            )
        if rank_of(x) == 2 and (is_ragged(x) or (x.shape[1] is None and name in self.projections)):
            raise ValueError(
                f"'{name}' must have vectors of one length, dense: give its column a shape in the schema that the loader "
                f"gets, or list it in sparse_max with sparse_as_dense=True. Received: {tuple(x.shape)}"
            )
        if self.normalizer is not None:
            x = run_layer(self.normalizer, x)
        if name in self.projections:
            x = run_layer(self.projections[name], x)
        return self.sequence_combiner(x) if rank_of(x) == 3 and self.sequence_combiner is not None else x

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "output_dims": self.output_dims,
            "sequence_combiner": keras.saving.serialize_keras_object(self.sequence_combiner),
            "normalizer": keras.saving.serialize_keras_object(self.normalizer),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> PretrainedEmbeddings:
        return cls(**parts_from_config(config))
