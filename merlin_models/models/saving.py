"""A model's folder: the model, and the schemas of what it reads and predicts."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from merlin_models._files import HDF5File, is_address, local_path, replacing, write_text
from merlin_models.blocks.symbolic import shapes_of_schema
from merlin_models.schema import ColumnSchema, Schema

_MODEL, _SCHEMAS = "model.keras", ".merlin"
_RANDOM_STATE = "random_state_"
_FILES = (".keras", ".h5", ".hdf5")


class SavedWhole:
    """A mixin for ``keras.Model`` (before it in the bases): files are replaced as a whole or not at all."""

    def save(
        self, filepath: str | os.PathLike, overwrite: bool = True, zipped: bool | None = None, **kwargs: Any
    ) -> None:
        """Writes the model.

        A file that is replaced survives until the new one is complete and on the disk, which needs room for both.

        Args:
            filepath: a file ending in ".keras", as in Keras.
            overwrite: whether a file there is replaced; if not, Keras asks, and then writes over it.
            zipped, **kwargs: of Keras. What ``zipped=False`` writes is a folder of Keras', which is written over.

        Raises:
            OSError: if it cannot be written, such as to a full disk.
        """
        whole = zipped is not False and str(filepath).endswith(_FILES)
        if not whole or _is_keras_to_write(filepath, overwrite):
            super().save(filepath, overwrite=overwrite, zipped=zipped, **kwargs)
            return
        with replacing(filepath, _bytes_of(self)) as part:
            super().save(part, zipped=zipped, **kwargs)

    def save_weights(
        self, filepath: str | os.PathLike, overwrite: bool = True, max_shard_size: float | None = None
    ) -> None:
        """Writes the weights, and the optimizer's state.

        A file that is replaced survives until the new one is complete and on the disk, which needs room for both.

        Args:
            filepath: a file ending in ".weights.h5", as in Keras.
            overwrite: whether a file there is replaced; if not, Keras asks, and then writes over it.
            max_shard_size: of Keras: the weights as several files, which are written over.

        Raises:
            OSError: if it cannot be written, such as to a full disk.
        """
        whole = max_shard_size is None and self.built and str(filepath).endswith(".weights.h5")
        if not whole or _is_keras_to_write(filepath, overwrite):
            super().save_weights(filepath, overwrite=overwrite, max_shard_size=max_shard_size)
            return
        with replacing(filepath, _bytes_of(self)) as part, contextlib.closing(HDF5File(part)) as file:
            super().save_weights(file)

    def load_weights(self, filepath: str | os.PathLike, skip_mismatch: bool = False, **kwargs: Any) -> None:
        """Reads what :meth:`save_weights` wrote: the weights, and the optimizer's state where this model has that optimizer.

        Args:
            filepath, skip_mismatch, **kwargs: of Keras.

        Raises:
            OSError: if the file is damaged.
            ValueError: if it is that of another model. Weights before the first that does not fit have changed then.
        """
        optimizer = getattr(self, "optimizer", None)
        if self.built and optimizer is not None and not optimizer.built:
            optimizer.build(self.trainable_variables)  # otherwise Keras leaves its state out
        super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)


class SavedWithSchemas(SavedWhole):
    """A mixin for ``Model``: saving as a folder, beside Keras' files."""

    def get_output_schema(self) -> Schema:
        """A column for each prediction, of the task's name; with a shape where a row has several numbers.

        Raises:
            ValueError: if the model is not built.
        """
        # No property: Keras looks at all of these when it saves.
        shapes = None if self.schema is None else shapes_of_schema(self.schema)
        if shapes is None:
            if not self.built:
                raise ValueError("The model must be built, or its first block have a schema, to know its predictions.")
            shapes = self.get_build_config()["input_shape"]
        outputs = self.compute_output_shape(shapes)
        tags = {task.task_name: (task.target_tag,) for task in self.prediction_tasks}
        if not isinstance(outputs, Mapping):
            outputs = dict.fromkeys(tags, outputs)

        def column(name: str, shape: tuple[int, ...]) -> ColumnSchema:
            return ColumnSchema(name, np.float32, tags.get(name, ()), shape=None if shape in ((), (1,)) else shape)

        return Schema(column(name, tuple(shape[1:])) for name, shape in outputs.items())

    def save(
        self, filepath: str | os.PathLike, overwrite: bool = True, zipped: bool | None = None, **kwargs: Any
    ) -> None:
        """Writes the model.

        A file that is replaced survives until the new one is complete and on the disk, which needs room for both.

        Args:
            filepath: a file ending in ".keras", as in Keras; or a folder, which gets the file "model.keras", and the
                schemas of features (if the model has one) and predictions as ".merlin/input_schema.json" and
                ".merlin/output_schema.json".
            overwrite: whether files there are replaced; if not, Keras asks, and then writes over them.
            zipped, **kwargs: of Keras. What ``zipped=False`` writes is a folder of Keras', which is written over.

        Raises:
            OSError: if it cannot be written, such as to a full disk.
        """
        if str(filepath).endswith(_FILES) or zipped is not None:
            super().save(filepath, overwrite, zipped, **kwargs)
            return
        schemas = {"output": self.get_output_schema()}
        if self.schema is not None:
            schemas["input"] = self.schema
        folder = local_path(filepath, "The folder of filepath")
        (folder / _SCHEMAS).mkdir(parents=True, exist_ok=True)
        super().save(folder / _MODEL, overwrite, **kwargs)
        for name, schema in schemas.items():
            write_text(folder / _SCHEMAS / f"{name}_schema.json", schema.to_json())

    def save_own_variables(self, store: Any) -> None:
        """Called by Keras. With the states of random generators, such as those of dropout, which Keras leaves out."""
        super().save_own_variables(store)
        for number, state in enumerate(self._random_states()):
            store[f"{_RANDOM_STATE}{number}"] = state.numpy()

    def load_own_variables(self, store: Any) -> None:
        """Called by Keras. A file of a model with other random generators, or of an older version, leaves theirs alone."""
        names = sorted(name for name in store.keys() if name.startswith(_RANDOM_STATE))  # noqa: SIM118 - no dictionary
        super().load_own_variables({name: store[name] for name in store.keys() if name not in names})  # noqa: SIM118
        states = self._random_states()
        if len(states) == len(names):
            for number, state in enumerate(states):
                state.assign(store[f"{_RANDOM_STATE}{number}"])

    def _random_states(self) -> list[keras.Variable]:
        return [variable for variable in self.non_trainable_variables if variable.name == "seed_generator_state"]

    @classmethod
    def load(cls, filepath: str | os.PathLike, **kwargs: Any) -> Any:
        """The model of a folder or file that :meth:`save` wrote.

        Args:
            filepath: the folder, or the file.
            **kwargs: of ``keras.models.load_model``.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if the file is damaged.
            TypeError: if it is another model than one of this class.
        """
        file = os.fspath(filepath)
        if not (is_address(file) and file.endswith(_FILES)):
            file = cls._local_file(local_path(file, "The folder of filepath"))
        model = keras.models.load_model(file, **kwargs)
        if not isinstance(model, cls):
            raise TypeError(
                f"filepath must be that of a {cls.__name__}. Received: a {type(model).__name__} in {filepath}"
            )
        return model

    @staticmethod
    def _local_file(path: pathlib.Path) -> pathlib.Path:
        file = path / _MODEL if path.is_dir() else path
        if not file.exists():
            raise FileNotFoundError(f"filepath must be a file or folder that save() wrote. Received: no '{file}'")
        if file.suffix == ".keras":
            _check_archive(file)
        return file


def _check_archive(file: pathlib.Path) -> None:
    """Raises ValueError for a file that is incomplete or has changed, which Keras would say otherwise or not at all."""
    try:
        with zipfile.ZipFile(file) as archive:
            damaged = archive.testzip()
    except zipfile.BadZipFile as error:
        raise ValueError(f"'{file}' must be a complete .keras file. Received: {error}") from error
    if damaged is not None:
        raise ValueError(f"'{file}' must be as it was written. Received: other bytes in its part '{damaged}'")


def _is_keras_to_write(filepath: str | os.PathLike, overwrite: bool) -> bool:
    """Whether a file is not replaced by a rename: one of a remote store, and one that Keras has to ask for."""
    return is_address(filepath) or (not overwrite and pathlib.Path(filepath).exists())


def _bytes_of(model: keras.Model) -> int:
    """What the weights and the optimizer's state take."""
    optimizer = getattr(model, "optimizer", None)
    state = [] if optimizer is None else optimizer.variables
    return sum(
        math.prod(variable.shape) * np.dtype(keras.backend.standardize_dtype(variable.dtype)).itemsize
        for variable in [*model.weights, *state]
    )
