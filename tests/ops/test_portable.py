"""The ops in stock TensorFlow ops: the same numbers, no op of ours in the graph, and an error where there is none."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import tensorflow as tf
from bag_data import TOLERANCE, assert_close, random_case

from merlin_models import ops
from merlin_models.ops import dot_interaction, embedding_bag, lookup_interaction, portable_ops, to_bags

FOUR = ("sum", "mean", "sqrtn", "max")


def tables_and_bags(case):
    bags = []
    for f, (values, splits, weights) in enumerate(zip(case.values, case.row_splits, case.weights, strict=True)):
        if case.dense[f]:
            ids = case.dense_ids(f)
            ids, weights = ids, None if weights is None else weights.reshape(ids.shape)
        else:
            ids = (values, splits)
        bags.append(to_bags(ids, weights, case.padding_ids[f]))
    return [tf.Variable(table) for table in case.tables], bags


def types_of(graph):
    definition = graph.as_graph_def()
    functions = [node.op for function in definition.library.function for node in function.node_def]
    return {node.op for node in definition.node} | set(functions)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("ids_dtype", [np.int32, np.int64])
@pytest.mark.parametrize("num_bags", [0, 1, 33])
def test_embedding_bag(rng, on_device, dtype, ids_dtype, num_bags):
    case = random_case(rng, [(50, 8), (7, 5)], [0, 1, 0, 1, 0, 0, 1], num_bags, dtype=dtype, ids_dtype=ids_dtype)
    case.combiners = [FOUR[f % 4] if case.weights[f] is None else FOUR[f % 3] for f in range(7)]
    expected, _, _ = case.reference()
    arguments = (*tables_and_bags(case), case.table_of_feature, case.combiners)
    for tables in (arguments[0], [tf.convert_to_tensor(table) for table in arguments[0]]):
        with portable_ops():
            outputs = embedding_bag(tables, *arguments[1:])
        for f, (output, right) in enumerate(zip(outputs, expected, strict=True)):
            assert output.dtype == dtype
            assert_close(output, right, dtype, f"feature {f}")
    with portable_ops():
        wide = embedding_bag(*arguments, concat=True, output_dtype="float32")
    assert wide.dtype == tf.float32
    np.testing.assert_allclose(wide, embedding_bag(*arguments, concat=True, output_dtype="float32"), atol=2e-6)


@pytest.mark.parametrize("combiner", FOUR)
def test_bags_of_nothing_are_zeros(on_device, combiner):
    """Padding alone, no ids at all, weights that add up to nothing, and a padding id that is no row."""
    table = tf.Variable([[np.nan, np.nan], [-3.0, 4.0], [-1.0, -2.0]])
    padded, none = to_bags(np.array([[0, 0], [1, 0]]), padding_id=0), to_bags(np.zeros((2, 0), np.int64))
    no_row = to_bags(([-1, 2, -1], [0, 1, 3]), padding_id=-1)
    features = [padded, none, no_row]
    if combiner != "max":
        features.append(to_bags(np.array([[1, 2], [1, 2]]), weights=[[0.0, 0.0], [1.0, 0.0]]))
    with portable_ops():
        outputs = embedding_bag([table], features, [0] * len(features), combiner)
    expected = [[[0, 0], [-3, 4]], [[0, 0], [0, 0]], [[0, 0], [-1, -2]], [[0, 0], [-3, 4]]]
    for output, right in zip(outputs, expected, strict=False):
        np.testing.assert_array_equal(output, right)


def test_id_out_of_range_names_the_feature():
    lookup = tf.function(
        lambda *ids: embedding_bag([tf.ones((3, 2))], [to_bags(ids)], names=["movie Id"]),
        input_signature=[tf.TensorSpec([None], tf.int64)] * 2,
        autograph=False,
    )
    for bad in (3, -1):
        with portable_ops(), pytest.raises(tf.errors.InvalidArgumentError, match="ids_of_movie_Id"):
            lookup([bad], [0, 1])


@pytest.mark.parametrize("combiner", FOUR)
@pytest.mark.parametrize("splits", [[0, 0, 2, 2, 3, 3, 3], [0, 3], [0, 0, 0, 3]])
def test_empty_bags_anywhere(on_device, combiner, splits):
    table = tf.Variable([[1.0, 2.0], [-3.0, 4.0], [-5.0, -6.0]])
    features = [to_bags(([2, 1, 0], splits))]
    with portable_ops():
        (output,) = embedding_bag([table], features, combiners=combiner)
    np.testing.assert_allclose(output, embedding_bag([table], features, combiners=combiner)[0], rtol=1e-6)


@pytest.mark.parametrize("combiner", FOUR)
def test_lists_of_any_number_of_bags_together(on_device, combiner):
    """Bags of no feature reach into the next one's; ids of both dtypes, dims that differ, no bags at all."""
    tables = [tf.Variable(tf.random.stateless_normal((rows, dim), (rows, 3))) for rows, dim in ((30, 8), (5, 3))]
    features = [
        to_bags((tf.constant([3, 29, 0], tf.int32), [0, 0, 2, 3, 3])),
        to_bags((tf.constant([], tf.int64), [0])),
        to_bags(([4, 0, 4], [0, 3]), padding_id=4),
        to_bags(tf.constant([[1, 0], [0, 0]]), padding_id=0),
        to_bags((tf.constant([], tf.int64), [0, 0, 0])),
        to_bags(([4], [0, 1])),
    ]
    call = (tables, features, [0, 1, 1, 1, 0, 1], combiner)
    with portable_ops():
        outputs = embedding_bag(*call)
    for output, right in zip(outputs, embedding_bag(*call), strict=True):
        assert output.shape == right.shape
        np.testing.assert_allclose(output, right, rtol=1e-6)


def test_the_first_wrong_list_is_named():
    bags = [
        to_bags((tf.constant([0, 1], tf.int64), tf.constant(splits, tf.int64))) for splits in ([0, 2], [0, 3], [2, 1])
    ]
    with portable_ops(), pytest.raises(tf.errors.InvalidArgumentError, match=r"of second .*0 0 3 2"):
        tf.function(lambda: embedding_bag([tf.ones((3, 2))], bags, [0] * 3, names=["first", "second", "third"]))()


@pytest.mark.parametrize("splits", [[0, 2], [0, 4], [1, 3], [0, 2, 1, 3], [0, 2, 5]])
def test_wrong_row_splits_name_the_feature(splits):
    lookup = tf.function(lambda *ids: embedding_bag([tf.ones((3, 2))], [to_bags(ids)], names=["movie Id"]))
    message = "row_splits of movie Id must begin with 0, not decrease and end with"
    with portable_ops(), pytest.raises(tf.errors.InvalidArgumentError, match=message):
        lookup(tf.constant([0, 1, 2], tf.int64), tf.constant(splits, tf.int64))


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("batch", [0, 1, 9])
@pytest.mark.parametrize(
    "options", [{}, {"order": "upper", "concat_first": True, "pad_to": 8, "self_interaction": True}]
)
def test_dot_interaction(rng, on_device, dtype, batch, options):
    parts = [tf.cast(rng.normal(size=(batch, *shape)), dtype) for shape in ((6,), (3, 6), (6,))]
    with portable_ops():
        output = dot_interaction(parts, **options)
    right = dot_interaction(parts, **options)
    assert (output.dtype, output.shape) == (right.dtype, right.shape)
    assert_close(output, np.asarray(right).astype(np.float64), dtype, "products")


def test_lookup_interaction(rng):
    tables = [tf.Variable(tf.random.stateless_normal((n, 8), (n, 1))) for n in (30, 5)]
    bags = [to_bags(rng.integers(0, 5, (11, 1))), to_bags(rng.integers(0, 5, (11, 3)), padding_id=0)]
    call = (tables, bags, [0, 1], ["sum", "mean"])
    for dtype in ("float32", "bfloat16"):
        first = tf.cast(rng.normal(size=(11, 8)), dtype)
        with portable_ops():
            output = lookup_interaction(*call, first, order="upper", concat_first=True, pad_to=8)
        right = lookup_interaction(*call, first, order="upper", concat_first=True, pad_to=8)
        assert output.dtype == right.dtype == dtype
        assert_close(output, np.asarray(right).astype(np.float64), dtype, "products")


def test_graphs_have_no_op_of_ours():
    table = tf.Variable(tf.ones((5, 8)))

    def all_of_them(ids, one, x):
        pooled = embedding_bag([table], [to_bags(ids), to_bags(ids)], [0, 0])
        bags = [to_bags(one), to_bags(one)]
        return dot_interaction([x, *pooled]), lookup_interaction([table], bags, [0, 0], ["sum", "max"], x[:, 0])

    spec = tf.RaggedTensorSpec([None, None], tf.int64), tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, 2, 8])
    with portable_ops():
        graph = tf.function(all_of_them).get_concrete_function(*spec).graph
    assert not [name for name in types_of(graph) if name.startswith("Merlin")]
    graph = tf.function(all_of_them).get_concrete_function(*spec).graph
    ours = {name for name in types_of(graph) if name.startswith("Merlin")}
    assert ours == {"MerlinResourceEmbeddingBag", "MerlinDotInteraction", "MerlinLookupInteraction"}


def test_what_only_training_needs_names_itself():
    x = tf.ones((3, 8))
    table, rule = tf.Variable(tf.ones((5, 8))), ops.UpdateRule("sgd")
    with portable_ops():
        with pytest.raises(NotImplementedError, match=r"stock TensorFlow ops\. Received: a call of 'inbatch_softmax'"):
            ops.inbatch_softmax(x, x)
        with pytest.raises(NotImplementedError, match=r"Received: a call of 'embedding_bag_update'"):
            ops.embedding_bag_update([table], [[]], [to_bags(np.array([0, 1]))], [x[:2]], rule=rule, learning_rate=0.1)
        with pytest.raises(
            ValueError, match=r"of a known number in a portable graph. Received shape: \(None, None, 8\)"
        ):
            tf.function(dot_interaction).get_concrete_function(tf.TensorSpec([None, None, 8]))


def test_the_context_is_of_its_thread_and_ends():
    seen = []
    with portable_ops():
        with portable_ops():
            pass
        assert ops.is_portable()
        thread = threading.Thread(target=lambda: seen.append(ops.is_portable()))
        thread.start()
        thread.join()
    assert seen == [False]
    assert not ops.is_portable()
    with pytest.raises(KeyError), portable_ops():
        raise KeyError
    assert not ops.is_portable()
