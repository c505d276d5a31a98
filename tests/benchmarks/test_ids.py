"""The samplers of ids: their distribution, their bounds, and that hot ids are scattered."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import ids


@pytest.mark.parametrize("alpha", [0.8, 1.05, 1.15, 1.2])
@pytest.mark.parametrize("rows", [1, 2, 10, 1000])
def test_zipf_has_its_distribution(alpha, rows):
    draws = 200_000
    ranks = ids.zipf_ranks(np.random.default_rng(0), alpha, rows, draws)
    probability = np.arange(1, rows + 1) ** -alpha
    expected = draws * probability / probability.sum()
    chi_square = ((np.bincount(ranks, minlength=rows) - expected) ** 2 / expected).sum()
    degrees = rows - 1
    assert len(ranks) == draws
    assert chi_square <= degrees + 5 * np.sqrt(2 * degrees)


def test_zipf_of_a_huge_table_stays_in_range_and_reaches_far():
    ranks = ids.zipf_ranks(np.random.default_rng(1), 1.05, 40_000_000, 100_000)
    assert ranks.min() == 0
    assert 10_000_000 < ranks.max() < 40_000_000


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 100, 65_536])
def test_scatter_is_one_to_one(rows):
    assert np.array_equal(np.sort(ids.scatter_ranks(np.arange(rows), rows)), np.arange(rows))


def test_hot_ids_are_not_neighbours():
    hottest = np.sort(ids.scatter_ranks(np.arange(100), 1_000_000))
    assert np.diff(hottest).min() > 1000


def test_uniform_covers_all_rows():
    drawn = ids.draw_ids(np.random.default_rng(2), "uniform", 50, 5000)
    assert np.array_equal(np.unique(drawn), np.arange(50))


def test_bags_of_one_length_and_of_many():
    rng = np.random.default_rng(3)
    fixed = ids.make_bags(rng, "uniform", 100, bags=40, hot=5, ragged=False)
    assert np.array_equal(np.diff(fixed.row_splits), np.full(40, 5))
    ragged = ids.make_bags(rng, "zipf1.2", 100, bags=400, hot=3, ragged=True)
    lengths = np.diff(ragged.row_splits)
    assert set(lengths) == set(range(7))
    assert ragged.row_splits[-1] == len(ragged.values)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rng: ids.zipf_ranks(rng, 1.0, 10, 5), "alpha must be positive and not 1. Received: 1.0"),
        (lambda rng: ids.zipf_ranks(rng, 1.2, 0, 5), "rows must be at least 1. Received: 0"),
        (lambda rng: ids.draw_ids(rng, "normal", 10, 5), "Received: 'normal'"),
        (lambda rng: ids.scatter_ranks(np.arange(3), 2**31), "rows must be below"),
    ],
)
def test_wrong_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.random.default_rng(0))


def _write_movielens(folder):
    (folder / "movies.csv").write_text(
        'movieId,title,genres\n10,"A, the first",Drama|War\n20,B,Comedy\n30,C,Comedy|Drama|War\n'
    )
    (folder / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,10,4,1\n1,20,3,2\n2,30,5,3\n3,10,1,4\n")


def test_movielens_columns(tmp_path, monkeypatch):
    _write_movielens(tmp_path)
    monkeypatch.setenv("MERLIN_DATA_DIR", str(tmp_path))
    rows, batches = ids.movielens_bags(np.random.default_rng(0), bags=4, sets=2)
    assert rows == [3, 3, 3]
    users, movies, genres = batches[0]
    assert sorted(users.values) == [0, 0, 1, 2]
    # Movie 10 is number 0 with Drama and War, 20 is 1 with Comedy, 30 is 2 with all three; genres are sorted.
    names = {0: [1, 2], 1: [0], 2: [0, 1, 2]}
    for bag, movie in enumerate(movies.values):
        assert list(genres.values[genres.row_splits[bag] : genres.row_splits[bag + 1]]) == names[movie]


def test_movielens_that_is_not_there_names_the_places(tmp_path, monkeypatch):
    monkeypatch.setenv("MERLIN_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(ids, "_REPOSITORY", tmp_path / "repository")
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        ids.movielens_folder()
