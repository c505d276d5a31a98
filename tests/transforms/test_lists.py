"""ToDense, ToSparse, ToRagged and their older names."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import merlin_models.tf as ml


def batch():
    """One list column in each form, and two that hold one number a row."""
    ragged = tf.ragged.constant([[1, 2, 3], [4]], tf.int32)
    return {
        "ragged": ragged,
        "sparse": ragged.to_sparse(),
        "lengths": (ragged.values[:, None], tf.constant([[3], [1]])),
        "splits": (ragged.values, tf.constant([0, 3, 4])),
        "padded": np.array([[1, 2, 3], [4, 0, 0]], np.int32),
        "flat": np.array([8, 9]),
        "column": np.array([[8], [9]]),
    }


LISTS = ("ragged", "sparse", "lengths", "splits", "padded")


def test_to_dense():
    out = ml.ToDense()(batch())
    for name in LISTS:
        np.testing.assert_array_equal(out[name], [[1, 2, 3], [4, 0, 0]])
        assert out[name].dtype == tf.int32
    assert out["flat"].shape == (2,)
    assert out["column"].shape == (2, 1)
    cut = ml.ToDense(2)(batch())
    np.testing.assert_array_equal(cut["lengths"], [[1, 2], [4, 0]])
    assert cut["padded"].shape == (2, 3)  # dense tensors stay
    np.testing.assert_array_equal(ml.ToDense(4)(batch()["ragged"]), [[1, 2, 3, 0], [4, 0, 0, 0]])


def test_to_sparse_and_to_ragged():
    sparse, ragged = ml.ToSparse()(batch()), ml.ToRagged()(batch())
    for name in LISTS:
        np.testing.assert_array_equal(tf.sparse.to_dense(sparse[name]), [[1, 2, 3], [4, 0, 0]])
        np.testing.assert_array_equal(sparse[name].values, [1, 2, 3, 4])
        assert ragged[name].to_list() == [[1, 2, 3], [4]]
    for out in (sparse, ragged):
        assert out["flat"].shape == (2,)
        assert out["column"].shape == (2, 1)


def test_older_names():
    assert (ml.AsDenseFeatures, ml.AsSparseFeatures, ml.AsRaggedFeatures) == (ml.ToDense, ml.ToSparse, ml.ToRagged)


@pytest.mark.parametrize("block", [ml.ToDense(5), ml.ToSparse(), ml.ToRagged()])
def test_config_and_shapes(block):
    again = type(block).from_config(block.get_config())
    assert again.get_config() == block.get_config()
    width = 5 if isinstance(block, ml.ToDense) else None
    inputs = {
        "sparse": keras.KerasTensor((None, 9), "int64", sparse=True),
        "ragged": keras.KerasTensor((None, None), "int64", ragged=True),
        "column": keras.KerasTensor((None, 1), "int64"),
    }
    out = block.compute_output_spec(inputs)
    assert {name: tensor.shape for name, tensor in out.items()} == {
        "sparse": (None, width),
        "ragged": (None, width),
        "column": (None, 1),
    }
    assert all(tensor.dtype == "int64" for tensor in out.values())
    assert out["sparse"].sparse == isinstance(block, ml.ToSparse)
    assert out["sparse"].ragged == isinstance(block, ml.ToRagged)


def test_wrong_length():
    for length in (0, 2.5):
        with pytest.raises(ValueError, match=r"max_seq_length must be a positive integer or None. Received: "):
            ml.ToDense(length)


def test_lists_of_every_form_reach_a_model():
    schema = ml.Schema([ml.ColumnSchema.create_categorical("genres", 9, value_count=(0, 3))])
    for block in (ml.ToDense(), ml.ToSparse(), ml.ToRagged()):
        body = block.connect(ml.InputBlock(schema))
        body[1]["categorical"].table("genres").assign(np.arange(640).reshape(10, 64))
        expected = body[1]({"genres": np.array([[1, 2, 3], [4, 0, 0]])})["genres"]
        for name in LISTS:
            np.testing.assert_array_equal(body({"genres": batch()[name]})["genres"], expected)
