"""inbatch_softmax as a TensorFlow op: by hand, against its reference, the reference against differences, graphs, errors."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from softmax_data import SIZES, SoftmaxCase, assert_as_expected, assert_within, random_case

from merlin_models.ops import inbatch_softmax, inbatch_softmax_reference

DEVICES = ["cpu:0", pytest.param("gpu:0", marks=pytest.mark.gpu)]
NAMES = ("queries", "positives", "candidates", "positive_log_q", "candidate_log_q")
OUTPUTS = ("loss", "log_sum_exp", "positive_score")
GRADS = tuple(f"{name}_grad" for name in OUTPUTS)


def tensors_of(case: SoftmaxCase) -> dict:
    vectors = {name: getattr(case, name) for name in NAMES if getattr(case, name) is not None}
    dtype = tf.as_dtype(case.dtype)
    tensors = {
        name: tf.constant(value) if "log_q" in name else tf.cast(value.astype(np.float32), dtype)
        for name, value in vectors.items()
    }
    tensors["temperature"] = tf.constant(case.temperature, tf.float32)
    return tensors


def run(case: SoftmaxCase, graph: bool = False, **options) -> tuple[dict, dict]:
    """Results and gradients by the reference's names."""

    def call(tensors):
        with tf.GradientTape() as tape:
            tape.watch(list(tensors.values()))
            output = inbatch_softmax(
                **tensors, positive_ids=case.positive_ids, candidate_ids=case.candidate_ids, **options
            )
            total = tf.add_n([tf.reduce_sum(g * part) for g, part in zip(case.grads, output[:3], strict=True)])
        return output, tape.gradient(total, tensors)

    output, grads = (tf.function(call) if graph else call)(tensors_of(case))
    assert [part.dtype for part in output] == [tf.float32] * 3 + [tf.int64]
    for name in ("queries", "positives", "candidates"):
        assert grads[name].dtype == tf.as_dtype(case.dtype)
    wide = {name: tf.cast(grad, tf.float64).numpy() for name, grad in grads.items()}
    return {name: part.numpy() for name, part in output._asdict().items()}, wide


def test_by_hand():
    # Scores: user 0 has 2 and 1, user 1 has 0 and 3, in units of log 2.
    unit = np.float32(np.log(2.0))
    users = tf.constant([[1.0, 0.0], [0.0, 1.0]])
    items = tf.constant([[2.0 * unit, 0.0], [1.0 * unit, 3.0 * unit]], tf.float32)
    output = inbatch_softmax(users, items)
    np.testing.assert_allclose(output.loss, np.log([1 + 2 / 4, 1 + 1 / 8]), rtol=1e-6)
    np.testing.assert_allclose(output.log_sum_exp, np.log([4 + 2, 1 + 8]), rtol=1e-6)
    np.testing.assert_allclose(output.positive_score, [2 * unit, 3 * unit], rtol=1e-6)
    assert output.rank.numpy().tolist() == [0, 0]
    # A third item, of the id of user 0's; a temperature of 1 / 2.
    items = tf.concat([items, tf.constant([[unit, 2.0 * unit]], tf.float32)], axis=0)
    output = inbatch_softmax(
        users, items, temperature=0.5, candidate_ids=[5, 6, 5], candidate_log_q=unit * np.array([0.0, -1.0, -2.0])
    )
    # User 0: 4 against 2 + 1; user 1: 6 + 1 against 0 and 4 + 2.
    np.testing.assert_allclose(output.loss, np.log([1 + 8 / 16, 1 + (1 + 64) / 128]), rtol=1e-6)
    assert output.rank.numpy().tolist() == [0, 0]
    # Positives apart, the candidates negatives for all.
    output = inbatch_softmax(users, items, positives=users * unit)
    np.testing.assert_allclose(output.loss, np.log([1 + (4 + 2 + 2) / 2, 1 + (1 + 8 + 4) / 2]), rtol=1e-6)
    assert output.rank.numpy().tolist() == [1, 2]


@pytest.mark.parametrize("in_batch", [False, True])
def test_the_references_gradient(rng, in_batch):
    case = random_case(rng, 4, 7, 3, 0.4, in_batch=in_batch)
    arrays = {name: getattr(case, name).astype(np.float64) for name in NAMES}
    arrays["temperature"] = np.array(case.temperature)
    ids = {"positive_ids": case.positive_ids, "candidate_ids": case.candidate_ids}
    _, grads = inbatch_softmax_reference(**arrays, **ids, **dict(zip(GRADS, case.grads, strict=True)))

    def total():
        outputs, _ = inbatch_softmax_reference(**arrays, **ids)
        return sum((g * outputs[name]).sum() for g, name in zip(case.grads, OUTPUTS, strict=True))

    step = 1e-6
    for name, array in arrays.items():
        for place in np.ndindex(array.shape):
            value = array[place]
            array[place] = value + step
            above = total()
            array[place] = value - step
            below = total()
            array[place] = value
            assert abs((above - below) / (2 * step) - np.asarray(grads[name])[place]) < 1e-6, name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("sizes", SIZES[::2], ids=str)
def test_results_and_gradients(rng, device, sizes):
    case = random_case(rng, *sizes, log_q=-30.0)
    with tf.device(device):
        results = run(case, precision="float32")
    assert_as_expected(case, *results, on_gpu=device != "cpu:0")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("graph", [False, True])
def test_2_byte_types(rng, device, dtype, graph):
    case = random_case(rng, 65, 90, 40, 0.1, dtype, log_q=None if graph else -12.0)
    with tf.device(device):
        results = run(case, graph)
    assert_as_expected(case, *results, on_gpu=device != "cpu:0")


@pytest.mark.gpu
def test_tf32(rng):
    case = random_case(rng, 65, 90, 40, 0.1)
    with tf.device("gpu:0"):
        assert_as_expected(case, *run(case, True, precision="tf32"), tf32=True, on_gpu=True)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("more", [0, 20])
def test_candidates_are_positives(rng, device, more):
    case = random_case(rng, 40, 40 + more, 16, 0.2)
    queries, candidates, log_q = (tf.constant(x) for x in (case.queries, case.candidates, case.candidate_log_q))
    with tf.device(device), tf.GradientTape() as tape:
        tape.watch([queries, candidates, log_q])
        output = inbatch_softmax(
            queries,
            candidates,
            temperature=0.2,
            candidate_ids=tf.cast(case.candidate_ids, tf.int32),
            candidate_log_q=tf.cast(log_q, tf.float64),
            precision="float32",
        )
    grads = tape.gradient(output.loss, [queries, candidates, log_q])
    case.grads = [np.ones(40), np.zeros(40), np.zeros(40)]
    expected, expected_grads = case.expected()
    for of_candidates, of_positives in (("candidates", "positives"), ("candidate_log_q", "positive_log_q")):
        expected_grads[of_candidates][:40] += expected_grads[of_positives]
    np.testing.assert_allclose(output.loss, expected["loss"], rtol=1e-4)
    assert np.array_equal(output.rank, expected["rank"])
    for grad, name in zip(grads, ("queries", "candidates", "candidate_log_q"), strict=True):
        assert_within(grad, expected_grads[name], 1e-5 / 0.2, name)


@pytest.mark.parametrize("device", DEVICES)
def test_symmetric_is_clips_loss(rng, device):
    queries, candidates = (tf.constant(rng.normal(size=(37, 20)), tf.float32) for _ in range(2))
    inverse = keras.Variable(3.0)

    def clip():
        scores = tf.matmul(queries, candidates, transpose_b=True) * inverse.value
        entropy, labels = tf.nn.sparse_softmax_cross_entropy_with_logits, tf.range(37)
        return 0.5 * (entropy(labels, scores) + entropy(labels, tf.transpose(scores)))

    def ours():
        return inbatch_softmax(
            queries, candidates, temperature=1.0 / inverse.value, symmetric=True, precision="float32"
        ).loss

    results = []
    for function, place in ((clip, "cpu:0"), (ours, device)):  # on a GPU TensorFlow's products are TF32
        with tf.device(place):
            with tf.GradientTape() as tape:
                tape.watch([queries, candidates])
                loss = function()
            results.append([loss, *tape.gradient(loss, [queries, candidates, inverse.value])])
    for wanted, actual in zip(*results, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-4, atol=3e-5 if device == "cpu:0" else 3e-4)


def test_symmetric_masks_both_ways(rng):
    ids = np.array([3, 1, 3, 3, 2])
    q, k = (rng.normal(size=(5, 4)).astype(np.float32) for _ in range(2))
    both = inbatch_softmax(q, k, candidate_ids=ids, symmetric=True).loss
    one, other = (inbatch_softmax(a, b, candidate_ids=ids).loss for a, b in ((q, k), (k, q)))
    np.testing.assert_allclose(both, (one + other) / 2, rtol=1e-6)
    expected = inbatch_softmax_reference(k, q, candidate_ids=ids)[0]["loss"]
    np.testing.assert_allclose(other, expected, rtol=1e-5)


@pytest.mark.parametrize("device", DEVICES)
def test_temperature_is_learned(rng, device):
    with tf.device(device):
        temperature = keras.Variable(0.5, dtype="float32")
        x = tf.constant(rng.normal(size=(16, 8)), tf.float32)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(inbatch_softmax(x, x, temperature=temperature, precision="float32").loss)
        grad = float(tape.gradient(loss, temperature.value))
    above, below = (
        inbatch_softmax_reference(x.numpy(), x.numpy(), temperature=0.5 + step)[0]["loss"].mean()
        for step in (1e-5, -1e-5)
    )
    assert grad == pytest.approx((above - below) / 2e-5, rel=1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_empty_batches_and_one_candidate(device):
    with tf.device(device):
        for batch, candidates in ((0, 0), (0, 3), (1, 1)):
            q, k, log_q = tf.ones((batch, 4)), tf.ones((candidates, 4)), tf.zeros(candidates)
            with tf.GradientTape() as tape:
                tape.watch([q, k, log_q])
                output = inbatch_softmax(q, k, candidate_log_q=log_q)
                total = tf.reduce_sum(output.loss)
            assert [part.shape for part in output] == [(batch,)] * 4
            assert float(total) == 0.0
            for x, grad in zip((q, k, log_q), tape.gradient(total, [q, k, log_q]), strict=True):
                assert grad.shape == x.shape
                assert not np.any(grad.numpy())


def test_shapes_in_a_graph(rng):
    @tf.function(input_signature=[tf.TensorSpec((None, 8)), tf.TensorSpec((None, 8)), tf.TensorSpec(None, tf.int64)])
    def losses(queries, candidates, ids):
        output = inbatch_softmax(
            queries, candidates, candidate_ids=ids, candidate_log_q=tf.zeros_like(candidates[:, 0])
        )
        assert output.rank.shape.as_list() == [None]
        return output

    x = rng.normal(size=(9, 8)).astype(np.float32)
    output = losses(x[:5], x, np.arange(9))
    np.testing.assert_allclose(output.loss, inbatch_softmax_reference(x[:5], x)[0]["loss"], rtol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"positives must have the shape of queries, \[9,8\]"):
        losses(x, x[:5], np.arange(5))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"candidate_ids must have shape \[9\]. Received: \[8\]"):
        losses(x[:5], x, np.arange(8))


def test_evaluation_has_no_gradient():
    x = tf.random.stateless_normal((5, 4), [1, 2])
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = inbatch_softmax(x, x, training=False)
    np.testing.assert_allclose(output.loss, inbatch_softmax(x, x).loss, rtol=1e-6)
    with pytest.raises(ValueError, match=r"training must be True where a gradient .* is asked for. Received: False"):
        tape.gradient(output.loss, x)


@pytest.mark.parametrize("graph", [False, True])
def test_of_gathered_results(rng, graph):
    x, some = tf.constant(rng.normal(size=(7, 4)), tf.float32), [0, 3, 3]

    def gradient(pick):
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = inbatch_softmax(x, x)
            picked = [pick(each) for each in (output.loss, output.log_sum_exp, output.positive_score)]
            total = tf.add_n(
                [tf.reduce_sum(each * weight) for each, weight in zip(picked, (1.0, 2.0, 3.0), strict=True)]
            )
        return tape.gradient(total, x)

    gathered, weighted = lambda each: tf.gather(each, some), lambda each: each * [1.0, 0, 0, 2, 0, 0, 0]
    if graph:
        gradient = tf.function(gradient)
    np.testing.assert_allclose(gradient(gathered), gradient(weighted), rtol=1e-5, atol=1e-6)


def test_second_derivatives_are_refused():
    x = tf.random.stateless_normal((5, 4), [1, 2])
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            loss = tf.reduce_sum(inbatch_softmax(x, x).loss)
        gradient = inner.gradient(loss, x)
    with pytest.raises(LookupError, match="MerlinInbatchSoftmaxGrad"):
        outer.gradient(gradient, x)


@pytest.mark.parametrize(
    ("error", "message", "changed"),
    [
        (TypeError, r"queries must be float32, float16 or bfloat16. Received: float64", {"queries": np.zeros((4, 8))}),
        (TypeError, r"candidates must have the dtype of queries, float32. Rec.*float16", {"candidates": "float16"}),
        (ValueError, r"queries must have rank 2. Received shape: \(8,\)", {"queries": tf.zeros(8)}),
        (ValueError, r"candidates must have the last dimension of queries, 7. Rec.*: 8", {"queries": tf.zeros((4, 7))}),
        (ValueError, r"of queries must be in \[1, 512\]. Received: 513", {"queries": tf.zeros((4, 513))}),
        (ValueError, r"candidates must be at least as many as queries, 7. Rec.*: 6", {"queries": tf.zeros((7, 8))}),
        (ValueError, r"positives must be as many as queries, 4. Received: 3", {"positives": tf.zeros((3, 8))}),
        (ValueError, r"temperature must be a positive number. Received: 0", {"temperature": 0}),
        (ValueError, r"temperature must be a positive number. Received: nan", {"temperature": float("nan")}),
        (ValueError, r"temperature must be a number or a floating scalar.*\(2,\)", {"temperature": tf.ones(2)}),
        (ValueError, r"temperature must be a number or a floating scalar.*int32", {"temperature": tf.constant(1)}),
        (TypeError, r"candidate_ids must be int32 or int64. Received: float32", {"candidate_ids": tf.zeros(6)}),
        (ValueError, r"candidate_ids must be as many as candidates, 6. Received: 4", {"candidate_ids": range(4)}),
        (
            ValueError,
            r"candidate_ids must have rank 1. Received shape: \(6, 1\)",
            {"candidate_ids": [[i] for i in range(6)]},
        ),
        (ValueError, r"candidate_ids must be given where positive_ids are", {"positive_ids": range(4)}),
        (
            ValueError,
            r"positive_ids must be given with candidate_ids where positives are",
            {"positives": tf.zeros((4, 8)), "candidate_ids": range(6)},
        ),
        (TypeError, r"candidate_log_q must be of a floating dtype. Received: int32", {"candidate_log_q": range(6)}),
        (ValueError, r"candidate_log_q must be given where positive_log_q is", {"positive_log_q": tf.zeros(4)}),
        (
            ValueError,
            r"positive_log_q and candidate_log_q must be given together",
            {"positives": tf.zeros((4, 8)), "candidate_log_q": tf.zeros(6)},
        ),
        (ValueError, r"symmetric must be False unless .* Received: True for 6 and 4", {"symmetric": True}),
        (
            ValueError,
            r"symmetric must be False where positives are given",
            {"symmetric": True, "positives": tf.zeros((4, 8))},
        ),
        (ValueError, r"precision must be one of .*Received: 'int8'", {"precision": "int8"}),
    ],
)
def test_wrong_arguments(error, message, changed):
    arguments = {"queries": tf.zeros((4, 8)), "candidates": tf.zeros((6, 8))}
    if changed.get("candidates") == "float16":
        changed = {"candidates": tf.zeros((6, 8), tf.float16)}
    with pytest.raises(error, match=message):
        inbatch_softmax(**{**arguments, **changed})
