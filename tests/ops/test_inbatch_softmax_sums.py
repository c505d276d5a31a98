"""What inbatch_softmax on a CPU sums up in its forward pass, and which gradients are computed from that."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from softmax_data import ANY_CALL, DTYPES, SIZES, SoftmaxCase, assert_as_expected, random_case
from softmax_native import Device, inputs_of, native, run

from merlin_models import _native
from merlin_models.layers import InbatchSoftmax
from merlin_models.ops import inbatch_softmax, sampled_softmax
from merlin_models.tasks.negatives import Pool
from merlin_models.tasks.rows import softmax_rows

NUMPY = Device("numpy")
OF_CANDIDATES = ("candidates", "candidate_log_q")


def weigh(case: SoftmaxCase, rng, how: str) -> np.ndarray | None:
    """Gives the case gradients of the loss as a weighted mean has them, and returns the weights: "equal" or "weights"."""
    batch = len(case.queries)
    weights = None if how == "equal" else rng.uniform(0.0, 3.0, batch).astype(np.float32)
    if weights is not None:
        weights[rng.random(batch) < 0.3] = 0.0
    case.grads[0] = np.full(batch, 0.37, np.float32) * (1.0 if weights is None else weights)
    case.grads[1] = np.zeros(batch, np.float32)
    return weights


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("how", ["equal", "weights"])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_sizes_and_temperatures(rng, dtype, how, sizes):
    case = random_case(rng, *sizes, dtype, log_q=-30.0, in_batch=bool(rng.integers(2)))
    weights = weigh(case, rng, how)
    assert_as_expected(case, *run(case, NUMPY, query_weights=weights))


@given(
    batch=st.integers(0, 300),
    more=st.integers(0, 300),
    num_threads=st.sampled_from([1, 2, 5]),
    how=st.sampled_from(["equal", "weights"]),
    **ANY_CALL,
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_call(seed, batch, more, dim, temperature, ids, dtype, in_batch, num_threads, how):
    rng = np.random.default_rng(seed)
    count = (batch if in_batch else 0) + max(more, 1)
    case = random_case(rng, batch, count, dim, temperature, dtype, ids, in_batch=in_batch)
    weights = weigh(case, rng, how)
    assert_as_expected(case, *run(case, NUMPY, query_weights=weights, num_threads=num_threads))


@pytest.mark.parametrize("how", ["equal", "weights"])
def test_both_ways_agree_and_are_taken(rng, how):
    case = random_case(rng, 431, 517, 40, 0.05)
    weights = weigh(case, rng, how)
    _, without = run(case, NUMPY, sums=None)
    _, summed = run(case, NUMPY, query_weights=weights)
    _, doubled = run(case, NUMPY, sums=2.0, query_weights=weights)
    for name, grad in summed.items():
        if name in OF_CANDIDATES:  # summed in another order
            assert not np.array_equal(grad, without[name])
            np.testing.assert_allclose(grad, without[name], rtol=1e-4, atol=1e-5 * np.abs(grad).max())
            assert np.array_equal(doubled[name], 2.0 * grad)
        else:
            assert np.array_equal(grad, without[name])
    # One row of another gradient, or of a gradient that is no number: scores are computed again.
    row = np.flatnonzero(case.grads[0])[7]
    for value in (np.float32(1.000001) * case.grads[0][row], 0.5, np.nan, np.inf):
        case.grads[0][row] = value
        again = [run(case, NUMPY, sums=sums, query_weights=weights)[1] for sums in (None, 2.0)]
        for name, grad in again[0].items():
            assert np.array_equal(grad, again[1][name], equal_nan=True), name


def test_other_weights_than_said(rng):
    case = random_case(rng, 50, 60, 20, 0.1)
    weights = weigh(case, rng, "weights")
    for other in (None, 1.0 + weights):
        assert_as_expected(case, *run(case, NUMPY, sums=3.0, query_weights=other))


@pytest.mark.parametrize("sizes", [(1500, 700, 48), (40, 3000, 100), (900, 33, 7)], ids=str)
def test_results_repeat_to_the_bit(rng, sizes):
    case = random_case(rng, *sizes, 0.05, in_batch=sizes[0] <= sizes[1])
    weights = weigh(case, rng, "weights")
    results = run(case, NUMPY, query_weights=weights)
    plain, _ = run(case, NUMPY, sums=None)
    for name, output in results[0].items():
        assert np.array_equal(output, plain[name]), name
    for num_threads in (1, 2, 3, 16):
        again = run(case, NUMPY, query_weights=weights, num_threads=num_threads)
        for name, result in {**results[0], **results[1]}.items():
            assert np.array_equal(result, {**again[0], **again[1]}[name]), (name, num_threads)


def test_rising_maxima(rng):
    # Scores rise along the candidates, by more than a weight can hold: earlier weights become 0, or small.
    case = random_case(rng, 150, 400, 8, 1.0, ids="different", log_q=None, in_batch=False)
    case.candidates = np.linspace(0.0, 30.0, 400, dtype=np.float32)[:, np.newaxis] * np.ones(8, np.float32)
    case.queries = np.abs(case.queries)
    weigh(case, rng, "equal")
    assert_as_expected(case, *run(case, NUMPY))


def test_nan_is_not_hidden(rng):
    case = random_case(rng, 40, 50, 24, 1.0, ids="different")
    weigh(case, rng, "equal")
    case.queries[3] = np.nan
    _, grads = run(case, NUMPY)
    assert np.isnan(grads["candidates"]).all()


def test_too_many_candidates_are_not_summed():
    assert native.inbatch_softmax_sums_candidates(10**9, 20_000)
    assert native.inbatch_softmax_sums_candidates(1, 10**5)
    assert not native.inbatch_softmax_sums_candidates(10**9, 30_000)
    assert not native.inbatch_softmax_sums_candidates(1, 10**6)


def test_wrong_arguments(rng):
    case = random_case(rng, 4, 6, 8, 1.0)
    given = inputs_of(case, NUMPY)
    results = {name: np.zeros(4, np.float32) for name in ("loss", "log_sum", "positive_score")}

    def refused(message: str, **changed):
        with pytest.raises(ValueError, match=message):
            native.inbatch_softmax_forward(**{**given, **results, **changed})

    refused(r"query_weights must have shape \(4\). Received: \(6\)", query_weights=np.ones(6, np.float32))
    refused(r"candidate_sums must have shape \(6, 8\). Received: \(6\)", candidate_sums=np.ones(6, np.float32))
    refused(r"candidate_weights must be None where candidate_sums are", candidate_weights=np.ones(6, np.float32))
    many = np.zeros((30_000, 8), np.float32)
    changed = {"candidates": many, "candidate_ids": np.arange(30_000), "candidate_log_q": many[:, 0].copy()}
    case.queries = np.zeros((100, 8), np.float32)
    rows = {name: np.zeros(100, np.float32) for name in ("loss", "log_sum", "positive_score", "positive_log_q")}
    rows |= {"queries": case.queries, "positives": case.queries, "positive_ids": np.arange(100)}
    refused(r"candidate_sums must not be asked for.*Received: 30000", **changed, **rows, candidate_sums=many)
    with pytest.raises(ValueError, match=r"loss_weights must be as many as queries, 4. Received: 6"):
        inbatch_softmax(case.candidates[:4], case.candidates, loss_weights=np.ones(6, np.float32))


class Doubled:
    """The compiled ops, whose gradient of inbatch_softmax gets twice the sums, and notes whether there were any."""

    def __init__(self):
        self.ops, self.summed = _native.tf_ops(), []

    def __getattr__(self, name):
        return getattr(self.ops, name)

    def merlin_inbatch_softmax_grad(self, *, candidate_sums, candidate_weights, **others):
        self.summed.append(candidate_sums.shape[0])
        sums = {"candidate_sums": 2.0 * candidate_sums, "candidate_weights": 2.0 * candidate_weights}
        return self.ops.merlin_inbatch_softmax_grad(**sums, **others)


def twice(monkeypatch, gradient) -> bool:
    """Whether the tensor that ``gradient()`` returns is twice as large with twice the sums, or else the same."""
    before, doubled = gradient(), Doubled()
    with monkeypatch.context() as patch:
        patch.setattr(_native, "tf_ops", lambda: doubled)
        after = gradient()
    assert np.array_equal(after, before) or np.array_equal(after, 2.0 * before)
    return not np.array_equal(after, before)


def mean(loss, weights):
    return tf.reduce_sum(weights * loss) / tf.reduce_sum(weights)


@pytest.mark.parametrize("options", [{}, {"candidate_log_q": np.linspace(-3, 0, 90)}, {"temperature": 0.3}], ids=str)
def test_gradients_from_the_sums(rng, monkeypatch, options):
    queries, negatives = (tf.constant(rng.normal(size=shape), tf.float32) for shape in ((70, 16), (90, 16)))
    weights = tf.constant(rng.uniform(size=70), tf.float32)
    if options.get("candidate_log_q") is not None:
        options = options | {"positive_log_q": np.zeros(70)}

    def gradient(total, loss_weights=None, symmetric=False):
        def compute():
            candidates = queries[::-1] if symmetric else negatives
            others = {"symmetric": True} if symmetric else options | {"positives": queries}
            with tf.GradientTape() as tape:
                tape.watch(candidates)
                result = inbatch_softmax(queries, candidates, loss_weights=loss_weights, **others)
                value = total(result)
            return tape.gradient(value, candidates).numpy()

        return twice(monkeypatch, compute)

    with tf.device("cpu:0"):
        assert gradient(lambda result: tf.reduce_mean(result.loss))
        assert gradient(lambda result: 3.0 * tf.reduce_sum(result.loss - 2.0 * result.log_sum_exp))
        assert gradient(lambda result: mean(result.loss, weights), weights)
        assert gradient(lambda result: mean(result.loss, weights), 7.0 * weights)
        assert not gradient(lambda result: mean(result.loss, weights))
        assert not gradient(lambda result: mean(result.loss, weights), 1.0 - weights)
        assert not gradient(lambda result: tf.reduce_sum(result.loss**2))


def test_symmetric_sampled_and_layer(rng, monkeypatch):
    x, y = (tf.constant(rng.normal(size=(40, 16)), tf.float32) for _ in range(2))
    weights = tf.constant(rng.uniform(size=40), tf.float32)
    ids, sampled = np.arange(40) // 2, np.arange(10, 30)

    def of(loss, variable):
        doubled = Doubled()
        with monkeypatch.context() as patch:
            patch.setattr(_native, "tf_ops", lambda: doubled)
            with tf.GradientTape() as tape:
                tape.watch(variable)
                value = mean(loss(), weights)
            tape.gradient(value, variable)
        return doubled.summed

    with tf.device("cpu:0"):
        assert of(lambda: inbatch_softmax(x, y, symmetric=True, loss_weights=weights).loss, y) == [40, 40]
        assert of(lambda: sampled_softmax(x, y, ids, sampled, loss_weights=weights).loss, y) == [20]
        assert of(lambda: InbatchSoftmax()(x, y, training=True, loss_weights=weights).loss, y) == [40]


@pytest.mark.parametrize("reduction", ["sum", "sum_over_batch_size", "mean_with_sample_weight"])
def test_a_task_says_its_weights(rng, monkeypatch, reduction):
    x, y = (tf.constant(rng.normal(size=(40, 16)), tf.float32) for _ in range(2))
    weights = tf.constant(rng.uniform(size=40), tf.float32)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, reduction=reduction)

    def gradient():
        with tf.device("cpu:0"), tf.GradientTape() as tape:
            tape.watch(y)
            value, _ = softmax_rows(InbatchSoftmax(), x, Pool(y, positives=x), 0.5, loss, weights, training=True)
        return tape.gradient(value, y).numpy()

    assert twice(monkeypatch, gradient)


def test_what_is_not_wanted_is_not_summed(rng):
    op = _native.tf_ops().merlin_inbatch_softmax
    x = tf.zeros((4, 8))

    def sums(count, **options):
        lists = {"positive_log_q": [], "candidate_log_q": [], "query_weights": []}
        ids = {"positive_ids": tf.range(4, dtype=tf.int64), "candidate_ids": tf.range(count, dtype=tf.int64)}
        with tf.device("cpu:0"):
            result = op(queries=x, positives=x, candidates=tf.zeros((count, 8)), scale=1.0, **ids, **lists, **options)
        return result.candidate_sums.shape[0], result.candidate_weights.shape[0]

    assert sums(6) == (6, 0)
    assert sums(6, with_mean=False) == (0, 0)
    assert sums(10**6) == (0, 0)
