"""FIFOQueue beside collections.deque: eagerly, in graphs, saved."""

from __future__ import annotations

import collections

import keras
import numpy as np
import pytest
from keras import ops

from merlin_models.layers import FIFOQueue

BIG = 2**33 + 1


def listed(queue):
    return ops.convert_to_numpy(queue.list_all()).tolist()


def test_order_and_overflow():
    queue = FIFOQueue(3, dtype="int64")
    assert listed(queue) == []
    queue.enqueue(5)
    queue.enqueue_many([6, BIG])
    assert listed(queue) == [5, 6, BIG]
    assert int(queue.count()) == 3
    assert bool(queue.at_full_capacity)
    queue.enqueue(8)
    assert listed(queue) == [6, BIG, 8]
    queue.enqueue_many(np.arange(10))  # more than there is room for
    assert listed(queue) == [7, 8, 9]
    assert int(queue.dequeue()) == 7
    assert not bool(queue.at_full_capacity)
    queue.enqueue_many(np.array([10], np.int32))
    assert listed(queue) == [8, 9, 10]
    assert queue.dequeue_many(5).numpy().tolist() == [8, 9, 10]
    assert int(queue.count()) == 0
    queue.enqueue(1)
    queue.clear()
    assert listed(queue) == []


def test_index_of():
    queue = FIFOQueue(4, dtype="int64", initialize_tensor=[3, 0, 9, 3, BIG])  # 3 was pushed out
    assert listed(queue) == [0, 9, 3, BIG]
    assert queue.index_of(np.array([[9, 1], [BIG, 3]])).numpy().tolist() == [[1, -1], [3, 2]]
    assert queue.index_of(np.zeros(0, np.int64)).shape == (0,)
    queue.dequeue_many(2)
    assert queue.index_of(np.array([0, 3, 9, BIG, np.iinfo(np.int64).max])).numpy().tolist() == [-1, 0, -1, 1, -1]
    queue.enqueue_many([3, np.iinfo(np.int64).max])
    assert queue.index_of(np.array([3, np.iinfo(np.int64).max])).numpy().tolist() == [0, 3]
    queue.clear()
    assert queue.index_of(np.array([0, 3])).numpy().tolist() == [-1, -1]
    with pytest.raises(ValueError, match=r"queue of integers with dims=\(\). Received: float32 with dims=\(2,\)"):
        FIFOQueue(4, (2,)).index_of([1])


def test_values_by_places():
    queue = FIFOQueue(3, dims=(2,))
    queue.enqueue_many(np.arange(10.0).reshape(5, 2))
    assert queue.get_values_by_indices(np.array([[2], [0]])).numpy().tolist() == [[[8, 9]], [[4, 5]]]
    queue.update_by_indices(np.array([2, 0]), np.array([[-1, -2], [-3, -4]]))
    assert listed(queue) == [[-3, -4], [6, 7], [-1, -2]]


class Remember(keras.layers.Layer):
    """Gives how many of the batch were among the last 50."""

    def __init__(self, queue=None, **kwargs):
        super().__init__(**kwargs)
        self.queue = queue or FIFOQueue(50, dtype="int64")

    def call(self, ids):
        known = self.queue.index_of(ids) >= 0
        self.queue.enqueue_many(ids)
        return ops.cast(known, "float32")


def test_in_fit_and_in_a_file(rng, tmp_path):
    inputs = keras.Input((), dtype="int64")
    model = keras.Model(inputs, Remember()(inputs))
    model.compile(loss="mse")
    ids, expected, last = rng.integers(0, 60, 200) + BIG, [], collections.deque(maxlen=50)
    for start in range(0, 200, 30):
        batch = ids[start : start + 30]
        expected += [float(each in last) for each in batch]
        last.extend(batch)
    np.testing.assert_array_equal(model.predict(ids, batch_size=30, verbose=0), expected)
    queue = model.layers[-1].queue
    assert listed(queue) == list(last)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", custom_objects={"Remember": Remember})
    assert listed(loaded.layers[-1].queue) == list(last)


def test_config_and_wrong_arguments():
    queue = FIFOQueue(3, (2, 1), "bfloat16")
    again = FIFOQueue.from_config(queue.get_config())
    assert again.get_config() == queue.get_config()
    with pytest.raises(ValueError, match=r"capacity must be at least 1. Received: 0"):
        FIFOQueue(0)
    with pytest.raises(ValueError, match=r"values must have the shape \(any, \*\(2, 1\)\). Received: \(2, 1\)"):
        queue.enqueue_many(np.zeros((2, 1)))
