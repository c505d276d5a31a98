"""Arrays of merlin_models._C: what may be written."""

from __future__ import annotations

import re

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


@pytest.mark.parametrize("function", ["bag", "bag grad", "update", "dot", "dot grad", "lookup", "lookup grad"])
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
