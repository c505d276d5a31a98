"""Fixtures that all tests share: devices, tolerances, random bags."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# NVTabular 23.8 beside dask of 2024: to be set before dask.dataframe is imported.
os.environ.setdefault("DASK_DATAFRAME__QUERY_PLANNING", "False")
os.environ.setdefault("DASK_DATAFRAME__CONVERT_STRING", "False")

ROOT = pathlib.Path(__file__).resolve().parents[1]
# Tests see the installed package. The source folder has no compiled part (unless a developer put it there), so it must
# not come first; benchmarks and examples, which are not installed, are found behind it.
if not (ROOT / "merlin_models" / "_build_info.py").exists():
    sys.path[:] = [entry for entry in sys.path if pathlib.Path(entry or ".").resolve() != ROOT]
sys.path.append(str(ROOT))

import numpy as np  # noqa: E402
import pytest  # noqa: E402


def _why_no_gpu() -> str | None:
    from merlin_models import _native

    if not _native.has_cuda():
        return "this build has no CUDA kernels"
    if not _native.module().cuda_device_present():
        return "no CUDA device is present"
    return None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests that are marked slow, too: make test-slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--slow"):
        for item in items:
            if "slow" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="slow: runs with --slow, as in make test-slow"))
    if not any("gpu" in item.keywords for item in items):
        return
    reason = _why_no_gpu()
    for item in items:
        if reason and "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=f"gpu: {reason}"))


@pytest.fixture(params=["cpu", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def on_device(device: str) -> Iterator[str]:
    """Runs the test's TensorFlow on a device, with a GPU's float32 products in float32: so they compare with a CPU's."""
    import tensorflow as tf

    tf32 = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    with tf.device(f"/{device}:0"):
        yield device
    tf.config.experimental.enable_tensor_float_32_execution(tf32)


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> np.random.Generator:
    """Fixed for each test, different between tests."""
    return np.random.default_rng(zlib.crc32(request.node.name.encode()))


@pytest.fixture
def run_python(tmp_path: pathlib.Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs code in a process of its own, which imports the package that is under test and nothing from the folder here."""

    def run(code: str, without: str = "no such prefix", check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(without)}
        environment["PYTHONPATH"] = os.pathsep.join(sys.path)
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return run
