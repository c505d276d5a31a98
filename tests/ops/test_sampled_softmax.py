"""sampled_softmax: against inbatch_softmax's reference, its sparse gradient, ids out of range and errors."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from merlin_models.ops import inbatch_softmax_reference, sampled_softmax

DEVICES = ["cpu:0", pytest.param("gpu:0", marks=pytest.mark.gpu)]
POSITIVE_IDS, SAMPLED_IDS = np.array([3, 0, 5, 3]), np.array([1, 3, 3, 6, 0, 2, 9])


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("variable", [tf.Variable, keras.Variable])
def test_loss_rank_and_sparse_gradient(rng, device, variable):
    rows, q = (rng.normal(size=shape).astype(np.float32) for shape in ((10, 8), (4, 8)))
    log_q = np.log(rng.uniform(0.01, 1.0, 10)).astype(np.float32)
    of_rows = {"positive_log_q": log_q[POSITIVE_IDS], "sampled_log_q": log_q[SAMPLED_IDS]}
    with tf.device(device):
        table = variable(rows, dtype="float32")
        with tf.GradientTape() as tape:
            output = sampled_softmax(
                q,
                table,
                tf.constant(POSITIVE_IDS, tf.int32),
                SAMPLED_IDS,
                temperature=0.7,
                precision="float32",
                **of_rows,
            )
        grad = tape.gradient(output.loss, getattr(table, "value", table) if variable is keras.Variable else table)
    assert isinstance(grad, tf.IndexedSlices)
    expected, grads = inbatch_softmax_reference(
        q,
        rows[SAMPLED_IDS],
        positives=rows[POSITIVE_IDS],
        temperature=0.7,
        positive_ids=POSITIVE_IDS,
        candidate_ids=SAMPLED_IDS,
        positive_log_q=of_rows["positive_log_q"],
        candidate_log_q=of_rows["sampled_log_q"],
    )
    np.testing.assert_allclose(output.loss, expected["loss"], rtol=1e-5)
    assert np.array_equal(output.rank, expected["rank"])
    dense = np.zeros((10, 8))
    np.add.at(dense, POSITIVE_IDS, grads["positives"])
    np.add.at(dense, SAMPLED_IDS, grads["candidates"])
    np.testing.assert_allclose(tf.convert_to_tensor(grad), dense, rtol=1e-4, atol=1e-5)


def test_a_tensor_and_2_byte_queries(rng):
    rows = tf.constant(rng.normal(size=(10, 8)), tf.float32)
    q = tf.gather(rows, POSITIVE_IDS)
    exact = sampled_softmax(q, rows, POSITIVE_IDS, SAMPLED_IDS)
    half = sampled_softmax(tf.cast(q, tf.bfloat16), rows, POSITIVE_IDS, SAMPLED_IDS)
    assert half.loss.dtype == tf.float32
    np.testing.assert_allclose(half.positive_score, exact.positive_score, rtol=2e-2)


def test_ids_out_of_range():
    with tf.device("cpu:0"), pytest.raises(tf.errors.InvalidArgumentError, match=r"10 is not in \[0, 10\)"):
        sampled_softmax(tf.ones((1, 4)), tf.ones((10, 4)), [0], [10])


@pytest.mark.parametrize(
    ("error", "message", "changed"),
    [
        (ValueError, r"sampled_log_q must be given together. Received: one", {"sampled_log_q": np.zeros(7, "f")}),
        (TypeError, r"sampled_ids must be int32 or int64. Received: float32", {"sampled_ids": tf.ones(7)}),
        (ValueError, r"table must have rank 2. Received shape: \(10,\)", {"table": tf.ones(10)}),
        (ValueError, r"positive_ids must be as many as queries, 4. Received: 7", {"positive_ids": SAMPLED_IDS}),
        (
            ValueError,
            r"sampled_log_q must be as many as sampled_ids, 7. Received: 4",
            {"positive_log_q": np.zeros(4, "f"), "sampled_log_q": np.zeros(4, "f")},
        ),
        (
            ValueError,
            r"sampled_ids must have rank 1. Received shape: \(1, 7\)",
            {"sampled_ids": SAMPLED_IDS[np.newaxis]},
        ),
    ],
)
def test_wrong_arguments(error, message, changed):
    arguments = {"queries": tf.ones((4, 8)), "table": tf.ones((10, 8))}
    arguments |= {"positive_ids": POSITIVE_IDS, "sampled_ids": SAMPLED_IDS}
    with pytest.raises(error, match=message):
        sampled_softmax(**{**arguments, **changed})
