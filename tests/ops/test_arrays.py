"""Arrays of merlin_models._C: what may be written, and how long what a DLPack producer exports must live."""

from __future__ import annotations

import ctypes
import re
import weakref

import numpy as np
import pytest

from merlin_models import _native

C = _native.module()
IDS = np.array([[0], [1]])
BAGS = ([IDS], [None], [None], [0], ["sum"], [None])


def floats(*shape):
    return np.ones(shape, np.float32)


def arrays_of(function):
    """What a function writes, by name, and a call with such arrays."""
    if function == "bag":
        return {"outputs[0]": floats(2, 4)}, lambda output: C.embedding_bag_forward([floats(3, 4)], *BAGS, [output])
    if function == "bag grad":
        bags = ([IDS], [None], [floats(2, 1)], *BAGS[3:])
        return (
            {"unique_ids[0]": np.zeros(2, np.int64), "rows[0]": floats(2, 4), "weights_grads[0]": floats(2, 1)},
            lambda ids, rows, weights: C.embedding_bag_grad(
                [floats(3, 4)], *bags, [floats(2, 4)], [ids], [rows], [weights]
            ),
        )
    if function == "update":
        rule = {"name": "adam"}
        return (
            {"tables[0]": floats(3, 4), "slots[0][0]": floats(3, 4), "slots[0][1]": floats(3, 4)},
            lambda table, *slots: C.EmbeddingBagUpdate([table], [list(slots)], *BAGS, [floats(2, 4)], rule).step(
                0.1, 0
            ),
        )
    if function == "dot":
        return {"output": floats(2, 3)}, lambda output: C.dot_interaction_forward([floats(2, 3, 4)], output)
    if function == "dot grad":
        return {"grads[0]": floats(2, 3, 4)}, lambda grad: C.dot_interaction_grad(
            [floats(2, 3, 4)], floats(2, 3), [grad]
        )
    softmax = (floats(3, 4), floats(3, 4), floats(3, 4), floats(1), np.arange(3), np.arange(3))
    if function == "softmax":
        names = ("loss", "log_sum", "positive_score", "mean")
        return (
            {name: floats(3, 4) if name == "mean" else floats(3) for name in names},
            lambda *outputs: C.inbatch_softmax_forward(*softmax, *outputs[:3], mean=outputs[3]),
        )
    if function == "softmax grad":
        names = ("queries_grad", "positives_grad", "candidates_grad", "scale_grad")
        read = (floats(3), floats(3), floats(3, 4), floats(3), floats(3))
        return (
            {name: floats(1) if name == "scale_grad" else floats(3, 4) for name in names},
            lambda *grads: C.inbatch_softmax_grad(*softmax, *read, *grads),
        )
    bags = ([floats(3, 4)], [IDS, IDS], [0, 0], ["sum"] * 2, [None] * 2)
    if function == "lookup":
        return (
            {"output": floats(2, 3), "vectors": floats(2, 8)},
            lambda output, vectors: C.lookup_interaction_forward(*bags, output, first=floats(2, 4), vectors=vectors),
        )
    return (
        {"pooled_grad": floats(2, 8), "first_grad": floats(2, 4), "vectors": floats(2, 8)},
        lambda pooled, first, vectors: C.lookup_interaction_grad(
            *bags, floats(2, 3), pooled, first=floats(2, 4), first_grad=first, vectors=vectors
        ),
    )


@pytest.mark.parametrize(
    "function",
    ["bag", "bag grad", "update", "dot", "dot grad", "softmax", "softmax grad", "lookup", "lookup grad"],
)
def test_what_is_written_must_be_writable(function):
    written, call = arrays_of(function)
    call(*written.values())
    for name, array in written.items():
        array.flags.writeable = False
        before = {each: other.copy() for each, other in written.items()}
        with pytest.raises(ValueError, match=re.escape(f"{name} must be writable. Received: a read-only array")):
            call(*written.values())
        array.flags.writeable = True
        for each, other in written.items():
            np.testing.assert_array_equal(other, before[each])


def test_what_is_only_read_may_be_read_only(tmp_path):
    np.save(tmp_path / "table.npy", np.arange(8, dtype=np.float32).reshape(4, 2))
    table = np.load(tmp_path / "table.npy", mmap_mode="r")
    output = floats(2, 2)
    C.embedding_bag_forward([table], *BAGS, [output])
    np.testing.assert_array_equal(output, [[0, 1], [2, 3]])


class Tracked(np.ndarray):
    """An array that can be watched."""


class Copies:
    """Exports a copy, which nobody but the capsule keeps alive."""

    def __init__(self, array):
        self.array, self.freed = array, []

    def __dlpack__(self, *, stream=None):
        copy = self.array.copy().view(Tracked)
        weakref.finalize(copy, self.freed.append, True)
        return copy.__dlpack__()

    def __dlpack_device__(self):
        return (1, 0)


def test_exported_copies_live_as_long_as_the_call():
    table, grad = floats(3, 4), Copies(np.arange(8, dtype=np.float32).reshape(2, 4))
    update = C.EmbeddingBagUpdate([table], [[]], *BAGS, [grad], {"name": "sgd"})
    assert not grad.freed
    update.step(1.0, 0)
    np.testing.assert_array_equal(table[:2], 1 - grad.array)
    del update
    assert grad.freed == [True]


class OfType(Copies):
    """Exports 16 bits an element as another type: its code, bits and lanes."""

    def __init__(self, array, *dtype):
        super().__init__(array)
        self.dtype = dtype

    def __dlpack__(self, *, stream=None):
        capsule = self.array.__dlpack__()
        pointer = ctypes.pythonapi.PyCapsule_GetPointer
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        code, bits, lanes = self.dtype
        exported = (ctypes.c_uint8 * 4).from_address(pointer(capsule, b"dltensor") + 20)  # behind data, device, rank
        exported[:] = code, bits, lanes, 0
        return capsule


def test_bfloat_of_another_size_is_refused():
    def look_up(*dtype):
        C.embedding_bag_forward([OfType(np.full((3, 2), 0x3F80, np.uint16), *dtype)], *BAGS, [output])

    output = np.zeros((2, 2), np.float32)
    look_up(4, 16, 1)
    np.testing.assert_array_equal(output, 1)
    for dtype, name in (((4, 8, 1), "bfloat8"), ((4, 32, 1), "bfloat32"), ((4, 16, 2), "bfloat16x2")):
        with pytest.raises(ValueError, match=rf"must have dtype float32, float16 or bfloat16. Received: {name}$"):
            look_up(*dtype)
