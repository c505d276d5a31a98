"""embedding_bag through merlin_models._C, without TensorFlow: NumPy and DLPack arrays, CPU and GPU."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest
from bag_data import DIMS, assert_close, random_case

from merlin_models import _native

native = _native.module()


class Device:
    """Makes arrays on a device and brings them back: NumPy, PyTorch on the CPU, or CuPy on the GPU."""

    def __init__(self, kind: str):
        self.kind = kind
        if kind == "cupy":
            self.cupy = pytest.importorskip("cupy", reason="CuPy makes the GPU's arrays")
        if kind == "torch":
            self.torch = pytest.importorskip("torch", reason="PyTorch makes these DLPack arrays")

    def to(self, array):
        if array is None or self.kind == "numpy":
            return array
        return self.cupy.asarray(array) if self.kind == "cupy" else self.torch.from_numpy(array.copy())

    def back(self, array):
        return self.cupy.asnumpy(array) if self.kind == "cupy" else np.asarray(array)


@pytest.fixture(params=["numpy", "torch", pytest.param("cupy", marks=pytest.mark.gpu)])
def arrays(request) -> Device:
    return Device(request.param)


def arguments(case, arrays: Device) -> dict:
    ids = [case.dense_ids(f) if case.dense[f] else v for f, v in enumerate(case.values)]
    weights = [None if w is None else w.reshape(i.shape) for w, i in zip(case.weights, ids, strict=True)]
    return {
        "tables": [arrays.to(t) for t in case.tables],
        "ids": [arrays.to(i) for i in ids],
        "row_splits": [None if d else arrays.to(s) for d, s in zip(case.dense, case.row_splits, strict=True)],
        "weights": [arrays.to(w) for w in weights],
        "table_of_feature": case.table_of_feature,
        "combiners": case.combiners,
        "padding_ids": case.padding_ids,
    }


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("concat", [False, True])
@pytest.mark.parametrize("num_bags", [1, 33, 129])
def test_forward_and_gradient(rng, arrays, dtype, concat, num_bags):
    case = random_case(rng, [(50, 16), (7, 33), (300, 4), (11, 128)], [0, 1, 1, 2, 3, 0], num_bags, dtype=dtype)
    call = arguments(case, arrays)
    grads = [rng.normal(size=(num_bags, d)).astype(case.tables[0].dtype) for d in case.dims]
    poison = [np.full((num_bags, d), np.nan, g.dtype) for d, g in zip(case.dims, grads, strict=True)]
    if concat:
        poison, given = [np.concatenate(poison, axis=1)], [np.concatenate(grads, axis=1)]
    else:
        given = grads
    outputs = [arrays.to(p) for p in poison]
    native.embedding_bag_forward(**call, outputs=outputs)
    expected, expected_tables, expected_weights = case.reference([g.astype(np.float64) for g in grads])
    back = [arrays.back(o) for o in outputs]
    if concat:
        back = np.split(back[0], np.cumsum(case.dims)[:-1], axis=1)
    for a, e in zip(back, expected, strict=True):
        assert_close(a, e, dtype, "output")

    room = [min(len(t), sum(len(v) for v in case.values)) for t in case.tables]
    ids = [arrays.to(np.full(n, -1, np.int64)) for n in room]
    rows = [arrays.to(np.full((n, t.shape[1]), np.nan, t.dtype)) for n, t in zip(room, case.tables, strict=True)]
    weights_grads = [None if w is None else arrays.to(np.full(w.size, np.nan, np.float32)) for w in case.weights]
    size = native.embedding_bag_grad_workspace(**call)
    workspace = arrays.to(np.full(size, 0xAB, np.uint8)) if size else None
    counts = native.embedding_bag_grad(
        **call,
        grads=[arrays.to(g) for g in given],
        unique_ids=ids,
        rows=rows,
        weights_grads=weights_grads,
        workspace=workspace,
    )
    for t, count in enumerate(counts):
        dense = np.zeros(case.tables[t].shape)
        at = arrays.back(ids[t])[:count]
        assert (np.diff(at) > 0).all()
        dense[at] = arrays.back(rows[t])[:count]
        assert_close(dense, expected_tables[t], dtype, f"gradient of table {t}", scale=4)
    for f, grad in enumerate(weights_grads):
        if grad is not None:
            assert_close(arrays.back(grad), expected_weights[f], "float32", f"gradient of weights {f}", scale=20)


def test_threads_do_not_change_the_result(rng):
    case = random_case(rng, [(500, 64), (20, 32)], [0, 1, 0], 3_000)
    call = arguments(case, Device("numpy"))
    results = []
    for threads in (1, 2, 7):
        outputs = [np.empty((3_000, d), np.float32) for d in case.dims]
        native.embedding_bag_forward(**call, outputs=outputs, num_threads=threads)
        ids, rows = (
            [np.zeros(500, np.int64), np.zeros(20, np.int64)],
            [np.zeros((500, 64), np.float32), np.zeros((20, 32), np.float32)],
        )
        native.embedding_bag_grad(**call, grads=outputs, unique_ids=ids, rows=rows, num_threads=threads)
        results.append([*outputs, *ids, *rows])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux has this")
def test_workers_of_a_caller_that_has_one_processor(rng):
    case = random_case(rng, [(500, 64)], [0], 3_000)
    call = arguments(case, Device("numpy"))
    allowed = os.sched_getaffinity(0)
    results = []
    for processors in (allowed, {min(allowed)}):
        os.sched_setaffinity(0, processors)
        try:
            outputs = [np.empty((3_000, 64), np.float32)]
            native.embedding_bag_forward(**call, outputs=outputs, num_threads=4)
            assert os.sched_getaffinity(0) == processors
        finally:
            os.sched_setaffinity(0, allowed)
        results.append(outputs[0])
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("lengths", [(5_000, 0, 1, 4_096, 0, 300, 4_095, 2), (4_097,) * 3, (0, 0, 0)])
def test_bags_longer_than_a_block(rng, lengths):
    table = rng.normal(size=(700, 37)).astype(np.float32)
    ids, splits = rng.integers(0, 700, sum(lengths)), np.cumsum([0, *lengths])
    same = len(set(lengths)) == 1
    expected = [table[ids[a:b]].sum(axis=0, dtype=np.float64) for a, b in itertools.pairwise(splits)]
    grad = rng.normal(size=(len(lengths), 37)).astype(np.float32)
    expected_rows = np.zeros((700, 37))
    np.add.at(expected_rows, ids, np.repeat(grad.astype(np.float64), lengths, axis=0))
    for dense in (False, True) if same else (False,):
        call = {
            "tables": [table],
            "ids": [ids.reshape(len(lengths), -1) if dense else ids],
            "row_splits": [None if dense else splits],
            "weights": [None],
            "table_of_feature": [0],
            "combiners": ["sum"],
            "padding_ids": [None],
        }
        output, unique, rows = np.empty_like(grad), np.zeros(700, np.int64), np.zeros((700, 37), np.float32)
        native.embedding_bag_forward(**call, outputs=[output], num_threads=2)
        np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-3)
        (count,) = native.embedding_bag_grad(**call, grads=[grad], unique_ids=[unique], rows=[rows], num_threads=2)
        np.testing.assert_array_equal(unique[:count], np.unique(ids))
        np.testing.assert_allclose(rows[:count], expected_rows[unique[:count]], rtol=1e-4, atol=1e-3)


WRONG = [
    ({"tables": [np.zeros((3, 2))]}, r"tables\[0\] must have dtype float32, float16 or bfloat16. Received: float64"),
    ({"tables": [np.zeros((4, 3), np.float32)[:, :2]]}, r"tables\[0\] must be contiguous"),
    ({"tables": [[[1.0]]]}, r"tables\[0\] must be a NumPy array or support DLPack"),
    ({"ids": [np.zeros(2, np.int16)]}, r"ids\[0\] must have dtype int32 or int64. Received: int16"),
    ({"row_splits": [np.zeros(2, np.int32)]}, r"row_splits\[0\] must have dtype int64. Received: int32"),
    ({"ids": [np.array([1, 2], np.dtype(int).newbyteorder())]}, r"ids\[0\] must have this machine's order of bytes"),
    ({"tables": [np.zeros((3, 2), "m8[s]")]}, r"tables\[0\] must have dtype float32.*Received: timedelta64\[s\]"),
    ({"combiners": ["median"]}, "combiner must be 'sum', 'mean', 'sqrtn' or 'max'. Received: 'median'"),
    ({"table_of_feature": [1]}, r"table_of_feature\[0\] must be in \[0, 1\). Received: 1"),
    ({"weights": [np.ones(3, np.float32)]}, r"weights\[0\] must have the shape of its ids"),
    ({"outputs": [np.zeros((2, 2), np.float32)]}, r"outputs\[0\] must have shape \(1, 2\). Received: \(2, 2\)"),
    ({"weights": []}, "must have one entry a feature"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_wrong_input(change, message):
    call = {
        "tables": [np.zeros((3, 2), np.float32)],
        "ids": [np.array([1, 2])],
        "row_splits": [np.array([0, 2])],
        "weights": [None],
        "table_of_feature": [0],
        "combiners": ["sum"],
        "padding_ids": [None],
        "outputs": [np.zeros((1, 2), np.float32)],
    }
    with pytest.raises(ValueError, match=message):
        native.embedding_bag_forward(**{**call, **change})


# Where the first step back is, as four threads share the bags; and what else is wrong, which must not hide it.
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({4000: -1}, "must not decrease. Received: 3999 followed by -1 at index 3999"),
        ({5: 4, 9_990: 3}, "must not decrease. Received: 5 followed by 4 at index 5"),
        ({7000: 2**62}, f"must not decrease. Received: {2**62} followed by 7001 at index 7000"),
        ({0: 1}, "must start at 0. Received: 1"),
        ({0: -(2**63), 10_000: 2**63 - 1}, f"must start at 0. Received: -{2**63}"),
        ({10_000: 10_001}, "must end at the number of ids, 10000. Received: 10001"),
        ({9_999: 10_000, 10_000: 9_999}, "must not decrease. Received: 10000 followed by 9999 at index 9999"),
    ],
)
@pytest.mark.parametrize("num_threads", [1, 4])
def test_wrong_row_splits_of_many_bags(change, message, num_threads):
    bags, table = 10_000, np.ones((20, 32), np.float32)
    splits = np.arange(bags + 1)
    for place, value in change.items():
        splits[place] = value
    if 5 in change:
        splits[5:7] = 5, 4
    ids = np.zeros(bags, np.int64)
    ids[3] = 20  # is found by whoever reads the first bags
    good = np.arange(bags + 1)
    outputs = [np.zeros((bags, 32), np.float32) for _ in range(2)]
    fixed = ([None] * 2, [0, 0], ["sum"] * 2, [None] * 2)
    with pytest.raises(ValueError, match=f"row_splits of feature '1' {message}$"):
        native.embedding_bag_forward([table], [ids, ids], [good, splits], *fixed, outputs, num_threads=num_threads)
    ids[3] = 0
    native.embedding_bag_forward([table], [ids, ids], [good, good], *fixed, outputs, num_threads=num_threads)
    assert all((output == 1).all() for output in outputs)


@pytest.mark.parametrize("splits", [[1], [-1]])
def test_wrong_row_splits_of_no_bags(splits):
    with pytest.raises(ValueError, match=f"row_splits of feature '0' must start at 0. Received: {splits[0]}"):
        native.embedding_bag_forward(
            [np.ones((2, 8), np.float32)], [np.zeros(0, np.int64)], [np.array(splits)], [None], [0], ["sum"], [None],
            [np.zeros((0, 8), np.float32)],
        )  # fmt: skip


def test_dims_of_every_kind(rng):
    """Rows of one to eight vectors have code of their own, by the vectors of each set of instructions."""
    lengths = [1, 0, 3, 300, 1, 1, 40, 2] * 25
    splits = np.cumsum([0, *lengths])
    ids = rng.integers(0, 50, splits[-1])
    for dim in (1, 4, 8, 12, 16, 24, 32, 40, 48, 64, 96, 128, 160, 256):
        table = rng.normal(size=(50, dim)).astype(np.float32)
        wide = np.full((len(lengths), 2 * dim + 3), 7, np.float32)  # with columns that are nobody's
        fixed = ([None] * 2, [0, 0], ["sum", "mean"], [None] * 2)
        native.embedding_bag_forward([table], [ids, ids], [splits, splits], *fixed, [wide], num_threads=2)
        expected = np.stack([table[ids[a:b]].astype(np.float64).sum(axis=0) for a, b in itertools.pairwise(splits)])
        np.testing.assert_allclose(wide[:, :dim], expected, rtol=1e-5, atol=2e-4)
        expected /= np.maximum(lengths, 1)[:, None]
        np.testing.assert_allclose(wide[:, dim : 2 * dim], expected, rtol=1e-5, atol=1e-5)
        assert (wide[:, 2 * dim :] == 7).all()


def test_too_little_room_for_the_gradient():
    with pytest.raises(ValueError, match=r"unique_ids and rows of table 0 must have room for 2 rows. Received: 1"):
        native.embedding_bag_grad(
            [np.zeros((3, 2), np.float32)], [np.array([1, 2])], [np.array([0, 2])], [None], [0], ["sum"], [None],
            [np.zeros((1, 2), np.float32)], [np.zeros(1, np.int64)], [np.zeros((1, 2), np.float32)],
        )  # fmt: skip


def test_needs_no_tensorflow(run_python):
    code = (
        "import sys; from merlin_models import _native; _native.module(); "
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    run_python(code)


@pytest.mark.parametrize("shape", ["table", "output"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_unaligned_pointers(rng, arrays, shape, dtype):
    """Views that start one element late must be read element by element, not 16 bytes at once."""
    if arrays.kind == "torch":
        pytest.skip("the same kernels as with NumPy")
    rows, dim = 20, 16
    flat = rng.normal(size=rows * dim + 1).astype(dtype)
    buffer = arrays.to(flat)
    table = buffer[1:].reshape(rows, dim) if shape == "table" else arrays.to(flat[1:].reshape(rows, dim))
    ids = rng.integers(0, rows, (5, 3))
    out_flat = arrays.to(np.full(5 * dim + 1, np.nan, dtype))
    output = out_flat[1:].reshape(5, dim) if shape == "output" else out_flat[:-1].reshape(5, dim)
    native.embedding_bag_forward([table], [arrays.to(ids)], [None], [None], [0], ["sum"], [None], [output])
    expected = flat[1:].reshape(rows, dim).astype(np.float64)[ids].sum(axis=1)
    assert_close(arrays.back(output), expected, dtype, "output")


@pytest.mark.parametrize(("dtype", "dim"), [("float32", 64), ("float16", 40), ("float32", 7)])
def test_long_bags_and_hot_rows(rng, arrays, dtype, dim):
    """Bags that a block shares, and rows whose gradients are summed in chunks."""
    case = random_case(rng, [(5, dim), (900, dim)], [0, 1, 1], 40, 30, dtype, combiners=("mean", "sum", "max"))
    long = rng.integers(0, 5, 5_000)
    case.values[0] = np.concatenate([case.values[0], long])
    case.row_splits[0] = np.concatenate([case.row_splits[0][:-1], [len(case.values[0])]]).astype(np.int64)
    if case.weights[0] is not None:
        case.weights[0] = np.concatenate([case.weights[0], rng.uniform(0.5, 1.5, 5_000).astype(np.float32)])
    call = arguments(case, arrays)
    outputs = [arrays.to(np.full((40, dim), np.nan, dtype)) for _ in case.dims]
    native.embedding_bag_forward(**call, outputs=outputs)
    grads = [rng.normal(size=(40, dim)).astype(dtype) for _ in case.dims]
    expected, expected_tables, _ = case.reference([g.astype(np.float64) for g in grads])
    for output, e in zip(outputs, expected, strict=True):
        assert_close(arrays.back(output), e, dtype, "output", scale=10)
    ids = [arrays.to(np.zeros(n, np.int64)) for n in (5, 900)]
    rows = [arrays.to(np.zeros((n, dim), dtype)) for n in (5, 900)]
    size = native.embedding_bag_grad_workspace(**call)
    workspace = arrays.to(np.zeros(size, np.uint8)) if size else None
    counts = native.embedding_bag_grad(
        **call, grads=[arrays.to(g) for g in grads], unique_ids=ids, rows=rows, workspace=workspace
    )
    for t, count in enumerate(counts):
        dense = np.zeros(case.tables[t].shape)
        dense[arrays.back(ids[t])[:count]] = arrays.back(rows[t])[:count]
        assert_close(dense, expected_tables[t], dtype, f"gradient of table {t}", scale=10)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("dim", DIMS)
def test_a_bag_of_10000_ids(rng, arrays, dim, dtype):
    """Between a short and an empty one, by each combiner, over rows of which none is hot; and alone."""
    if dtype == "bfloat16" and arrays.kind != "numpy":
        pytest.skip("CuPy and PyTorch's from_numpy have no bfloat16; test_embedding_bag.py has it in TensorFlow")
    lengths = [3, 10_000, 0]
    case = random_case(rng, [(2000, dim)], [0, 0, 0, 0], 3, dtype=dtype, padding=False)
    for f, combiner in enumerate(case.combiners):
        case.values[f], case.row_splits[f] = rng.integers(0, 2000, sum(lengths)), np.cumsum([0, *lengths])
        case.weights[f] = rng.uniform(0.5, 1.5, sum(lengths)).astype(np.float32) if combiner == "sqrtn" else None
        case.dense[f] = False
    # Alone as a dense block, which has no row_splits.
    case.values[3], case.row_splits[3], case.dense[3] = case.values[3][3:10_003], np.array([0, 10_000]), True
    outputs = [arrays.to(np.full((len(s) - 1, dim), np.nan, case.tables[0].dtype)) for s in case.row_splits]
    native.embedding_bag_forward(**arguments(case, arrays), outputs=outputs)
    expected, *_ = case.reference()
    for output, e, combiner in zip(outputs, expected, case.combiners, strict=True):
        size = np.abs(e).max(axis=1, keepdims=True) + (np.abs(e).max(axis=1, keepdims=True) == 0)
        assert_close(arrays.back(output) / size, e / size, dtype, combiner, scale=10 if dtype == "float32" else 1)


@pytest.mark.gpu
@pytest.mark.parametrize("dim", [16, 3])  # by the kernel of plain features, and by the general one
@pytest.mark.parametrize(
    ("splits", "rule"),
    [
        ([1, 1, 2], "start at 0. Received: 1"),
        ([-(2**47), 1, 2], "start at 0. Received: -140737488355328 or less"),
        ([-(2**63), 1, 2], "start at 0. Received: -140737488355328 or less"),
        ([0, 1, 1], "end at the number of ids. Received: 1"),
        ([0, 1, 2**47 - 2], "end at the number of ids. Received: 140737488355326"),
        ([0, 1, 2**63 - 1], "end at the number of ids. Received: 140737488355327 or more"),
        ([0, 2, 1, 2], "not decrease. Received: a decrease to 1. The bag was taken as empty"),
        ([0, 2, -5, 2], "not decrease. Received: a decrease to -5. The bag was taken as empty"),
        (
            [0, 2, -(2**63), 2],
            "not decrease. Received: a decrease to -140737488355328 or less. The bag was taken as empty",
        ),
    ],
)
def test_a_gpu_notes_wrong_row_splits(splits, rule, dim):
    arrays = Device("cupy")
    outputs = [arrays.to(np.full((len(splits) - 1, dim), np.nan, np.float32))]
    native.embedding_bag_forward(
        [arrays.to(np.ones((5, dim), np.float32))],
        [arrays.to(np.array([3, 4]))],
        [arrays.to(np.array(splits))],
        [None],
        [0],
        ["sum"],
        [None],
        outputs,
    )
    assert np.isfinite(arrays.back(outputs[0])).all()
    noted = f"row_splits of feature number 0 of an earlier call on GPU 0 must {rule}"
    assert native.take_device_error() == noted
    assert native.take_device_error() == ""
