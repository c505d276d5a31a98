"""embedding_bag_update in TensorFlow: against the reference, in eager execution and in a graph, on a CPU and a GPU."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from bag_data import NUMPY_DTYPES, random_case
from hypothesis import given, settings
from hypothesis import strategies as st
from test_embedding_bag_update_native import RULES, TOLERANCE, touched_rows

from merlin_models.ops import Bags, UpdateRule, embedding_bag_update, embedding_bag_update_reference


def features_of(case) -> list[Bags]:
    features = []
    for f, values in enumerate(case.values):
        ids = case.dense_ids(f) if case.dense[f] else values
        weights = None if case.weights[f] is None else tf.constant(case.weights[f].reshape(ids.shape))
        splits = None if case.dense[f] else tf.constant(case.row_splits[f])
        features.append(Bags(tf.constant(ids), splits, weights, case.padding_ids[f]))
    return features


def step_and_check(case, rule, device="/CPU:0", steps=2, graph=True, grad_dtype=None, seed=0, scale=3.0):
    """Steps tables with random gradients and compares with the reference after each step."""
    rng = np.random.default_rng(seed)
    dtype = case.tables[0].dtype
    name = dtype.name
    with tf.device(device):
        tables = [tf.Variable(table) for table in case.tables]
        slots = [
            [tf.Variable(np.full(s.shape(*t.shape), s.initial_value, np.float32)) for s in rule.slots()] for t in tables
        ]
        features = features_of(case)

        def update(grads, step):
            embedding_bag_update(
                tables, slots, features, grads, case.table_of_feature, case.combiners,
                rule=rule, learning_rate=0.05, step=step, grad_scale=0.5,
            )  # fmt: skip

        run = tf.function(update) if graph else update
        for step in range(steps):
            grads = [
                rng.normal(size=(len(s) - 1, d)).astype(grad_dtype or dtype)
                for s, d in zip(case.row_splits, case.dims, strict=True)
            ]
            before = [t.numpy().astype(np.float64) for t in tables]
            state = [[s.numpy().astype(np.float64) for s in own] for own in slots]
            run([tf.constant(g) for g in grads], tf.constant(step, tf.int64))
            now = type(case)(**{**vars(case), "tables": before})
            _, dense, _ = now.reference([g.astype(np.float64) for g in grads])
            touched = [touched_rows(case, t) for t in range(len(tables))]
            expected, expected_slots = embedding_bag_update_reference(
                before, state, dense, touched, rule, 0.05, step, 0.5
            )
            for t, table in enumerate(tables):
                got = table.numpy().astype(np.float64)
                size = np.abs(expected[t]).max(initial=1.0)
                assert np.abs(got - expected[t]).max(initial=0.0) <= scale * TOLERANCE[name] * size
                others = np.setdiff1d(np.arange(len(got)), touched[t])
                assert np.array_equal(got[others], before[t][others])
                for slot, e in zip(slots[t], expected_slots[t], strict=True):
                    assert np.abs(slot.numpy() - e).max(initial=0.0) <= 1e-4 * np.abs(e).max(initial=1.0)


DEVICES = ["/CPU:0", pytest.param("/GPU:0", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", RULES)
def test_rules(rng, device, dtype, name):
    case = random_case(rng, [(50, 16), (7, 33), (300, 4)], [0, 1, 1, 2, 0], 33, dtype=dtype)
    rule = UpdateRule(name, momentum=0.9, l1=0.01, weight_decay=0.1, clip_norm=5.0, l2=0.01)
    step_and_check(case, rule, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("ids_dtype", [np.int32, np.int64])
@pytest.mark.parametrize(
    ("dtype", "grad_dtype"), [("float16", "float32"), ("float32", "float16"), ("bfloat16", "float32")]
)
def test_dtypes(rng, device, ids_dtype, dtype, grad_dtype):
    case = random_case(rng, [(50, 40)], [0, 0], 33, dtype=dtype, ids_dtype=ids_dtype)
    step_and_check(case, UpdateRule("adagrad"), device, graph=False, grad_dtype=NUMPY_DTYPES[grad_dtype])


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_as_columns_of_one_tensor(rng, device):
    table, ids = rng.normal(size=(20, 8)).astype(np.float32), rng.integers(0, 20, (6, 3))
    grads = rng.normal(size=(6, 16)).astype(np.float32)
    with tf.device(device):
        variable = tf.Variable(table)
        features = [Bags(tf.constant(ids)), Bags(tf.constant(ids[:, :1]))]
        embedding_bag_update(
            [variable], [[]], features, [grads], [0, 0], "sum",
            rule=UpdateRule("sgd"), learning_rate=1.0, grad_of_feature=[0, 0], column_of_feature=[8, 0],
        )  # fmt: skip
    expected = table.astype(np.float64)
    np.add.at(expected, ids, -grads[:, None, 8:])
    np.add.at(expected, ids[:, 0], -grads[:, :8])
    assert np.abs(variable.numpy() - expected).max() < 1e-5


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("dtype", "ulp"), [("float16", 2.0**-10), ("bfloat16", 2.0**-7)])
def test_stochastic_rounding(device, dtype, ulp):
    """Steps of a quarter of a unit in the last place move a quarter of the elements, others in each step."""
    rows, dim = 256, 64
    feature, grad = Bags(tf.range(rows)[:, tf.newaxis]), -tf.ones((rows, dim), dtype)

    def stepped(step):
        table = tf.Variable(tf.ones((rows, dim), dtype))
        rule = UpdateRule("sgd", stochastic_rounding=True, seed=5)
        embedding_bag_update([table], [[]], [feature], [grad], rule=rule, learning_rate=0.25 * ulp, step=step)
        return tf.cast(table, tf.float32).numpy()

    with tf.device(device):
        one, same, other = stepped(0), stepped(0), stepped(1)
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert set(np.unique(one)) == {1.0, 1.0 + ulp}
    assert abs((one > 1.0).mean() - 0.25) < 0.017  # five standard deviations


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", RULES)
def test_repeats_are_equal(rng, device, dtype, name):
    """To the bit, with tables of two bytes rounded at random by one seed; another seed rounds otherwise."""
    case = random_case(rng, [(60, 64), (20, 40)], [0, 1, 0], 500, 6, dtype=dtype)
    grads = [rng.normal(size=(500, dim)).astype(case.tables[0].dtype) for dim in case.dims]

    def stepped(seed):
        rule = UpdateRule(name, momentum=0.9, l1=0.01, stochastic_rounding=dtype != "float32", seed=seed)
        tables = [tf.Variable(table) for table in case.tables]
        slots = [[tf.Variable(tf.fill(s.shape(*t.shape), s.initial_value)) for s in rule.slots()] for t in tables]
        for step in range(2):
            embedding_bag_update(
                tables, slots, features_of(case), grads, case.table_of_feature, case.combiners,
                rule=rule, learning_rate=0.05, step=step,
            )  # fmt: skip
        return [variable.numpy() for variable in [*tables, *(slot for own in slots for slot in own)]]

    with tf.device(device):
        first, again, other = stepped(0), stepped(0), stepped(1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert [np.array_equal(a, b) for a, b in zip(first[:2], other[:2], strict=True)] == [dtype == "float32"] * 2


def test_what_was_read_before_keeps_its_values():
    table = tf.Variable(np.zeros((4, 2), np.float32))
    before = table.read_value()
    embedding_bag_update(
        [table], [[]], [Bags(tf.constant([[1]]))], [tf.ones((1, 2))], rule=UpdateRule("sgd"), learning_rate=1.0
    )
    assert (before.numpy() == 0).all()
    assert (table.numpy()[1] == -1).all()


def test_wrong_arguments():
    table, slot = tf.Variable(np.zeros((4, 2), np.float32)), tf.Variable(np.zeros((4,), np.float32))
    feature, grad = Bags(tf.constant([[1]])), tf.ones((1, 2))

    def call(tables=(table,), slots=((),), grads=(grad,), rule="sgd", **kwargs):
        embedding_bag_update(list(tables), slots, [feature], grads, rule=UpdateRule(rule), learning_rate=1.0, **kwargs)

    with pytest.raises(TypeError, match=r"tables must be variables"):
        call(tables=[tf.zeros((4, 2))])
    with pytest.raises(ValueError, match=r"slots must hold 1 variables \(accumulator\).*Received: \[0\]"):
        call(rule="adagrad")
    with pytest.raises(ValueError, match=r"Slot 'accumulator' of table 0 must be float32 of shape \(4, 2\)"):
        call(rule="adagrad", slots=[[slot]])
    half = tf.Variable(np.zeros((4, 2), np.float16))
    with pytest.raises(TypeError, match=r"grads must have one dtype, float16 or float32"):
        call(tables=[half], grads=[tf.ones((1, 2), tf.bfloat16)])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"feature_0.*1 rows and columns 1 to 3"):
        call(column_of_feature=[1])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"may be passed once"):
        embedding_bag_update(
            [table, table], [[], []], [feature, feature], [grad, grad], rule=UpdateRule("sgd"), learning_rate=1.0
        )
    with pytest.raises(ValueError, match=r"name of a rule must be one of.*'lamb'"):
        UpdateRule("lamb")
    with pytest.raises(ValueError, match=r"beta_1 must be in \[0, 1\)\. Received: 1.0"):
        UpdateRule("adam", beta_1=1.0)
    with pytest.raises(ValueError, match=r"clip_norm must not be negative. Received: -1.0"):
        UpdateRule("sgd", clip_norm=-1.0)
    assert (table.numpy() == 0).all()


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=3),
    features=st.lists(st.integers(0, 2), min_size=1, max_size=4),
    num_bags=st.integers(0, 20),
    max_ids=st.integers(1, 12),
    dtype=st.sampled_from(sorted(NUMPY_DTYPES)),
    name=st.sampled_from(RULES),
    clip_norm=st.sampled_from([0.0, 0.1, 2.0]),
    weight_decay=st.sampled_from([0.0, 0.3]),
    l2=st.sampled_from([0.0, 0.02]),
    seed=st.integers(0, 2**16),
)
def test_random_tables_and_bags(shapes, features, num_bags, max_ids, dtype, name, clip_norm, weight_decay, l2, seed):
    of = [f % len(shapes) for f in features]
    case = random_case(np.random.default_rng(seed), shapes, of, num_bags, max_ids, dtype, same_bags=False)
    rule = UpdateRule(name, momentum=0.5, clip_norm=clip_norm, weight_decay=weight_decay, l2=l2)
    step_and_check(case, rule, steps=1, graph=False, seed=seed)
