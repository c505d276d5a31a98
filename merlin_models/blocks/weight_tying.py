"""EmbeddingTablePrediction: scores of all rows of an embedding table."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from merlin_models.blocks.base import Block, register
from merlin_models.blocks.embedding_table import EmbeddingTable


@register
class EmbeddingTablePrediction(Block):
    """The product of the input with each row of a table, plus a bias a row: a dense layer whose kernel is the table.

    The table is shared with whoever looks its rows up, and gets the gradients of both. That of the scores reaches all
    rows, so a step costs the table's size.

    Args:
        table: an :class:`EmbeddingTable`.
        use_bias: whether each row has a bias.
        bias_initializer: a Keras initializer.

    Call arguments:
        inputs: (..., dim), of the table's dim.

    Returns:
        (..., rows), in the compute dtype.

    Raises:
        ValueError: if the inputs have another dim.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> table = ml.EmbeddingTable(8, ml.ColumnSchema.create_categorical("movieId", 99))
        >>> ml.EmbeddingTablePrediction(table)(np.ones((2, 8))).shape
        TensorShape([2, 100])

    Reference:
        Press and Wolf, Using the Output Embedding to Improve Language Models, 2017, https://arxiv.org/abs/1608.05859
    """

    def __init__(self, table: EmbeddingTable, use_bias: bool = True, bias_initializer: Any = "zeros", **kwargs: Any):
        super().__init__(**kwargs)
        if not isinstance(table, EmbeddingTable):
            raise TypeError(f"table must be an EmbeddingTable. Received: {type(table).__name__}")
        self.table, self.use_bias = table, use_bias
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.bias: keras.Variable | None = None

    def build(self, input_shape: Any) -> None:
        if self.built:
            return
        if input_shape[-1] != self.table.dim:
            raise ValueError(
                f"Inputs of EmbeddingTablePrediction must have the table's dim, {self.table.dim}, as last axis. "
                f"Received: {tuple(input_shape)}"
            )
        rows = self.table.table.shape[0]  # makes the table
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(rows,), initializer=self.bias_initializer)
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        rows = ops.cast(self.table.table, self.compute_dtype)
        scores = ops.matmul(inputs, ops.transpose(rows))
        return scores if self.bias is None else scores + ops.cast(self.bias, scores.dtype)

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> Any:
        return keras.KerasTensor((*inputs.shape[:-1], self.table.input_dim), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "table": keras.saving.serialize_keras_object(self.table),
            "use_bias": self.use_bias,
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }
