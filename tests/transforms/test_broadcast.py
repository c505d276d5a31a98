"""BroadcastToSequence."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import merlin_models.tf as ml

CONTEXT, SEQUENCE = ml.Schema(["user"]), ml.Schema(["item", "genre"])


def test_dense_vectors(rng):
    user, item = rng.normal(size=(2, 4)), rng.normal(size=(2, 3, 8))
    block = ml.BroadcastToSequence(CONTEXT, SEQUENCE)
    for broadcast in (block, ml.BroadcastToSequence.from_config(block.get_config())):
        out = broadcast({"user": user, "item": item, "other": np.ones(2)})
        for position in range(3):
            np.testing.assert_allclose(out["user"][:, position], user, rtol=1e-6)
        assert out["item"].shape == (2, 3, 8)
        assert out["other"].shape == (2,)


def test_ragged_vectors(rng):
    item = tf.RaggedTensor.from_row_lengths(rng.normal(size=(4, 8)), [3, 0, 1])
    user = np.array([[1.0], [2.0], [3.0]], np.float32)
    out = ml.BroadcastToSequence(CONTEXT, SEQUENCE)({"user": user, "item": item})
    assert out["user"].to_list() == [[[1.0]] * 3, [], [[3.0]]]
    together = ml.ConcatFeatures()(out)
    assert together.shape.as_list() == [3, None, 9]
    np.testing.assert_array_equal(together.row_splits, item.row_splits)


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_ids(shape):
    user = np.array([5, 6]).reshape(shape)
    dense = ml.BroadcastToSequence(CONTEXT, SEQUENCE)({"user": user, "item": np.array([[1, 2, 3], [4, 0, 0]])})
    np.testing.assert_array_equal(dense["user"], [[5, 5, 5], [6, 6, 6]])
    ragged = ml.BroadcastToSequence(CONTEXT, SEQUENCE)({"user": user, "item": tf.ragged.constant([[1, 2, 3], [4]])})
    assert ragged["user"].to_list() == [[5, 5, 5], [6]]


def test_masks_reach_context_and_what_follows():
    embedding = keras.layers.Embedding(9, 4, mask_zero=True)
    ids = np.array([[1, 2, 0], [3, 0, 0]])
    out = ml.BroadcastToSequence(CONTEXT, SEQUENCE)({"user": tf.ones((2, 5)), "item": embedding(ids)})
    np.testing.assert_array_equal(out["user"]._keras_mask, ids != 0)
    np.testing.assert_array_equal(out["item"]._keras_mask, ids != 0)
    together = ml.MLPBlock([6])(out)
    np.testing.assert_array_equal(together._keras_mask, ids != 0)
    residual = ml.ResidualBlock(keras.layers.Dense(6))(together)
    np.testing.assert_array_equal(residual._keras_mask, ids != 0)
    last = ml.SequentialBlock([keras.layers.LSTM(3)])(together)
    assert last.shape == (2, 3)
    assert getattr(last, "_keras_mask", None) is None


def test_shapes():
    spec = ml.BroadcastToSequence(CONTEXT, SEQUENCE).compute_output_spec(
        {"user": keras.KerasTensor((None, 4)), "item": keras.KerasTensor((None, None, 8))}
    )
    assert spec["user"].shape == (None, None, 4)


def test_wrong_arguments_and_inputs():
    with pytest.raises(ValueError, match=r"Columns must be context or sequences. Received as both: \['item'\]"):
        ml.BroadcastToSequence(SEQUENCE, ml.Schema(["item"]))
    with pytest.raises(ValueError, match=r"sequence_schema must be a Schema with at least one column"):
        ml.BroadcastToSequence(CONTEXT, ml.Schema())
    block = ml.BroadcastToSequence(CONTEXT, SEQUENCE)
    with pytest.raises(ValueError, match=r"one of the sequences \['item', 'genre'\]. Received: \['user'\]"):
        block({"user": np.ones((2, 4))})
    with pytest.raises(ValueError, match=r"'user' must be \(batch, dim\) beside .* Received shape: \(None, 3, 4\)"):
        block({"user": np.ones((2, 3, 4)), "item": np.ones((2, 3, 4))})
    with pytest.raises(
        ValueError, match=r"'user' must be \(batch,\) or \(batch, 1\) beside .* Received shape: \(None, 4\)"
    ):
        block({"user": np.ones((2, 4)), "item": np.ones((2, 3))})
