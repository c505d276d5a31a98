"""Lists of different lengths: one form into another."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from merlin_models import ops

LISTS = [[3, 1], [], [5, 0, 4]]


def forms():
    ragged = tf.ragged.constant(LISTS, tf.int64, row_splits_dtype=tf.int64)
    values, splits, lengths = ragged.values, ragged.row_splits, ragged.row_lengths()
    return {
        "ragged": ragged,
        "int32 splits": ragged.with_row_splits_dtype(tf.int32),
        "sparse": ragged.to_sparse(),
        "splits": (values, splits),
        "splits of numpy": (values.numpy(), splits.numpy()),
        "lengths": (values[:, None], lengths[:, None]),
        "int32 lengths": (values[:, None], tf.cast(lengths[:, None], tf.int32)),
        "dense": ragged.to_tensor(),
    }


@pytest.mark.parametrize("form", forms())
def test_every_form_in_every_other(form):
    x = forms()[form]
    assert ops.to_ragged(x).to_list() == LISTS
    np.testing.assert_array_equal(ops.to_dense(x), [[3, 1, 0], [0, 0, 0], [5, 0, 4]])
    sparse = ops.to_sparse(x)
    np.testing.assert_array_equal(sparse.values, [3, 1, 5, 0, 4])
    np.testing.assert_array_equal(sparse.indices, [[0, 0], [0, 1], [2, 0], [2, 1], [2, 2]])


def test_max_length_cuts_and_pads_what_is_no_dense_tensor():
    for form in ("ragged", "sparse", "splits", "lengths"):
        np.testing.assert_array_equal(ops.to_dense(forms()[form], 2), [[3, 1], [0, 0], [5, 0]])
        np.testing.assert_array_equal(ops.to_dense(forms()[form], 4)[2], [5, 0, 4, 0])
    assert ops.to_dense(forms()["dense"], 2).shape == (3, 3)


def test_vectors_need_lengths():
    x = tf.reshape(tf.range(12.0), (2, 3, 2))
    assert ops.to_ragged(x, [1, 2]).to_list() == [[[0.0, 1.0]], [[6.0, 7.0], [8.0, 9.0]]]
    assert ops.to_dense(ops.to_ragged(x, [1, 2]), 4).shape == (2, 4, 2)
    with pytest.raises(ValueError, match=r"lengths must be given for 'v'.* \(2, 3, 2\)"):
        ops.to_ragged(x, name="v")


def test_empty_batch_and_wrong_forms():
    assert ops.to_ragged(tf.zeros((0, 3), tf.int64)).to_list() == []
    assert ops.to_dense(tf.RaggedTensor.from_row_splits(tf.zeros(0), [0]), 3).shape == (0, 3)
    with pytest.raises(
        ValueError, match=r"Lists of 'v' must have the shape \(batch, length, ...\). Received shape: \(3,"
    ):
        ops.to_ragged(tf.zeros(3), name="v")
    with pytest.raises(ValueError, match=r"'v' as a pair must be .* Received shapes: \(3, 1\) and \(2,\)"):
        ops.to_ragged((tf.zeros((3, 1)), tf.zeros(2, tf.int64)), name="v")


def test_positions():
    ragged = forms()["ragged"]
    np.testing.assert_array_equal(ops.positions_in_rows(ragged), [0, 1, 0, 1, 2])
    padded, mask = ops.to_padded(ragged)
    np.testing.assert_array_equal(padded, ops.to_dense(ragged))
    np.testing.assert_array_equal(mask, [[1, 1, 0], [0, 0, 0], [1, 1, 1]])
    assert ops.to_padded(ragged[:0])[0].shape == (0, 1)
    assert ops.to_padded(ragged[1:2])[1].numpy().tolist() == [[False]]
    assert ops.items_of_padded(padded, ragged).to_list() == LISTS
    ragged_mask = ragged.with_flat_values(tf.constant([False, True, True, False, False]))
    for like in (ragged, padded):
        np.testing.assert_array_equal(ops.select_positions(like, mask), [3, 1, 5, 0, 4])
        np.testing.assert_array_equal(ops.select_positions(like, ragged_mask), [1, 5])
    assert ops.append_to_rows(ragged, 9).to_list() == [[3, 1, 9], [9], [5, 0, 4, 9]]
    np.testing.assert_array_equal(ops.row_lengths(ragged), [2, 0, 3])
    kept = ops.ragged_where(ragged, tf.constant([True, False, False, True, True]))
    assert kept.to_list() == [[3], [], [0, 4]]
    assert ops.repeat_for_items(tf.constant([7, 8, 9]), ragged).to_list() == [[7, 7], [], [9, 9, 9]]


@pytest.mark.parametrize("graph", [False, True])
def test_checks_of_lengths(graph):
    def run(function, *arguments):
        return tf.function(function)(*arguments) if graph else function(*arguments)

    ragged = forms()["ragged"]
    assert run(lambda x: ops.check_lengths(x, 0, "too short"), ragged).to_list() == LISTS
    with pytest.raises(tf.errors.InvalidArgumentError, match="too short"):
        run(lambda x: ops.check_lengths(x, 1, "too short"), ragged)
    other = tf.ragged.constant([[1.0, 2.0], [], [3.0, 4.0, 5.0]], row_splits_dtype=tf.int64)
    same = run(lambda x, y: ops.check_equal_lengths(x, y, "unequal"), other, ragged)
    assert same.to_list() == other.to_list()
    for wrong in ([[1.0], [], [3.0]], [[1.0, 2.0], []]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="unequal"):
            run(lambda x, y: ops.check_equal_lengths(x, y, "unequal"), tf.ragged.constant(wrong), ragged)
