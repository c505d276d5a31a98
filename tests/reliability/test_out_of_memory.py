"""Too little memory gives TensorFlow's error, and the process goes on."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from reliability_data import rows, small_model

import merlin_models.tf as ml
from merlin_models.ops import Bags, embedding_bag, inbatch_softmax


def table_of_a_petabyte():
    schema = ml.Schema([ml.ColumnSchema.create_categorical("item", 2**42)])
    ml.Model(ml.InputBlock(schema), ml.BinaryClassificationTask("y"))


def output_of_a_petabyte():
    embedding_bag([tf.Variable(tf.zeros((1, 2**20)))], [Bags(tf.zeros((2**28, 0), tf.int64))])


def steps(model):
    features, targets = rows()
    for _ in range(3):
        for absurd in (table_of_a_petabyte, output_of_a_petabyte):
            with pytest.raises(tf.errors.ResourceExhaustedError, match="OOM when allocating tensor"):
                absurd()
        yield model.predict(features, verbose=0)
        model.fit(features, targets, verbose=0)


@pytest.mark.slow  # TensorFlow waits 10 s for memory each time
def test_on_a_cpu():
    undisturbed, disturbed = small_model(), small_model()
    features, targets = rows()
    for predictions in steps(disturbed):
        np.testing.assert_array_equal(predictions, undisturbed.predict(features, verbose=0))
        undisturbed.fit(features, targets, verbose=0)


@pytest.mark.slow
def test_a_loss_of_too_many_candidates():
    """The softmax keeps no matrix of scores: what does not fit is the candidates themselves."""
    with pytest.raises(tf.errors.ResourceExhaustedError):
        inbatch_softmax(tf.zeros((4, 512)), tf.zeros((2**40, 512)))


@pytest.mark.gpu
def test_on_a_gpu():
    """Allocations that the host could serve, but no device: in an op's output, a gradient and a table."""
    with tf.device("GPU:0"):
        table = tf.Variable(tf.zeros((1000, 1024)))
        ids = tf.zeros((2**28, 1), tf.int64)
        for _ in range(3):
            with pytest.raises(tf.errors.ResourceExhaustedError):
                embedding_bag([table], [Bags(ids)])  # 1 TiB
            with pytest.raises(tf.errors.ResourceExhaustedError):
                tf.Variable(tf.zeros((2**30, 1024)))
            small = embedding_bag([table], [Bags(ids[:16])])[0]
            np.testing.assert_array_equal(small, np.zeros((16, 1024)))
    features, targets = rows()
    model = small_model()
    assert np.isfinite(model.fit(features, targets, verbose=0).history["loss"][0])
