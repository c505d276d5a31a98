"""Encoders: models from features to vectors, of which retrieval models are made and which serve alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from merlin_models.blocks.base import register
from merlin_models.blocks.combinators import features_of, run_in_sequence
from merlin_models.blocks.embedding_features import EmbeddingFeatures, EmbeddingOptions
from merlin_models.blocks.inputs import InputBlock
from merlin_models.blocks.sharing import marking_shared_layers, reading_marks
from merlin_models.blocks.symbolic import SymbolicBuild, shapes_of_schema
from merlin_models.models.batches import batches_of, id_column, ids_of, warn_of_random_order
from merlin_models.models.exporting import Exportable
from merlin_models.models.saving import SavedWhole
from merlin_models.schema import Schema, Tags


@register
class Encoder(Exportable, SavedWhole, SymbolicBuild, keras.Model):
    """Makes one vector of some features.

    Args:
        inputs: a schema, of which the ``InputBlock`` is made, or the first layer.
        *blocks: layers after it.
        post: a layer after these, such as ``L2Norm()``; simply the last one.

    Call arguments:
        inputs: dictionary feature -> tensor, of which others are ignored; or the bare tensor of the only feature.

    Returns:
        What the last layer returns, (batch, dim) of most.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> user = ml.ColumnSchema.create_categorical("userId", 100, tags=[ml.Tags.USER_ID])
        >>> encoder = ml.Encoder(ml.Schema([user]), ml.MLPBlock([32, 16]))
        >>> encoder({"userId": np.array([1, 2])}).shape
        TensorShape([2, 16])
        >>> encoder.encode({"userId": np.array([5, 7])}, index="userId").index.tolist()
        [5, 7]
    """

    def __init__(
        self,
        inputs: Schema | keras.layers.Layer,
        *blocks: keras.layers.Layer,
        post: keras.layers.Layer | None = None,
        name: str | None = None,
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        first = InputBlock(inputs) if isinstance(inputs, Schema) else inputs
        steps = [first, *blocks, *([] if post is None else [post])]
        for step in steps:
            if not isinstance(step, keras.layers.Layer):
                raise TypeError(f"An encoder must be made of a schema and Keras layers. Received: {step!r}")
        self.steps = steps
        shapes = None if self.schema is None else shapes_of_schema(self.schema)
        if shapes is not None:
            self.build(shapes)

    @property
    def schema(self) -> Schema | None:
        """The features that the encoder reads, or None if its first layer has no schema."""
        return getattr(self.steps[0], "schema", None)

    @property
    def is_input(self) -> bool:
        """Whether it takes the features of a schema."""
        return getattr(self.steps[0], "is_input", False)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        # Keras hands `training` to the sublayers.
        schema = self.schema
        if schema is not None:
            inputs = features_of(inputs, schema, "encoder")
        return run_in_sequence(self.steps, inputs, self.compute_dtype)

    def encode(self, dataset: Any, index: Any, batch_size: int = 1024) -> Any:
        """The vectors of a data set's rows.

        Args:
            dataset: dictionary feature -> array, a DataFrame, Parquet files, a loader or other data set of batches.
            index: the column of ids: a name, a ``ColumnSchema`` or a tag.
            batch_size: rows that are encoded at once, where ``dataset`` is not in batches.

        Returns:
            A pandas DataFrame of float32 columns "0", "1", ..., indexed by the ids; of rows with one id the first is kept.
        """
        import pandas

        name = id_column(self.schema, index, Tags.ID)
        ids, vectors = self.vectors(dataset, name, batch_size)
        columns = [str(dim) for dim in range(vectors.shape[1])]
        frame = pandas.DataFrame(vectors, index=pandas.Index(ids, name=name), columns=columns)
        return frame[~frame.index.duplicated()]

    def vectors(self, dataset: Any, index: str, batch_size: int = 1024) -> tuple[np.ndarray, np.ndarray]:
        """The ids (rows,) int64 and vectors (rows, dim) float32 of all rows; arguments as of :meth:`encode`."""
        ids, vectors = [], []
        for batch in batches_of(dataset, self.schema, batch_size, also=[index]):
            ids.append(ids_of(batch.features, index))
            outputs = self.predict_on_batch(self._features(batch.features))
            if isinstance(outputs, Mapping):
                raise ValueError(f"The encoder must return one tensor to index it. Received: {sorted(outputs)}")
            vectors.append(np.asarray(outputs, np.float32))
        if not ids:
            raise ValueError("The data set must have at least one batch. Received: none")
        return np.concatenate(ids), np.concatenate(vectors)

    def _features(self, features: Mapping[str, Any]) -> dict[str, Any]:
        return features if self.schema is None else self.schema.filter_columns_from_dict(features)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """As ``keras.Model.predict``; warns of a loader with ``shuffle=True``, whose rows come in a random order."""
        warn_of_random_order(x)
        return super().predict(x, *args, **kwargs)

    def batch_predict(self, dataset: Any, batch_size: int = 1024) -> np.ndarray:
        """The outputs of all rows, in their order, (rows, dim); warns of a loader whose order is random."""
        warn_of_random_order(dataset)
        outputs = [
            np.asarray(self.predict_on_batch(self._features(batch.features)))
            for batch in batches_of(dataset, self.schema, batch_size)
        ]
        return np.concatenate(outputs)

    def get_config(self) -> dict[str, Any]:
        with marking_shared_layers(self):
            steps = [keras.saving.serialize_keras_object(step) for step in self.steps]
        return {"name": self.name, "trainable": self.trainable, "dtype": self.dtype_policy.name, "steps": steps}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Encoder:
        with reading_marks():
            config = keras.saving.deserialize_keras_object(dict(config), custom_objects=custom_objects)
        return cls(*config.pop("steps"), **config)


def EmbeddingEncoder(
    schema: Schema,
    dim: int | None = None,
    embedding_options: EmbeddingOptions | None = None,
    post: keras.layers.Layer | None = None,
    **kwargs: Any,
) -> Encoder:
    """An encoder that is one embedding table: the towers of a matrix factorization.

    Args:
        schema: with exactly one column.
        dim: length of the embeddings.
        embedding_options: further options of the table; not together with ``dim``.
        post: a layer after it, such as ``L2Norm()``.
        **kwargs: of ``Encoder``.

    Returns:
        An :class:`Encoder`, to (batch, dim).

    Raises:
        ValueError: for another number of columns, or neither or both of ``dim`` and ``embedding_options``.

    Example:
        >>> import numpy as np, merlin_models.tf as ml
        >>> user = ml.ColumnSchema.create_categorical("userId", 100, tags=[ml.Tags.USER_ID])
        >>> ml.EmbeddingEncoder(ml.Schema([user]), dim=16)(np.array([1, 2])).shape
        TensorShape([2, 16])
    """
    if len(schema) != 1:
        raise ValueError(f"schema must have exactly one column. Received: {schema.column_names}")
    if (dim is None) == (embedding_options is None):
        raise ValueError(
            f"Either dim or embedding_options must be given. Received: dim={dim}, embedding_options={embedding_options}"
        )
    options = embedding_options or EmbeddingOptions(embedding_dim_default=dim)
    return Encoder(EmbeddingFeatures.from_schema(schema, options, aggregation="concat"), post=post, **kwargs)
