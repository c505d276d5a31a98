"""embedding_bag through TensorFlow: by hand, against the float64 reference, gradients, wrong input, graph mode."""

from __future__ import annotations

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from bag_data import DIMS, NUMPY_DTYPES, assert_close, random_case
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from merlin_models.ops import Bags, batch_of, embedding_bag, embedding_bag_reference, raise_device_errors, to_bags

TABLE = [[1.0, 2.0], [3.0, -4.0], [5.0, 6.0]]

# combiner, ids of three bags, weights, expected: a reader can check each by head
BY_HAND = [
    ("sum", [[0, 2], [], [1]], None, [[6, 8], [0, 0], [3, -4]]),
    ("mean", [[0, 2], [], [1, 1]], None, [[3, 4], [0, 0], [3, -4]]),
    ("sqrtn", [[0, 0, 0, 0], [], [2]], None, [[2, 4], [0, 0], [5, 6]]),
    ("max", [[0, 1], [], [1]], None, [[3, 2], [0, 0], [3, -4]]),
    ("sum", [[0, 2], [1], [1]], [[2, -1], [0], [0.5]], [[-3, -2], [0, 0], [1.5, -2]]),
    ("mean", [[0, 2], [1], []], [[1, 3], [7], []], [[4, 5], [3, -4], [0, 0]]),
    ("mean", [[0], [1], [2, 2]], [[0], [1], [1, -1]], [[0, 0], [3, -4], [0, 0]]),  # weights that add up to zero
    ("sqrtn", [[0, 1], [1], []], [[3, 4], [2], []], [[3, -2], [3, -4], [0, 0]]),
]


def on(device: str) -> tf.device:
    return tf.device(f"/{device}:0")


def to_features(case) -> list[Bags]:
    features = []
    for f, values in enumerate(case.values):
        weights = case.weights[f]
        if case.dense[f]:
            shape = case.dense_ids(f).shape
            weights = None if weights is None else weights.reshape(shape)
            features.append(to_bags(values.reshape(shape), weights, case.padding_ids[f]))
        else:
            features.append(to_bags((values, case.row_splits[f]), weights, case.padding_ids[f]))
    return features


def run(case, device: str, grads, *, variables=True, concat=False, output_dtype=None):
    """Outputs, dense table gradients, weight gradients and unique ids of one step."""
    with on(device):
        tables = [tf.Variable(t) if variables else tf.constant(t) for t in case.tables]
        features = to_features(case)
        weights = [bags.weights for bags in features if bags.weights is not None]
        with tf.GradientTape() as tape:
            tape.watch(weights + ([] if variables else tables))
            outputs = embedding_bag(
                tables, features, case.table_of_feature, case.combiners, concat=concat, output_dtype=output_dtype
            )
            parts = tf.split(outputs, case.dims, axis=1) if concat else outputs
            loss = tf.add_n([tf.reduce_sum(tf.cast(o, tf.float32) * g) for o, g in zip(parts, grads, strict=True)])
        table_grads, weights_grads = tape.gradient(loss, [tables, weights])
    raise_device_errors()
    dense = []
    for table, grad in zip(case.tables, table_grads, strict=True):
        assert isinstance(grad, tf.IndexedSlices)
        ids = grad.indices.numpy()
        assert (np.diff(ids) > 0).all(), "ids of the gradient must be unique and ascending"
        full = np.zeros(table.shape)
        full[ids] = grad.values.numpy().astype(np.float64)
        dense.append(full)
    return [np.asarray(p) for p in parts], dense, [g.numpy() for g in weights_grads]


def check(case, device: str, dtype: str, rng, **kwargs) -> None:
    grads = [
        rng.normal(size=(len(s) - 1, d)).astype(np.float32) for s, d in zip(case.row_splits, case.dims, strict=True)
    ]
    if dtype != "float32":  # what the op gets as the gradient of a rounded output
        grads = [g.astype(case.tables[0].dtype).astype(np.float32) for g in grads]
    outputs, table_grads, weights_grads = run(case, device, grads, **kwargs)
    expected, expected_tables, expected_weights = case.reference(grads)
    for f, (a, e) in enumerate(zip(outputs, expected, strict=True)):
        assert_close(a, e, dtype, f"output {f}")
    for t, (a, e) in enumerate(zip(table_grads, expected_tables, strict=True)):
        assert_close(a, e, dtype, f"gradient of table {t}", scale=4)
    expected_weights = [e for e, w in zip(expected_weights, case.weights, strict=True) if w is not None]
    for f, (a, e) in enumerate(zip(weights_grads, expected_weights, strict=True)):
        assert_close(a.reshape(-1), e, "float32", f"gradient of weights {f}", scale=20)


# ---- 1. a table that a reader can check by hand ----


@pytest.mark.parametrize(("combiner", "ids", "weights", "expected"), BY_HAND)
def test_by_hand(combiner, ids, weights, expected, device):
    with on(device):
        ragged = tf.ragged.constant(ids, dtype=tf.int64)
        ragged_weights = None if weights is None else tf.ragged.constant(weights, dtype=tf.float32)
        table = tf.Variable(TABLE)
        (output,) = embedding_bag([table], [to_bags(ragged, ragged_weights)], combiners=combiner)
    np.testing.assert_allclose(output.numpy(), expected, atol=1e-6)


def test_every_input_form_gives_the_same(device):
    ids = [[1, 2, 2], [0], []]
    ragged = tf.ragged.constant(ids, dtype=tf.int64)
    forms = {
        "ragged": to_bags(ragged),
        "sparse": to_bags(ragged.to_sparse()),
        "csr": to_bags((ragged.values, ragged.row_splits)),
        "csr of lists": to_bags(([1, 2, 2, 0], [0, 3, 4, 4])),
        "padded": to_bags(ragged.to_tensor(default_value=-1), padding_id=-1),
        "int32": to_bags(tf.cast(ragged, tf.int32)),
        "bags": to_bags(to_bags(ragged)),
    }
    with on(device):
        for form, bags in forms.items():
            (output,) = embedding_bag([tf.Variable(TABLE)], [bags], combiners="sum")
            assert output.numpy().tolist() == [[13, 8], [1, 2], [0, 0]], form


def test_one_id_a_bag_is_a_plain_lookup(device):
    with on(device):
        (output,) = embedding_bag([tf.Variable(TABLE)], [to_bags(np.array([2, 0]))])
    assert output.numpy().tolist() == [TABLE[2], TABLE[0]]


# ---- 2. random cases against the reference ----


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("ids_dtype", [np.int32, np.int64])
@pytest.mark.parametrize("num_bags", [0, 1, 31, 33, 129])
def test_grouped(rng, device, dtype, ids_dtype, num_bags):
    shapes = [(50, 16), (7, 33), (300, 4), (11, 128), (5, 1)]
    features = [0, 1, 1, 2, 3, 0, 4, 3]
    case = random_case(rng, shapes, features, num_bags, dtype=dtype, ids_dtype=ids_dtype)
    check(case, device, dtype, rng)


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_dims(rng, device, dim, dtype):
    check(random_case(rng, [(40, dim)], [0, 0, 0, 0], 17, dtype=dtype), device, dtype, rng)


@pytest.mark.parametrize("concat", [False, True])
@pytest.mark.parametrize("variables", [False, True])
def test_output_forms(rng, device, concat, variables):
    case = random_case(rng, [(50, 16), (7, 33), (20, 8)], [0, 1, 2, 1])
    check(case, device, "float32", rng, concat=concat, variables=variables)


@pytest.mark.parametrize(("table", "output"), [("float32", "float16"), ("float32", "bfloat16"), ("float16", "float32")])
def test_output_dtype(rng, device, table, output):
    case = random_case(rng, [(50, 16), (7, 33), (20, 8)], [0, 1, 2, 1], dtype=table, weighted=False)
    grads = [np.ones((len(s) - 1, d), np.float32) for s, d in zip(case.row_splits, case.dims, strict=True)]
    outputs, table_grads, _ = run(case, device, grads, output_dtype=output)
    expected, expected_tables, _ = case.reference(grads)
    for a, e in zip(outputs, expected, strict=True):
        assert a.dtype.name == output
        assert_close(a, e, output, "output")
    for a, e in zip(table_grads, expected_tables, strict=True):
        assert_close(a, e, table, "gradient", scale=4)


def test_features_with_their_own_batch(rng, device):
    check(random_case(rng, [(50, 16), (7, 33)], [0, 1, 0, 1], same_bags=False), device, "float32", rng)


@pytest.mark.parametrize("combiner", ["sum", "mean", "max"])
@pytest.mark.parametrize("dim", DIMS)
def test_one_very_long_bag_and_one_hot_row(rng, device, dim, combiner):
    case = random_case(rng, [(60, dim)], [0, 0], 5, max_ids=4, combiners=(combiner,), weighted=False, padding=False)
    long = np.concatenate([np.full(9_000, 3), rng.integers(0, 60, 1_000)])
    case.values[0] = np.concatenate([long, case.values[0]])
    case.row_splits[0] = np.concatenate([[0], case.row_splits[0] + len(long)]).astype(np.int64)
    grads = [rng.normal(size=(len(s) - 1, dim)).astype(np.float32) for s in case.row_splits]
    outputs, (table_grad,), _ = run(case, device, grads)
    expected, (expected_grad,), _ = case.reference(grads)
    assert_close(outputs[0], expected[0], "float32", "output", scale=10)
    assert_close(table_grad, expected_grad, "float32", "gradient", scale=10)


def test_many_features(rng, device):
    """More than one launch's worth on a GPU."""
    shapes = [(int(rng.integers(1, 20)), int(rng.choice([4, 8, 10]))) for _ in range(520)]
    case = random_case(rng, shapes, list(range(520)), 3, max_ids=3)
    check(case, device, "float32", rng)


def test_gradient_repeats_bit_for_bit(rng, device):
    case = random_case(rng, [(5, 64)], [0, 0, 0], 2_000, combiners=("mean", "sum", "sqrtn"))
    grads = [rng.normal(size=(len(s) - 1, 64)).astype(np.float32) for s in case.row_splits]
    first, second = (run(case, device, grads) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bags(data):
    """hypothesis over tables, their dtype, sharing, lengths, padding and combiners, on the CPU."""
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    shapes = data.draw(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 40)), min_size=1, max_size=4))
    features = data.draw(st.lists(st.integers(0, len(shapes) - 1), min_size=1, max_size=6))
    dtype = data.draw(st.sampled_from(sorted(NUMPY_DTYPES)))
    case = random_case(
        rng,
        shapes,
        sorted(features, key=lambda _: rng.random()),
        num_bags=data.draw(st.integers(0, 20)),
        max_ids=data.draw(st.integers(0, 12)),
        dtype=dtype,
        combiners=tuple(data.draw(st.permutations(("sum", "mean", "sqrtn", "max")))),
    )
    check(case, "cpu", dtype, rng)


# ---- 3. gradients ----


def test_reference_gradient_against_differences(rng):
    """The reference's own gradients, by central differences in float64."""
    case = random_case(rng, [(6, 3), (5, 2)], [0, 1, 0, 1, 0], 4, max_ids=4)
    grads = [rng.normal(size=(len(s) - 1, d)) for s, d in zip(case.row_splits, case.dims, strict=True)]
    case.tables = [t.astype(np.float64) for t in case.tables]
    case.weights = [None if w is None else w.astype(np.float64) for w in case.weights]
    _, table_grads, weights_grads = case.reference(grads)

    def loss() -> float:
        return sum((o * g).sum() for o, g in zip(case.reference(grads)[0], grads, strict=True))

    pairs = list(zip(case.tables, table_grads, strict=True))
    pairs += [(w, g) for w, g in zip(case.weights, weights_grads, strict=True) if w is not None]
    for array, gradient in pairs:
        for index in np.ndindex(array.shape):
            kept, step = array[index], 1e-6
            array[index] = kept + step
            above = loss()
            array[index] = kept - step
            below = loss()
            array[index] = kept
            assert (above - below) / (2 * step) == pytest.approx(gradient[index], rel=1e-6, abs=1e-8)


def test_max_gradient_goes_to_the_first_of_equals(device):
    with on(device):
        table = tf.Variable([[1.0, 5.0], [1.0, 2.0]])
        with tf.GradientTape() as tape:
            (output,) = embedding_bag([table], [to_bags(np.array([[1, 0, 1]]))], combiners="max")
        gradient = tf.convert_to_tensor(tape.gradient(output, table))
    assert gradient.numpy().tolist() == [[0, 1], [1, 0]]


def test_second_table_without_a_touched_row(device):
    with on(device):
        tables = [tf.Variable(TABLE), tf.Variable(TABLE)]
        bags = [to_bags(np.array([0])), to_bags(tf.ragged.constant([[]], dtype=tf.int64))]
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_sum(o) for o in embedding_bag(tables, bags)])
        gradient = tape.gradient(loss, tables[1])
    assert gradient.indices.shape == (0,)
    assert gradient.values.shape == (0, 2)


def test_in_tf_function_and_assign(rng, device):
    """A step compiled once sees later values of the variable, and other batch sizes."""
    with on(device):
        table = tf.Variable(rng.normal(size=(20, 8)).astype(np.float32))

        @tf.function(input_signature=[tf.RaggedTensorSpec((None, None), tf.int64)])
        def step(ids):
            with tf.GradientTape() as tape:
                (output,) = embedding_bag([table], [to_bags(ids)], combiners="sum")
                loss = tf.reduce_sum(output * output)
            gradient = tape.gradient(loss, table)
            table.scatter_sub(tf.IndexedSlices(0.1 * gradient.values, gradient.indices))
            return output

        values = table.numpy().astype(np.float64)
        for ids in ([[1, 2, 2], [0]], [[], [5], [5, 1]]):
            ragged = tf.ragged.constant(ids, dtype=tf.int64)
            splits = ragged.row_splits.numpy()
            features = [(ragged.values.numpy(), splits, None, None)]
            expected = embedding_bag_reference([values], features, [0], ["sum"])[0]
            np.testing.assert_allclose(step(ragged).numpy(), expected[0], rtol=1e-5, atol=1e-5)
            _, (gradient,), _ = embedding_bag_reference([values], features, [0], ["sum"], [2 * expected[0]])
            values = values - 0.1 * gradient
        np.testing.assert_allclose(table.numpy(), values, rtol=1e-5, atol=1e-5)


def test_reads_the_variable_in_place():
    """No copy of a table is made: an assignment after the call needs no second buffer of its size."""
    table = tf.Variable(tf.ones((1000, 8)))
    (output,) = embedding_bag([table], [to_bags(np.array([1]))])
    table.assign(tf.zeros((1000, 8)))
    assert output.numpy().sum() == 8
    assert embedding_bag([table], [to_bags(np.array([1]))])[0].numpy().sum() == 0


# ---- 4. wrong input ----

WRONG_IDS = [
    (([0, 3], [0, 1, 2]), r"Ids of feature 'genres' must be in \[0, 3\).*Received: 3 at position 1 \(bag 1\)"),
    (([-1, 0], [0, 1, 2]), r"Ids of feature 'genres' must be in \[0, 3\).*Received: -1"),
    (([0, 1], [0, 2, 1, 2]), r"row_splits of feature 'genres' must not decrease. Received: 2 followed by 1 at index 1"),
    (([0, 1], [1, 1, 2]), r"row_splits of feature 'genres' must start at 0. Received: 1"),
    (([0, 1], [0, 1]), r"row_splits of feature 'genres' must end at the number of ids, 2. Received: 1"),
    (([0, 1], [0, 5]), r"row_splits of feature 'genres' must end at the number of ids, 2. Received: 5"),
]


@pytest.mark.parametrize(("csr", "message"), WRONG_IDS)
def test_wrong_ids_on_cpu(csr, message):
    ids, splits = (np.array(part, np.int64) for part in csr)
    with on("cpu"), pytest.raises(tf.errors.InvalidArgumentError, match=message):
        embedding_bag([tf.Variable(TABLE)], [to_bags((ids, splits))], names=["genres"])


@pytest.mark.parametrize(("csr", "message"), WRONG_IDS)
def test_wrong_ids_raise_in_the_gradient_too(csr, message):
    """A gradient op must not trust that the forward op ran."""
    ids, splits = (np.array(part, np.int64) for part in csr)
    native = pytest.importorskip("merlin_models._C")
    bags = len(splits) - 1
    message = message.replace("'genres'", "'0'")
    with pytest.raises(ValueError, match=message):
        native.embedding_bag_grad(
            [np.array(TABLE, np.float32)], [ids], [splits], [None], [0], ["sum"], [None],
            [np.ones((bags, 2), np.float32)], [np.zeros(9, np.int64)], [np.zeros((9, 2), np.float32)],
        )  # fmt: skip


@pytest.mark.gpu
@pytest.mark.parametrize(("csr", "message"), WRONG_IDS)
def test_wrong_ids_on_gpu_are_skipped_and_reported(csr, message):
    ids, splits = (np.array(part, np.int64) for part in csr)
    with on("gpu"):
        table = tf.Variable(TABLE)
        with tf.GradientTape() as tape:
            (output,) = embedding_bag([table], [to_bags((ids, splits))], combiners="sum")
        output.numpy()  # waits
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"of an earlier call"):
            tape.gradient(output, table)
        assert np.isfinite(output.numpy()).all()
        (good,) = embedding_bag([table], [to_bags(np.array([0]))])
        assert good.numpy().tolist() == [TABLE[0]]
    raise_device_errors()


@pytest.mark.gpu
def test_raise_device_errors():
    with on("gpu"):
        embedding_bag([tf.Variable(TABLE)], [to_bags(np.array([7]))])[0].numpy()
    with pytest.raises(ValueError, match=r"must be in \[0, rows of its table\). Received: 7"):
        raise_device_errors()
    raise_device_errors()


WRONG_CALLS = [
    (dict(features=[]), ValueError, "features must hold at least one"),
    (dict(tables=[]), ValueError, "tables must hold at least one"),
    (dict(table_of_feature=[1]), ValueError, r"table_of_feature of 'feature_0' must be in \[0, 1\). Received: 1"),
    (dict(combiners="median"), ValueError, "The combiner of 'feature_0' must be one of .* Received: 'median'"),
    (dict(combiners=["sum", "sum"]), ValueError, "combiners must have one entry a feature. Received: 2 for 1"),
    (dict(tables=[np.zeros((3, 2))]), TypeError, "tables must be float32, float16 or bfloat16. Received: float64"),
    (dict(tables=[np.zeros(3, np.float32)]), ValueError, "tables must have rank 2. Received shape"),
    (dict(output_dtype="float64"), ValueError, "output_dtype must be float32 or the tables' float32"),
    (dict(features=[np.array([1])]), TypeError, "Feature 'feature_0' must be a Bags tuple"),
    (
        dict(combiners="max", features=[to_bags(np.array([1]), np.array([1.0]))]),
        ValueError,
        "combiner 'max' takes no weights",
    ),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG_CALLS)
def test_wrong_calls(change, error, message):
    arguments = {"tables": [tf.Variable(TABLE)], "features": [to_bags(np.array([1]))], **change}
    with pytest.raises(error, match=message):
        embedding_bag(**arguments)


def test_concat_needs_equal_batches():
    bags = [to_bags(np.array([0])), to_bags(np.array([0, 1]))]
    with (
        pytest.raises(
            tf.errors.InvalidArgumentError, match=r"same number of bags to be concatenated. Received: 1 .* 2"
        ),
        on("cpu"),
    ):
        embedding_bag([tf.Variable(TABLE)] * 2, bags, concat=True)


WRONG_BAGS = [
    (dict(ids=np.zeros((2, 2, 2), np.int64)), ValueError, "Dense ids of feature 'genres' must have rank 1 or 2"),
    (dict(ids=np.array([1.0])), TypeError, "Ids of feature 'genres' must have dtype int32 or int64. Received: float64"),
    (dict(ids=tf.ragged.constant([[[1]]])), ValueError, "Ragged ids of feature 'genres' must have rank 2"),
    (dict(ids=(np.array([[1]]), np.array([0, 1]))), ValueError, "must have two tensors of rank 1"),
    (
        dict(ids=np.array([1, 2]), weights=np.array([1.0])),
        ValueError,
        "Weights of feature 'genres' must have the shape",
    ),
    (dict(ids=np.array([1]), weights=np.array([1])), TypeError, "Weights of feature 'genres' must be floats"),
    (
        dict(ids=np.array([[1]]), weights=tf.ragged.constant([[1.0]])),
        ValueError,
        "Weights of feature 'genres' must have the form of its ids",
    ),
]


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG_BAGS)
def test_wrong_bags(arguments, error, message):
    with pytest.raises(error, match=message):
        to_bags(**arguments, name="genres")


def test_batch_of_every_form():
    ragged = tf.ragged.constant([[1, 2], [], [3]])
    forms = [np.ones((3, 2)), np.ones(3), ragged, ragged.to_sparse(), (ragged.values, ragged.row_splits)]
    forms += [to_bags(ragged), to_bags(tf.ones((3, 2), tf.int64))]
    assert [batch_of(form) for form in forms] == [3] * len(forms)
    assert batch_of((keras.KerasTensor((None,)), keras.KerasTensor((None,)))) is None


def test_wrong_gradient_shape():
    from merlin_models import _native

    with (
        on("cpu"),
        pytest.raises(tf.errors.InvalidArgumentError, match=r"gradient of feature 'a' must have shape \[1,2\]"),
    ):
        _native.tf_ops().merlin_embedding_bag_grad(
            tables=[tf.constant(TABLE)], ids=[tf.constant([[1]], tf.int64)], row_splits=[], weights=[],
            grad=[tf.ones((2, 2))], table_of_feature=[0], splits_of_feature=[-1], weights_of_feature=[-1],
            combiners=["sum"], padding_ids=[-(2**63)], names=["a"], concat=False,
        )  # fmt: skip


ADVISED = """
import re
import tensorflow as tf
from merlin_models.ops import Bags, UpdateRule, embedding_bag, embedding_bag_update

def advised():
    parts = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", open("/proc/self/smaps").read(), flags=re.MULTILINE)
    lines = [(re.search(r"^Size: +(\\d+) kB", part, re.MULTILINE), part) for part in parts]
    return sum(int(size[1]) for size, part in lines if size and re.search(r"^VmFlags:.* hg", part, re.MULTILINE)) >> 10

"""
HUGE_PAGES = """
with tf.device("CPU:0"):
    table, small = tf.Variable(tf.random.stateless_uniform([100_000, 64], [1, 2])), tf.Variable(tf.ones([1000, 64]))
    slot = tf.Variable(tf.ones([100_000, 64]))
    rows = table[:3].numpy()
    before = advised()
    output = embedding_bag([small], [Bags(tf.constant([[0, 1]]))])
    assert advised() == before, "a table that is small"
    for _ in range(2):
        (output,) = embedding_bag([table], [Bags(tf.constant([[0], [1], [2]]))])
        assert (output.numpy() == rows).all()
        assert 20 <= advised() - before <= 24, (advised(), before)  # of 24.4 MB those pages that lie within
    embedding_bag_update([table], [[slot]], [Bags(tf.constant([[7]]))], [tf.ones([1, 64])],
                         rule=UpdateRule("adagrad"), learning_rate=0.0, step=0)
    assert 40 <= advised() - before <= 48, (advised(), before)
    assert (table[:3].numpy() == rows).all()
"""

ONE_LOOKUP = """
with tf.device("CPU:0"):
    table = tf.Variable(tf.ones([100_000, 64]))
    before = advised()
    embedding_bag([table], [Bags(tf.constant([[0]]))])
assert advised() == before
"""


def test_large_tables_move_to_huge_pages(run_python):
    setting = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not setting.exists() or "[never]" in setting.read_text():
        pytest.skip("this machine has no transparent huge pages")
    run_python(ADVISED + HUGE_PAGES)


def test_large_tables_stay_where_the_environment_says_so(run_python, monkeypatch):
    monkeypatch.setenv("MERLIN_MODELS_HUGE_PAGES", "0")
    run_python(f"{ADVISED}{ONE_LOOKUP}")
