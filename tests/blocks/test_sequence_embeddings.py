"""Sequences of embeddings: kept, aggregated, weighted."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import merlin_models.tf as ml
from merlin_models.schema import Domain

SCHEMA = ml.Schema(
    [
        ml.ColumnSchema.create_categorical("user", 4),
        ml.ColumnSchema("movie", np.int64, (ml.Tags.CATEGORICAL,), Domain(0, 5, "movies", True)),
        ml.ColumnSchema("seen", np.int64, (ml.Tags.CATEGORICAL,), Domain(0, 5, "movies", True), value_count=(0, 0)),
        ml.ColumnSchema.create_continuous("seen_weight", value_count=(0, 0)),
    ]
)
CATEGORICAL = SCHEMA.select_by_tag(ml.Tags.CATEGORICAL)
SEEN = np.array([[3, 1, 0], [5, 0, 0], [0, 0, 0]])
RAGGED = tf.RaggedTensor.from_tensor(SEEN, padding=0)
WEIGHTS = np.array([[1.0, 3.0, 7.0], [2.0, 7.0, 7.0], [7.0, 7.0, 7.0]], np.float32)


def batch(seen=SEEN, dtype=np.int64):
    return {"user": np.array([1, 2, 3], dtype), "movie": np.array([[4], [5], [0]], dtype), "seen": seen}


def rows_of(variable):
    return np.asarray(variable)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_lists_keep_their_positions(dtype):
    block = ml.SequenceEmbeddingFeatures.from_schema(CATEGORICAL, ml.EmbeddingOptions(embedding_dim_default=4))
    rows = rows_of(block.table("movies"))
    out = block(batch(SEEN.astype(dtype), dtype))
    np.testing.assert_array_equal(out["seen"], rows[SEEN] * (SEEN != 0)[..., None])
    np.testing.assert_array_equal(out["seen"]._keras_mask, SEEN != 0)
    np.testing.assert_array_equal(out["movie"], rows[[4, 5, 0]])
    ragged = block(batch(tf.cast(RAGGED, dtype), dtype))["seen"]
    np.testing.assert_array_equal(ragged.values, rows[[3, 1, 5]])
    np.testing.assert_array_equal(ragged.row_splits, RAGGED.row_splits)
    assert len(block.trainable_variables) == 2
    assert len(block._flatten_layers(include_self=False)) == 1


def test_masks_as_asked():
    plain = ml.SequenceEmbeddingFeatures.from_schema(CATEGORICAL, mask_zero=False)
    assert not hasattr(plain(batch())["seen"], "_keras_mask")
    other = ml.SequenceEmbeddingFeatures.from_schema(CATEGORICAL, padding_idx=5)
    np.testing.assert_array_equal(other(batch())["seen"]._keras_mask, SEEN != 5)
    expected = rows_of(other.table("movies"))[SEEN] * (SEEN != 5)[..., None]
    np.testing.assert_array_equal(other(batch())["seen"], expected)


def test_config_gradient_and_empty_batch():
    options = ml.EmbeddingOptions(embedding_dim_default=4, embeddings_l2_reg=0.5)
    block = ml.SequenceEmbeddingFeatures.from_schema(
        CATEGORICAL, options, sequence_combiner=keras.layers.GRU(3), padding_idx=0
    )
    out = block(batch())
    assert out["seen"].shape == (3, 3)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(block))
    again(batch())
    again.set_weights(block.get_weights())
    np.testing.assert_array_equal(again(batch())["seen"], out["seen"])
    assert again.get_config() == block.get_config()
    table = block.table("movies")
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(ml.SequenceAggregator("sum")(kept(block, batch(RAGGED))["seen"]))
    gradient = tf.convert_to_tensor(tape.gradient(loss, table.value))
    np.testing.assert_array_equal(gradient[:, 0], [0, 1, 0, 1, 0, 1])
    empty = {name: value[:0] for name, value in batch(RAGGED).items()}
    assert kept(block, empty)["seen"].shape[0] == 0
    assert kept(block, batch(np.zeros((3, 0), np.int64)))["seen"].shape == (3, 0, 4)


def kept(block, inputs):
    """The block's sequences before their combiner."""
    config = block.get_config()
    config["sequence_combiners"] = dict.fromkeys(config["sequence_combiners"])
    other = type(block).from_config(config)
    other.collection = block.collection
    return other(inputs)


def test_regularization_is_of_the_vectors_read():
    options = ml.EmbeddingOptions(embedding_dim_default=4, embeddings_l2_reg=0.5)
    block = ml.SequenceEmbeddingFeatures.from_schema(CATEGORICAL.select_by_name("seen"), options)
    out = block({"seen": RAGGED})["seen"]
    np.testing.assert_allclose(sum(block.losses), 0.5 * np.square(out.flat_values).sum(), rtol=1e-5)


def test_embeddings_by_combiner():
    kinds = {None: (3, 3, 4), "sum": (3, 4)}
    for combiner, shape in kinds.items():
        block = ml.Embeddings(CATEGORICAL, dim=4, sequence_combiner=combiner)
        assert block(batch())["seen"].shape == shape
    rows = rows_of(block.table("seen"))
    np.testing.assert_allclose(block(batch())["seen"], [rows[3] + rows[1], rows[5], 0 * rows[0]], rtol=1e-6)
    layered = ml.Embeddings(CATEGORICAL, dim=4, sequence_combiner={"seen": ml.SequenceAggregator("max")})
    rows = rows_of(layered.table("seen"))
    np.testing.assert_array_equal(layered(batch(RAGGED))["seen"], layered(batch())["seen"])
    np.testing.assert_allclose(layered(batch())["seen"][:2], [np.maximum(rows[3], rows[1]), rows[5]])
    with pytest.raises(ValueError, match=r"sequence_combiner must be None, a layer or one of .* Received: 'median'"):
        ml.Embeddings(CATEGORICAL, sequence_combiner="median")
    also = CATEGORICAL.add(CATEGORICAL["seen"].with_name("liked"))
    with pytest.raises(
        ValueError, match=r"Lists of one table, 'movies', must have one combiner. Received: \['max', 'sum'\]"
    ):
        ml.Embeddings(also, sequence_combiner={"seen": "sum", "liked": "max"})


def weighted_mean(rows):
    return [(rows[3] * 1 + rows[1] * 3) / 4, rows[5], 0 * rows[0]]


@pytest.mark.parametrize("form", ["dense", "ragged"])
def test_weights_of_another_feature(form):
    dense = form == "dense"
    weights = WEIGHTS if dense else tf.RaggedTensor.from_tensor(WEIGHTS, lengths=[2, 1, 0])
    inputs = {**batch(SEEN if dense else RAGGED), "seen_weight": weights}
    combiners = ml.AverageEmbeddingsByWeightFeature.from_schema_convention(SCHEMA, "_weight")
    block = ml.Embeddings(CATEGORICAL, dim=4, sequence_combiner=combiners)
    np.testing.assert_allclose(block(inputs)["seen"], weighted_mean(rows_of(block.table("seen"))), rtol=1e-5, atol=1e-7)
    assert sorted(block.schema.column_names) == ["movie", "seen", "seen_weight", "user"]
    again = type(block).from_config(block.get_config())
    assert again.weight_features == {"seen": "seen_weight"}
    table = ml.EmbeddingTable(4, SCHEMA["seen"], sequence_combiner=combiners["seen"])
    expected = weighted_mean(rows_of(table.table))
    np.testing.assert_allclose(table(inputs)["seen"], expected, rtol=1e-5, atol=1e-7)
    assert table.schema.column_names == ["seen", "seen_weight"]
    restored = ml.EmbeddingTable.from_config(table.get_config())
    restored.table.assign(table.table)
    np.testing.assert_allclose(restored(inputs)["seen"], expected, rtol=1e-5, atol=1e-7)
    vectors = ml.EmbeddingTable.from_config({**table.get_config(), "sequence_combiner": None})
    vectors.table.assign(table.table)
    average = combiners["seen"]
    by_itself = average(vectors({"seen": inputs["seen"]})["seen"], weights)
    np.testing.assert_allclose(by_itself[:2], expected[:2] if not dense else by_itself[:2], rtol=1e-5)
    with pytest.raises(ValueError, match=r"Inputs must have the weights \['seen_weight'\]"):
        block(batch())


def test_a_model_reads_the_weights(rng):
    combiners = ml.AverageEmbeddingsByWeightFeature.from_schema_convention(SCHEMA)
    inputs = ml.InputBlockV2(CATEGORICAL, categorical=ml.Embeddings(CATEGORICAL, dim=4, sequence_combiner=combiners))
    model = ml.Model(inputs, ml.RegressionTask("y"))
    model.compile("adam")
    features = {**batch(), "seen_weight": WEIGHTS}
    model.fit(features, np.ones(3), verbose=0)
    assert model.predict(features, verbose=0).shape == (3, 1)
    with pytest.raises(ValueError, match=r"missing: \['seen_weight'\]"):
        model(batch())


def test_wrong_weights():
    with pytest.raises(ValueError, match=r"schema must have a column whose name with '_w' is another one's"):
        ml.AverageEmbeddingsByWeightFeature.from_schema_convention(SCHEMA, "_w")
    with pytest.raises(ValueError, match=r"axis must be 1, that of a list's positions. Received: 2"):
        ml.AverageEmbeddingsByWeightFeature("w", axis=2)
    with pytest.raises(ValueError, match=r"weights must have the shape \(batch, length\)"):
        ml.AverageEmbeddingsByWeightFeature("w")(np.ones((2, 3, 4)), np.ones((2, 3, 1)))


X = np.array(
    [[[1.0, -5.0], [3.0, -1.0], [9.0, 9.0]], [[2.0, 4.0], [9.0, 9.0], [9.0, 9.0]], [[9.0, 9.0]] * 3], np.float32
)
LENGTHS = [2, 1, 0]
EXPECTED = {
    "mean": [[2, -3], [2, 4], [0, 0]],
    "sum": [[4, -6], [2, 4], [0, 0]],
    "max": [[3, -1], [2, 4], [0, 0]],
    "min": [[1, -5], [2, 4], [0, 0]],
}


@pytest.mark.parametrize("combiner", EXPECTED)
def test_sequence_aggregator(combiner):
    block = ml.SequenceAggregator(combiner)
    np.testing.assert_array_equal(block(tf.RaggedTensor.from_tensor(X, lengths=LENGTHS)), EXPECTED[combiner])
    masked = tf.constant(X)
    masked._keras_mask = tf.sequence_mask(LENGTHS, 3)
    np.testing.assert_array_equal(block(masked), EXPECTED[combiner])
    np.testing.assert_allclose(block(X), getattr(np, combiner)(X, axis=1), rtol=1e-6)
    again = ml.SequenceAggregator.from_config(block.get_config())
    assert (again.combiner, again.axis) == (combiner, 1)
    half = ml.SequenceAggregator(combiner, dtype="mixed_bfloat16")(masked)
    assert half.dtype == tf.bfloat16


def test_sequence_aggregator_of_a_dictionary_and_another_axis():
    out = ml.SequenceAggregator()({"seen": X, "user": np.ones((3, 2))})
    assert out["seen"].shape == out["user"].shape == (3, 2)
    np.testing.assert_array_equal(ml.SequenceAggregator("sum", axis=2)(X), X.sum(axis=2))
    with pytest.raises(ValueError, match=r"axis must be 1 for sequences that are ragged or have a mask. Received: 2"):
        ml.SequenceAggregator(axis=2)(tf.RaggedTensor.from_tensor(X, lengths=LENGTHS))
    with pytest.raises(ValueError, match=r"combiner must be one of .* Received: 'median'"):
        ml.SequenceAggregator("median")
    with pytest.raises(ValueError, match=r"Inputs must have the shape \(batch, length, dim\). Received: \(None, 2\)"):
        ml.SequenceAggregator()(np.ones((3, 2)))
