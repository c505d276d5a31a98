"""The check of all lists that a signature takes."""

import numpy as np
import pytest
import tensorflow as tf

from merlin_models.serving.offsets import checked_lists

NAMES = ["tags__offsets", "genres__offsets"]
GOOD = [(np.arange(4), [0, 2, 2, 4]), (np.arange(3.0, dtype=np.float32), [0, 0, 3, 3])]


@tf.function(
    input_signature=[
        [tf.TensorSpec([None], tf.int64), tf.TensorSpec([None], tf.float32)],
        [tf.TensorSpec([None], tf.int64)] * 2,
    ]
)
def check(values, offsets):
    return checked_lists(NAMES, values, offsets)


def call(lists):
    return check([tf.constant(v) for v, _ in lists], [tf.constant(o, tf.int64) for _, o in lists])


def test_lists_are_as_given():
    tags, genres = call(GOOD)
    assert tags.to_list() == [[0, 1], [], [2, 3]]
    assert genres.to_list() == [[], [0.0, 1.0, 2.0], []]
    empty = call([(np.zeros(0, np.int64), [0]), (np.zeros(0, np.float32), [0])])
    assert [x.to_list() for x in empty] == [[], []]


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("offsets", "seen"),
    [
        ([1, 2, 2, -1], r"\[1 -3 -1 "),
        ([0, 2, 1, -1], r"\[0 -2 -1 "),
        ([0, 1, 1, 9], r"\[0 0 9 "),
        ([0, 1], r"\] \[lengths:\] \[2\]"),
        ([], r"\] \[lengths:\] \[0\]"),
    ],
)
def test_wrong_offsets_are_named_with_what_was_seen(which, offsets, seen):
    lists = list(GOOD)
    lists[which] = (lists[which][0], offsets)
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"{NAMES[which]} must begin with 0") as raised:
        call(lists)
    assert raised.match(seen)
    assert str(NAMES[1 - which]) not in str(raised.value)


def test_a_longer_one_is_the_measure():
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"genres__offsets must begin with 0.*one number more"):
        call([(np.arange(4), [0, 2, 2, 4, 4]), GOOD[1]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="tags__offsets must begin"):
        call([(np.zeros(0, np.int64), []), (np.zeros(0, np.float32), [])])
