"""The gather-floor probe: how fast this machine reads random rows now, beside every CPU measurement."""

from __future__ import annotations

import ctypes
import functools
import pathlib
import subprocess
import tempfile
from typing import Any

import numpy as np

from benchmarks.environment import num_threads
from benchmarks.harness import Provider

_MAX_TABLE_BYTES = 2 << 30


@functools.cache
def _library() -> ctypes.CDLL:
    """Compiles ``gather_floor.cc`` for this very processor and loads it."""
    with tempfile.TemporaryDirectory() as folder:
        target = pathlib.Path(folder) / "gather_floor.so"
        source = pathlib.Path(__file__).with_suffix(".cc")
        command = ["g++", "-O3", "-march=native", "-shared", "-fPIC", "-pthread", str(source)]
        subprocess.run([*command, "-o", str(target)], check=True, capture_output=True, text=True)
        return ctypes.CDLL(str(target))


def sum_rows(table: np.ndarray, ids: np.ndarray, threads: int) -> np.ndarray:
    """Sum of the rows of a float32 table at int64 ids, shape (dim,)."""
    if table.dtype != np.float32 or ids.dtype != np.int64:
        raise ValueError(f"table must be float32 and ids int64. Received: {table.dtype} and {ids.dtype}")
    total = np.empty(table.shape[1], np.float32)
    _library().gather_floor(
        ctypes.c_void_p(table.ctypes.data),
        ctypes.c_int64(table.shape[1]),
        ctypes.c_void_p(ids.ctypes.data),
        ctypes.c_int64(len(ids)),
        ctypes.c_int(threads),
        ctypes.c_void_p(total.ctypes.data),
    )
    return total


class GatherFloor(Provider):
    """Reads the rows that a forward reads, prefetched, on all cores, and writes nothing."""

    name = "gather_floor"
    runtime = "torch"
    is_probe = True
    notes = "probe: rows of one forward are read once for each id, nothing is written; tables are cut to 2 GiB"

    def unsupported(self, case: Any, device: str, mode: str, optimizer: str) -> str:
        if device != "cpu":
            return "CPU only: on a GPU the copy bandwidth is the yardstick"
        return "" if case.dtype == "float32" else "float32 only"

    def memory_bytes(self, problem: Any, device: str, mode: str, optimizer: str) -> int:
        return min(problem.table_bytes, _MAX_TABLE_BYTES)

    def setup(self, problem: Any, device: str, mode: str, optimizer: str) -> None:
        share = min(1.0, _MAX_TABLE_BYTES / problem.table_bytes)
        self._tables = [problem.host_table(t, share) for t in range(len(problem.rows))]
        self._sets = [
            [bags.values % len(table) for bags, table in zip(one, self._tables, strict=True)] for one in problem.sets
        ]
        self._threads = num_threads()

    def forward(self, i: int) -> list[np.ndarray]:
        pairs = zip(self._tables, self._sets[i], strict=True)
        return [sum_rows(table, ids, self._threads) for table, ids in pairs]
