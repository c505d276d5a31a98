"""NVTabular 23.8, imported so that it works beside newer releases of dask."""

from __future__ import annotations

import sys
import types
import warnings


def configure_dask() -> None:
    """Sets what NVTabular 23.8 needs from newer releases of dask; call it before anything imports dask.dataframe.

    Without the first setting they cannot read Parquet for it, without the second list columns come out wrong: one id a
    list. Older releases ignore both.

    Raises:
        RuntimeError: if dask.dataframe is imported already, without them.
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
