"""Ids as recommenders see them: uniform, bounded Zipf, and real ones from MovieLens."""

from __future__ import annotations

import csv
import math
import os
import pathlib
from typing import NamedTuple

import numpy as np

_REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


class BagArrays(NamedTuple):
    """Bags of one feature: ids of bag ``b`` are ``values[row_splits[b]:row_splits[b + 1]]``."""

    values: np.ndarray
    row_splits: np.ndarray


def zipf_ranks(rng: np.random.Generator, alpha: float, rows: int, size: int) -> np.ndarray:
    """Draws ranks 0..rows-1 with probability proportional to (rank + 1) ** -alpha, exactly.

    Rejection from the continuous density x ** -alpha: the integral over [k - 1/2, k + 1/2] is at least k **
    -alpha because the density is convex, so a point drawn from the density and rounded to k is kept with the
    ratio of the two. The first rank has its interval shortened to [x0, 3/2] so that the ratio is 1 there.

    Args:
        rng: the generator.
        alpha: exponent, above 0 and not 1.
        rows: number of ranks.
        size: number of draws.

    Returns:
        int64 ranks, shape (size,).

    Raises:
        ValueError: if alpha or rows is out of range.

    Example:
        >>> import numpy as np
        >>> ranks = zipf_ranks(np.random.default_rng(0), alpha=1.2, rows=1000, size=5)
        >>> bool(ranks.min() >= 0 and ranks.max() < 1000)
        True
    """
    if not alpha > 0 or alpha == 1:
        raise ValueError(f"alpha must be positive and not 1. Received: {alpha}")
    if rows < 1:
        raise ValueError(f"rows must be at least 1. Received: {rows}")
    power = 1.0 - alpha

    def integral(x):
        return x**power / power

    high = integral(rows + 0.5)
    low = integral(1.5) - 1.0
    ranks = np.empty(size, np.int64)
    filled = 0
    while filled < size:
        count = max(1024, int((size - filled) * 1.3))
        area = rng.uniform(low, high, count)
        k = np.clip(np.rint((area * power) ** (1.0 / power)), 1, rows)
        width = integral(k + 0.5) - np.where(k == 1, low, integral(k - 0.5))
        kept = k[rng.random(count) * width <= k**-alpha][: size - filled]
        ranks[filled : filled + len(kept)] = kept
        filled += len(kept)
    return ranks - 1


def scatter_ranks(ranks: np.ndarray, rows: int) -> np.ndarray:
    """Maps ranks one to one to ids, far apart: hot ids of real data do not lie side by side in a table.

    Args:
        ranks: integers in [0, rows), any shape.
        rows: number of ids, below 2 ** 31.

    Returns:
        int64 ids of the shape of ``ranks``.
    """
    if rows >= 2**31:
        raise ValueError(f"rows must be below 2 ** 31. Received: {rows}")
    step = max(1, int(rows * 0.6180339887))
    while math.gcd(step, rows) != 1:
        step += 1
    return (np.asarray(ranks, np.int64) * step + rows // 3) % rows


def draw_ids(rng: np.random.Generator, distribution: str, rows: int, size: int) -> np.ndarray:
    """Draws int64 ids in [0, rows).

    Args:
        rng: the generator.
        distribution: "uniform", or "zipf" with the exponent behind it ("zipf1.05", "zipf1.2").
        rows: number of ids.
        size: number of draws.

    Returns:
        Shape (size,).

    Raises:
        ValueError: if the distribution is not known.
    """
    if distribution == "uniform":
        return rng.integers(0, rows, size, dtype=np.int64)
    if distribution.startswith("zipf"):
        return scatter_ranks(zipf_ranks(rng, float(distribution.removeprefix("zipf")), rows, size), rows)
    raise ValueError(f"ids must be 'uniform' or 'zipf<exponent>'. Received: {distribution!r}")


def make_bags(rng: np.random.Generator, distribution: str, rows: int, bags: int, hot: int, ragged: bool) -> BagArrays:
    """Draws bags of ``hot`` ids, or of 0 to 2 * hot ids (uniform lengths) if ``ragged``."""
    lengths = rng.integers(0, 2 * hot + 1, bags) if ragged else np.full(bags, hot)
    row_splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return BagArrays(draw_ids(rng, distribution, rows, int(row_splits[-1])), row_splits)


def movielens_folder() -> pathlib.Path:
    """The folder of ml-latest-small: MERLIN_DATA_DIR or a folder in it, or ../shared/data.

    Raises:
        FileNotFoundError: if there is none, naming the places that were looked at.
    """
    places = [_REPOSITORY.parent / "shared/data/ml-latest-small"]
    if folder := os.environ.get("MERLIN_DATA_DIR"):
        places = [pathlib.Path(folder), pathlib.Path(folder) / "ml-latest-small", *places]
    for place in places:
        if (place / "ratings.csv").is_file() and (place / "movies.csv").is_file():
            return place
    raise FileNotFoundError(f"MovieLens (ratings.csv, movies.csv) is in none of {', '.join(map(str, places))}")


def movielens_bags(rng: np.random.Generator, bags: int, sets: int) -> tuple[list[int], list[list[BagArrays]]]:
    """Batches of real ratings: user, movie (one id a bag) and the movie's genres (several ids a bag).

    Args:
        rng: shuffles the ratings once; batches follow one another and wrap around.
        bags: ratings a batch.
        sets: number of batches.

    Returns:
        (rows of the three tables, for each batch its three features).
    """
    folder = movielens_folder()
    with (folder / "movies.csv").open(newline="", encoding="utf-8") as file:
        genres_of = {row["movieId"]: row["genres"].split("|") for row in csv.DictReader(file)}
    with (folder / "ratings.csv").open(newline="", encoding="utf-8") as file:
        pairs = [(row["userId"], row["movieId"]) for row in csv.DictReader(file)]
    users = np.unique([user for user, _ in pairs], return_inverse=True)[1]
    names, movies = np.unique([movie for _, movie in pairs], return_inverse=True)
    genre_ids = {genre: i for i, genre in enumerate(sorted({g for gs in genres_of.values() for g in gs}))}
    genres = [np.array([genre_ids[g] for g in genres_of[name]], np.int64) for name in names]
    order = rng.permutation(len(pairs))
    batches = []
    for s in range(sets):
        rows = order[np.arange(s * bags, (s + 1) * bags) % len(order)]
        lists = [genres[movie] for movie in movies[rows]]
        splits = np.concatenate([[0], np.cumsum([len(one) for one in lists])]).astype(np.int64)
        single = np.arange(bags + 1, dtype=np.int64)
        batches.append(
            [
                BagArrays(users[rows].astype(np.int64), single),
                BagArrays(movies[rows].astype(np.int64), single),
                BagArrays(np.concatenate(lists), splits),
            ]
        )
    return [int(users.max()) + 1, len(names), len(genre_ids)], batches
