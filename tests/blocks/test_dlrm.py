"""DLRMBlock: its numbers, widths and error messages."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from block_data import SCHEMA, batch

import merlin_models.tf as ml

CATEGORICAL = SCHEMA.select_by_name(["userId", "movieId", "genres"])


@pytest.mark.usefixtures("on_device")
def test_interactions_by_hand():
    block = ml.DLRMBlock(SCHEMA, bottom_block=ml.MLPBlock([3]))
    output = np.asarray(block(batch()))
    vectors = block.embeddings(batch())
    bottom = block.bottom_block(block.continuous(batch()))
    x = np.stack([bottom, *(vectors[name] for name in ("genres", "movieId", "userId"))], axis=1).astype(np.float64)
    products = np.einsum("bfd,bgd->bfg", x, x)
    expected = np.stack([products[:, i, j] for i in range(4) for j in range(i + 1, 4)], axis=1)
    assert output.shape == (3, 6)  # n (n - 1) / 2 without a top block
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


def test_the_bottom_block_reaches_the_top_block():
    """The seed's shortcut matched nothing: the dense vector never got there."""
    seen = []

    class Look(keras.layers.Layer):
        def call(self, inputs):
            seen.append(inputs)
            return inputs

    block = ml.DLRMBlock(SCHEMA, bottom_block=ml.MLPBlock([3]), top_block=Look())
    block(batch())
    bottom = np.asarray(block.bottom_block(block.continuous(batch())))
    top_inputs = np.asarray(seen[-1])
    assert top_inputs.shape == (3, 16)  # 3 + 6, padded to a multiple of 8
    np.testing.assert_array_equal(top_inputs[:, :3], bottom)
    assert not top_inputs[:, 9:].any()


def test_widths_and_sizes():
    block = ml.DLRMBlock(SCHEMA, bottom_block=ml.MLPBlock([16, 4]), top_block=ml.MLPBlock([5]))
    assert block(batch()).shape == (3, 5)
    assert block.compute_output_shape({name: value.shape for name, value in batch().items()}) == (None, 5)
    assert block.embeddings.table("movieId").shape == (6, 4)  # the bottom block's units
    assert block.schema.column_names == ["userId", "movieId", "genres", "age"]
    only = ml.DLRMBlock(CATEGORICAL, embedding_dim=6, top_block=ml.MLPBlock([2]))
    assert only(batch()).shape == (3, 2)
    options = ml.EmbeddingOptions(embedding_dim_default=12, combiner="sum")
    assert ml.DLRMBlock(CATEGORICAL, embedding_options=options)(batch()).shape == (3, 3)


def test_given_embeddings():
    vectors = ml.EmbeddingFeatures.from_schema(CATEGORICAL, ml.EmbeddingOptions(embedding_dim_default=4))
    block = ml.DLRMBlock(SCHEMA, bottom_block=ml.MLPBlock([4]), embeddings=vectors)
    assert block.embeddings is vectors
    assert block(batch()).shape == (3, 6)
    with pytest.raises(ValueError, match="embeddings must not be given together with embedding_dim"):
        ml.DLRMBlock(SCHEMA, 4, ml.MLPBlock([4]), embeddings=vectors)
    with pytest.raises(ValueError, match=r"last layer of bottom MLP. Received: 4 and 5 units"):
        ml.DLRMBlock(SCHEMA, bottom_block=ml.MLPBlock([5]), embeddings=vectors)
    with pytest.raises(ValueError, match=r"must be of the categorical features \['movieId'\]. Received: \['genres', "):
        ml.DLRMBlock(SCHEMA.select_by_name("movieId"), embeddings=vectors)


def test_wrong_arguments():
    bottom = ml.MLPBlock([4])
    with pytest.raises(ValueError, match="The schema is required by DLRM"):
        ml.DLRMBlock(None, bottom_block=bottom)
    with pytest.raises(ValueError, match="DLRM requires categorical features"):
        ml.DLRMBlock(SCHEMA.select_by_name("age"), bottom_block=bottom)
    with pytest.raises(ValueError, match="The bottom_block is required by DLRM when the schema has continuous"):
        ml.DLRMBlock(SCHEMA, embedding_dim=4)
    with pytest.raises(ValueError, match="bottom_block must be None where the schema has no continuous"):
        ml.DLRMBlock(CATEGORICAL, bottom_block=bottom)
    with pytest.raises(
        ValueError, match=r"embedding_dim needs to match the last layer of bottom MLP. Received: 5 and 4"
    ):
        ml.DLRMBlock(SCHEMA, embedding_dim=5, bottom_block=bottom)
    with pytest.raises(ValueError, match="embedding_dim must be given where no bottom_block tells it"):
        ml.DLRMBlock(CATEGORICAL)
    with pytest.raises(ValueError, match="must not be given together"):
        ml.DLRMBlock(CATEGORICAL, 4, embedding_options=ml.EmbeddingOptions())
    with pytest.raises(ValueError, match="All embeddings of DLRM must have one length"):
        ml.DLRMBlock(CATEGORICAL, embedding_options=ml.EmbeddingOptions(embedding_dims={"userId": 3}))
    odd = keras.Sequential([keras.layers.Dense(7)])  # does not tell its units
    with pytest.raises(ValueError, match=r"needs to match the last layer of bottom MLP. Received: 4 and 7"):
        ml.DLRMBlock(SCHEMA, embedding_dim=4, bottom_block=odd)(batch())
