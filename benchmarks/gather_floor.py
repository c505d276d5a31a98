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


def sum_rows(tables: list[np.ndarray], ids: list[np.ndarray], threads: int) -> list[np.ndarray]:
    """Sum of the rows of each float32 table at its int64 ids, shapes (dim,)."""
    for table, values in zip(tables, ids, strict=True):
        if table.dtype != np.float32 or values.dtype != np.int64:
            raise ValueError(f"tables must be float32 and ids int64. Received: {table.dtype} and {values.dtype}")
    sums = [np.empty(table.shape[1], np.float32) for table in tables]
    count = len(tables)
    _library().gather_floor(
        ctypes.c_int(count),
        _pointers(tables),
        (ctypes.c_int64 * count)(*(table.shape[1] for table in tables)),
        _pointers(ids),
        (ctypes.c_int64 * count)(*map(len, ids)),
        ctypes.c_int(threads),
        _pointers(sums),
    )
    return sums


def _pointers(arrays: list[np.ndarray]) -> Any:
    return (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))


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
        return sum_rows(self._tables, self._sets[i], self._threads)
