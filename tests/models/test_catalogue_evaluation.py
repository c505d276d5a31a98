"""Evaluation on a catalogue: what rows have among the seen interactions, and items that are not there."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from retrieval_data import CATALOGUE, IDS, MOVIES, USERS, interactions

import merlin_models.tf as ml


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(3)
    model = ml.TwoTowerModel(IDS, ml.MLPBlock([4], activation="linear"))
    model.compile("adam")
    return model


def test_a_rows_own_item_is_not_excluded(model):
    """Rows among the seen interactions: theirs is found as if it was the only one that they were not."""
    rows = interactions(100, seed=5)
    scores = (
        model.query_embeddings({"userId": np.arange(1, USERS + 1)}).to_numpy()
        @ model.item_embeddings(CATALOGUE).T.to_numpy()
    )
    ranks = []
    for user, movie in zip(rows["userId"], rows["movieId"], strict=True):
        others = np.setdiff1d(rows["movieId"][rows["userId"] == user], movie)
        left = np.setdiff1d(np.arange(MOVIES), others - 1)
        ranks.append((scores[user - 1, left] > scores[user - 1, movie - 1]).sum())
    expected = np.mean([rank < 10 for rank in ranks])
    assert 0 < expected < 1
    results = model.evaluate(rows, item_corpus=CATALOGUE, exclude_seen=rows, return_dict=True, batch_size=30)
    assert results["item_retrieval_task/recall_at_10"] == pytest.approx(expected, abs=1e-6)
    batches = tf.data.Dataset.from_tensor_slices((rows, rows["movieId"])).batch(30)
    of_recommender = model.to_top_k_encoder(CATALOGUE).evaluate(batches, exclude_seen=rows, return_dict=True)
    assert of_recommender["recall_at_10"] == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match=r"Targets must be the ids of the true candidates\. Received: none"):
        model.to_top_k_encoder(CATALOGUE).evaluate({"userId": rows["userId"]}, exclude_seen=rows)


@pytest.mark.parametrize("strategy", ["brute-force-topk", "approximate"])
def test_items_that_are_not_in_the_catalogue_are_misses(model, strategy):
    if strategy == "approximate":
        pytest.importorskip("faiss")
        strategy = ml.ApproximateTopK(10)
    rows = interactions(100, seed=5)
    catalogue = {name: values[MOVIES // 2 :] for name, values in CATALOGUE.items()}
    missing = int((rows["movieId"] <= MOVIES // 2).sum())
    assert 0 < missing < 100
    recommender = model.to_top_k_encoder(catalogue, strategy=strategy)
    message = f"{missing} of 100 rows have an item that is not in the catalogue"
    with pytest.warns(UserWarning, match=message) as warned:
        some = model.evaluate(rows, item_corpus=recommender, return_dict=True, batch_size=30)
    assert [each.filename for each in warned if message in str(each.message)] == [__file__]
    known = {name: values[rows["movieId"] > MOVIES // 2] for name, values in rows.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Keras' variables, with NumPy 2.
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        all_known = model.evaluate(known, item_corpus=recommender, return_dict=True)
    name = "item_retrieval_task/recall_at_10"
    assert some[name] * 100 == pytest.approx(all_known[name] * (100 - missing), abs=1e-4)


@pytest.mark.parametrize("form", ["frame", "parquet"])
def test_rows_by_the_names_of_columns(model, form, tmp_path):
    rows = {name: value for name, value in interactions(100, seed=5).items() if name in IDS}
    expected = model.evaluate(rows, item_corpus=CATALOGUE, exclude_seen=rows, return_dict=True)
    given = pd.DataFrame(rows)
    if form == "parquet":
        given.to_parquet(tmp_path / "rows.parquet")
        given = tmp_path / "rows.parquet"
    assert model.evaluate(given, item_corpus=CATALOGUE, exclude_seen=rows, return_dict=True) == pytest.approx(expected)


@pytest.mark.parametrize("form", ["frame", "dictionary"])
def test_targets_by_the_names_of_columns(form):
    history = ml.ColumnSchema.create_categorical("seen", MOVIES, value_count=(1, 2))
    task = ml.SampledSoftmaxTask(history, None, target_name="movieId", metrics=[ml.RecallAt(5)])
    model = ml.RetrievalModel(ml.InputBlock(ml.Schema([history])), ml.MLPBlock([8]), task)
    model.compile("adam")
    rows = {"seen": np.array([[1, 2], [3, 0], [4, 5]]), "movieId": np.array([7, 8, 9])}
    corpus = model.to_top_k_encoder(k=5)
    expected = model.evaluate({"seen": rows["seen"]}, rows["movieId"], item_corpus=corpus, return_dict=True)
    given = rows
    if form == "frame":
        given = pd.DataFrame({"seen": [[1, 2], [3], [4, 5]], "movieId": rows["movieId"]})
    assert model.evaluate(given, item_corpus=corpus, return_dict=True) == pytest.approx(expected)
