"""Tables and their state of more elements than an int32 counts. On a CPU their zeros take no memory until written."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
from test_embedding_bag_native import Device

from merlin_models import _native
from merlin_models.ops import Bags, UpdateRule, embedding_bag, embedding_bag_update

native = _native.module()

SHAPES = [(17_000_000, 128), (2**31 + 100, 1)]  # of more elements; and of more rows, too, which CUDA refuses


@pytest.fixture(params=["numpy", pytest.param("cupy", marks=pytest.mark.gpu)])
def arrays(request):
    arrays = Device(request.param)
    yield arrays
    if request.param == "cupy":
        arrays.cupy.get_default_memory_pool().free_all_blocks()  # for TensorFlow's allocator


def require_rows(arrays: Device, rows: int) -> None:
    if arrays.kind == "cupy" and rows >= 2**31:
        pytest.skip("CUDA takes tables of fewer than 2^31 rows, see test_a_gpu_refuses_more_rows")


def zeros(arrays: Device, shape: tuple[int, ...], dtype: type):
    return (arrays.cupy.zeros if arrays.kind == "cupy" else np.zeros)(shape, dtype)


def elsewhere(rows: int, dim: int) -> list[int]:
    """Where the last two rows would be if their places were cut to 31 or 32 bits, in elements or bytes; and another."""
    return [1, rows - 2 - 2**31 // dim, rows - 1 - 2**31 // dim]


@pytest.mark.parametrize(("rows", "dim"), SHAPES)
@pytest.mark.parametrize(("combiner", "dtype"), [("sum", np.float16), ("max", np.float16), ("sum", np.float32)])
def test_forward_and_gradient(arrays, rows, dim, combiner, dtype):
    require_rows(arrays, rows)
    table = zeros(arrays, (rows, dim), dtype)
    table[0], table[rows - 2], table[rows - 1] = 1, 2, 4
    ids = arrays.to(np.array([[0, rows - 1, rows - 1], [rows - 2, rows - 1, 0]]))
    output, grad = zeros(arrays, (2, dim), dtype), arrays.to(np.full((2, dim), [[1], [3]], dtype))
    call = ([table], [ids], [None], [None], [0], [combiner], [None])
    native.embedding_bag_forward(*call, [output])
    np.testing.assert_array_equal(arrays.back(output), [[9] * dim, [7] * dim] if combiner == "sum" else 4)

    unique, unique_rows = arrays.to(np.full(6, -1)), arrays.to(np.full((6, dim), np.nan, dtype))
    size = native.embedding_bag_grad_workspace(*call)
    workspace = zeros(arrays, (size,), np.uint8) if size else None
    (count,) = native.embedding_bag_grad(
        *call, grads=[grad], unique_ids=[unique], rows=[unique_rows], workspace=workspace
    )
    assert arrays.back(unique)[:count].tolist() == [0, rows - 2, rows - 1]
    expected = [[4], [3], [5]] if combiner == "sum" else [[0], [0], [4]]
    np.testing.assert_array_equal(arrays.back(unique_rows)[:count], np.broadcast_to(expected, (3, dim)))


@pytest.mark.parametrize(("rows", "dim"), SHAPES)
@pytest.mark.parametrize("rule", ["sgd", "momentum", "adagrad", "rowwise_adagrad", "adam", "rmsprop", "ftrl"])
def test_step(arrays, rows, dim, rule):
    """With state of the table's size, which is of four bytes an element."""
    require_rows(arrays, rows)
    table = zeros(arrays, (rows, dim), np.float16)
    slots = [zeros(arrays, slot.shape(rows, dim), np.float32) for slot in UpdateRule(rule).slots()]
    ids, grad = arrays.to(np.array([[0, rows - 1], [rows - 2, rows - 1]])), arrays.to(np.ones((2, dim), np.float16))
    update = native.EmbeddingBagUpdate(
        [table], [slots], [ids], [None], [None], [0], ["sum"], [None], [grad], {"name": rule, "beta_2": 0.5}
    )
    workspace = zeros(arrays, (update.workspace_bytes,), np.uint8) if update.workspace_bytes else None
    update.step(learning_rate=1.0, step=0, workspace=workspace)
    touched, g = [0, rows - 2, rows - 1], np.array([[1.0], [1.0], [2.0]])
    moved = {"sgd": g, "momentum": g, "rmsprop": np.full((3, 1), 2**0.5)}.get(rule, np.ones((3, 1)))
    state = {
        "sgd": [], "momentum": [-g], "adagrad": [g**2], "rowwise_adagrad": [g[:, 0] ** 2],
        "adam": [0.1 * g, 0.5 * g**2], "rmsprop": [0.5 * g**2], "ftrl": [g**2, g],
    }[rule]  # fmt: skip
    np.testing.assert_allclose(arrays.back(table[touched]), np.broadcast_to(-moved, (3, dim)), rtol=2e-3)
    for slot, expected in zip(slots, state, strict=True):
        expected = np.broadcast_to(expected, (3, *slot.shape[1:]))
        np.testing.assert_allclose(arrays.back(slot[touched]), expected, rtol=1e-5)
    for array in (table, *slots):
        assert not arrays.back(array[elsewhere(rows, dim)]).any()
        assert not arrays.back(array[1:1000]).any()
        assert not arrays.back(array[rows - 1000 : rows - 2]).any()


@pytest.mark.gpu
def test_a_gpu_refuses_more_rows():
    arrays = Device("cupy")
    table, ids = zeros(arrays, (2**31, 1), np.float16), zeros(arrays, (1, 1), np.int64)
    with pytest.raises(native.InvalidArgument, match=r"must read a table of fewer than 2\^31 rows on CUDA"):
        native.embedding_bag_forward(
            [table], [ids], [None], [None], [0], ["sum"], [None], [zeros(arrays, (1, 1), np.float16)]
        )


@pytest.mark.parametrize("device", ["cpu:0", pytest.param("gpu:0", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("rule", ["rowwise_adagrad", pytest.param("adagrad", marks=pytest.mark.slow)])
def test_in_tensorflow(device, rule):
    """Slow is the one whose state TensorFlow wants 8.1 GB for beside the table's 4.1, though hardly any is written."""
    rows, dim = SHAPES[0]
    near = [0, rows - 2, rows - 1]
    looked_at = tf.constant([*near, *elsewhere(rows, dim)], tf.int64)

    def variable(shape, dtype):
        """Of memory as it comes: only the rows that are looked at are written."""
        made = tf.Variable(tf.raw_ops.Empty(shape=shape, dtype=dtype, init=False))
        made.scatter_update(tf.IndexedSlices(tf.zeros((len(looked_at), *shape[1:]), dtype), looked_at))
        return made

    with tf.device(device):
        table = variable((rows, dim), tf.float16)
        slots = [variable(slot.shape(rows, dim), tf.float32) for slot in UpdateRule(rule).slots()]
        bags = [Bags(tf.constant([[0, rows - 1], [rows - 2, rows - 1]], tf.int64))]
        grads = [tf.ones((2, dim), tf.float16)]
        embedding_bag_update([table], [slots], bags, grads, combiners="sum", rule=UpdateRule(rule), learning_rate=1.0)
        with tf.GradientTape() as tape:
            (output,) = embedding_bag([table], bags, combiners="sum")
        gradient = tape.gradient(output, table)
        moved, state = tf.gather(table, looked_at), tf.gather(slots[0], looked_at)
    np.testing.assert_allclose(output, np.full((2, dim), -2.0), rtol=2e-3)
    assert gradient.indices.numpy().tolist() == near
    np.testing.assert_array_equal(gradient.values, np.broadcast_to([[1], [1], [2]], (3, dim)))
    np.testing.assert_allclose(moved[:3], np.full((3, dim), -1.0), rtol=2e-3)
    np.testing.assert_allclose(tf.reshape(state[:3], (3, -1))[:, 0], [1.0, 1.0, 4.0], rtol=1e-6)
    assert not np.any(moved[3:])
    assert not np.any(state[3:])
