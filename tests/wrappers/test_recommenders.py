"""implicit's and LightFM's factorizations: columns, recommendations, metrics, files."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from merlin_models.api import MerlinModel
from merlin_models.implicit import AlternatingLeastSquares, BayesianPersonalizedRanking
from merlin_models.lightfm import LightFM
from merlin_models.schema import ColumnSchema, Schema, Tags
from merlin_models.wrappers.recommender import Recommender

USERS, ITEMS = 40, 20


def schema_of(target: bool = True) -> Schema:
    columns = [
        ColumnSchema.create_categorical("user", USERS, tags=[Tags.USER_ID]),
        ColumnSchema.create_categorical("movie", ITEMS, tags=[Tags.ITEM_ID]),
    ]
    return Schema(
        [*columns, ColumnSchema("like", tags=[Tags.BINARY_CLASSIFICATION, Tags.TARGET])][: 3 if target else 2]
    )


class Fixed(Recommender):
    """Vectors that are given: what the shared part makes of them can be checked by hand."""

    def build(self):
        if set(self.params) - {"users", "items"}:
            raise TypeError(f"Unknown: {self.params}")

    def factorize(self, interactions):
        self.matrix = interactions.toarray()
        return np.array(self.params["users"]), np.array(self.params["items"])


@pytest.fixture
def fixed() -> Fixed:
    users = [[0, 0], [1, 0], [0, 1]]
    items = [[9, 9], [1, 4], [2, 3], [3, 2], [4, 1]]
    schema = Schema(
        [
            ColumnSchema.create_categorical("user", 2, tags=[Tags.USER_ID]),
            ColumnSchema.create_categorical("movie", 4, tags=[Tags.ITEM_ID]),
            ColumnSchema("like", tags=[Tags.TARGET]),
        ]
    )
    rows = {"user": [1, 1, 2, 2, 2, 1], "movie": [4, 3, 1, 2, 2, 1], "like": [1, 2, 1, 3, 1, 0]}
    return Fixed(schema, users=users, items=items).fit(rows)


def test_interactions_are_summed_and_rows_of_0_left_out(fixed):
    expected = np.zeros((3, 5))
    expected[1, 4], expected[1, 3], expected[2, 1], expected[2, 2] = 1, 2, 1, 4
    np.testing.assert_array_equal(fixed.matrix, expected)


def test_recommendations_by_hand(fixed):
    users, items, scores = fixed.predict({"user": np.array([[2], [1], [2]], np.int32)}, k=3)
    np.testing.assert_array_equal(users, [1, 2])
    np.testing.assert_array_equal(items, [[2, 1, -1], [3, 4, -1]])  # item 0 was never seen, so is never recommended
    np.testing.assert_array_equal(scores, [[2, 1, -np.inf], [2, 1, -np.inf]])
    seen = fixed.predict({"user": [1]}, k=2, exclude_seen=False)
    np.testing.assert_array_equal(seen.items, [[4, 3]])
    assert fixed.predict({"user": np.zeros(0, np.int64)}, k=2).items.shape == (0, 2)


def test_metrics_by_hand(fixed):
    # User 1 gets 2, 1 and wants 1 (3 it had); user 2 gets 3, 4 and wants 3 and 9, which is unknown to fit(); user 0 is new.
    rows = {"user": [1, 1, 2, 2, 0], "movie": [1, 3, 3, 9, 1], "like": [1, 1, 1, 1, 1]}
    metrics = fixed.evaluate(rows, k=2)
    second = 1 / np.log2(3)
    expected = {
        "recall_at_2": (1 + 0.5) / 2,
        "precision_at_2": 0.5,
        "map_at_2": (0.5 + 0.5) / 2,
        "ndcg_at_2": (second + 1 / (1 + second)) / 2,
        "mrr_at_2": (0.5 + 1) / 2,
    }
    assert metrics == pytest.approx(expected, rel=1e-6)
    assert fixed.evaluate(rows, k=2, exclude_seen=False)["mrr_at_2"] == pytest.approx((0.5 + 0) / 2)


def test_wrong_use_of_recommenders(fixed, tmp_path):
    with pytest.raises(TypeError, match=r"schema must be a merlin_models.schema.Schema. Received: list"):
        Fixed([])
    with pytest.raises(ValueError, match=r"must have a column tagged ITEM_ID. Received: \['user'\]"):
        Fixed(schema_of().select_by_name("user"))
    two = schema_of() + Schema([ColumnSchema("rating", tags=[Tags.TARGET])])
    with pytest.raises(ValueError, match=r"target_column must name one .* Received: None, with \['like', 'rating'\]"):
        Fixed(two)
    with pytest.raises(ValueError, match=r"Targets must be columns of the schema.*\['click'\]"):
        Fixed(two, target_column="click")
    model = Fixed(schema_of(), target_column="like")
    for call in (model.predict, model.evaluate, model.save):
        with pytest.raises(RuntimeError, match=r"fit\(\) must be called before"):
            call(tmp_path)
    with pytest.raises(ValueError, match=r"Ids of column 'movie' must be below 21. Received: 21"):
        model.fit({"user": [1], "movie": [21], "like": [1]})
    with pytest.raises(ValueError, match=r"Column 'user' must hold integer ids of at least 0. .*smallest -1"):
        model.fit({"user": [-1], "movie": [2], "like": [1]})
    with pytest.raises(ValueError, match=r"Column 'movie' must hold integer ids"):
        model.fit({"user": [1], "movie": [2.0], "like": [1]})
    with pytest.raises(ValueError, match=r"Column 'movie' must be less than 2\*\*63. Received: 9223372036854775813"):
        model.fit({"user": [1], "movie": np.array([2**63 + 5], np.uint64), "like": [1]})
    with pytest.raises(ValueError, match=r"Column 'like' must hold finite numbers"):
        model.fit({"user": [1], "movie": [2], "like": [np.nan]})
    with pytest.raises(ValueError, match=r"train must have rows whose target is not 0"):
        model.fit({"user": [1], "movie": [2], "like": [0]})
    with pytest.raises(ValueError, match=r"data must have users that fit\(\) saw. Received: 1 others, as \[0\]"):
        fixed.predict({"user": [0, 1]}, k=1)
    with pytest.raises(ValueError, match=r"k must be an integer of at least 1 and at most the number of items, 5"):
        fixed.predict({"user": [1]}, k=6)
    with pytest.raises(ValueError, match=r"relevant items of users that fit\(\) saw"):
        fixed.evaluate({"user": [0], "movie": [1], "like": [1]}, k=2)


def test_wrong_columns():
    model = Fixed(schema_of())
    with pytest.raises(ValueError, match=r"data must have the columns .* without \['like'\]"):
        model.fit({"user": [1], "movie": [2]})
    with pytest.raises(
        ValueError, match=r"data must have the columns .* without \['like', 'movie'\]|\['movie', 'like'\]"
    ):
        model.fit(pd.DataFrame({"user": [1]}))
    with pytest.raises(ValueError, match=r"Columns must have one length. Received: {'user': 1, 'movie': 2"):
        model.fit({"user": [1], "movie": [2, 3], "like": [1]})
    with pytest.raises(ValueError, match=r"Column 'movie' must hold one number a row. Received: shape \(1, 2\)"):
        model.fit({"user": [1], "movie": [[2, 3]], "like": [1]})
    with pytest.raises(ValueError, match=r"Column 'movie' must hold one number a row"):
        model.fit(pd.DataFrame({"user": [1], "movie": ["a"], "like": [1]}))
    with pytest.raises(TypeError, match=r"Received: builtins.int"):
        model.fit(3)


WRAPPERS = {
    "als": ("implicit", AlternatingLeastSquares, {"factors": 4, "random_state": 1, "num_threads": 1}),
    "bpr": ("implicit", BayesianPersonalizedRanking, {"factors": 4, "random_state": 1, "num_threads": 1}),
    "lightfm": ("lightfm", LightFM, {"loss": "bpr", "epochs": 30, "random_state": 1}),
}


@pytest.fixture(params=WRAPPERS)
def wrapper(request):
    library, cls, params = WRAPPERS[request.param]
    pytest.importorskip(library, reason=f"needs the extra '{library}'")
    return cls, params


@pytest.fixture
def two_tastes(rng) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Users of odd number like items of odd number, others the others; a row in five is held out."""
    users, items = np.divmod(np.arange(USERS * ITEMS), ITEMS)
    users, items = users + 1, items + 1
    rows = pd.DataFrame({"user": users, "movie": items, "like": (users % 2 == items % 2).astype(np.int64)})
    held_out = rng.random(len(rows)) < 0.2
    return rows[~held_out], rows[held_out]


def test_learns_tastes_and_reloads(wrapper, two_tastes, tmp_path):
    cls, params = wrapper
    train, valid = two_tastes
    model = cls(schema_of(), **params)
    assert isinstance(model, MerlinModel)
    pq.write_table(pa.Table.from_pandas(train, preserve_index=False), tmp_path / "train.parquet")
    assert model.fit(tmp_path / "train.parquet") is model
    metrics = model.evaluate(valid, k=10)
    assert list(metrics) == ["recall_at_10", "precision_at_10", "map_at_10", "ndcg_at_10", "mrr_at_10"]
    assert metrics["recall_at_10"] > 0.9  # by chance about 0.8: 10 of 12 items are left
    assert metrics["map_at_10"] > 0.8
    best = model.predict(valid, k=2)
    liked = set(zip(valid["user"][valid["like"] == 1], valid["movie"][valid["like"] == 1], strict=True))
    first = [(u, m) for u, m in zip(best.users, best.items[:, 0], strict=True) if any(v[0] == u for v in liked)]
    assert np.mean([pair in liked for pair in first]) > 0.9

    loaded = cls.load(model.save(tmp_path / "model"))
    for ours, theirs in zip(best, loaded.predict(valid, k=2), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.evaluate(valid) == metrics
    refitted = loaded.fit({name: train[name].to_numpy() for name in train})
    np.testing.assert_allclose(refitted.predict(valid, k=2).scores, best.scores, rtol=1e-5)


def test_rows_without_target_count_1(wrapper):
    cls, params = wrapper
    rows = {"user": np.array([1, 1, 2, 2], np.int32), "movie": np.array([1, 2, 2, 3], np.int32)}
    assert cls(schema_of(target=False), **params).fit(rows).predict(rows, k=1).items.shape == (2, 1)


def test_unknown_parameters(wrapper, tmp_path):
    cls, _ = wrapper
    with pytest.raises(TypeError, match="colour"):
        cls(schema_of(), colour="red")


def test_other_class_in_folder(tmp_path, fixed):
    pytest.importorskip("implicit", reason="needs the extra 'implicit'")
    with pytest.raises(ValueError, match=r"must hold a AlternatingLeastSquares. Received: a Fixed"):
        AlternatingLeastSquares.load(fixed.save(tmp_path))


def test_epochs_and_threads_of_lightfm():
    with pytest.raises(ValueError, match=r"epochs must be an integer of at least 1. Received: 0"):
        LightFM(schema_of(), epochs=0)


def test_lightfm_scores_have_its_biases():
    lightfm = pytest.importorskip("lightfm", reason="needs the extra 'lightfm'")
    sparse = pytest.importorskip("scipy.sparse")
    rows = {"user": [1, 1, 2, 2], "movie": [1, 2, 2, 3]}
    params = {"no_components": 3, "random_state": 5}
    ours = LightFM(schema_of(target=False), epochs=4, **params).fit(rows).predict({"user": [1]}, 3, exclude_seen=False)
    theirs = lightfm.LightFM(**params)
    matrix = sparse.coo_matrix((np.ones(4, np.float32), (rows["user"], rows["movie"])), (USERS + 1, ITEMS + 1))
    theirs.fit(matrix, epochs=4)
    np.testing.assert_allclose(ours.scores[0], theirs.predict(1, ours.items[0]), rtol=1e-5)


def test_example_of_implicit_runs():
    pytest.importorskip("implicit", reason="needs the extra 'implicit'")
    failed, ran = doctest.testmod(importlib.import_module("merlin_models.implicit"))
    assert (failed, ran > 0) == (0, True)


def test_needs_no_tensorflow(run_python):
    run_python(
        "import sys, merlin_models.implicit, merlin_models.lightfm, merlin_models.xgb\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
