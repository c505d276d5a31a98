"""MovieLens' files, in the formats of each release, as data frames.

Reference: F. M. Harper and J. A. Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any, NamedTuple

from merlin_models.datasets.download import download, unpack

NO_GENRES = "(no genres listed)"
_URL = "https://files.grouplens.org/datasets/movielens/{}.zip"


class Variant(NamedTuple):
    """Attributes: files: that are read. md5: of the archive, None for a release that changes."""

    files: tuple[str, ...]
    md5: str | None


VARIANTS = {
    "ml-25m": Variant(("ratings.csv", "movies.csv"), "6b51fb2759a8657d3bfcbfc42b592ada"),
    "ml-latest-small": Variant(("ratings.csv", "movies.csv"), None),
    "ml-1m": Variant(("ratings.dat", "movies.dat", "users.dat"), "c4d9eecfca2ab87c1945afe126590906"),
    "ml-100k": Variant(("u.data", "u.item", "u.user", "u.genre"), "0e33842e24a9c977be4e0107933c0723"),
}


class MovieLens(NamedTuple):
    """Attributes:
    ratings: data frame of userId, movieId, rating (stars), timestamp (seconds).
    movies: movieId, title, genres (lists of strings, at least one each).
    users: userId, gender, age, occupation, zipcode; None where the release has none.
    """

    ratings: Any
    movies: Any
    users: Any


def find_movielens(path: str | os.PathLike, variant: str) -> pathlib.Path:
    """The folder with a release's files, which are downloaded from GroupLens where they are not there.

    Args:
        path: the folder itself, or the one that it is in, or is to be.
        variant: of :data:`VARIANTS`.

    Raises:
        ConnectionError: if they are neither there nor can be downloaded.
        ValueError: if the variant is not known, or the archive is damaged.
    """
    release = VARIANTS.get(variant)
    if release is None:
        raise ValueError(f"variant must be one of {', '.join(VARIANTS)}. Received: {variant!r}.")
    path = pathlib.Path(path)
    for folder in (path, path / variant):
        if all((folder / name).is_file() for name in release.files):
            return folder
    folder = path if path.name == variant else path / variant
    archive = download(_URL.format(variant), folder.parent / f"{variant}.zip", release.md5)
    found = unpack(
        archive, folder, lambda name: name in (*release.files, "README.txt", "README", "tags.csv", "links.csv")
    )
    missing = set(release.files) - {file.name for file in found}
    if missing:
        raise ValueError(
            f"'{archive}' must have {', '.join(release.files)}. Received: no {', '.join(sorted(missing))}."
        )
    return folder


def read_movielens(folder: str | os.PathLike, variant: str) -> MovieLens:
    """Reads a release's files.

    Args:
        folder: from :func:`find_movielens`.
        variant: of :data:`VARIANTS`.
    """
    return {"ml-1m": _read_1m, "ml-100k": _read_100k}.get(variant, _read_csv)(pathlib.Path(folder))


def _read_csv(folder: pathlib.Path) -> MovieLens:
    import pandas as pd

    movies = pd.read_csv(folder / "movies.csv")
    movies["genres"] = movies["genres"].fillna(NO_GENRES).str.split("|")
    return MovieLens(pd.read_csv(folder / "ratings.csv"), movies, None)


def _read_1m(folder: pathlib.Path) -> MovieLens:
    import pandas as pd

    # Values are separated by two colons. Those of ratings and users have none in them, so each second column is empty.
    def read(name: str, columns: list[str], dtype: dict[str, str] | None = None) -> pd.DataFrame:
        places = range(0, 2 * len(columns), 2)
        frame = pd.read_csv(folder / name, sep=":", header=None, usecols=list(places), names=None, dtype=dtype)
        return frame.set_axis(columns, axis=1)

    ratings = read("ratings.dat", ["userId", "movieId", "rating", "timestamp"])
    users = read("users.dat", ["userId", "gender", "age", "occupation", "zipcode"], {8: "str"})
    lines = (folder / "movies.dat").read_text(encoding="latin-1").splitlines()
    movies = pd.DataFrame([line.split("::") for line in lines], columns=["movieId", "title", "genres"])
    movies["movieId"] = movies["movieId"].astype("int64")
    movies["genres"] = movies["genres"].str.split("|")
    return MovieLens(ratings, movies, users)


def _read_100k(folder: pathlib.Path) -> MovieLens:
    import pandas as pd

    ratings = pd.read_csv(folder / "u.data", sep="\t", names=["userId", "movieId", "rating", "timestamp"])
    users = pd.read_csv(
        folder / "u.user", sep="|", names=["userId", "age", "gender", "occupation", "zipcode"], dtype={"zipcode": "str"}
    )
    genres = [line.split("|")[0] for line in (folder / "u.genre").read_text(encoding="latin-1").splitlines() if line]
    items = pd.read_csv(folder / "u.item", sep="|", header=None, encoding="latin-1")
    flags = items.iloc[:, -len(genres) :].to_numpy(bool)
    movies = pd.DataFrame({"movieId": items[0], "title": items[1]})
    movies["genres"] = [[genres[place] for place in row.nonzero()[0]] or [NO_GENRES] for row in flags]
    return MovieLens(ratings, movies, users)
