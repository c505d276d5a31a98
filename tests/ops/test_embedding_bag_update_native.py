"""The fused backward pass and step through merlin_models._C, without TensorFlow: NumPy and DLPack arrays, CPU and GPU."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from bag_data import DIMS, NUMPY_DTYPES, random_case
from test_embedding_bag_native import Device, arguments

from merlin_models import _native
from merlin_models.ops import UpdateRule, embedding_bag_update_reference

native = _native.module()

RULES = ("accumulate", "adagrad", "adam", "ftrl", "momentum", "rmsprop", "rowwise_adagrad", "sgd")
TOLERANCE = {"float32": 2e-5, "float16": 2e-3, "bfloat16": 1.6e-2}


@pytest.fixture(params=["numpy", pytest.param("cupy", marks=pytest.mark.gpu)])
def arrays(request) -> Device:
    return Device(request.param)


def make_slots(rule: UpdateRule, tables: list[np.ndarray]) -> list[list[np.ndarray]]:
    return [[np.full(slot.shape(*t.shape), slot.initial_value, np.float32) for slot in rule.slots()] for t in tables]


def touched_rows(case, t: int) -> np.ndarray:
    kept = [
        case.values[f][case.values[f] != case.padding_ids[f]]
        for f, table in enumerate(case.table_of_feature)
        if table == t
    ]
    return np.unique(np.concatenate(kept)) if kept else np.zeros(0, np.int64)


def stepped(case, arrays, options, steps=3, scale=0.5, rate=0.05, threads=0, seed=0):
    """Tables and slots after some steps, and the gradients of each."""
    rng = np.random.default_rng(seed)
    call = arguments(case, arrays)
    device_slots = [[arrays.to(s) for s in own] for own in make_slots(UpdateRule(**options), case.tables)]
    call["tables"] = [arrays.to(np.array(t)) for t in case.tables]
    gradients = []
    for step in range(steps):
        bags = [len(s) - 1 for s in case.row_splits]
        grads = [rng.normal(size=(b, d)).astype(case.tables[0].dtype) for b, d in zip(bags, case.dims, strict=True)]
        update = native.EmbeddingBagUpdate(
            **call, slots=device_slots, grads=[arrays.to(g) for g in grads], rule=options
        )
        size = update.workspace_bytes
        workspace = arrays.to(np.full(size, 0xAB, np.uint8)) if size else None
        update.step(learning_rate=rate, step=step, grad_scale=scale, workspace=workspace, num_threads=threads)
        gradients.append(grads)
    tables = [arrays.back(t) for t in call["tables"]]
    return tables, [[arrays.back(s) for s in own] for own in device_slots], gradients


def run(case, arrays, options, steps=3, scale=0.5, rate=0.05):
    """Tables and slots after some steps, and what the reference makes of them."""
    tables, slots, gradients = stepped(case, arrays, options, steps, scale, rate)
    rule = UpdateRule(**options)
    expected_tables = [t.astype(np.float64) for t in case.tables]
    expected_slots = [[s.astype(np.float64) for s in own] for own in make_slots(rule, case.tables)]
    touched = [touched_rows(case, t) for t in range(len(expected_tables))]
    for step, grads in enumerate(gradients):
        now = dataclasses.replace(case, tables=expected_tables)  # which row is the largest may change
        _, dense, _ = now.reference([g.astype(np.float64) for g in grads])
        expected_tables, expected_slots = embedding_bag_update_reference(
            expected_tables, expected_slots, dense, touched, rule, rate, step, scale
        )
        # The next step begins from what is stored.
        expected_tables = [
            t.astype(own.dtype).astype(np.float64) for t, own in zip(expected_tables, case.tables, strict=True)
        ]
    return tables, slots, expected_tables, expected_slots


def assert_agrees(case, result, dtype, scale=1.0):
    tables, slots, expected_tables, expected_slots = result
    for t, (table, expected) in enumerate(zip(tables, expected_tables, strict=True)):
        touched = touched_rows(case, t)
        others = np.setdiff1d(np.arange(len(table)), touched)
        assert np.array_equal(table[others], case.tables[t][others]), "rows outside of the batch moved"
        size = np.abs(expected).max(initial=1.0)
        error = np.abs(table.astype(np.float64) - expected).max(initial=0.0) / size
        assert error <= scale * TOLERANCE[dtype], f"table {t}: {error}"
        for slot, e in zip(slots[t], expected_slots[t], strict=True):
            error = np.abs(slot - e).max(initial=0.0) / np.abs(e).max(initial=1.0)
            assert error <= scale * max(TOLERANCE[dtype], 1e-4), f"slot of table {t}: {error}"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("rule", RULES)
def test_rules(rng, arrays, rule, dtype):
    case = random_case(rng, [(50, 16), (7, 33), (300, 4), (11, 128), (40, 300)], [0, 1, 1, 2, 3, 0, 4], 33, dtype=dtype)
    options = {"name": rule, "momentum": 0.9, "l1": 0.01}
    assert_agrees(case, run(case, arrays, options), dtype, scale=3)


@pytest.mark.parametrize("rule", ["sgd", "rowwise_adagrad", "adam", "ftrl"])
def test_options(rng, arrays, rule):
    """Decay, l2, clipping; for dims of one part and of several, in vectors and alone."""
    case = random_case(rng, [(30, 8), (9, 129), (60, 132), (5, 1), (8, 1024)], [0, 1, 2, 3, 4], 25)
    options = {"name": rule, "weight_decay": 0.1, "l2": 0.02, "clip_norm": 0.7, "beta_1": 0.8, "beta_2": 0.99}
    options["epsilon"] = 1e-3
    assert_agrees(case, run(case, arrays, options), "float32", scale=3)


def test_nesterov(rng, arrays):
    case = random_case(rng, [(30, 8)], [0], 25)
    assert_agrees(case, run(case, arrays, {"name": "momentum", "momentum": 0.9, "nesterov": True}), "float32")


@pytest.mark.parametrize("dim", DIMS)
@pytest.mark.parametrize("rule", RULES)
def test_dims_long_bags_and_hot_rows(rng, arrays, rule, dim):
    """A bag of 10,000 ids over few rows: runs that many units share, and runs of every length around a tile's."""
    case = random_case(rng, [(700, dim)], [0], 40, 6, combiners=("mean",), weighted=False)
    counts = [*range(1, 8), 62, 63, 64, 65, 126, 127, 128, 129, 191, 192, 193, 1000, 3000]
    others = rng.integers(3 * len(counts), 700, 5000)
    long = rng.permutation(np.concatenate([np.repeat(np.arange(len(counts)) * 3, counts), others]))
    assert len(long) >= 10_000
    case.values[0] = np.concatenate([case.values[0], long])
    case.row_splits[0] = np.concatenate([case.row_splits[0], [len(case.values[0])]]).astype(np.int64)
    case.dense[0] = False
    assert_agrees(case, run(case, arrays, {"name": rule, "momentum": 0.9, "l1": 0.01}), "float32", scale=3)


@pytest.mark.parametrize("lengths", [(64, 64), (128, 1), (1, 63, 64), (63, 1, 128, 64), (200,), (5, 60, 63, 65, 500)])
def test_runs_at_the_edges_of_tiles(rng, arrays, lengths):
    """Rows whose runs begin and end where a tile does, before it and behind it."""
    ids = np.repeat(np.arange(len(lengths)), lengths)
    case = random_case(rng, [(len(lengths) + 3, 24)], [0], 1, combiners=("sum",), weighted=False, padding=False)
    bags = len(ids)
    case.values[0], case.row_splits[0] = ids, np.arange(bags + 1)
    case.padding_ids[0], case.dense[0] = None, False
    assert_agrees(case, run(case, arrays, {"name": "sgd"}, steps=1), "float32", scale=3)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("rule", RULES)
def test_repeats_are_equal(rng, arrays, rule, dtype):
    """To the bit, by any number of threads; tables of two bytes are rounded at random, and so by a seed."""
    if dtype == "bfloat16" and arrays.kind != "numpy":
        pytest.skip("CuPy has no bfloat16; test_embedding_bag_update.py has it in TensorFlow")
    case = random_case(rng, [(90, 64), (20, 40)], [0, 1, 0], 4_000, 6, dtype=dtype)
    options = {"name": rule, "momentum": 0.9, "l1": 0.01, "clip_norm": 50.0, "weight_decay": 0.1}
    options["stochastic_rounding"] = dtype != "float32"

    def results(threads, seed=0):
        tables, slots, _ = stepped(case, arrays, {**options, "seed": seed}, steps=2, threads=threads)
        return [*tables, *(slot for own in slots for slot in own)]

    first = results(1)
    for threads in (1, 3):
        assert all(np.array_equal(a, b) for a, b in zip(first, results(threads), strict=True))
    others = [np.array_equal(a, b) for a, b in zip(first[:2], results(1, seed=1)[:2], strict=True)]
    assert others == [dtype == "float32"] * 2


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_stochastic_rounding(arrays, dtype):
    """Steps far below half a unit in the last place: rounding to nearest never moves, at random it does on average."""
    if dtype == "bfloat16" and arrays.kind != "numpy":
        pytest.skip("CuPy has no bfloat16; test_embedding_bag_update.py has it in TensorFlow")
    rows, dim = 512, 64
    table = np.ones((rows, dim), NUMPY_DTYPES[dtype])
    ulp = {"float16": 2.0**-10, "bfloat16": 2.0**-7}[dtype]
    ids, grad = np.arange(rows)[:, None], np.full((rows, dim), -1.0, NUMPY_DTYPES[dtype])
    results = {}
    for noisy, seed in ((False, 0), (True, 0), (True, 0), (True, 1)):
        given = arrays.to(np.array(table))
        options = {"name": "sgd", "stochastic_rounding": noisy, "seed": seed}
        update = native.EmbeddingBagUpdate(
            [given], [[]], [arrays.to(ids)], [None], [None], [0], ["sum"], [None], [arrays.to(grad)], options
        )
        workspace = arrays.to(np.zeros(update.workspace_bytes, np.uint8)) if update.workspace_bytes else None
        update.step(learning_rate=0.25 * ulp, step=3, workspace=workspace)
        results.setdefault((noisy, seed), []).append(arrays.back(given).astype(np.float64))
    assert (results[False, 0][0] == 1.0).all()
    one, same = results[True, 0]
    assert np.array_equal(one, same)
    assert not np.array_equal(one, results[True, 1][0])
    assert set(np.unique(one)) == {1.0, 1.0 + ulp}
    share = (one > 1.0).mean()  # 32,768 draws of probability 1/4: a standard deviation of 0.0024
    assert abs(share - 0.25) < 0.012
    assert abs((one > 1.0).mean(axis=0) - 0.25).max() < 0.1
    assert abs((one > 1.0).mean(axis=1) - 0.25).max() < 0.3


def test_scale_zero_changes_nothing(rng, arrays):
    case = random_case(rng, [(50, 16)], [0], 33)
    tables, slots, *_ = run(case, arrays, {"name": "adam", "weight_decay": 0.1}, scale=0.0)
    assert np.array_equal(tables[0], case.tables[0])
    assert not slots[0][0].any()
    assert not slots[0][1].any()


def test_empty_batch(arrays):
    table = arrays.to(np.ones((5, 8), np.float32))
    ids, grad = arrays.to(np.zeros((0, 3), np.int64)), arrays.to(np.zeros((0, 8), np.float32))
    update = native.EmbeddingBagUpdate(
        [table], [[]], [ids], [None], [None], [0], ["sum"], [None], [grad], {"name": "sgd"}
    )
    workspace = arrays.to(np.zeros(max(update.workspace_bytes, 1), np.uint8)) if arrays.kind == "cupy" else None
    update.step(learning_rate=1.0, step=0, workspace=workspace)
    assert (arrays.back(table) == 1.0).all()


def test_wrong_input_changes_nothing(rng):
    arrays = Device("numpy")
    case = random_case(rng, [(50, 16), (60, 8)], [0, 1], 33, padding=False)
    case.values[1][-1] = 60
    call = arguments(case, arrays)
    before = [np.array(t) for t in call["tables"]]
    grads = [np.ones((33, d), np.float32) for d in case.dims]
    update = native.EmbeddingBagUpdate(**call, slots=[[], []], grads=grads, rule={"name": "sgd"})
    with pytest.raises(ValueError, match=r"feature '1'.*\[0, 60\).*60"):
        update.step(learning_rate=1.0, step=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, call["tables"], strict=True))
    with pytest.raises(ValueError, match=r"rule must be 'sgd'.*'lamb'"):
        native.EmbeddingBagUpdate(**call, slots=[[], []], grads=grads, rule={"name": "lamb"})
    with pytest.raises(ValueError, match=r"slots\[0\] must hold 1.*Received: 0"):
        native.EmbeddingBagUpdate(**call, slots=[[], []], grads=grads, rule={"name": "adagrad"})
    with pytest.raises(ValueError, match=r"rule must hold name.*'beta'"):
        native.EmbeddingBagUpdate(**call, slots=[[], []], grads=grads, rule={"name": "sgd", "beta": 1.0})


def test_many_features(rng, arrays):
    """512 features in one call, over tables of their own and shared ones."""
    shapes = [(int(rows), int(dim)) for rows, dim in rng.integers(1, 24, (200, 2))]
    case = random_case(rng, shapes, [f % 200 for f in range(512)], 5, 4)
    call = arguments(case, arrays)
    outputs = [arrays.to(np.full((5, d), np.nan, np.float32)) for d in case.dims]
    native.embedding_bag_forward(**call, outputs=outputs)
    expected, *_ = case.reference()
    for output, e in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(arrays.back(output), e, rtol=1e-4, atol=1e-5)
    assert_agrees(case, run(case, arrays, {"name": "adagrad"}, steps=1), "float32", scale=3)
