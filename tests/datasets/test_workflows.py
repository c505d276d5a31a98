"""NVTabular beside other releases of dask."""

from __future__ import annotations

import pytest


def test_dask_is_configured_too_late(run_python):
    pytest.importorskip("dask.dataframe", reason="needs dask, which nvtabular brings")
    code = "import dask.dataframe; from merlin_models.datasets.workflows import configure_dask; configure_dask()"
    done = run_python(code, without="DASK_", check=False)
    assert done.returncode == 1
    assert "dask's dataframe.query-planning must be False before" in done.stderr


def test_nvtabular_is_not_imported_with_the_package(run_python):
    done = run_python(
        "import sys, merlin_models.datasets.criteo;"
        "print(sorted({'nvtabular', 'dask', 'tensorflow'} & sys.modules.keys()))"
    )
    assert done.stdout == "[]\n"
