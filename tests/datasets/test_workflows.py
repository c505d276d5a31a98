"""NVTabular beside other releases of dask."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

import merlin_models


def test_dask_is_configured_too_late():
    pytest.importorskip("dask.dataframe", reason="needs dask, which nvtabular brings")
    code = "import dask.dataframe; from merlin_models.datasets.workflows import configure_dask; configure_dask()"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DASK_")}
    environment["PYTHONPATH"] = str(pathlib.Path(merlin_models.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert "dask's dataframe.query-planning must be False before" in done.stderr


def test_nvtabular_is_not_imported_with_the_package():
    code = (
        "import sys, merlin_models.datasets.criteo;"
        "print(sorted({'nvtabular', 'dask', 'tensorflow'} & sys.modules.keys()))"
    )
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(merlin_models.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
