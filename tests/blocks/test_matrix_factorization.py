"""Matrix factorization: scores from rows that are counted by hand, files of tables, configs, errors."""

from __future__ import annotations

import keras
import numpy as np
import pandas as pd
import pytest
from block_data import SCHEMA, batch, count_rows

import merlin_models.tf as ml


def test_vectors_by_hand():
    block = ml.QueryItemIdsEmbeddingsBlock(SCHEMA, dim=2)
    for name, feature in (("query", "userId"), ("item", "movieId")):
        count_rows(block[name].table(feature))
    outputs = block(batch())
    np.testing.assert_allclose(outputs["query"], [[1, 10], [2, 20], [4, 40]])
    np.testing.assert_allclose(outputs["item"], [[5, 50], [0, 0], [3, 30]])
    assert block.schema.column_names == ["userId", "movieId"]


def test_scores_by_hand():
    block = ml.MatrixFactorizationBlock(SCHEMA, dim=2)
    block(batch())
    block["query"].table("userId").assign(np.tile([3.0, 4.0], (5, 1)))
    block["item"].table("movieId").assign(np.tile([[4.0, 3.0], [5.0, 0.0]], (3, 1)))
    np.testing.assert_allclose(block(batch()), [[0.6], [24 / 25], [0.6]], rtol=1e-6)  # ids 5, 0, 3
    product = ml.MatrixFactorizationBlock(SCHEMA, dim=2, aggregation="elementwise-multiply")
    assert product(batch()).shape == (3, 2)


def test_files_of_tables(tmp_path):
    block = ml.MatrixFactorizationBlock(SCHEMA, dim=8)
    for name, tag, rows in (("query", ml.Tags.USER_ID, 5), ("item", ml.Tags.ITEM_ID, 6)):
        block[name].export_embedding_table(tag, tmp_path / f"{name}.parquet")
        frame = pd.read_parquet(tmp_path / f"{name}.parquet")
        assert frame["id"].tolist() == list(range(rows))
        assert {len(row) for row in frame["embedding"]} == {8}


def test_config_and_options():
    options = ml.EmbeddingOptions(embedding_dims={"userId": 4, "movieId": 4}, embeddings_l2_reg=0.1)
    block = ml.QueryItemIdsEmbeddingsBlock(SCHEMA, embedding_options=options, post=ml.L2Norm())
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(block))
    block(batch())
    again(batch())
    again.set_weights(block.get_weights())
    np.testing.assert_array_equal(again(batch())["item"], block(batch())["item"])
    assert len(again.losses) == 2


def test_errors():
    with pytest.raises(ValueError, match=r"The schema is required by MatrixFactorization"):
        ml.MatrixFactorizationBlock(None, dim=4)
    with pytest.raises(ValueError, match=r"The schema should contain features with the tag `item_id`"):
        ml.MatrixFactorizationBlock(SCHEMA.remove_by_name("movieId"), dim=4)
    with pytest.raises(
        ValueError,
        match=r"The schema should contain one feature with the tag `item`. Received: \['movieId', 'genres'\]",
    ):
        ml.MatrixFactorizationBlock(SCHEMA, dim=4, item_id_tag="item")
    for wrong in ({}, {"dim": 4, "embedding_options": ml.EmbeddingOptions()}):
        with pytest.raises(ValueError, match=r"Either dim or embedding_options must be given"):
            ml.QueryItemIdsEmbeddingsBlock(SCHEMA, **wrong)
