"""Attributes of the compiled ops that do not fit, as an edited SavedModel has: an error, eagerly and in a graph."""

from __future__ import annotations

import pytest
import tensorflow as tf

from merlin_models._native import tf_ops

FEATURES = {
    "table_of_feature": [0],
    "splits_of_feature": [-1],
    "weights_of_feature": [-1],
    "combiners": ["sum"],
    "padding_ids": [-(2**63)],
    "names": ["f"],
}
OPS = ["bag", "resource bag", "bag grad", "resource bag grad", "update", "interaction", "interaction grad"]


def call_op(op, table, **changed):
    """Calls an op on a table and a feature of two bags, which is right but for the arguments that are changed."""
    splits, weights = changed.pop("row_splits", []), changed.pop("weights", [])
    arguments = {"ids": [tf.constant([[0], [1]], tf.int64)], "row_splits": splits, "weights": weights, **FEATURES}
    grad = tf.ones((2, 2))
    ops = tf_ops()
    if op == "update":
        arguments |= {"learning_rate": 0.1, "step": tf.constant(0, tf.int64), "grad_scale": 1.0, "rule": "sgd"}
        arguments |= {"grad_of_feature": [0], "column_of_feature": [0], "T": tf.float32, "grad": [grad], "slots": []}
        return ops.merlin_embedding_bag_update(tables=[table.handle], **{**arguments, **changed})
    if op.startswith("interaction"):
        arguments |= {"anchor": tf.zeros(0), "first": [grad], "dim": 2, "order": "lower", "T": tf.float32}
        arguments |= {"tables": [table.handle], **changed}
        if op == "interaction":
            return ops.merlin_lookup_interaction(**arguments)
        return ops.merlin_lookup_interaction_grad(**arguments, grad=tf.ones((2, 1)))
    resource = op.startswith("resource")
    arguments |= {"tables": [table.handle if resource else table.value()], "concat": False, "num_outputs": 1}
    arguments |= changed | ({"T": tf.float32} if resource else {})
    outputs = arguments.pop("num_outputs")
    if op.endswith("grad"):
        function = ops.merlin_resource_embedding_bag_grad if resource else ops.merlin_embedding_bag_grad
        return function(**arguments, grad=[grad] * outputs)
    function = ops.merlin_resource_embedding_bag if resource else ops.merlin_embedding_bag
    return function(**arguments, Tout=tf.float32, num_outputs=outputs)


def check(op, message, in_graph, **changed):
    table = tf.Variable(tf.ones((4, 2)))

    def call():
        call_op(op, table, **dict(changed))

    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=message):
        (tf.function(call).get_concrete_function if in_graph else call)()


@pytest.mark.parametrize("op", OPS)
def test_what_fits(op):
    table = tf.Variable(tf.ones((4, 2)))

    def call():
        call_op(op, table)

    call()
    tf.function(call)()


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("op", OPS)
def test_features(op, in_graph):
    for name, value in FEATURES.items():
        message = rf"{name} must have 1 entries. Received: "
        check(op, message + "0", in_graph, **{name: []})
        check(op, message + "40", in_graph, **{name: value * 40})
    for table in (-3, 1, 7):
        check(op, rf"table_of_feature must be in \[0, 1\). Received: {table}", in_graph, table_of_feature=[table])
    for name in ("splits_of_feature", "weights_of_feature"):
        for entry in (-2, 0, 3):
            check(op, rf"{name} must be in \[-1, 0\). Received: {entry}", in_graph, **{name: [entry]})


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("op", OPS)
def test_weights_of_two_features(op, in_graph):
    two = {name: value * 2 for name, value in FEATURES.items()}
    two |= {"ids": [tf.constant([[0], [1]], tf.int64)] * 2, "weights": [tf.ones((2, 1))], "weights_of_feature": [0, 0]}
    two |= {"num_outputs": 2} if "bag" in op else {}
    two |= {"grad_of_feature": [0, 0], "column_of_feature": [0, 0]} if op == "update" else {}
    check(op, "weights_of_feature must name weights once. Received: 0 twice", in_graph, **two)


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("op", [op for op in OPS if "bag" in op])
def test_number_of_outputs(op, in_graph):
    check(op, "num_outputs must be 1. Received: 3", in_graph, num_outputs=3)
    check(op, "num_outputs must be 1. Received: 2", in_graph, num_outputs=2, concat=True)


@pytest.mark.parametrize("in_graph", [False, True])
def test_gradients_of_an_update(in_graph):
    for entry in (-1, 1):
        check("update", r"grad_of_feature must be in \[0, 1\). Received: ", in_graph, grad_of_feature=[entry])
    check("update", "column_of_feature must have 1 entries. Received: 2", in_graph, column_of_feature=[0, 0])
    check("update", r"column_of_feature must be in \[0, .*\). Received: -1", in_graph, column_of_feature=[-1])
    message = "must have rank 0|must be rank 0|must be scalars|rank 0 but is rank 1"
    for name, value in (("learning_rate", [0.1, 0.2]), ("step", tf.zeros(2, tf.int64)), ("grad_scale", [1.0, 2.0])):
        check("update", message, in_graph, **{name: value})


@pytest.mark.parametrize("in_graph", [False, True])
@pytest.mark.parametrize("op", ["interaction", "interaction grad"])
def test_sizes_of_an_interaction(op, in_graph):
    check(op, r"pad_to must be in \[1, 1024\]. Received: 4611686018427387904", in_graph, pad_to=2**62)
    check(op, r"dim must be in \[1, 1024\]. Received: 4611686018427387904", in_graph, dim=2**62)


@pytest.mark.parametrize("in_graph", [False, True])
def test_padding_of_dot_interaction(in_graph):
    def call():
        return tf_ops().merlin_dot_interaction(features=[tf.ones((2, 3, 4))], order="lower", pad_to=2**62)

    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=r"pad_to must be in \[1, 1024\]"):
        (tf.function(call).get_concrete_function if in_graph else call)()


@pytest.mark.parametrize("op", OPS)
def test_more_bags_than_a_shape_can_say(op):
    ids = tf.zeros((2**62, 0), tf.int64)  # takes no memory
    message = "overflow|too many|too large|must have fewer than|must have 4611686018427387904 rows"
    check(op, message, False, ids=[ids])
