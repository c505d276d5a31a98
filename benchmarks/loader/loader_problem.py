"""Ratings in MovieLens' shape as Parquet files, and the sums by which a loader's epoch is checked."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import NotEqual, Provider
from benchmarks.ids import draw_ids

USERS, MOVIES, GENRES, MAX_GENRES = 162_542, 56_690, 20, 6
IDS, NUMBERS, LABEL = ("userId", "movieId"), ("TE_movieId_rating", "userId_count"), "rating_b"
ROW_GROUP_ROWS = 250_000
NUM_FILES = 4


@dataclasses.dataclass(frozen=True)
class Case:
    """Attributes: rows: of all files. batch: rows of a batch."""

    name: str
    rows: int
    batch: int
    groups: tuple[str, ...] = ()
    dtype: str = "int64"
    ids: str = "zipf1.2"

    def build(self) -> LoaderProblem:
        return LoaderProblem(self)


class LoaderProblem:
    """The files, in a temporary folder that goes with this object, and what the columns of an epoch must add up to.

    Attributes:
        files: paths.
        checksum: of all rows, in any order; see :func:`checksum`.
        first_users: int64, the users of the first batch as they are stored.
        nbytes: of the columns' values, and of the lists' ends.
    """

    num_sets = 1
    num_grads = 1

    def __init__(self, case: Case):
        self.case = case
        self._folder = tempfile.TemporaryDirectory()
        table = _ratings(np.random.default_rng(0), case.rows)
        per_file = -(-case.rows // NUM_FILES)
        self.files = []
        for number, start in enumerate(range(0, case.rows, per_file)):
            path = pathlib.Path(self._folder.name) / f"part_{number}.parquet"
            group = min(ROW_GROUP_ROWS, -(-per_file // 4))
            pq.write_table(table.slice(start, per_file), path, row_group_size=group)
            self.files.append(str(path))
        columns = {name: table[name].combine_chunks() for name in table.column_names}
        genres = columns.pop("genres")
        arrays = {name: column.to_numpy() for name, column in columns.items()}
        self.checksum = checksum(arrays, genres.values.to_numpy(), genres.offsets.to_numpy())
        self.first_users = arrays["userId"][: case.batch]
        self.nbytes = sum(values.nbytes for values in arrays.values())
        self.nbytes += genres.values.nbytes + 8 * (case.rows + 1)

    def config(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self.case), "files": len(self.files), "mbytes": round(self.nbytes / 1e6, 1)}


def _ratings(rng: np.random.Generator, rows: int) -> pa.Table:
    counts = rng.integers(1, MAX_GENRES + 1, rows)
    offsets = np.zeros(rows + 1, np.int32)
    np.cumsum(counts, out=offsets[1:])
    genres = rng.integers(3, 3 + GENRES, offsets[-1])
    return pa.table(
        {
            "userId": rng.integers(3, USERS + 1, rows),
            "movieId": 3 + draw_ids(rng, "zipf1.2", MOVIES - 2, rows),
            "genres": pa.ListArray.from_arrays(pa.array(offsets), pa.array(genres)),
            "TE_movieId_rating": rng.random(rows, np.float32),
            "userId_count": rng.random(rows, np.float32),
            "rating_b": rng.integers(0, 2, rows).astype(np.int8),
        }
    )


def checksum(arrays: dict[str, np.ndarray], genres: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """float64: rows, the sum of each column, and two sums that tie a row's columns together and its list's order in.

    Integers up to 2 ** 53 are exact, so only the sums with float32 columns depend on the order of rows, by rounding.
    """
    user, movie = (arrays[name].reshape(-1).astype(np.float64) for name in IDS)
    label, first, second = (arrays[name].reshape(-1).astype(np.float64) for name in (LABEL, *NUMBERS))
    offsets = np.asarray(offsets, np.int64)
    lengths = np.diff(offsets)
    row = np.repeat(np.arange(len(user)), lengths)
    place = 1 + np.arange(len(genres)) - offsets[row]
    weighted = np.bincount(row, genres * place, minlength=len(user))
    sums = [len(user), user.sum(), movie.sum(), label.sum(), first.sum(), second.sum(), genres.sum(), lengths.sum()]
    ties = [(user * (movie % 97) * (1 + label)).sum(), (weighted * (user % 89)).sum(), (first * (user % 83)).sum()]
    return np.array([*sums, *ties, (second * (movie % 79)).sum()], np.float64)


def check(provider: Provider, problem: LoaderProblem, mode: str, optimizer: str) -> float:
    """The largest relative error of an epoch's checksum, and that its rows do not come as they are stored.

    Raises:
        NotEqual: if a row is missing, there twice or mixed up, a batch is too large, or nothing is shuffled.
    """
    total = np.zeros_like(problem.checksum)
    first_users = None
    for arrays, genres, offsets in provider.batches():
        rows = len(arrays[LABEL])
        if rows > problem.case.batch:
            raise NotEqual(f"a batch has {rows} rows, {problem.case.batch} are wanted")
        if first_users is None:
            first_users = arrays["userId"].reshape(-1)
        total += checksum(arrays, genres, offsets)
    if first_users is None or np.array_equal(first_users, problem.first_users[: len(first_users)]):
        raise NotEqual("the first batch must be shuffled, it is as it is stored")
    error = np.max(np.abs(total - problem.checksum) / problem.checksum)
    if not error <= 1e-9:
        raise NotEqual(f"the epoch's sums are {total.tolist()}, those of the files {problem.checksum.tolist()}")
    return float(error)
