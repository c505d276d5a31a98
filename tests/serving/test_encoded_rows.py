"""Features are the signature's numbers, or an error: what a cast would make of others is the id of another row."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from merlin_models.serving.encoded_rows import tensors_of
from merlin_models.serving.inputs import Input


def tensors(dtype, width, values, nulls=True):
    features = pd.DataFrame({"x": pd.Series(values)})
    found = tensors_of([Input("x", tf.as_dtype(dtype), width)], features, nulls)
    return {name: x.numpy() for name, x in found.items()}


@pytest.mark.parametrize(
    ("dtype", "values", "expected"),
    [
        ("int64", [2**60 + 1, -3], [2**60 + 1, -3]),
        ("int32", [3.0, 4.0], [3, 4]),
        ("int32", pd.array([3, 4], "Int64"), [3, 4]),
        ("int64", np.array([2**60 + 1, 3], object), [2**60 + 1, 3]),
        ("float32", [1, 2], [1.0, 2.0]),
        ("float32", [1.5, None], [1.5, np.nan]),
        ("float32", pd.array([3, None], "Int64"), [3.0, np.nan]),
        ("float32", [np.inf, -np.inf], [np.inf, -np.inf]),
        ("float32", [True, False], [1.0, 0.0]),
    ],
)
def test_numbers(dtype, values, expected):
    (found,) = tensors(dtype, None, values).values()
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, np.array(expected, dtype))


def test_lists_and_vectors():
    lists = tensors("int64", "list", [[2**60 + 1], [], np.array([2, 3], np.int32)])
    assert (lists["x__values"].tolist(), lists["x__offsets"].tolist()) == ([2**60 + 1, 2, 3], [0, 1, 1, 3])
    lists = tensors("float32", "list", [[], []])
    assert (lists["x__values"].shape, lists["x__offsets"].tolist()) == ((0,), [0, 0, 0])
    np.testing.assert_array_equal(tensors("float32", 2, [[1, 2], np.array([3.0, np.nan])])["x"], [[1, 2], [3, np.nan]])
    assert tensors("float32", 2, np.zeros(0, object))["x"].shape == (0, 2)
    assert tensors("int32", None, np.zeros(0, object))["x"].shape == (0,)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("int32", 2**32 + 3), ("int64", 1.5), ("int64", float("nan")), ("int32", None), ("float32", 1e39)],
)
@pytest.mark.parametrize("width", [None, "list"])
def test_what_a_cast_would_change(recwarn, dtype, value, width):
    values = [3, value] if width is None else [[3], [], [value]]
    with pytest.raises(
        ValueError, match=rf"Feature 'x' must have numbers of {dtype} when it leaves the workflow\. Rec"
    ):
        tensors(dtype, width, values)
    assert not recwarn.list


def test_nulls_among_floats():
    nan = float("nan")
    for width, values in ((None, [1.0, nan, None]), ("list", [[1.0], [], [nan, nan]]), (3, [[1.0, nan, nan]])):
        with pytest.raises(ValueError, match=r"Feature 'x' must have no nulls when .* Received: 2 of 3 null"):
            tensors("float32", width, values, nulls=False)
