"""export(): a model as a SavedModel, for TensorFlow Serving and other programs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from merlin_models.serving.inputs import inputs_of
from merlin_models.serving.saved_model import describe, write_saved_model


class Exportable:
    """A mixin for ``Model``, ``Encoder`` and ``TopKEncoder``."""

    def export(
        self,
        filepath: str | os.PathLike,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        portable: bool = False,
    ) -> None:
        """Writes the model for inference, as a TensorFlow SavedModel whose inputs are the schema's columns.

        The folder has the callable ``serve``, a dictionary feature -> tensor in (lists ragged) and what the model returns
        out, and the signatures "serving_default" (a list feature ``f`` as ``f__values`` and ``f__offsets``) and, where all
        lists are of ids, "serving_padded" (lists padded with 0 on the right). Their outputs are named by task. A
        ``TopKEncoder`` has each a second time with ids to exclude: ``serve_exclude`` and so on.

        Args:
            filepath: a folder. A SavedModel that is there is replaced once the new one is complete.
            format: "tf_saved_model".
            verbose: whether to print the signatures; None does, as in Keras.
            input_signature: feature -> ``tf.TensorSpec``, ``tf.RaggedTensorSpec`` or ``keras.InputSpec``, for features whose
                spec shall be another than the schema tells. For all of them where the model has no schema.
            portable: whether to write stock TensorFlow ops alone, so that the folder runs where this library is not
                installed. Slower; outputs are the same but for rounding. Otherwise the folder needs
                ``import merlin_models.tf`` before it is loaded.

        Raises:
            ValueError: for another format; if the model is not built, or features have no spec.
            FileExistsError: if there is something else at filepath.
            NotImplementedError: with portable, if an op has no form in stock ops, naming it.

        Example:
            >>> import tempfile, numpy as np, tensorflow as tf, merlin_models.tf as ml
            >>> schema = ml.Schema([ml.ColumnSchema.create_categorical("movieId", 1000)])
            >>> model = ml.Model(ml.InputBlock(schema), ml.BinaryClassificationTask("rating_b"))
            >>> folder = tempfile.mkdtemp()
            >>> model.export(folder, portable=True, verbose=False)
            >>> loaded = tf.saved_model.load(folder)
            >>> loaded.serve({"movieId": np.array([1, 2])}).shape
            TensorShape([2, 1])
            >>> list(loaded.signatures["serving_default"](movieId=tf.constant([1, 2], tf.int64)))
            ['rating_b/binary_classification_task']
        """
        if format != "tf_saved_model":
            raise ValueError(f"format must be 'tf_saved_model'. Received: {format!r}")
        self._check_exportable()
        inputs = inputs_of(self.schema, input_signature)
        signatures = write_saved_model(self, inputs, filepath, portable=bool(portable))
        if verbose or verbose is None:
            print(f"Exported to '{os.fspath(filepath)}':\n{describe(signatures)}")

    # ---- what a SavedModel is written of ----

    takes_excluded = False

    def _check_exportable(self) -> None:
        if not self.built:
            raise ValueError(
                "The model must be built before it is exported: call it, or give its first block a schema."
            )

    def served(self, features: dict[str, Any], exclude: Any = None) -> Any:
        """The model's outputs in inference; with ids that a row must not get where ``takes_excluded``."""
        options = {} if exclude is None else {"exclude": exclude}
        return self(features, training=False, **options)

    def named_outputs(self, outputs: Any) -> dict[str, Any]:
        """Outputs by their names in signatures."""
        return dict(outputs) if isinstance(outputs, Mapping) else {self._output_name(): outputs}

    def _output_name(self) -> str:
        return "vectors"
