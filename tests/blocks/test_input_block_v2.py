"""InputBlockV2, Continuous, ContinuousProjection and PretrainedEmbeddings."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import merlin_models.tf as ml

SCHEMA = ml.Schema(
    [
        ml.ColumnSchema.create_categorical("movie", 9, tags=[ml.Tags.ITEM_ID]),
        ml.ColumnSchema.create_categorical("seen", 9, value_count=(0, 0), tags=[ml.Tags.SEQUENCE]),
        ml.ColumnSchema.create_continuous("age", tags=[ml.Tags.USER]),
        ml.ColumnSchema.create_continuous("price"),
        ml.ColumnSchema("title", np.float32, (ml.Tags.EMBEDDING, ml.Tags.CONTINUOUS), shape=(6,)),
        ml.ColumnSchema("click", np.int64, (ml.Tags.TARGET, ml.Tags.CATEGORICAL, ml.Tags.BINARY_CLASSIFICATION)),
    ]
)


def batch():
    return {
        "movie": np.array([1, 2]),
        "seen": np.array([[1, 2, 0], [3, 0, 0]]),
        "age": np.array([20.0, 30.0]),
        "price": np.array([[1.0], [2.0]]),
        "title": np.arange(12, dtype=np.float32).reshape(2, 6),
    }


def shapes(outputs):
    return {name: tuple(value.shape) for name, value in sorted(outputs.items())}


def test_parts_of_the_tags():
    block = ml.InputBlockV2(SCHEMA, aggregation=None)
    assert list(block) == ["categorical", "continuous", "pretrained_embeddings"]
    assert shapes(block(batch())) == {"age": (2, 1), "movie": (2, 8), "price": (2, 1), "seen": (2, 8), "title": (2, 6)}
    assert ml.InputBlockV2(SCHEMA)(batch()).shape == (2, 24)
    assert "click" not in block.schema
    model = ml.Model(ml.InputBlockV2(SCHEMA), ml.MLPBlock([4]), ml.BinaryClassificationTask("click"))
    assert model.built  # the schema knows all shapes
    assert model(batch()).shape == (2, 1)


def test_parts_given_as_layers():
    block = ml.InputBlockV2(
        SCHEMA,
        categorical=ml.Embeddings(SCHEMA.select_by_name(["movie", "seen"]), dim=4),
        continuous=ml.ContinuousProjection(SCHEMA.select_by_name(["age", "price"]), ml.MLPBlock([3])),
        pretrained_embeddings=ml.PretrainedEmbeddings(SCHEMA.select_by_name("title"), output_dims=5),
        wide=ml.CategoryEncoding(SCHEMA.select_by_name("movie"), post=ml.Rename({"movie": "movie_one_hot"})),
        aggregation=None,
        pre="continuous-powers",
    )
    expected = {"continuous": (2, 3), "movie": (2, 4), "movie_one_hot": (2, 10), "seen": (2, 4), "title": (2, 5)}
    assert shapes(block(batch())) == expected
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(block))
    assert again.get_config() == block.get_config()
    again(batch())
    again.set_weights(block.get_weights())
    np.testing.assert_array_equal(again(batch())["title"], block(batch())["title"])


def test_parts_left_out_and_other_tags():
    block = ml.InputBlockV2(
        SCHEMA, categorical=ml.Tags.ITEM_ID, continuous=None, tag_to_block={ml.Tags.ITEM_ID: ml.Embeddings}
    )
    assert list(block) == ["categorical", "pretrained_embeddings"]
    assert sorted(block.schema.column_names) == ["movie", "title"]
    user = ml.InputBlockV2(
        SCHEMA.select_by_name(["age", "price"]),
        user=ml.Tags.USER,
        continuous=None,
        tag_to_block={"user": ml.Continuous},
    )
    assert list(user) == ["user"]


def test_wrong_parts():
    with pytest.raises(ValueError, match=r"No columns selected for the input block.*Received: \[\"click"):
        ml.InputBlockV2(SCHEMA.select_by_name("click"))
    with pytest.raises(KeyError, match=r"user must be a layer or a tag with a block.*Received: <Tags.USER"):
        ml.InputBlockV2(SCHEMA, user=ml.Tags.USER)
    with pytest.raises(TypeError, match=r"user must be a tag or a layer. Received: 3"):
        ml.InputBlockV2(SCHEMA, user=3)


def test_sequences_without_a_combiner():
    schema = SCHEMA.select_by_name("seen")
    block = ml.InputBlockV2(schema, categorical=ml.Embeddings(schema, dim=4, sequence_combiner=None))
    out = block({"seen": batch()["seen"]})
    assert out.shape == (2, 3, 4)
    np.testing.assert_array_equal(out._keras_mask, batch()["seen"] != 0)
    ragged = block({"seen": tf.ragged.constant([[1, 2], [3]])})
    assert ragged.shape.as_list() == [2, None, 4]


TITLE = SCHEMA.select_by_name("title")


def test_pretrained_vectors():
    title = batch()["title"]
    np.testing.assert_array_equal(ml.PretrainedEmbeddings(TITLE)({"title": title})["title"], title)
    normal = ml.PretrainedEmbeddings(TITLE, normalizer="l2-norm")({"title": title})["title"]
    np.testing.assert_allclose(normal, title / np.linalg.norm(title, axis=1, keepdims=True), rtol=1e-6)
    block = ml.PretrainedEmbeddings(TITLE, output_dims={"title": 3}, normalizer=ml.L2Norm())
    kernel, bias = (
        (np.asarray(weight) for weight in block.projections["title"].weights) if block.built else (None, None)
    )
    assert kernel is None
    out = block({"title": title})["title"]
    kernel, bias = (np.asarray(weight) for weight in block.projections["title"].weights)
    np.testing.assert_allclose(out, np.asarray(normal) @ kernel + bias, rtol=1e-5, atol=1e-6)
    again = ml.PretrainedEmbeddings.from_config(block.get_config())
    again({"title": title})
    again.set_weights(block.get_weights())
    np.testing.assert_array_equal(again({"title": title})["title"], out)


@pytest.mark.parametrize("combiner", ["mean", "max", None])
def test_pretrained_sequences(combiner, rng):
    vectors = rng.normal(size=(5, 6)).astype(np.float32)
    ragged = tf.RaggedTensor.from_row_lengths(vectors, [3, 2])
    block = ml.PretrainedEmbeddings(TITLE, output_dims=4, sequence_combiner=combiner)
    out = block({"title": ragged})["title"]
    kernel, bias = (np.asarray(weight) for weight in block.projections["title"].weights)
    projected = vectors @ kernel + bias
    if combiner is None:
        np.testing.assert_allclose(out.values, projected, rtol=1e-5, atol=1e-6)
    else:
        expected = [getattr(np, combiner)(projected[:3], axis=0), getattr(np, combiner)(projected[3:], axis=0)]
        np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_wrong_pretrained_embeddings():
    with pytest.raises(ValueError, match=r"for columns of the schema, \['title'\]. Received: \['x'\]"):
        ml.PretrainedEmbeddings(TITLE, output_dims={"x": 3})
    with pytest.raises(ValueError, match=r"Inputs must have the columns \['title'\]. Received: \['x'\]; missing"):
        ml.PretrainedEmbeddings(TITLE)({"x": np.ones((2, 3))})
    with pytest.raises(ValueError, match=r"'title' must have the shape \(batch, dim\) or"):
        ml.PretrainedEmbeddings(TITLE)({"title": np.ones(2)})
    with pytest.raises(ValueError, match=r"schema must have a column"):
        ml.PretrainedEmbeddings(ml.Schema())
    with pytest.raises(KeyError, match=r"A block must be one of"):
        ml.PretrainedEmbeddings(TITLE, normalizer="l3-norm")
