"""XGBoost by a schema: targets, rankings, early stopping, files."""

from __future__ import annotations

import doctest

import numpy as np
import pandas as pd
import pytest

import merlin_models.xgb
from merlin_models.api import MerlinModel
from merlin_models.schema import ColumnSchema, Schema, Tags
from merlin_models.xgb import XGBoost

xgboost = pytest.importorskip("xgboost", reason="needs the extra 'xgboost'")

SCHEMA = Schema(
    [
        ColumnSchema.create_categorical("user", 20, tags=[Tags.USER_ID]),
        ColumnSchema.create_categorical("movie", 50, tags=[Tags.ITEM_ID]),
        ColumnSchema.create_continuous("age"),
        ColumnSchema("click", tags=[Tags.BINARY_CLASSIFICATION, Tags.TARGET]),
        ColumnSchema("rating", tags=[Tags.REGRESSION, Tags.TARGET]),
    ]
)
CLICK, RATING = SCHEMA.remove_by_name("rating"), SCHEMA.remove_by_name("click")


@pytest.fixture
def rows(rng) -> pd.DataFrame:
    number = 400
    frame = pd.DataFrame(
        {
            "user": rng.integers(1, 21, number),
            "movie": rng.integers(1, 51, number),
            "age": rng.random(number),
        }
    )
    frame["rating"] = frame["age"] * 4 + (frame["movie"] > 25)
    frame["click"] = (frame["rating"] > 2.5).astype(np.int64)
    return frame


def test_regression_is_that_of_xgboost(rows, tmp_path):
    model = XGBoost(RATING, max_depth=3)
    assert isinstance(model, MerlinModel)
    assert model.feature_columns == ["user", "movie", "age"]
    rows.to_parquet(tmp_path / "rows.parquet")
    assert model.fit(tmp_path / "rows.parquet", num_boost_round=20) is model
    matrix = xgboost.DMatrix(rows[["user", "movie", "age"]].to_numpy(np.float32), rows["rating"])
    theirs = xgboost.train({"objective": "reg:squarederror", "max_depth": 3}, matrix, 20)
    predictions = model.predict({name: rows[name].to_numpy()[:, None] for name in model.feature_columns})
    np.testing.assert_allclose(predictions, theirs.predict(matrix), rtol=1e-6)
    rmse = np.sqrt(np.mean((predictions - rows["rating"]) ** 2))
    assert model.evaluate(rows) == pytest.approx({"rmse": rmse}, rel=1e-4)
    assert rmse < 0.3

    loaded = XGBoost.load(model.save(tmp_path / "model"))
    np.testing.assert_array_equal(loaded.predict(rows), predictions)
    assert (loaded.objective, loaded.params, loaded.schema) == ("reg:squarederror", {"max_depth": 3}, RATING)
    assert loaded.evaluate(rows) == model.evaluate(rows)


def test_classification_with_metrics_of_choice(rows):
    model = XGBoost(CLICK, objective="binary:logistic", eval_metric=["auc", "logloss"])
    metrics = model.fit(rows).evaluate(rows)
    assert list(metrics) == ["auc", "logloss"]
    assert metrics["auc"] > 0.99
    assert ((model.predict(rows) > 0.5) == (rows["click"] == 1)).mean() > 0.95


def test_several_targets(rows):
    model = XGBoost(SCHEMA, num_parallel_tree=1).fit(rows, num_boost_round=20)
    assert model.target_columns == ["click", "rating"]
    predictions = model.predict(rows)
    assert predictions.shape == (len(rows), 2)
    assert model.predict(rows[:0]).shape == (0, 2)
    assert np.abs(predictions - rows[["click", "rating"]].to_numpy()).mean() < 0.3


def test_ranking_by_query_in_any_order(rows, tmp_path):
    model = XGBoost(CLICK, objective="rank:ndcg", seed=1)
    assert (model.qid_column, model.feature_columns) == ("user", ["movie", "age"])
    shuffled = rows.sample(frac=1, random_state=1)
    metrics = model.fit(shuffled, num_boost_round=20).evaluate(shuffled, k=5)
    assert list(metrics) == ["recall_at_5", "precision_at_5", "map_at_5", "ndcg_at_5", "mrr_at_5"]
    assert metrics["ndcg_at_5"] > 0.95
    np.testing.assert_array_equal(model.predict(shuffled), model.predict(rows.loc[shuffled.index]))
    loaded = XGBoost.load(model.save(tmp_path))
    assert loaded.evaluate(rows, k=5) == pytest.approx(metrics)


def test_metrics_of_rankings_by_hand():
    # Query 7 has 3, 1 relevant second; query 5 has 2, the first of them relevant; query 9 has 1, not relevant.
    queries = np.array([7, 5, 7, 9, 5, 7])
    labels = np.array([0, 1, 1, 0, 0, 0], np.float32)
    scores = np.array([0.9, 0.8, 0.5, 0.4, 0.1, 0.3], np.float32)
    found = merlin_models.xgb._by_query(queries, labels, scores, 4)
    np.testing.assert_array_equal(found, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]])


def test_early_stopping(rows):
    model = XGBoost(RATING, eta=1.0)
    model.fit(rows, valid=rows.assign(rating=-rows["rating"]), num_boost_round=30, early_stopping_rounds=2)
    assert model.booster.num_boosted_rounds() < 30


def test_wrong_use(rows, tmp_path):
    with pytest.raises(TypeError, match=r"schema must be a merlin_models.schema.Schema. Received: dict"):
        XGBoost({})
    with pytest.raises(ValueError, match=r"must have a target .* Received: targets \[\]"):
        XGBoost(SCHEMA.remove_by_tag(Tags.TARGET))
    with pytest.raises(ValueError, match=r"features \[\]"):
        XGBoost(SCHEMA.select_by_tag(Tags.TARGET))
    with pytest.raises(ValueError, match=r"must have a target \(of a ranking: one\)"):
        XGBoost(SCHEMA, objective="rank:pairwise")
    with pytest.raises(ValueError, match=r"qid_column must be None unless objective is rank:... Received: user, reg"):
        XGBoost(CLICK, qid_column="user")
    with pytest.raises(ValueError, match=r"qid_column must be one of the columns .* Received: None"):
        XGBoost(CLICK.remove_by_name("user"), objective="rank:ndcg")
    with pytest.raises(ValueError, match=r"no columns of lists.*Received: \['genres'\]"):
        XGBoost(CLICK + Schema([ColumnSchema.create_categorical("genres", 5, value_count=(0, 3))]))
    with pytest.raises(ValueError, match=r"Targets must be columns of the schema"):
        XGBoost(CLICK, target_columns="rating")
    model = XGBoost(CLICK, target_columns="click")
    for call in (model.predict, model.evaluate, model.save):
        with pytest.raises(RuntimeError, match=r"fit\(\) must be called before"):
            call(tmp_path)
    with pytest.raises(ValueError, match=r"valid and early_stopping_rounds must be given together"):
        model.fit(rows, valid=rows)
    with pytest.raises(ValueError, match=r"data must have rows"):
        model.fit(rows[:0])
    with pytest.raises(ValueError, match=r"without \['age'\]"):
        model.fit(rows.drop(columns="age"))
    ranker = XGBoost(CLICK, objective="rank:ndcg").fit(rows)
    with pytest.raises(ValueError, match=r"a row of 'click' above 0"):
        ranker.evaluate(rows.assign(click=0))
    with pytest.raises(ValueError, match=r"k must be an integer of at least 1. Received: 0"):
        ranker.evaluate(rows, k=0)
    assert model.fit(rows).predict(rows[:0]).shape == (0,)


def test_example_runs():
    failed, ran = doctest.testmod(merlin_models.xgb)
    assert (failed, ran > 0) == (0, True)
