"""Hypothesis over the ops' Python faces: the reference's numbers, or an error; and after the error nothing has changed.

A call is drawn that is right; then, more often than not, one thing is made wrong in it.
"""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reliability_data import outcome

from merlin_models.ops import (
    Bags,
    UpdateRule,
    dot_interaction,
    dot_interaction_reference,
    embedding_bag,
    embedding_bag_reference,
    embedding_bag_update,
    embedding_bag_update_reference,
    encode_bags,
    inbatch_softmax,
    inbatch_softmax_reference,
    lookup_interaction,
    sampled_softmax,
    to_dense,
    to_ragged,
    to_sparse,
)

ERRORS = (ValueError, TypeError, tf.errors.InvalidArgumentError)


def drawn_wrong(data, names):
    """What is to be wrong, or None."""
    return data.draw(st.one_of(st.none(), st.sampled_from(sorted(names))), label="wrong")


def answer(call, wrong):
    """The result of a right call; None for a wrong one, which must say more than a word."""
    result, error = outcome(call, *ERRORS)
    if wrong is None:
        assert error is None, error
        return result
    assert error is not None, f"{wrong} was taken"
    assert len(str(error)) > 20, error
    return None


def close(actual, expected, tolerance=2e-4):
    np.testing.assert_allclose(np.array(actual, np.float64), expected, tolerance, tolerance)


# ---- bags ----

WRONG_BAGS = ["id -1", "id rows", "id least", "id float", "splits order", "splits start", "splits end", "weights size"]
WRONG_BAGS += ["weights int", "values rank", "splits rank"]


def drawn_bags(data, rng, rows, weighted, wrong):
    """(Bags as a function, for errors come from making them, too; values, splits and weights in NumPy)."""
    bags = data.draw(st.integers(1, 6), label="bags")
    lengths = rng.integers(0, 5, bags)
    lengths[0] = max(lengths[0], 1)
    splits = np.concatenate([[0], np.cumsum(lengths)])
    values = rng.integers(0, rows, splits[-1]).astype(data.draw(st.sampled_from([np.int32, np.int64]), label="ids"))
    weights = rng.uniform(0.5, 1.5, len(values)).astype(np.float32) if weighted else None
    given_values, given_splits, given_weights = values.copy(), splits.copy(), weights
    place = int(rng.integers(0, len(values)))
    if wrong in ("id -1", "id rows", "id least"):
        bad = {"id -1": -1, "id rows": rows, "id least": -(2**63)}[wrong]
        given_values = given_values.astype(np.int64)
        given_values[place] = bad
    elif wrong == "id float":
        given_values = given_values + 0.5
    elif wrong == "splits order":
        given_splits = np.concatenate([splits[:1], splits[-1:] + 1, splits[1:]])
    elif wrong == "splits start":
        given_splits[0] = -1
    elif wrong == "splits end":
        given_splits[-1] += 1 + int(rng.integers(0, 10**6))
    elif wrong == "weights size":
        given_weights = np.ones(len(values) + 1, np.float32)
    elif wrong == "weights int":
        given_weights = np.ones(len(values), np.int32)
    elif wrong == "values rank":
        given_values = given_values.reshape(1, 1, -1)
    elif wrong == "splits rank":
        given_splits = given_splits.reshape(1, -1)

    def make():
        weights = None if given_weights is None else tf.constant(given_weights)
        return Bags(tf.constant(given_values), tf.constant(given_splits, tf.int64), weights)

    return make, (values, splits, weights)


def check_embedding_bag(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    wrong = drawn_wrong(data, [*WRONG_BAGS, "table rank", "table dtype", "combiner", "index", "names", "dtype", "bags"])
    rows, dim = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 40))
    combiner = data.draw(st.sampled_from(["sum", "mean", "sqrtn", "max"]))
    make, feature = drawn_bags(data, rng, rows, combiner != "max" and data.draw(st.booleans()), wrong)
    table = rng.normal(size=(rows, dim)).astype(np.float32)
    tables = [tf.Variable(table) if data.draw(st.booleans()) else tf.constant(table)]
    tables = {"table rank": [tf.zeros((rows, dim, 1))], "table dtype": [tf.zeros((rows, dim), tf.float64)]}.get(
        wrong, tables
    )

    def call():
        return embedding_bag(
            tables,
            [np.zeros(3) if wrong == "bags" else make()],
            [data.draw(st.sampled_from([1, -1, 7]))] if wrong == "index" else [0],
            "product" if wrong == "combiner" else combiner,
            names=["a", "b"] if wrong == "names" else None,
            output_dtype="int32" if wrong == "dtype" else None,
        )[0]

    result = answer(call, wrong)
    if wrong is None:
        close(result, embedding_bag_reference([table], [(*feature, None)], [0], [combiner])[0][0])


WRONG_UPDATES = ["slots", "slot size", "slot dtype", "grad dtype", "grad size", "grad rank", "tensor", "no grads"]


def check_update(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    wrong = drawn_wrong(data, [*WRONG_BAGS, *WRONG_UPDATES])
    rows, dim = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 40))
    rule = UpdateRule(data.draw(st.sampled_from(["adagrad", "rowwise_adagrad", "adam", "rmsprop", "ftrl"])))
    make, feature = drawn_bags(data, rng, rows, data.draw(st.booleans()), wrong)
    table = rng.normal(size=(rows, dim)).astype(np.float32)
    grad = rng.normal(size=(len(feature[1]) - 1, dim)).astype(np.float32)
    slots = [np.full(slot.shape(rows, dim), slot.initial_value, np.float32) for slot in rule.slots()]
    variable, states = tf.Variable(table), [tf.Variable(slot) for slot in slots]
    given_states = {
        "slots": states[1:],
        "slot size": [tf.Variable(tf.zeros((rows + 1, dim))), *states[1:]],
        "slot dtype": [tf.Variable(tf.cast(states[0], tf.float64)), *states[1:]],
    }.get(wrong, states)
    grads = {
        "grad dtype": [grad.astype(np.int32)],
        "grad size": [np.zeros((len(grad) + 1, dim), np.float32)],
        "grad rank": [grad[0]],
        "no grads": [],
    }.get(wrong, [grad])

    def call():
        tables = [tf.constant(table)] if wrong == "tensor" else [variable]
        embedding_bag_update(tables, [given_states], [make()], grads, combiners="sum", rule=rule, learning_rate=0.1)

    answer(call, wrong)
    if wrong is not None:
        np.testing.assert_array_equal(variable, table)
        for state, slot in zip(states, slots, strict=True):
            np.testing.assert_array_equal(state, slot)
        return
    _, table_grads, _ = embedding_bag_reference([table], [(*feature, None)], [0], ["sum"], [grad])
    expected, expected_slots = embedding_bag_update_reference(
        [table], [slots], table_grads, [np.unique(feature[0])], rule, 0.1
    )
    close(variable, expected[0])
    for state, slot in zip(states, expected_slots[0], strict=True):
        close(state, slot)


def check_encode(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    wrong = drawn_wrong(data, ["id -1", "id rows", "id least", "id float", "mode", "weights mode"])
    depth, mode = data.draw(st.integers(1, 20)), data.draw(st.sampled_from(["multi_hot", "count"]))
    make, (values, splits, weights) = drawn_bags(data, rng, depth, wrong == "weights mode" or mode == "count", wrong)
    given_mode = {"mode": "hot", "weights mode": "multi_hot"}.get(wrong, mode)
    result = answer(lambda: encode_bags(make(), depth, given_mode), wrong)
    if wrong is None:
        expected = np.zeros((len(splits) - 1, depth))
        bag = np.repeat(np.arange(len(splits) - 1), np.diff(splits))
        np.add.at(expected, (bag, values), 1.0 if weights is None else weights)
        close(result, expected if mode == "count" else expected > 0)


# ---- vectors ----


def check_dot_interaction(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    wrong = drawn_wrong(
        data, ["dtype", "dtypes", "rank", "dims", "batches", "order", "pad", "precision", "many", "none"]
    )
    batch, dim = data.draw(st.integers(0, 5)), data.draw(st.integers(1, 40))
    counts = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    parts = [rng.normal(size=(batch, n, dim) if n else (batch, dim)).astype(np.float32) for n in counts]
    options = {"order": data.draw(st.sampled_from(["lower", "upper"])), "pad_to": data.draw(st.integers(1, 16))}
    options |= {"self_interaction": data.draw(st.booleans()), "concat_first": data.draw(st.booleans())}
    last = parts[-1]
    given_parts = {
        "dtype": [part.astype(np.int32) for part in parts],
        "dtypes": [*parts, last.astype(np.float16)],
        "rank": [*parts, np.zeros((batch, 1, 1, dim), np.float32)],
        "dims": [*parts, np.zeros((batch, dim + 1), np.float32)],
        "batches": [*parts, np.zeros((batch + 1, dim), np.float32)],
        "many": [*parts, np.zeros((batch, 129, dim), np.float32)],
        "none": [],
    }.get(wrong, parts)
    given_options = {
        "order": options | {"order": "middle"},
        "pad": options | {"pad_to": data.draw(st.sampled_from([0, -1, 1.5, 2**40]))},
        "precision": options | {"precision": "float8"},
    }.get(wrong, options)
    result = answer(lambda: dot_interaction(given_parts, **given_options), wrong)
    if wrong is None:
        close(result, dot_interaction_reference(parts, **options)[0])


WRONG_LOOKUPS = [
    "tensor",
    "dims",
    "dtypes",
    "first dim",
    "first batch",
    "batches",
    "combiner",
    "index",
    "names",
    "order",
]
WRONG_LOOKUPS += ["pad", "precision", "output"]


def check_lookup_interaction(data):
    """Lists of one table and one id of another, beside a first vector."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    wrong = drawn_wrong(data, [*WRONG_BAGS, *WRONG_LOOKUPS])
    rows, dim = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 40))
    combiner = data.draw(st.sampled_from(["sum", "mean", "sqrtn", "max"]))
    make, feature = drawn_bags(data, rng, rows, combiner != "max" and data.draw(st.booleans()), wrong)
    batch = len(feature[1]) - 1
    ids = rng.integers(0, 9, (batch + (wrong == "batches"), 1))
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in ((rows, dim), (9, dim), (batch, dim))]
    first = {"first dim": np.zeros((batch, dim + 1)), "first batch": np.zeros((batch + 1, dim))}.get(wrong, arrays[2])
    other = {"dims": tf.zeros((9, dim + 1)), "dtypes": tf.zeros((9, dim), tf.float16)}.get(wrong, arrays[1])
    tables = [tf.Variable(arrays[0]), tf.constant(other) if wrong == "tensor" else tf.Variable(other)]
    options = {"order": data.draw(st.sampled_from(["lower", "upper"])), "pad_to": data.draw(st.integers(1, 16))}
    options |= {"self_interaction": data.draw(st.booleans()), "concat_first": data.draw(st.booleans())}
    given_options = options | {
        "order": {"order": "middle"},
        "pad": {"pad_to": 0},
        "precision": {"precision": "float8"},
        "output": {"output_dtype": "int32"},
        "names": {"names": ["a", "b", "c"]},
    }.get(wrong, {})

    def call():
        combiners = ["product" if wrong == "combiner" else combiner, "sum"]
        features = [make(), Bags(tf.constant(ids), None, None)]
        return lookup_interaction(
            tables, features, [0, 2 if wrong == "index" else 1], combiners, first.astype(np.float32), **given_options
        )

    result = answer(call, wrong)
    if wrong is None:
        pooled = embedding_bag_reference([arrays[0]], [(*feature, None)], [0], [combiner])[0][0]
        vectors = [arrays[2].astype(np.float64), pooled, arrays[1][ids[:, 0]]]
        close(result, dot_interaction_reference(vectors, **options)[0])


WRONG_SOFTMAX = ["dtype", "dtypes", "rank", "dim", "fewer", "ids float", "ids size", "log_q int", "log_q size"]
WRONG_SOFTMAX += ["temperature", "temperature rank", "symmetric", "precision", "positives", "only positive_ids"]


def check_inbatch_softmax(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    wrong = drawn_wrong(data, WRONG_SOFTMAX)
    batch, more, dim = data.draw(st.integers(1, 6)), data.draw(st.integers(0, 5)), data.draw(st.integers(1, 40))
    queries = rng.normal(size=(batch, dim)).astype(np.float32)
    candidates = rng.normal(size=(batch + more, dim)).astype(np.float32)
    options = {"temperature": data.draw(st.floats(0.2, 5.0))}
    if data.draw(st.booleans()):
        options["candidate_ids"] = rng.integers(0, 8, batch + more)
    if data.draw(st.booleans()):
        options["candidate_log_q"] = rng.normal(size=batch + more).astype(np.float32)
    arrays = {
        "dtype": (queries.astype(np.float64), candidates.astype(np.float64)),
        "dtypes": (queries, candidates.astype(np.float16)),
        "rank": (queries, candidates[0]),
        "dim": (queries, np.zeros((batch + more, dim + 1), np.float32)),
        "fewer": (queries, candidates[: batch - 1]),
        "symmetric": (queries, np.concatenate([candidates, candidates])),
    }.get(wrong, (queries, candidates))
    given_options = options | {
        "ids float": {"candidate_ids": np.zeros(batch + more)},
        "ids size": {"candidate_ids": np.zeros(batch + more + 1, np.int64)},
        "log_q int": {"candidate_log_q": np.zeros(batch + more, np.int64)},
        "log_q size": {"candidate_log_q": np.zeros(batch + more + 1, np.float32)},
        "temperature": {"temperature": data.draw(st.sampled_from([0.0, -1.0, np.nan, np.inf, 0]))},
        "temperature rank": {"temperature": tf.ones(batch + 1)},
        "symmetric": {"symmetric": True, "candidate_ids": None, "candidate_log_q": None},
        "precision": {"precision": "float8"},
        "positives": {"positives": np.zeros((batch + 1, dim), np.float32)},
        "only positive_ids": {"positive_ids": np.zeros(batch, np.int64), "candidate_ids": None},
    }.get(wrong, {})
    result = answer(lambda: inbatch_softmax(*arrays, **given_options), wrong)
    if wrong is None:
        expected, _ = inbatch_softmax_reference(queries, candidates, **options)
        for name in ("loss", "log_sum_exp", "positive_score"):
            close(getattr(result, name), expected[name])


def check_sampled_softmax(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    wrong = drawn_wrong(data, ["positive id", "sampled id", "least id", "ids float", "table rank", "one log_q", "dim"])
    batch, samples, dim, rows = (data.draw(st.integers(1, 8)) for _ in range(4))
    queries = rng.normal(size=(batch, dim)).astype(np.float32)
    table = rng.normal(size=(rows, dim)).astype(np.float32)
    positive, sampled = rng.integers(0, rows, batch), rng.integers(0, rows, samples)
    given = {"queries": queries, "table": table, "positive_ids": positive, "sampled_ids": sampled}
    given |= {
        "positive id": {"positive_ids": np.full(batch, rows)},
        "sampled id": {"sampled_ids": np.full(samples, -1)},
        "least id": {"sampled_ids": np.full(samples, -(2**63))},
        "ids float": {"positive_ids": positive + 0.0},
        "table rank": {"table": table[0]},
        "one log_q": {"positive_log_q": np.zeros(batch, np.float32)},
        "dim": {"queries": np.zeros((batch, dim + 1), np.float32)},
    }.get(wrong, {})
    result = answer(lambda: sampled_softmax(**given), wrong)
    if wrong is None:
        expected, _ = inbatch_softmax_reference(
            queries, table[sampled], positives=table[positive], positive_ids=positive, candidate_ids=sampled
        )
        close(result.loss, expected["loss"])


def check_ragged(data):
    """Lists through every form and back."""
    lists = data.draw(st.lists(st.lists(st.integers(1, 99), max_size=5), min_size=1, max_size=6))
    wrong = drawn_wrong(data, ["rank", "pair"])
    ragged = tf.ragged.constant(lists, dtype=tf.int64, ragged_rank=1)
    if wrong is not None:
        bad = tf.zeros(3) if wrong == "rank" else (tf.zeros((3, 2)), tf.zeros((2, 1), tf.int64))
        answer(lambda: to_ragged(bad), wrong)
        return
    for form in (ragged, to_dense(ragged), to_sparse(ragged), (ragged.values, ragged.row_splits)):
        assert to_ragged(form).to_list() == lists
        assert [[x for x in row if x] for row in to_dense(form).numpy().tolist()] == lists


CHECKS = {
    "embedding_bag": check_embedding_bag,
    "embedding_bag_update": check_update,
    "encode_bags": check_encode,
    "dot_interaction": check_dot_interaction,
    "lookup_interaction": check_lookup_interaction,
    "inbatch_softmax": check_inbatch_softmax,
    "sampled_softmax": check_sampled_softmax,
    "ragged": check_ragged,
}


@pytest.mark.parametrize("examples", [25, pytest.param(1500, marks=pytest.mark.slow)])
@pytest.mark.parametrize("op", CHECKS)
def test_any_arguments(op, examples):
    options = settings(
        max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
    )
    options(given(st.data())(CHECKS[op]))()
