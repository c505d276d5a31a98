"""lookup_interaction: to the bit what embedding_bag and dot_interaction give, in gradients and training, too."""

from __future__ import annotations

import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import merlin_models.tf as ml
from merlin_models.ops import dot_interaction, embedding_bag, lookup_interaction, tf_ops, to_bags, why_not_fused
from merlin_models.ops.bags import op_inputs

layer_module = importlib.import_module("merlin_models.layers.dot_interaction")
DEVICES = ["cpu:0", pytest.param("gpu:0", marks=pytest.mark.gpu)]
DTYPES = [
    ("float32", "float32"),
    ("float32", "bfloat16"),
    ("bfloat16", "bfloat16"),
    ("float32", "float16"),
    ("float16",) * 2,
]


def problem(rng, table_dtype, dtype, hots, batch=37, dim=16, rows=(50, 7, 300), first=True, ids="int64"):
    tables = [tf.Variable(tf.cast(rng.normal(size=(n, dim)) * 0.3, table_dtype)) for n in rows]
    table_of = [int(rng.integers(len(rows))) for _ in hots]
    ids = [rng.integers(0, rows[t], (batch, hot)).astype(ids) for t, hot in zip(table_of, hots, strict=True)]
    bags = [to_bags(tf.constant(i), padding_id=0 if i.shape[1] > 1 else None) for i in ids]
    combiners = [["sum", "mean", "sqrtn"][f % 3] for f in range(len(hots))]
    bottom = tf.cast(rng.normal(size=(batch, dim)) * 0.3, dtype) if first else None
    return tables, bags, table_of, combiners, bottom


def two_ops(tables, bags, table_of, combiners, bottom, dtype, **options):
    vectors = embedding_bag(tables, bags, table_of, combiners, output_dtype=dtype)
    return dot_interaction(vectors if bottom is None else [bottom, *vectors], **options)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("table_dtype", "dtype"), DTYPES)
@pytest.mark.parametrize(
    "hots",
    [(1,) * 6, (1,) * 20, (1, 3, 2, 1), (5,) * 17, (16, 9, 2, 13)],
    ids=["1x6", "1x20", "mixed", "5x17", "up to 16"],
)
@pytest.mark.parametrize("precision", ["float32", "tf32"])
def test_equal_to_two_ops_to_the_bit(rng, device, table_dtype, dtype, hots, precision):
    if precision == "tf32" and dtype != "float32":
        pytest.skip("precision is of float32")
    for dim, first, ids, options in (
        (16, True, "int64", {"concat_first": True, "pad_to": 8}),
        (40, False, "int32", {"order": "upper", "self_interaction": True}),
        (128, True, "int32", {"order": "upper", "pad_to": 4}),
    ):
        with tf.device(device):
            call = problem(rng, table_dtype, dtype, hots, dim=dim, first=first, ids=ids)
            tables, bottom = call[0], call[-1]
            assert why_not_fused(tables, call[1], call[3], bottom, dtype) == ""
            sources = [*tables, *([] if bottom is None else [bottom])]
            results = []
            for op in (lookup_interaction, two_ops):
                with tf.GradientTape() as tape:
                    tape.watch(sources)
                    if op is two_ops:
                        output = two_ops(*call, dtype, precision=precision, **options)
                    else:
                        output = lookup_interaction(*call, output_dtype=dtype, precision=precision, **options)
                grads = tape.gradient(output, sources, output)
                results.append([output, *(tf.convert_to_tensor(grad) for grad in grads)])
        for one, other in zip(*results, strict=True):
            assert one.dtype == other.dtype
            assert not tf.reduce_any(tf.math.is_nan(tf.cast(one, tf.float32)))
            assert bool(tf.reduce_all(one == other)), (hots, dim, options)


@pytest.mark.parametrize("in_graph", [False, True])
def test_any_bags_on_a_cpu(rng, in_graph):
    """Lists without a length, weights, and max: what the fused kernel of a GPU refuses."""
    tables = [tf.Variable(rng.normal(size=(30, 16)).astype(np.float32)) for _ in range(2)]
    lists = tf.ragged.constant([[3, 1, 4], [], [29]], row_splits_dtype=tf.int64)
    weights = tf.constant(rng.random((3, 2)), tf.float32)
    weighted = to_bags(tf.constant([[1, 2], [3, 4], [5, 6]], tf.int64), weights)
    call = ([to_bags(lists), weighted, to_bags(lists)], [0, 1, 1], ["sum", "mean", "max"])
    with tf.device("cpu:0"):
        results = []
        for op in (lookup_interaction, lambda *arguments: two_ops(*arguments, None, None)):

            def run(op=op):
                with tf.GradientTape() as tape:
                    tape.watch(weighted.weights)
                    output = op(tables, *call)
                sources = [*tables, weighted.weights]
                return [output, *map(tf.convert_to_tensor, tape.gradient(output, sources, output))]

            results.append((tf.function(run) if in_graph else run)())
    assert results[0][0].shape == (3, 3)
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("device", DEVICES)
def test_empty_batch(rng, device):
    with tf.device(device):
        call = problem(rng, "float32", "float32", (1, 2), batch=0)
        with tf.GradientTape() as tape:
            tape.watch(call[-1])
            output = lookup_interaction(*call)
        assert output.shape == (0, 3)
        grads = tape.gradient(output, [*call[0], call[-1]])
        assert grads[-1].shape == (0, 16)


@pytest.mark.gpu
def test_ids_out_of_range_are_skipped_and_raised_later(rng):
    with tf.device("gpu:0"):
        tables, bags, _, _, _ = problem(rng, "float32", "float32", (1, 1), first=False)
        bad = tf.constant([[3], [300], [-1]], tf.int64)
        good = to_bags(tf.constant([[1], [2], [3]], tf.int64))
        output = lookup_interaction([tables[0]], [to_bags(bad), good], [0, 0], ["sum", "sum"]).numpy()
        assert output[0, 0] != 0
        assert output[1, 0] == output[2, 0] == 0
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"of feature number 0 of an earlier call"):
            lookup_interaction([tables[0]], [good, good], [0, 0], ["sum", "sum"])
    del bags


def test_what_is_not_fused(rng):
    tables, bags, _, combiners, first = problem(rng, "float32", "float32", (1, 2))

    def why(**changed):
        call = {"tables": tables, "features": bags, "combiners": combiners, "first": first, "output_dtype": "float32"}
        return why_not_fused(**{**call, **changed})

    assert why() == ""
    ragged = to_bags(tf.ragged.constant([[1], [2, 3]]))
    weighted = to_bags(tf.constant([[1]]), tf.constant([[2.0]]))
    assert "row_splits, weights or the combiner" in why(features=[ragged, bags[0]])
    assert "row_splits, weights or the combiner" in why(features=[weighted, bags[0]])
    assert "combiner 'max'" in why(combiners=["max", "sum"])
    assert "1 to 16 ids" in why(features=[to_bags(tf.ones((3, 17), tf.int64)), bags[0]])
    assert "more than 32 features" in why(features=[bags[0]] * 32, combiners=["sum"] * 32)
    assert "vectors differ in length" in why(first=tf.zeros((37, 8)))
    assert "tables are no variables" in why(tables=[tf.zeros((3, 16))])
    assert "multiple of 16 bytes" in why(tables=[tf.Variable(tf.zeros((3, 6)))], first=None)
    half = [tf.Variable(tf.zeros((3, 16), tf.float16))]
    assert "tables are float16 and the output is float32" in why(tables=half)
    with pytest.raises(TypeError, match="tables must be variables"):
        lookup_interaction([tf.zeros((3, 16))], [bags[0]], [0], ["sum"])
    with pytest.raises(ValueError, match=r"combiners must have one entry a feature. Received: 1 for 2"):
        lookup_interaction(tables, bags, [0, 0], ["sum"])
    for options, message in (
        ({"order": "left"}, "order must be one of"),
        ({"precision": "half"}, "precision must be one of"),
        ({"pad_to": 0}, "pad_to must be an integer"),
        ({"output_dtype": "float64"}, "output_dtype must be float32 or the tables' float32"),
    ):
        with pytest.raises(ValueError, match=message):
            lookup_interaction(tables, bags, [0, 0], ["sum", "sum"], **options)
    with pytest.raises(ValueError, match=r"table_of_feature of 'feature_1' must be in \[0, 3\). Received: 3"):
        lookup_interaction(tables, bags, [0, 3], ["sum", "sum"])
    with pytest.raises(ValueError, match=r"The combiner of 'feature_0' must be one of .*'median'"):
        lookup_interaction(tables, bags, [0, 1], ["median", "sum"])
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"first must have shape \[37,16\]. Received: \[37,8\]"):
        lookup_interaction(tables, bags, [0, 1], ["sum", "sum"], tf.zeros((37, 8)))


SCHEMA = ml.Schema(
    [
        *(ml.ColumnSchema.create_categorical(f"C{i}", 20 + i) for i in range(5)),
        ml.ColumnSchema.create_categorical("L", 9, value_count=(0, 3)),
        ml.ColumnSchema.create_continuous("I1"),
    ]
)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("embedding_optimizer", ["auto", "dense"])
@pytest.mark.parametrize(("policy", "hotness"), [("float32", 1), ("mixed_bfloat16", 1), ("float32", 3)])
def test_models_train_alike(rng, monkeypatch, device, embedding_optimizer, policy, hotness):
    """With several ids a feature the one op is for predictions alone: its gradient looks all rows up again."""
    x = {f"C{i}": rng.integers(0, 21 + i, (64, 1)) for i in range(5)}
    x["L"] = rng.integers(0, 10, (64, hotness))
    x["I1"] = rng.normal(size=(64, 1)).astype(np.float32)
    y = rng.integers(0, 2, (64, 1))
    calls, calls_of_training = [], []
    real = layer_module.lookup_interaction

    def trained(fused):
        monkeypatch.setattr(layer_module, "fuses_here", lambda: fused)
        monkeypatch.setattr(layer_module, "lookup_interaction", lambda **k: calls.append(fused) or real(**k))
        keras.utils.set_random_seed(5)
        keras.config.set_dtype_policy(policy)
        try:
            model = ml.DLRMModel(
                SCHEMA,
                bottom_block=ml.MLPBlock([8]),
                top_block=ml.MLPBlock([8]),
                prediction_tasks=ml.BinaryClassificationTask("y"),
            )
        finally:
            keras.config.set_dtype_policy("float32")
        model.compile("adagrad", embedding_optimizer=embedding_optimizer)
        model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        calls_of_training.append(len(calls))
        return [weight.numpy() for weight in model.weights], model.predict(x, verbose=0)

    with tf.device(device):
        (weights, predictions), (expected, expected_predictions) = trained(True), trained(False)
    assert calls
    assert all(calls)  # taken where it applies, and only there
    assert (calls_of_training[0] > 0) == (hotness == 1)
    tolerance = 0 if device == "cpu:0" else 1e-2 if policy == "mixed_bfloat16" else 1e-5
    for one, other in zip(weights, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)
    np.testing.assert_allclose(predictions, expected_predictions, rtol=0, atol=tolerance)


def test_the_batch_in_a_graph_is_that_of_the_bags(rng):
    """Of a dense block or of row_splits, known or not."""
    tables = [tf.Variable(tf.ones((5, 16)))]

    def batch_of(*specs):
        def call(*ids):
            bags = [to_bags(ids[0] if len(ids) == 1 else ids)]
            return lookup_interaction(tables, bags, [0], ["sum"]), embedding_bag(tables, bags, [0], "sum")[0]

        one, other = (
            tf.function(call).get_concrete_function(*(tf.TensorSpec(shape, tf.int64) for shape in specs)).outputs
        )
        assert one.shape[0] == other.shape[0]
        return one.shape[0]

    assert batch_of((7, 2)) == batch_of((7,)) == batch_of((None,), (8,)) == 7
    assert batch_of((None, 2)) is batch_of((None,), (None,)) is None


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"splits_of_feature": []}, r"splits_of_feature must have 1 entries. Received: 0"),
        ({"splits_of_feature": [0]}, r"splits_of_feature must be in \[-1, 0\). Received: 0"),
    ],
)
@pytest.mark.parametrize("fused", [False, True])
def test_attributes_that_do_not_fit_are_refused_in_a_graph(attributes, message, fused):
    table = tf.Variable(tf.ones((5, 16)))
    arguments = {**op_inputs([to_bags(tf.constant([[3], [4]], tf.int64))]), "tables": [table.handle], "T": tf.float32}
    arguments |= {"table_of_feature": [0], "combiners": ["sum"], "names": ["f"], **attributes}

    @tf.function
    def call():
        if fused:
            return tf_ops().merlin_lookup_interaction(
                **arguments, first=[], anchor=tf.zeros([0]), dim=16, order="lower"
            )
        return tf_ops().merlin_resource_embedding_bag(**arguments, Tout=tf.float32, concat=False, num_outputs=1)

    with pytest.raises(ValueError, match=message):
        call.get_concrete_function()
