"""NVTabular 23.8, imported so that it works beside newer releases of dask."""

from __future__ import annotations

import pathlib
import sys
import types
import uuid
import warnings
from collections.abc import Mapping, Sequence
from typing import Any


def configure_dask() -> None:
    """Sets what NVTabular 23.8 needs from newer releases of dask; call it before anything imports dask.dataframe.

    Without the first setting they cannot read Parquet for it, without the second list columns come out wrong: one id a
    list. Older releases ignore both.

    Raises:
        RuntimeError: if dask.dataframe is imported already, without them.

    Example:
        >>> from merlin_models.datasets.workflows import configure_dask
        >>> configure_dask()  # doctest: +SKIP
    """
    import dask

    for name in ("dataframe.query-planning", "dataframe.convert-string"):
        value = dask.config.get(name, None)
        if value is not False and "dask.dataframe" in sys.modules:
            raise RuntimeError(f"dask's {name} must be False before dask.dataframe is imported. Received: {value}.")
        dask.config.set({name: False})


def import_nvtabular() -> types.ModuleType:
    """The module nvtabular, imported without its warnings about libraries that only GPUs need.

    Raises:
        ImportError: if it is not installed.
        RuntimeError: if dask.dataframe is imported already, with settings that do not suit it.
    """
    try:
        configure_dask()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import nvtabular
    except ImportError as error:
        raise ImportError(
            "nvtabular must be installed to encode data; see the extra 'nvtabular' in pyproject.toml. "
            f"Received: {error}"
        ) from error
    return nvtabular


def transform_parts(
    workflow: Any, parts: Mapping[str, Sequence[pathlib.Path]], folder: pathlib.Path, part_size: str | None = None
) -> None:
    """Fits an NVTabular workflow on "train", and writes every part and the workflow into a folder.

    Args:
        workflow: an ``nvtabular.Workflow``.
        parts: part -> Parquet files; must have "train".
        folder: gets a folder of Parquet files with schema.pbtxt for each part, and workflow/.
        part_size: of a partition in NVTabular's memory, such as "64MB"; None: its default.
    """
    nvt = import_nvtabular()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries for GPUs that are not there, and of single large row groups
        datasets = {
            name: nvt.Dataset([str(file) for file in files], engine="parquet", part_size=part_size)
            for name, files in parts.items()
        }
        workflow.fit(datasets["train"])
        for name, dataset in datasets.items():
            workflow.transform(dataset).to_parquet(str(folder / name), out_files_per_proc=1)
        workflow.save(str(folder / "workflow"))


def workflow_option(workflow: Any | None) -> str:
    """What tells results of different workflows apart: of ours one word, of a given one another word each time."""
    return "ours" if workflow is None else uuid.uuid4().hex
