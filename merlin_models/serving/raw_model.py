"""A model and the NVTabular workflow that encodes its raw values, in one folder and in one call."""

from __future__ import annotations

import copy
import json
import os
import pathlib
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import tensorflow as tf

import merlin_models
from merlin_models._files import local_path, replacing_folder
from merlin_models.datasets.workflows import import_nvtabular
from merlin_models.schema import Schema
from merlin_models.serving.encoded_rows import tensors_of
from merlin_models.serving.inputs import inputs_of
from merlin_models.serving.raw_rows import frame_of, raw_columns_of
from merlin_models.serving.served_workflow import served_workflow

MANIFEST, MODEL, WORKFLOW = "manifest.json", "model", "workflow"
_FORMAT = 1


def export_with_workflow(model: Any, workflow: Any, folder: str | os.PathLike, portable: bool = False) -> pathlib.Path:
    """Writes a model, and the fitted workflow that makes its features of raw values, side by side.

    The folder gets model/ (see ``Model.export``), workflow/ (without the raw columns that no feature needs, such as the
    target's), schema.pbtxt (of the features) and manifest.json. It holds the workflow's categories and may be moved.

    Args:
        model: a ``Model``, ``Encoder`` or ``TopKEncoder`` with a schema.
        workflow: a fitted ``nvtabular.Workflow``; it stays as it is.
        folder: new, or one that this function wrote, which is then replaced.
        portable: as of ``Model.export``.

    Returns:
        The folder.

    Raises:
        ValueError: if the model has no schema, the workflow does not make all features of it, or ``folder`` is an address
            with "://".
        FileExistsError: if there is something else at ``folder``.

    Example:
        >>> from merlin_models.serving import export_with_workflow
        >>> export_with_workflow(model, workflow, "served", portable=True)  # doctest: +SKIP
    """
    import_nvtabular()
    folder = local_path(folder, "folder")
    if model.schema is None:
        raise ValueError("The model must have a schema to be exported with a workflow. Received: a model without one")
    if folder.exists() and not (folder / MANIFEST).is_file() and any(folder.iterdir()):
        raise FileExistsError(
            f"folder must be new or one of export_with_workflow. Received: {folder}, with other files"
        )
    features = model.schema.column_names
    made = [] if workflow.output_schema is None else workflow.output_schema.column_names
    missing = sorted(set(features) - set(made))
    if missing:
        raise ValueError(
            f"The workflow must be fitted, and make all features of the model, {features}. Received: {made}; "
            f"missing: {missing}"
        )
    with replacing_folder(folder) as new:
        model.export(new / MODEL, portable=portable, verbose=False)
        _only_what_features_need(workflow, features).save(str(new / WORKFLOW))
        model.schema.save(new)
        manifest = {"format": _FORMAT, "merlin_models": merlin_models.__version__, "tensorflow": tf.__version__}
        (new / MANIFEST).write_text(json.dumps({**manifest, "portable": bool(portable)}, indent=2) + "\n")
    return folder


def load_with_workflow(folder: str | os.PathLike) -> RawModel:
    """What :func:`export_with_workflow` wrote, ready to predict.

    Args:
        folder: that ``export_with_workflow`` wrote.

    Returns:
        A :class:`RawModel`.

    Raises:
        FileNotFoundError: if there is no manifest.json in the folder.
        ValueError: if a later version of this library wrote it.

    Example:
        >>> from merlin_models.serving import load_with_workflow
        >>> row = {"userId": 15, "movieId": 296, "genres": ["Comedy", "Crime"]}
        >>> load_with_workflow("served").predict([row])  # doctest: +SKIP
        {'rating_b/binary_classification_task': array([[0.5371]], dtype=float32)}
    """
    folder = pathlib.Path(folder)
    if not (folder / MANIFEST).is_file():
        raise FileNotFoundError(
            f"folder must be one that export_with_workflow wrote. Received: {folder}, without {MANIFEST}"
        )
    manifest = json.loads((folder / MANIFEST).read_text())
    if manifest.get("format") != _FORMAT:
        raise ValueError(f"The export's format must be {_FORMAT}. Received: {manifest.get('format')} in {folder}")
    nvtabular = import_nvtabular()
    workflow = nvtabular.Workflow.load(str(folder / WORKFLOW))
    return RawModel(tf.saved_model.load(str(folder / MODEL)), workflow, Schema.load(folder))


class RawModel:
    """Predicts from raw values: they go through the workflow and then through the model. Threads may share it.

    Args:
        model: a loaded SavedModel of ``Model.export``.
        workflow: a fitted ``nvtabular.Workflow``.
        schema: the features that the model reads.

    Attributes:
        schema: the features that the model reads.
        raw_columns: name -> (NumPy dtype, whether a row has a list), of the raw values. Strings have dtype object.
        output_names: of the predictions.

    Raises:
        ValueError: if a raw column is of another kind than integers, numbers, booleans or strings.

    Example:
        >>> from merlin_models.serving import load_with_workflow
        >>> served = load_with_workflow("served")  # makes one  # doctest: +SKIP
        >>> served.output_names  # doctest: +SKIP
        ['rating_b/binary_classification_task']
    """

    def __init__(self, model: Any, workflow: Any, schema: Schema):
        self.model, self.workflow, self.schema = model, workflow, schema
        self._served_workflow = served_workflow(workflow)
        self._signature = model.signatures["serving_default"]
        self._inputs = inputs_of(schema)
        self.output_names = sorted(self._signature.structured_outputs)
        self.raw_columns = raw_columns_of(workflow.input_schema)
        self._lock = threading.Lock()  # NVTabular's cache of categories is one for all threads

    def predict(self, rows: pd.DataFrame | Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
        """Predictions for raw values.

        Args:
            rows: a data frame, a dictionary column -> values, or a list of dictionaries, one a row. Other columns than
                ``raw_columns`` are ignored. Numbers that are floats, and strings, may be null: None, NaN or ``pandas.NA``.

        Returns:
            Name -> (rows, ...).

        Raises:
            ValueError: if a column is missing, a value is not of its column's kind or out of its dtype's range, or the
                workflow leaves nulls, or another number of rows, as ``Filter`` and ``Dropna`` do.
        """
        return self._predict(self.transform(rows), nulls=False)

    def transform(self, rows: pd.DataFrame | Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        """The features of raw values, without the model; arguments as of :meth:`predict`.

        A pandas frame is handed to the workflow as it is: NVTabular's own way over a Dataset and dask takes several times as
        long for a few rows.
        """
        frame = frame_of(self.raw_columns, rows)
        if not len(frame):
            return pd.DataFrame({name: pd.Series([], dtype=object) for name in self.schema.column_names})
        with self._lock:
            return self._served_workflow.transform(frame)

    def predict_features(self, features: pd.DataFrame) -> dict[str, np.ndarray]:
        """Predictions for a frame of features that are encoded already; NaN among floats is the model's to deal with.

        Raises:
            ValueError: if a feature has a number that its dtype cannot hold, or ids have nulls.
        """
        return self._predict(features, nulls=True)

    def _predict(self, features: pd.DataFrame, nulls: bool) -> dict[str, np.ndarray]:
        tensors = tensors_of(self._inputs, features, nulls)
        return {name: output.numpy() for name, output in self._signature(**tensors).items()}


def _only_what_features_need(workflow: Any, features: Sequence[str]) -> Any:
    """A copy without the raw columns that no feature comes from."""
    current = copy.deepcopy(workflow)
    for column in list(current.input_schema.column_names):
        if len(current.input_schema.column_names) == 1:
            break
        smaller = copy.deepcopy(current)
        smaller.remove_inputs([column])
        if set(features) <= set(smaller.output_schema.column_names):
            current = smaller
    return current
