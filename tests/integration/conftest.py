"""MovieLens for tests: a generated twin that always is there, and the real ratings where they are."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import sys

import numpy as np
import pandas as pd
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "examples"))

import movielens  # noqa: E402

from merlin_models.datasets.workflows import configure_dask  # noqa: E402

if importlib.util.find_spec("dask"):
    configure_dask()  # before any test module imports dask.dataframe

GENRES = ["Action", "Comedy", "Drama", "Horror", "Romance", "Sci-Fi"]


def make_twin(folder: pathlib.Path, num_users: int = 100, num_movies: int = 150, seed: int = 7) -> pathlib.Path:
    """Writes ratings.csv and movies.csv like MovieLens', whose stars come from tastes for genres.

    Each user has a mood and likes or dislikes each genre; each movie has a quality and one to three genres. So user and
    movie ids tell a part of a rating, and the genres more. A third of all pairs is rated.
    """
    rng = np.random.default_rng(seed)
    genres = [rng.choice(len(GENRES), rng.integers(1, 4), replace=False) for _ in range(num_movies)]
    taste = rng.choice([-1.5, 1.5], (num_users, len(GENRES)))
    mood, quality = rng.normal(0, 0.4, num_users), rng.normal(0, 0.4, num_movies)
    likes = mood[:, None] + quality + np.stack([taste[:, ids].mean(1) for ids in genres], axis=1)
    stars = np.clip(np.round((3.25 + likes + rng.normal(0, 0.3, likes.shape)) * 2) / 2, 0.5, 5)
    users, movies = np.nonzero(rng.random(likes.shape) < 1 / 3)
    ratings = pd.DataFrame(
        {
            "userId": users + 1,
            "movieId": movies * 10 + 1,
            "rating": stars[users, movies],
            "timestamp": rng.integers(1_000_000_000, 1_100_000_000, len(users)),
        }
    )
    folder.mkdir(parents=True, exist_ok=True)
    ratings.to_csv(folder / "ratings.csv", index=False)
    pd.DataFrame(
        {
            "movieId": np.arange(num_movies) * 10 + 1,
            "title": [f"Movie {number} (2000)" for number in range(num_movies)],
            "genres": ["|".join(GENRES[i] for i in ids) for ids in genres],
        }
    ).to_csv(folder / "movies.csv", index=False)
    return folder


@pytest.fixture(scope="session")
def twin_folder(tmp_path_factory) -> pathlib.Path:
    return make_twin(tmp_path_factory.mktemp("twin"))


@pytest.fixture(scope="session")
def twin(twin_folder, tmp_path_factory) -> movielens.Prepared:
    """The twin as the example prepares it."""
    pytest.importorskip("nvtabular", reason="needs nvtabular: the examples' data preparation")
    parts = movielens.split_by_user(movielens.read_ratings(twin_folder), seed=1)
    return movielens.prepare(parts, tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="session")
def movielens_folder() -> pathlib.Path:
    """The folder of the real ml-latest-small, or a skip that says where it was looked for."""
    named = os.environ.get("MERLIN_DATA_DIR")
    folder = pathlib.Path(named) if named else ROOT.parent / "shared" / "data" / "ml-latest-small"
    if not (folder / "ratings.csv").is_file():
        pytest.skip(f"real data: no ratings.csv in {folder}; set MERLIN_DATA_DIR to a folder of MovieLens")
    return folder
