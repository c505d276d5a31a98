"""InputBlock and ContinuousFeatures."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from block_data import GENRES, POOLED, SCHEMA, batch, count_rows

from merlin_models.blocks import (
    ContinuousFeatures,
    EmbeddingFeatures,
    EmbeddingOptions,
    InputBlock,
    MLPBlock,
    NoOp,
    ParallelBlock,
)
from merlin_models.schema import ColumnSchema, Schema, Tags


def shapes(outputs):
    return {name: tuple(value.shape) for name, value in sorted(outputs.items())}


def test_branches_and_output():
    block = InputBlock(SCHEMA)
    assert isinstance(block, ParallelBlock)
    assert list(block) == ["continuous", "categorical"]
    assert isinstance(block["continuous"], ContinuousFeatures)
    assert isinstance(block["categorical"], EmbeddingFeatures)
    assert shapes(block(batch())) == {"age": (3, 1), "genres": (3, 64), "movieId": (3, 64), "userId": (3, 64)}
    assert sorted(block.schema.column_names) == ["age", "genres", "movieId", "userId"]


@pytest.mark.parametrize("tags", [["target"], ["binary_classification"], ["binary", "classification"], ["regression"]])
def test_targets_are_left_out(tags):
    schema = Schema([*SCHEMA.remove_by_name("rating_b"), ColumnSchema.create_categorical("y", 1, tags=tags)])
    assert "y" not in InputBlock(schema).schema


def test_a_branch_exists_only_for_columns():
    assert list(InputBlock(SCHEMA.remove_by_name("age"))) == ["categorical"]
    assert list(InputBlock(SCHEMA.select_by_name("age"))) == ["continuous"]
    assert list(InputBlock(SCHEMA, add_continuous_branch=False)) == ["categorical"]
    assert list(InputBlock(SCHEMA, add_embedding_branch=False)) == ["continuous"]
    assert InputBlock(SCHEMA, categorical_tags=Tags.USER_ID)["categorical"].feature_names == ["userId"]
    with pytest.raises(ValueError, match=r"tagged continuous or categorical that is no target. Received: .*rating_b"):
        InputBlock(SCHEMA.select_by_name("rating_b"))


def test_continuous_projection():
    block = InputBlock(
        SCHEMA,
        continuous_projection=MLPBlock([7]),
        embedding_options=EmbeddingOptions(embedding_dim_default=7),
    )
    assert shapes(block(batch())) == {
        "continuous": (3, 7),
        "genres": (3, 7),
        "movieId": (3, 7),
        "userId": (3, 7),
    }
    with pytest.raises(ValueError, match="continuous_projection must be None"):
        InputBlock(SCHEMA.remove_by_name("age"), continuous_projection=MLPBlock([7]))


def test_more_branches_and_aggregation():
    block = InputBlock(SCHEMA, branches={"raw": ContinuousFeatures(["rating_b"])}, aggregation="concat")
    assert block(batch()).shape == (3, 3 * 64 + 1 + 1)
    assert list(InputBlock(SCHEMA, branches={"categorical": NoOp()})) == ["continuous", "categorical"]
    assert sorted(InputBlock(SCHEMA, post=NoOp())(batch())) == ["age", "genres", "movieId", "userId"]


def test_mlp_concatenates_in_the_order_of_names():
    options = EmbeddingOptions(embedding_dim_default=1, embeddings_initializers="ones")
    schema = SCHEMA.select_by_name(["userId", "movieId", "genres"])
    body = InputBlock(schema, embedding_options=options).connect(MLPBlock([1], activation=None, use_bias=False))
    body(batch())
    body[1][0].set_weights([np.array([[1.0], [10.0], [100.0]])])  # genres, movieId, userId
    np.testing.assert_array_equal(body(batch()), [[111], [111], [110]])


def test_single_feature_as_a_bare_tensor():
    block = InputBlock(SCHEMA.select_by_name("userId")).connect(MLPBlock([2]))
    ids = np.array([1, 3])
    np.testing.assert_array_equal(block(ids), block({"userId": ids}))
    with pytest.raises(TypeError, match="must be a dictionary from feature to tensor"):
        InputBlock(SCHEMA)(ids)


def test_continuous_features():
    block = ContinuousFeatures(["b", "a"])
    out = block({"a": np.array([1, 2]), "b": np.array([[0.5], [1.5]]), "c": np.array([3, 3])})
    assert shapes(out) == {"a": (2, 1), "b": (2, 1)}
    assert keras.backend.standardize_dtype(out["a"].dtype) == "float32"
    assert ContinuousFeatures.from_config(block.get_config()).feature_names == ["a", "b"]
    assert ContinuousFeatures.from_schema(SCHEMA, tags=Tags.CONTINUOUS).feature_names == ["age"]
    with pytest.raises(ValueError, match=r"continuous features \['a', 'b'\]. Received: \['a'\]; missing: \['b'\]"):
        block({"a": np.array([1, 2])})
    with pytest.raises(ValueError, match="features must have a name"):
        ContinuousFeatures([])
    with pytest.raises(ValueError, match=r"'a' must be a dense or ragged tensor. Received: SparseTensor"):
        ContinuousFeatures(["a"])({"a": tf.sparse.from_dense([[1.0]])})


def test_sequences_of_numbers():
    ragged = tf.ragged.constant([[1], [2, 3]])
    assert ContinuousFeatures(["a"])({"a": ragged})["a"].to_list() == [[[1.0]], [[2.0], [3.0]]]
    schema = Schema([ColumnSchema.create_continuous("a", value_count=(0, 0)), ColumnSchema.create_continuous("b")])
    inputs = {"a": np.ones((2, 3)), "b": np.ones(2)}
    assert shapes(ContinuousFeatures(schema=schema)(inputs)) == {"a": (2, 3), "b": (2, 1)}  # a vector
    block = ContinuousFeatures(schema=schema, seq=True)
    assert shapes(block(inputs)) == {"a": (2, 3, 1), "b": (2, 1)}
    assert ContinuousFeatures.from_config(block.get_config()).seq
    tagged = Schema([schema["a"].with_tags(Tags.SEQUENCE)])
    block = ContinuousFeatures(schema=tagged)
    assert shapes(block(inputs)) == {"a": (2, 3, 1)}
    with pytest.raises(ValueError, match=r"schema must be given with seq"):
        ContinuousFeatures(["a"], seq=True)


def sequence_batch():
    return {**batch(), "prices": np.array([[1.0, 3.0, 0.0], [2.0, 0.0, 0.0], [4.0, 5.0, 6.0]], np.float32)}


SEQUENCES = SCHEMA.add(ColumnSchema.create_continuous("prices", value_count=(0, 3)))


def test_sequences_stay():
    block = InputBlock(SEQUENCES, seq=True, embedding_options=EmbeddingOptions(embedding_dim_default=2))
    out = block(sequence_batch())
    assert shapes(out) == {"age": (3, 1), "genres": (3, 4, 2), "movieId": (3, 2), "prices": (3, 3, 1), "userId": (3, 2)}
    np.testing.assert_array_equal(out["genres"]._keras_mask, batch()["genres"] != 0)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(block))
    assert shapes(again(sequence_batch())) == shapes(out)


def test_lists_pooled_by_an_aggregator():
    options = EmbeddingOptions(embedding_dim_default=2)
    mean = InputBlock(SEQUENCES, split_sparse=True, embedding_options=options)
    for table in mean["categorical"].collection.tables.values():
        count_rows(table)
    out = mean(sequence_batch())
    assert shapes(out) == {"age": (3, 1), "genres": (3, 2), "movieId": (3, 2), "prices": (3, 1), "userId": (3, 2)}
    np.testing.assert_array_equal(out["genres"], POOLED["mean"])
    np.testing.assert_allclose(out["prices"], [[4 / 3], [2 / 3], [5.0]], rtol=1e-6)  # its zeros are numbers
    ragged = {
        "genres": tf.RaggedTensor.from_tensor(GENRES, padding=0),
        "prices": tf.ragged.constant([[1.0], [], [2.0, 4.0]]),
    }
    out = mean({**batch(), **ragged})
    np.testing.assert_array_equal(out["genres"], POOLED["mean"])
    np.testing.assert_array_equal(out["prices"], [[1], [0], [3]])
    recurrent = InputBlock(SEQUENCES, split_sparse=True, seq_aggregator=keras.layers.GRU(5), embedding_options=options)
    assert shapes(recurrent({**batch(), **ragged})) == {
        "age": (3, 1),
        "genres": (3, 5),
        "movieId": (3, 2),
        "prices": (3, 5),
        "userId": (3, 2),
    }


def test_options_for_sequences_that_contradict():
    with pytest.raises(ValueError, match=r"seq and split_sparse must not be given together"):
        InputBlock(SCHEMA, seq=True, split_sparse=True)
    with pytest.raises(ValueError, match=r"seq_aggregator must be None unless split_sparse"):
        InputBlock(SCHEMA, seq_aggregator=keras.layers.GRU(2))


def test_config_round_trip():
    options = EmbeddingOptions(embedding_dim_default=4, embeddings_initializers=keras.initializers.RandomUniform(0, 1))
    block = InputBlock(SCHEMA, continuous_projection=MLPBlock([4]), embedding_options=options, aggregation="stack")
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(block))
    assert again.get_config() == block.get_config()
    out = block(batch())
    again(batch())
    again.set_weights(block.get_weights())
    np.testing.assert_array_equal(again(batch()), out)
