"""README.md's matrix of ops: each op that it names runs forward and backward on a CPU in each dtype that it claims."""

from __future__ import annotations

import re

import pytest
import tensorflow as tf
from markdown_pages import ROOT

from merlin_models import ops

DTYPES = ("float32", "float16", "bfloat16")
ROWS = re.findall(
    r"^\| \[`(\w+)`\]\(docs/ops/\1\.md\) \| (.+?) \| (.+?) \|", (ROOT / "README.md").read_text(), re.MULTILINE
)
CASES = [(op, dtype, ids) for op, _, _ in ROWS for dtype in DTYPES for ids in ("int32", "int64")]


def table_of(dtype: str) -> tf.Variable:
    return tf.Variable(tf.cast(tf.reshape(tf.range(40), (5, 8)), dtype) / 40)


def embedding_bag(dtype, ids):
    table = table_of(dtype)
    return [table], lambda: ops.embedding_bag([table], [ops.to_bags(tf.constant([[0, 2], [4, 4]], ids))])[0]


def dot_interaction(dtype, ids):
    x = tf.Variable(tf.cast(tf.ones((2, 3, 8)), dtype))
    return [x], lambda: ops.dot_interaction(x)


def lookup_interaction(dtype, ids):
    table, first = table_of(dtype), tf.Variable(tf.cast(tf.ones((2, 8)), dtype))
    bags = [ops.to_bags(tf.constant([[0, 2], [4, 4]], ids))]
    return [table, first], lambda: ops.lookup_interaction([table], bags, [0], ["mean"], first=first)


def inbatch_softmax(dtype, ids):
    queries, candidates = table_of(dtype), table_of(dtype)
    item_ids = tf.constant([1, 2, 3, 4, 5], ids)
    return [queries, candidates], lambda: ops.inbatch_softmax(queries, candidates, candidate_ids=item_ids).loss


def sampled_softmax(dtype, ids):
    queries, table = table_of(dtype), table_of(dtype)
    positives, sampled = tf.constant([0, 1, 2, 3, 4], ids), tf.constant([0, 3], ids)
    return [queries, table], lambda: ops.sampled_softmax(queries, table, positives, sampled).loss


def step_of_table(dtype, ids):
    table = table_of(dtype)
    before, bags = table.numpy(), ops.to_bags(tf.constant([[0, 2]], ids))
    grad = tf.cast(tf.ones((1, 8)), dtype)
    ops.embedding_bag_update([table], [[]], [bags], [grad], rule=ops.UpdateRule("sgd"), learning_rate=1.0)
    return [bool(changed) for changed in (table.numpy() != before).all(axis=1)]


def test_every_op_has_a_row_and_a_page():
    assert sorted(op for op, _, _ in ROWS) == sorted(page.stem for page in (ROOT / "docs" / "ops").glob("*.md"))


@pytest.mark.parametrize(("op", "forward", "backward"), ROWS)
def test_the_cpu_columns_claim_all_dtypes(op, forward, backward):
    assert (forward, backward) == ("-" if op == "embedding_bag_update" else "all", "all")


@pytest.mark.parametrize(("op", "dtype", "ids"), CASES)
def test_forward_and_backward(op, dtype, ids):
    with tf.device("cpu:0"):
        if op == "embedding_bag_update":
            assert step_of_table(dtype, ids) == [True, False, True, False, False]
            return
        variables, run = globals()[op](dtype, ids)
        with tf.GradientTape() as tape:
            output = run()
        grads = tape.gradient(output, variables)
    assert tf.reduce_all(tf.math.is_finite(tf.cast(output, tf.float32)))
    for variable, grad in zip(variables, grads, strict=True):
        assert grad.dtype == variable.dtype
        assert tf.reduce_any(tf.convert_to_tensor(grad) != 0)
