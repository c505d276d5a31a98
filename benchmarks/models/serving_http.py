"""The quickstart's model and workflow behind a server in a process of its own, asked over several connections."""

from __future__ import annotations

import atexit
import dataclasses
import functools
import http.client
import importlib.util
import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import types
import weakref
from typing import Any

import numpy as np

from benchmarks import environment
from benchmarks.harness import Plan, Provider

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"
ANSWER = "rating_b/binary_classification_task"
COLUMNS = ("userId", "movieId", "genres")
SECONDS_TO_START = 120.0


@dataclasses.dataclass(frozen=True)
class Case:
    """Attributes: rows: of a request. connections: each asks again when its answer has come."""

    name: str
    rows: int
    connections: int
    groups: tuple[str, ...] = ()
    dtype: str = "float32"
    ids: str = "movielens"

    def build(self) -> HttpProblem:
        return HttpProblem(self)


class HttpProblem:
    """What the quickstart leaves after one epoch, made once in a process."""

    num_sets = 1
    num_grads = 1

    def __init__(self, case: Case):
        self.case = case

    @property
    def output(self) -> pathlib.Path:
        return _quickstart_output()

    def config(self) -> dict[str, Any]:
        return {"batch": self.case.rows, "connections": self.case.connections}

    def examples(self, count: int = 64) -> tuple[list[dict[str, Any]], np.ndarray]:
        """Raw rows of the test part, and the probabilities (count,) of the Keras model on the encoded ones."""
        import keras
        import pandas as pd

        import merlin_models.tf  # noqa: F401  what model.keras is made of

        raw = pd.read_parquet(self.output / "raw" / "test.parquet").head(count)
        parts = sorted((self.output / "test").glob("*.parquet"))
        encoded = pd.concat([pd.read_parquet(path) for path in parts], ignore_index=True).head(count)
        longest = max(map(len, encoded["genres"]))
        genres = np.array([[*ids, *[0] * (longest - len(ids))] for ids in encoded["genres"]], np.int64)
        features = {name: encoded[name].to_numpy(np.int64) for name in ("userId", "movieId")} | {"genres": genres}
        model = keras.models.load_model(self.output / "model.keras")
        rows = [
            {"userId": int(user), "movieId": int(movie), "genres": list(map(str, names))}
            for user, movie, names in raw[list(COLUMNS)].itertuples(index=False)
        ]
        return rows, model.predict(features, verbose=0)[:, 0]


class Server:
    """serve_movielens.py on a free port; it ends, and its export is removed, with this object.

    Raises:
        RuntimeError: if it does not run.
    """

    def __init__(self, quickstart_output: pathlib.Path, export_options: tuple[str, ...]):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="served_"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        served = folder / "export"
        _run("serve_movielens.py", "export", "--quickstart", quickstart_output, "--folder", served, *export_options)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [
            sys.executable,
            EXAMPLES / "serve_movielens.py",
            "serve",
            "--folder",
            served,
            "--port",
            str(self.port),
        ]
        self.process = subprocess.Popen(command, env=_environment(), stdout=subprocess.DEVNULL)
        weakref.finalize(self, _end, self.process)
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server must run. It ended with status {self.process.returncode}")
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise RuntimeError(f"the server must answer within {SECONDS_TO_START:.0f} s")


def _end(process: subprocess.Popen) -> None:
    process.terminate()
    process.wait()


def _environment() -> dict[str, str]:
    # This process' own packages first: a source folder has no compiled part, unless a developer put it there.
    paths = [*(entry or os.getcwd() for entry in sys.path), str(EXAMPLES.parent)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _run(example: str, *arguments: Any) -> None:
    command = [sys.executable, EXAMPLES / example, *map(str, arguments)]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{example} ended with status {done.returncode}: {done.stderr.strip()[-300:]}")


@functools.cache
def _quickstart_output() -> pathlib.Path:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="quickstart_"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _run("quickstart.py", "--output", folder, "--epochs", 1)
    return folder


@functools.cache
def _http_load() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("http_load", EXAMPLES / "http_load.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks its module up
    spec.loader.exec_module(module)
    return module


class HttpProvider(Provider):
    """A server in a process of its own on a free port of this machine. Times are those of requests under load."""

    runtime = "tensorflow"
    requires = ("nvtabular", "fastapi", "uvicorn", "rich")
    export_options: tuple[str, ...] = ()

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return 1_000_000_000

    def setup(self, problem: HttpProblem, device: str, mode: str, optimizer: str) -> None:
        self._case, self._server = problem.case, Server(problem.output, self.export_options)
        self._connection = http.client.HTTPConnection("127.0.0.1", self._server.port, timeout=60)
        self._body = _http_load().request_body(self._case.rows, random.Random(0))

    def forward(self, i: int) -> Any:
        return self._post(self._body)

    def ask(self, rows: list[dict[str, Any]]) -> np.ndarray:
        """The answers to raw rows, (rows,)."""
        answer = json.loads(self._post(json.dumps({"rows": rows}).encode()))
        return np.array([row[ANSWER] for row in answer["predictions"]])

    def _post(self, body: bytes) -> bytes:
        self._connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"an answer must have status 200. Received: {answer.status}, {content[:300]!r}")
        return content

    def own_times(self, plan: Plan) -> tuple[list[float], dict[str, float]]:
        url = f"http://127.0.0.1:{self._server.port}"
        load = _http_load().measure(url, self._case.connections, self._case.rows, plan.seconds)
        numbers = {"p99_ms": load.percentile(99) * 1e3, "requests_a_second": load.requests_per_second}
        return [seconds * 1e3 for seconds in load.latencies], {name: round(x, 3) for name, x in numbers.items()}

    def peak_process_bytes(self) -> int:
        """Of the server."""
        return environment.memory_of_process("VmHWM", self._server.process.pid)


class Portable(HttpProvider):
    """The export in stock TensorFlow ops, which is the example's default."""

    name = "merlin_tf_portable"


class Native(HttpProvider):
    """The export with our ops."""

    name = "merlin_tf"
    export_options = ("--native",)
