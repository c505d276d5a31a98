"""Catalogues and queries that would give another order or other identifiers without a word."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import merlin_models.tf as ml
from merlin_models.layers.catalogue import pad_lists
from merlin_models.models.batches import ids_of

VECTORS = np.eye(6, 4, dtype=np.float32)
LAYERS = {"exact": lambda: ml.BruteForceTopK(3), "chunks": lambda: ml.BruteForceTopK(3, chunk_size=4)}
BIG = np.arange(6, dtype=np.uint64) + np.uint64(2**63)


def layer(kind):
    if kind != "approximate":
        return LAYERS[kind]()
    pytest.importorskip("faiss", reason="needs faiss: ApproximateTopK")
    return ml.ApproximateTopK(3)


@pytest.mark.parametrize("kind", [*LAYERS, "approximate"])
def test_candidates_without_a_place_in_an_order(kind):
    top_k = layer(kind).index(VECTORS)
    for number in (np.nan, np.inf, -np.inf):
        vectors = VECTORS.copy()
        vectors[[2, 5], 1] = number
        with pytest.raises(ValueError, match=r"candidates must be finite\. Received: NaN .* in 2 of them, at \[2, 5\]"):
            top_k.index(vectors)
    with pytest.raises(ValueError, match=r"identifiers must not have -1, which stands for none\. Received: -1"):
        top_k.index(VECTORS, np.arange(-3, 3))
    with pytest.raises(ValueError, match=r"identifiers must not have -1, which stands for none\. Received: -1"):
        top_k.index(pd.DataFrame(VECTORS, index=np.arange(-3, 3)))
    with pytest.raises(ValueError, match=r"identifiers must be less than 2\*\*63\. Received: 9223372036854775813"):
        top_k.index(VECTORS, BIG)
    queries = np.array([[1, 2, 3, 4], [np.nan, 0, 0, 0]], np.float32)  # what failed left the catalogue as it was
    found = top_k(queries[:1])
    assert np.array(found.identifiers).tolist() == [[3, 2, 1]]
    if kind != "approximate":
        found = top_k(queries)
        assert np.array(found.identifiers).tolist() == [[3, 2, 1], [-1, -1, -1]]
        assert np.isneginf(found.scores[1]).all()


@pytest.mark.parametrize("kind", [*LAYERS, "approximate"])
@pytest.mark.parametrize(("queries", "rows"), [(1, 2), (3, 1), (3, 2)])
def test_exclude_of_other_rows(kind, queries, rows):
    top_k, vectors = layer(kind).index(VECTORS), np.ones((queries, 4), np.float32)
    with pytest.raises(
        ValueError, match=rf"exclude must have a row for each of {queries} queries\. Received: \({rows}, 1\)"
    ):
        top_k(vectors, exclude=np.arange(rows)[:, np.newaxis])
    if kind == "approximate":
        return
    spec = [tf.TensorSpec([None, 4], tf.float32), tf.TensorSpec([None, None], tf.int64)]
    function = tf.function(lambda x, exclude: top_k(x, exclude=exclude), input_signature=spec)
    with pytest.raises(tf.errors.InvalidArgumentError):
        function(vectors, np.arange(rows)[:, np.newaxis])


def test_ids_from_2_63():
    message = r"must be less than 2\*\*63\. Received: 9223372036854775808"
    one = BIG[:1]
    for refused in (
        lambda: ml.SeenItems(users=one, items=[1]),
        lambda: ml.SeenItems(users=[1], items=one),
        lambda: ids_of({"user": one}, "user"),
        lambda: pad_lists(one[np.newaxis]),
        lambda: pad_lists([one, []]),
        lambda: ml.IndexBlock(VECTORS[:1], one),
    ):
        with pytest.raises(ValueError, match=message):
            refused()
    below = np.array([2**63 - 1], np.uint64)
    assert ml.SeenItems(users=below, items=below).of(below).tolist() == [[2**63 - 1]]
    assert np.array(ml.BruteForceTopK(1).index(VECTORS[:1], below)(VECTORS[:1]).identifiers).tolist() == [[2**63 - 1]]


def test_a_recommender_of_a_model_that_diverged():
    columns = [
        ml.ColumnSchema.create_categorical("user", 20, tags=[ml.Tags.USER_ID]),
        ml.ColumnSchema.create_categorical("item", 20, tags=[ml.Tags.ITEM_ID]),
    ]
    model = ml.MatrixFactorizationModel(ml.Schema(columns), dim=4)
    weights = model.get_weights()
    model.set_weights([np.where(np.arange(len(each))[:, np.newaxis] == 7, np.nan, each) for each in weights])
    with pytest.raises(ValueError, match=r"candidates must be finite\. Received: NaN .* in 1 of them, at \[6\]"):
        model.to_top_k_encoder({"item": np.arange(1, 21)}, k=3)
