"""A model's folder: the model, and the schemas of what it reads and predicts."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from merlin_models.blocks.symbolic import shapes_of_schema
from merlin_models.schema import ColumnSchema, Schema

_MODEL, _SCHEMAS = "model.keras", ".merlin"


class SavedWithSchemas:
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

        Args:
            filepath: a file ending in ".keras", as in Keras; or a folder, which gets the file "model.keras", and the
                schemas of features (if the model has one) and predictions as ".merlin/input_schema.json" and
                ".merlin/output_schema.json".
            overwrite: whether files there are replaced; if not, Keras asks.
            zipped, **kwargs: of Keras.
        """
        if str(filepath).endswith((".keras", ".h5", ".hdf5")) or zipped is not None:
            super().save(filepath, overwrite=overwrite, zipped=zipped, **kwargs)
            return
        schemas = {"output": self.get_output_schema()}
        if self.schema is not None:
            schemas["input"] = self.schema
        folder = pathlib.Path(filepath)
        (folder / _SCHEMAS).mkdir(parents=True, exist_ok=True)
        super().save(folder / _MODEL, overwrite=overwrite, **kwargs)
        for name, schema in schemas.items():
            (folder / _SCHEMAS / f"{name}_schema.json").write_text(schema.to_json())

    @classmethod
    def load(cls, filepath: str | os.PathLike, **kwargs: Any) -> Any:
        """The model of a folder or file that :meth:`save` wrote.

        Args:
            filepath: the folder, or the file.
            **kwargs: of ``keras.models.load_model``.

        Raises:
            TypeError: if it is another model than one of this class.
        """
        path = pathlib.Path(filepath)
        model = keras.models.load_model(path / _MODEL if (path / _MODEL).exists() else path, **kwargs)
        if not isinstance(model, cls):
            raise TypeError(f"filepath must be that of a {cls.__name__}. Received: a {type(model).__name__} in {path}")
        return model
