"""Small ratings in the file formats of MovieLens' releases."""

from __future__ import annotations

import pathlib

import numpy as np
import pandas as pd

GENRES = ["Action", "Comedy", "Drama", "Horror"]
OCCUPATIONS = ["writer", "doctor", "student"]


def make_release(
    folder: pathlib.Path, variant: str, num_users: int = 20, num_movies: int = 15
) -> dict[str, pd.DataFrame]:
    """Writes a release's files; returns what is in them as data frames: ratings, movies, users."""
    rng = np.random.default_rng(3)
    folder.mkdir(parents=True, exist_ok=True)
    pairs = rng.random((num_users, num_movies)) < 0.6
    pairs[:, 0] = pairs[0] = True
    users, movies = np.nonzero(pairs)
    stars = rng.integers(1, 6, len(users))
    ratings = pd.DataFrame({"userId": users + 1, "movieId": movies * 3 + 1, "rating": stars})
    ratings["timestamp"] = rng.integers(900_000_000, 1_000_000_000, len(users))
    films = pd.DataFrame({"movieId": np.arange(num_movies) * 3 + 1})
    films["title"] = [f"Film: No. {number}, the Café (1999)" for number in range(num_movies)]
    films["genres"] = [
        sorted(rng.choice(GENRES, rng.integers(1, 4), replace=False).tolist()) for _ in range(num_movies)
    ]
    people = pd.DataFrame({"userId": np.arange(num_users) + 1})
    people["gender"] = rng.choice(["F", "M"], num_users)
    people["age"] = rng.choice([1, 18, 25, 35, 45, 50, 56], num_users)
    people["occupation"] = rng.integers(0, 21, num_users)
    people["zipcode"] = [f"0{number:04d}" for number in range(num_users)]
    made = {"ratings": ratings, "movies": films, "users": people}
    if variant == "ml-1m":
        _write(folder / "ratings.dat", ratings, "::")
        _write(folder / "movies.dat", films.assign(genres=films["genres"].str.join("|")), "::")
        _write(folder / "users.dat", people[["userId", "gender", "age", "occupation", "zipcode"]], "::")
    elif variant == "ml-100k":
        people["occupation"] = rng.choice(OCCUPATIONS, num_users)
        _write(folder / "u.data", ratings, "\t")
        _write(folder / "u.user", people[["userId", "age", "gender", "occupation", "zipcode"]], "|")
        (folder / "u.genre").write_text("".join(f"{name}|{number}\n" for number, name in enumerate(GENRES)) + "\n")
        flags = pd.DataFrame({name: films["genres"].map(lambda own, name=name: int(name in own)) for name in GENRES})
        items = films[["movieId", "title"]].assign(released="01-Jan-1999", video="", url="http://example.com/a")
        _write(folder / "u.item", pd.concat([items, flags], axis=1), "|")
    else:
        ratings["rating"] = ratings["rating"] - 0.5
        ratings.to_csv(folder / "ratings.csv", index=False)
        films.loc[2, "genres"] = "(no genres listed)"
        films["genres"] = films["genres"].map(lambda own: own if isinstance(own, list) else [own])
        films.assign(genres=films["genres"].str.join("|")).to_csv(folder / "movies.csv", index=False)
    return made


def _write(path: pathlib.Path, frame: pd.DataFrame, separator: str) -> None:
    lines = [separator.join(map(str, row)) + "\n" for row in frame.itertuples(index=False)]
    path.write_text("".join(lines), encoding="latin-1")
