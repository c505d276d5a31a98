"""Two towers that recommend movies, beside popularity and a matrix factorization.

    python examples/two_tower_movielens.py --output two_tower_output

Takes MovieLens ratings, splits those of each user by time, and encodes them with NVTabular. Trains two towers, one of the
user and the movies that he liked before and one of the movie and its genres, on what users liked (4 stars or more), and asks
which of all movies that a user has not rated yet he likes next: Recall@10 and NDCG@10 over the full catalogue. Writes the
encoded data, recommender.keras and results.json. With --validate the last 20 % of train take the place of test, as where
the constants below were chosen.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import pathlib
import time
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # implicit has threads of its own

import movielens

from merlin_models.datasets.workflows import configure_dask

configure_dask()  # before anything brings dask.dataframe in

import keras
import numpy as np
import pandas as pd
import scipy.sparse
from rich.console import Console
from rich.table import Table

import merlin_models
import merlin_models.tf as ml
from merlin_models.loader.tensorflow import KerasSequenceLoader
from merlin_models.schema import ColumnSchema, Schema, Tags

USER, HISTORY, ITEM, GENRES = "userId", "history", "movieId", "genres"
FEATURES = [USER, HISTORY, ITEM, GENRES]
LIKED = 4.0  # stars
K = 10
TEST = 0.2  # the last ratings of each user
# Chosen with --validate, on the last 20 % of the train part: by the sum of both measures over the seeds 1, 2 and 3.
LENGTH, DIM, DROPOUT, LEARNING_RATE, EPOCHS = 20, 128, 0.5, 3e-3, 20
ALS = {"factors": 128, "regularization": 8.0, "alpha": 1.0, "iterations": 25}
FIRST_MOVIE = 3  # ids before: padding, null, and what train does not have


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("two_tower_output"), help="a folder")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=1, help="of the weights and the order of rows")
    parser.add_argument("--validate", action="store_true", help="measure on the last 20 %% of train instead of test")
    options = parser.parse_args(arguments)
    for name in ("epochs", "batch_size"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1. Received: {getattr(options, name)}.")
    return options


def split_by_time(ratings: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The first ratings of each user are "train", those of them with enough stars "likes", the last ones "test".

    Each user by himself: half of these users gave all their ratings within about an hour, so that one date for all would
    leave hardly a user with ratings on both sides.
    """
    ordered = ratings.sort_values([USER, "timestamp", ITEM], kind="stable")
    of_user = ordered.groupby(USER)[USER]
    late = (of_user.cumcount() + 0.5) / of_user.transform("size") > 1 - TEST
    train = ordered[~late]
    parts = {"train": train, "likes": train[train["rating"] >= LIKED], "test": ordered[late]}
    return {name: part.reset_index(drop=True) for name, part in parts.items()}


def likes_before(likes: pd.DataFrame) -> tuple[list[list[int]], dict[int, list[int]]]:
    """Of each row the last movies that its user liked before, and of each user the last ones of all, oldest first.

    Args:
        likes: users and movies as ids, the rows of a user in the order of time.
    """
    histories, latest = [], collections.defaultdict(list)
    for user, movie in zip(likes[USER], likes[ITEM], strict=True):
        histories.append(latest[user])
        latest[user] = [*latest[user], movie][-LENGTH:]
    return histories, latest


def make_model(schema: Schema, likes: np.ndarray) -> ml.RetrievalModel:
    """Two towers that are sums of embeddings: of the user and the mean of his history, of the movie and its genres' mean.

    Scores are plain products, so that popular movies may have long vectors. The batch gives a movie as a negative as often
    as it is liked; the correction keeps this from counting against it.
    """
    movies = schema[ITEM].cardinality
    history = ColumnSchema.create_categorical(HISTORY, movies - 1, value_count=(0, LENGTH), tags=[Tags.USER])
    model = ml.TwoTowerModel(
        Schema([*schema.select_by_name([USER, ITEM, GENRES]), history]),
        query_tower=ml.SequentialBlock([ml.ElementwiseSum(), keras.layers.Dropout(DROPOUT)]),
        item_tower=ml.ElementwiseSum(),
        embedding_options=ml.EmbeddingOptions(embedding_dim_default=DIM),
        metrics=[ml.RecallAt(K)],
        task_options={
            "normalize": False,
            "logq_correction": ml.PopularityLogitsCorrection(np.bincount(likes, minlength=movies)),
        },
    )
    model.compile(optimizer=keras.optimizers.Adam(LEARNING_RATE))
    return model


def titles_of(ratings: pd.DataFrame, parts: dict[str, pd.DataFrame], encoded: pd.DataFrame) -> dict[int, str]:
    """Encoded id of a movie -> title."""
    pairs = pd.DataFrame({"id": encoded[ITEM].to_numpy(), "movie": parts["train"][ITEM].to_numpy()}).drop_duplicates()
    if pairs["id"].duplicated().any():
        raise RuntimeError("The encoded rows must be in the order of the ratings. Received: an id of two movies.")
    titles = movielens.read_titles()
    return {int(row.id): titles[row.movie] for row in pairs.itertuples()}


def measures(found: np.ndarray, relevant: list[np.ndarray]) -> dict[str, float]:
    """Recall and NDCG at K, the means over users.

    Args:
        found: (users, K) ids of movies, the best first.
        relevant: of each user the ids that he liked in the test part, at least one; those that train does not have are
            misses.
    """
    discounts = 1 / np.log2(np.arange(2, K + 2))
    recall, ndcg = [], []
    for row, liked in zip(found, relevant, strict=True):
        hits = np.isin(row, liked[liked >= FIRST_MOVIE])
        recall.append(hits.sum() / min(len(liked), K))
        ndcg.append((hits * discounts).sum() / discounts[: len(liked)].sum())
    return {f"Recall@{K}": float(np.mean(recall)), f"NDCG@{K}": float(np.mean(ndcg))}


def best_of(users: np.ndarray, items: np.ndarray, ids: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The ids (users, K) of the greatest products of vectors, without those seen."""
    return np.asarray(ml.BruteForceTopK(K).index(items, ids)(users, exclude=seen).identifiers)


def baselines(
    likes: pd.DataFrame, ids: np.ndarray, users: np.ndarray, seen: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """What popularity and implicit's alternating least squares recommend to users, from the same likes."""
    from implicit.als import AlternatingLeastSquares

    shape = (users.max() + 1, ids.max() + 1)
    matrix = scipy.sparse.csr_matrix((np.ones(len(likes), np.float32), (likes[USER], likes[ITEM])), shape=shape)
    counts = np.asarray(matrix.sum(axis=0))[0, ids]
    model = AlternatingLeastSquares(**ALS, random_state=seed)
    model.fit(matrix, show_progress=False)
    return {
        "popularity": best_of(np.ones((len(users), 1), np.float32), counts[:, np.newaxis], ids, seen),
        "matrix factorization (ALS)": best_of(model.user_factors[users], model.item_factors[ids], ids, seen),
    }


def show(console: Console, results: dict[str, dict[str, float]], users: int, movies: int) -> None:
    table = Table(title=f"{users:,} users, {movies:,} movies", title_justify="left")
    table.add_column("recommender")
    names = list(next(iter(results.values())))
    for name in names:
        table.add_column(name, justify="right")
    for recommender, row in results.items():
        table.add_row(recommender, *(f"{row[name]:.4f}" for name in names))
    console.print(table)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Does all that the module's docstring says; returns what results.json gets."""
    console = Console()
    merlin_models.show_build()
    keras.utils.set_random_seed(options.seed)
    started = time.perf_counter()

    with console.status("Encoding the ratings with NVTabular"):
        ratings = movielens.read_ratings()
        parts = split_by_time(ratings)
        if options.validate:
            parts = split_by_time(parts["train"])
        data = movielens.prepare(parts, options.output)
        train, likes, test = (data.frame(part) for part in parts)
    schema = Schema().from_proto_text(str(data.schema_path))
    likes[HISTORY], latest = likes_before(likes)
    prepared = time.perf_counter()

    loader = KerasSequenceLoader(
        likes,
        options.batch_size,
        label_names=[],
        cat_names=FEATURES,
        cont_names=[],
        seed=options.seed,
    )
    model = make_model(schema, likes[ITEM].to_numpy())
    history = model.fit(loader, epochs=options.epochs, verbose=0).history
    trained = time.perf_counter()

    catalogue = train.drop_duplicates(ITEM)[[ITEM, GENRES]]
    ids = catalogue[ITEM].to_numpy()
    recommender = model.to_top_k_encoder(catalogue, k=K)
    recommender.save(options.output / "recommender.keras")
    liked = test[parts["test"]["rating"].to_numpy() >= LIKED].groupby(USER)[ITEM].agg(list)
    users, relevant = liked.index.to_numpy(), [np.array(ids) for ids in liked]
    seen = ml.SeenItems.from_frame(train, USER, ITEM)
    found = baselines(likes, ids, users, seen.of(users), options.seed)
    queries = pd.DataFrame({USER: users, HISTORY: [latest[user] for user in users]})
    loaded = keras.models.load_model(options.output / "recommender.keras")
    found["two towers"] = loaded.recommend(queries, exclude_seen=seen).identifiers
    results = {name: measures(rows, relevant) for name, rows in found.items()}
    console.print()
    show(console, results, len(users), len(ids))

    titles = titles_of(ratings, parts, train)
    user = int(likes[USER].value_counts().index[0])
    table = Table(title=f"The last likes of user {user}, and what to see next", title_justify="left")
    table.add_column("liked")
    table.add_column("recommended")
    query = {USER: np.array([user]), HISTORY: np.array([latest[user]])}
    recommended = loaded.recommend(query, exclude_seen=seen).identifiers[0]
    for one, other in zip(latest[user][-K:], recommended, strict=False):
        table.add_row(titles[int(one)], titles[int(other)])
    console.print(table)

    finished = time.perf_counter()
    output = {
        "valid" if options.validate else "test": results,
        "loss": history["loss"],
        "recommended": [titles[int(movie)] for movie in recommended],
        "seconds": {"prepare": prepared - started, "train": trained - prepared, "all": finished - started},
    }
    (options.output / "results.json").write_text(json.dumps(output, indent=2) + "\n")
    console.print(f"{finished - started:.0f} s, of which training {trained - prepared:.0f} s. See {options.output}/.")
    return output


if __name__ == "__main__":
    run(parse_arguments())
