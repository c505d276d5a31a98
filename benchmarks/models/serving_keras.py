"""DLRM's answers: of a loaded SavedModel, native and portable, of the model's call; ours, and one of Keras' own layers."""

from __future__ import annotations

import pathlib
import tempfile
from typing import Any

import numpy as np

from benchmarks.models.dlrm_keras import Merlin, PlainKeras
from benchmarks.models.dlrm_problem import DLRMProblem


class Serving:
    """A mixin before a provider of DLRM: a call is the answer to one batch, through :meth:`load`."""

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return 3 * 4 * problem.case.dim * sum(problem.rows)

    def setup(self, problem: DLRMProblem, device: str, mode: str, optimizer: str) -> None:
        import keras
        import tensorflow as tf

        self._keras = keras
        features = {f"C{i:02}": tf.identity(tf.constant(ids)) for i, ids in enumerate(problem.ids)}
        features |= {f"I{i:02}": tf.identity(tf.constant(problem.dense[:, i : i + 1])) for i in range(13)}
        self._answer = self.load(self.make_model(problem), features)

    def load(self, model: Any, features: dict[str, Any]) -> Any:
        """A function without arguments that gives the predictions (batch, 1)."""
        raise NotImplementedError

    def forward(self, i: int) -> Any:
        return self._answer()

    def predictions(self) -> np.ndarray:
        """Those of the last setup, in NumPy."""
        return np.asarray(self.forward(0))


class _Exported(Serving):
    options: dict[str, Any] = {}  # noqa: RUF012

    def load(self, model: Any, features: dict[str, Any]) -> Any:
        import tensorflow as tf

        with tempfile.TemporaryDirectory() as folder:
            path = str(pathlib.Path(folder) / "model")
            model.export(path, verbose=False, **self.options)
            loaded = self._loaded = tf.saved_model.load(path)  # the signature lives as long as this
        signature = loaded.signatures["serving_default"]
        _, specs = signature.structured_input_signature
        flat = dict(features)
        for name, x in features.items():  # lists, as our signatures take them
            flat[f"{name}__values"] = x
            flat[f"{name}__offsets"] = tf.range(x.shape[0] + 1, dtype=tf.int64) * x.shape[1]
        inputs = {
            name: tf.identity(tf.reshape(flat[name], [-1]) if spec.shape.rank == 1 else flat[name])
            for name, spec in specs.items()
        }
        return lambda: next(iter(signature(**inputs).values()))


class MerlinExported(_Exported, Merlin):
    """``model.export(path)``, loaded: our ops in a SavedModel."""

    name = "merlin_tf"


class MerlinPortable(_Exported, Merlin):
    """``model.export(path, portable=True)``, loaded: stock TensorFlow ops."""

    name = "merlin_tf_portable"
    options = {"portable": True}  # noqa: RUF012


class MerlinCall(Serving, Merlin):
    """``model(features, training=False)``, as it is without an export."""

    name = "merlin_tf_call"

    def load(self, model: Any, features: dict[str, Any]) -> Any:
        return lambda: model(features, training=False)


class KerasExported(_Exported, PlainKeras):
    """The model of ``keras.layers.Embedding`` and ``keras_rs.layers.DotInteraction``, exported by Keras, loaded."""

    name = "keras"
    notes = ""


class KerasCall(Serving, PlainKeras):
    """The same model's call."""

    name = "keras_call"
    notes = ""

    def load(self, model: Any, features: dict[str, Any]) -> Any:
        return lambda: model(features, training=False)
