"""Small tables for the loader's tests, and ways to look at what a loader delivers."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Container

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def small_table() -> pa.Table:
    """Five rows that can be checked by eye."""
    return pa.table(
        {
            "user": pa.array([10, 11, 12, 13, 14], pa.int32()),
            "item": pa.array([1, 2, 3, 4, 5], pa.int64()),
            "genres": pa.array([[7, 8], [], [9], [1, 2, 3], [4]], pa.list_(pa.int64())),
            "age": pa.array([0.5, 1.5, 2.5, 3.5, 4.5], pa.float64()),
            "clicked": pa.array([1, 0, 1, 0, 1], pa.int64()),
            "watched": pa.array([0.0, 0.25, 0.5, 0.75, 1.0], pa.float32()),
        }
    )


def numbered_table(start: int, stop: int) -> pa.Table:
    """Rows numbered in column "row"; column "bag" has row % 4 copies of the number."""
    rows = np.arange(start, stop)
    bags = pa.array([[row] * (row % 4) for row in rows.tolist()], pa.list_(pa.int64()))
    return pa.table({"row": rows, "bag": bags, "y": rows % 2})


def write_numbered(folder, files: int = 3, rows: int = 40, group: int = 10) -> list[str]:
    """Files of numbered rows with several row groups each."""
    paths = []
    for file in range(files):
        path = str(folder / f"part_{file}.parquet")
        pq.write_table(numbered_table(file * rows, (file + 1) * rows), path, row_group_size=group)
        paths.append(path)
    return paths


def features_of(batch):
    return batch[0] if isinstance(batch, tuple) else batch


def rows_of(batches, name: str = "row") -> list[int]:
    """The values of a scalar column over all batches, in the order of delivery."""
    return [int(value) for batch in batches for value in features_of(batch)[name].numpy().ravel()]


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("merlin-loader")]


def wait_for_threads(before: Container[threading.Thread] = (), limit_s: float = 5.0) -> list[threading.Thread]:
    """Gives the reading threads time to end; returns those that are left and were not there `before`."""
    deadline = time.monotonic() + limit_s
    while True:
        left = [thread for thread in reading_threads() if thread not in before]
        if not left or time.monotonic() > deadline:
            return left
        gc.collect()
        time.sleep(0.01)
