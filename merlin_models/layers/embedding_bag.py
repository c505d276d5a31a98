"""EmbeddingBag: one embedding table with pooling, beside keras.layers.Embedding."""

from __future__ import annotations

from typing import Any

import keras

from merlin_models.layers.embedding_bag_collection import TABLE_DTYPES
from merlin_models.ops.bags import batch_of, to_bags
from merlin_models.ops.embedding_bag import COMBINERS, embedding_bag


@keras.saving.register_keras_serializable(package="merlin_models")
class EmbeddingBag(keras.layers.Layer):
    """An embedding table whose rows are pooled for each bag of ids.

    Computes, for ids i with weights w of a bag and rows x, ``sum``: S = sum w x_i, ``mean``: S / sum w,
    ``sqrtn``: S / sqrt(sum w^2) or ``max``. Takes the arguments of ``keras.layers.Embedding`` and pools; the rows are read
    in place, and the gradient has only the touched rows.

    Args:
        input_dim: number of rows; ids are in [0, input_dim).
        output_dim: length of a row.
        combiner: "sum", "mean", "sqrtn" or "max".
        embeddings_initializer, embeddings_regularizer, embeddings_constraint: as in ``keras.layers.Embedding``.
        padding_id: an id that stands for nothing and is skipped, or None.
        embeddings_dtype: "float32", "float16" or "bfloat16"; None for the layer's variable dtype.

    Call arguments:
        inputs: ids, in any form that :func:`merlin_models.ops.to_bags` takes: dense (batch,) or (batch, length), ragged,
            sparse, or (values, row_splits).
        weights: one weight an id, of the form of the ids, or None.

    Returns:
        (batch, output_dim) of the layer's compute dtype.

    Raises:
        tf.errors.InvalidArgumentError: for ids out of range; see :func:`merlin_models.ops.embedding_bag`.

    Example:
        >>> import numpy as np
        >>> from merlin_models.layers import EmbeddingBag
        >>> EmbeddingBag(1000, 64, padding_id=0)(np.array([[3, 4, 0], [5, 0, 0]])).shape
        TensorShape([2, 64])
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        combiner: str = "mean",
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        padding_id: int | None = None,
        embeddings_dtype: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for argument, value in (("input_dim", input_dim), ("output_dim", output_dim)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{argument} must be a positive integer. Received: {value!r}")
        if combiner not in COMBINERS:
            raise ValueError(f"combiner must be one of {COMBINERS}. Received: {combiner!r}")
        self.input_dim, self.output_dim, self.combiner = input_dim, output_dim, combiner
        self.embeddings_initializer = keras.initializers.get(embeddings_initializer)
        self.embeddings_regularizer = keras.regularizers.get(embeddings_regularizer)
        self.embeddings_constraint = keras.constraints.get(embeddings_constraint)
        self.padding_id, self.embeddings_dtype = padding_id, embeddings_dtype
        if (embeddings_dtype or self.variable_dtype) not in TABLE_DTYPES:
            raise ValueError(
                f"embeddings_dtype must be one of {TABLE_DTYPES}. Received: {embeddings_dtype or self.variable_dtype}"
            )
        self.supports_jit = False  # the op has no XLA kernel

    def build(self, input_shape: Any = None) -> None:
        if self.built:
            return
        self.embeddings = self.add_weight(
            name="embeddings",
            shape=(self.input_dim, self.output_dim),
            initializer=self.embeddings_initializer,
            regularizer=self.embeddings_regularizer,
            constraint=self.embeddings_constraint,
            dtype=self.embeddings_dtype or self.variable_dtype,
            autocast=False,  # the op reads the variable itself, in place
        )
        self.embeddings.row_sparse = True  # see merlin_models.optimizers.RowSparse
        self.built = True

    def call(self, inputs: Any, weights: Any = None) -> Any:
        bags = to_bags(inputs, weights, self.padding_id, self.name)
        (output,) = embedding_bag([self.embeddings], [bags], combiners=self.combiner, names=[self.name])
        return keras.ops.cast(output, self.compute_dtype)

    def compute_output_spec(self, inputs: Any, weights: Any = None) -> keras.KerasTensor:
        return keras.KerasTensor((batch_of(inputs), self.output_dim), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "combiner": self.combiner,
            "embeddings_initializer": keras.initializers.serialize(self.embeddings_initializer),
            "embeddings_regularizer": keras.regularizers.serialize(self.embeddings_regularizer),
            "embeddings_constraint": keras.constraints.serialize(self.embeddings_constraint),
            "padding_id": self.padding_id,
            "embeddings_dtype": self.embeddings_dtype,
        }
