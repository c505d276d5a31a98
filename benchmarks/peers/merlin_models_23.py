"""merlin-models 23.12, the older library, in an environment of its own and in a process of its own, on a CPU.

It wants TensorFlow 2.12, which cannot be where ours is. Build the environment once, with Python 3.10 or 3.11:

    python3.11 -m benchmarks.peers.merlin_models_23            # into build/peers/merlin-models-23
    python3.11 -m benchmarks.peers.merlin_models_23 FOLDER     # elsewhere: name it by MERLIN_MODELS_23 when you measure

The provider speaks with ``merlin_models_23_worker.py`` over its standard input and output, a line a step.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np

from benchmarks.harness import Provider

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORKER = pathlib.Path(__file__).with_name("merlin_models_23_worker.py")
# Of 23.8 are the libraries that merlin-models 23.12 was published with; the rest is what they run with.
REQUIREMENTS = (
    "tensorflow-cpu==2.12.1",
    "merlin-core==23.8.0",
    "merlin-dataloader==23.8.0",
    "numpy==1.23.5",
    "pandas==1.5.3",
    "dask[dataframe]==2023.9.2",
    "distributed==2023.9.2",
    "dask-cuda==23.10.0",
    "pyarrow<15",
    "numba<0.60",
    "setuptools<70",
)


def folder() -> pathlib.Path:
    """Of the environment: MERLIN_MODELS_23, or build/peers/merlin-models-23."""
    return pathlib.Path(os.environ.get("MERLIN_MODELS_23") or ROOT / "build/peers/merlin-models-23")


def build(target: pathlib.Path) -> None:
    """Makes the environment with the Python that runs this.

    Raises:
        RuntimeError: if that Python is not 3.10 or 3.11.
    """
    if sys.version_info[:2] not in ((3, 10), (3, 11)):
        raise RuntimeError(f"Python must be 3.10 or 3.11 for TensorFlow 2.12. Received: {sys.version.split()[0]}")
    subprocess.run([sys.executable, "-m", "venv", str(target)], check=True)
    pip = [str(target / "bin/python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *REQUIREMENTS], check=True)
    subprocess.run([*pip, "--no-deps", "merlin-models==23.12.0"], check=True)
    print(f"built: {target}")


class _Worker:
    """A process that holds a model; it ends when this object goes."""

    def __init__(self, kind: str, arrays: dict[str, np.ndarray], settings: dict[str, Any]) -> None:
        with tempfile.TemporaryDirectory() as inputs:
            np.savez(pathlib.Path(inputs) / "arrays.npz", **arrays)
            (pathlib.Path(inputs) / "settings.json").write_text(json.dumps(settings))
            environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
            environment.pop("PYTHONPATH", None)
            self._process = subprocess.Popen(
                [str(folder() / "bin/python"), str(WORKER), kind, inputs],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment,
            )
            self.versions = self._read()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process of merlin-models 23.12 ended: {self._process.stderr.read()[-600:]}")
        return json.loads(line)

    def ask(self, command: str) -> dict[str, Any]:
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        return self._read()

    def __del__(self) -> None:
        process = getattr(self, "_process", None)
        if process is None:
            return
        process.stdin.close()
        process.wait()
        process.stdout.close()
        process.stderr.close()


class MerlinModels23(Provider):
    """What the providers of both models share."""

    name = "merlin_models_23.12"
    runtime = "tensorflow"
    own_process = True
    kind = ""

    def missing(self) -> str:
        """Why it cannot be started here, or ""."""
        if (folder() / "bin/python").is_file():
            return ""
        return "its environment is not there: python3.11 -m benchmarks.peers.merlin_models_23 builds it"

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        if device != "cpu":
            return "its TensorFlow 2.12 is measured on CPUs only"
        return "measured in float32 only" if case.dtype != "float32" else ""

    def inputs(self, problem: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and settings for the worker."""
        raise NotImplementedError

    def setup(self, problem: Any, device: str, mode: str, optimizer: str) -> None:
        self._worker = _Worker(self.kind, *self.inputs(problem))
        versions = ", ".join(f"{name} {version}" for name, version in self._worker.versions.items())
        self.notes = f"{self.own_notes}a process of its own with {versions}; a call is a step, asked for over a pipe"

    own_notes = ""

    def update(self, i: int, g: int) -> float:
        return float(self._worker.ask("step")["loss"])

    def loss_of_step(self) -> float:
        """Takes a step."""
        return self.update(0, 0)

    def peak_process_bytes(self) -> int:
        return int(self._worker.ask("peak")["bytes"])


class TwoTower(MerlinModels23):
    """``mm.TwoTowerModel`` with in-batch negatives."""

    kind = "two_tower"
    own_notes = "the temperature is in the towers' outputs, since its own scaler is skipped in training; "

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return 40 * problem.batch**2 + 16 * sum(table.nbytes for table in problem.tables.values())

    def inputs(self, problem: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        from benchmarks.models.two_tower_problem import ITEM, LEARNING_RATE, QUERY, TEMPERATURE

        arrays = {f"feature_{name}": ids for name, ids in problem.features.items()}
        arrays |= {f"table_{name}": table for name, table in problem.tables.items()}
        for tower, kernels in problem.towers.items():
            arrays |= {f"kernel_{tower}_{i}": kernel for i, kernel in enumerate(kernels)}
        settings = {"query": QUERY, "item": ITEM, "layers": problem.case.layers, "dim": problem.case.dim}
        return arrays, {**settings, "temperature": TEMPERATURE, "learning_rate": LEARNING_RATE}


class DLRM(MerlinModels23):
    """``mm.DLRMModel`` with Keras' Adagrad, one id a feature."""

    kind = "dlrm"

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        return super().unsupported(case, device, mode, optimizer) or (
            "" if case.hot == "one" else "one id a feature only"
        )

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return 4 * 4 * problem.case.dim * sum(problem.rows)

    def inputs(self, problem: Any) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        from benchmarks.models.dlrm_problem import ADAGRAD_START, EPSILON, LEARNING_RATE

        names = [f"C{i:02}" for i in range(26)]
        numbers = [f"I{i:02}" for i in range(13)]
        arrays = {f"feature_{name}": ids for name, ids in zip(names, problem.ids, strict=True)}
        arrays |= {f"feature_{name}": problem.dense[:, i : i + 1] for i, name in enumerate(numbers)}
        layers = [*problem.bottom, *problem.top]
        first = len(problem.bottom)
        layers[first] = (layers[first][0][_rows_of_top(problem.case.dim)], layers[first][1])
        for i, (kernel, bias) in enumerate(layers):
            arrays |= {f"kernel_{i}": kernel, f"bias_{i}": bias}
        settings = {"rows": dict(zip(names, problem.rows, strict=True)), "numbers": numbers, "dim": problem.case.dim}
        settings |= {"bottom": problem.case.bottom, "top": problem.case.top, "learning_rate": LEARNING_RATE}
        settings |= {"accumulator": ADAGRAD_START, "epsilon": EPSILON}
        return {**arrays, "block": problem.block, "labels": problem.labels}, settings


def _rows_of_top(dim: int) -> np.ndarray:
    """Rows of the first kernel as the older library has its inputs: the bottom's output, then pairs (i, j), i < j, of vectors
    whose last is the bottom's output."""
    place = np.array([*range(1, 27), 0])  # of its vectors among ours
    left, right = np.triu_indices(27, 1)
    high, low = np.maximum(place[left], place[right]), np.minimum(place[left], place[right])
    return np.concatenate([np.arange(dim), dim + high * (high - 1) // 2 + low])


if __name__ == "__main__":
    build(pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build/peers/merlin-models-23")
