"""Clocks: what is held to be a copy copies."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.clocks import copies_in_a_row


def test_every_copy_of_tensorflow_is_made():
    tf = pytest.importorskip("tensorflow")
    from tensorflow.python.eager import context

    with tf.device("CPU:0"):
        source = tf.range(1000.0)
    copies = copies_in_a_row(tf, source, 4)
    with context.collect_graphs(optimized=True) as graphs:
        last = copies()
    nodes = [node.op for graph in graphs for node in graph.node]
    assert nodes.count("DeepCopy") == 4, nodes
    np.testing.assert_array_equal(last, source)
    assert last.device == source.device


def test_copies_are_in_memory_of_their_own():
    tf = pytest.importorskip("tensorflow")
    source = tf.range(1000.0)
    last = copies_in_a_row(tf, source, 2)()
    assert np.asarray(memoryview(last)).ctypes.data != np.asarray(memoryview(source)).ctypes.data
