"""Raw values are kept as they came or refused, whatever NumPy would make of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from merlin_models.serving.raw_rows import frame_of

DTYPES = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
INT32 = r"Column 'x' must have numbers of int32, from -2147483648 to 2147483647\. Received: "
FLOAT32 = (
    r"Column 'x' must have numbers of float32, from -3\.4028234663852886e\+38 to 3\.4028234663852886e\+38\. Received: "
)


def column(dtype, is_list, values):
    return frame_of({"x": (np.dtype(dtype), is_list)}, {"x": values})["x"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_integers_at_the_ends_of_their_range(dtype):
    limits = np.iinfo(dtype)
    ends = [int(limits.min), int(limits.max)]
    for values in (ends, np.array(ends, dtype), pd.Series(ends, dtype=dtype), [np.array(ends, dtype)[0], ends[1]]):
        kept = column(dtype, False, values)
        assert kept.dtype == dtype
        assert kept.tolist() == ends
    (kept,) = column(dtype, True, [ends])
    assert kept.dtype == dtype
    assert kept.tolist() == ends
    message = f"Column 'x' must have numbers of {dtype}, from {ends[0]} to {ends[1]}. Received: "
    for outside in (ends[0] - 1, ends[1] + 1, ends[0] + 2**70):
        for is_list, values in ((False, [1, outside]), (True, [[], [1, outside]])):
            with pytest.raises(ValueError, match=f"{message}{outside}$".replace(".", r"\.")):
                column(dtype, is_list, values)


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        ("int32", 2**32 + 3, INT32 + "4294967299"),
        ("int32", np.int64(2**32 + 3), INT32),
        ("int32", 10**400, INT32 + "an integer of 1329 bits"),
        ("uint8", -1, r"Column 'x' must have numbers of uint8, from 0 to 255\. Received: -1"),
        ("int32", 3.0, r"Column 'x' must have integers\. Received: 3\.0"),
        ("int32", True, r"Column 'x' must have integers\. Received: True"),
        ("float32", 1e300, FLOAT32 + r"1e\+300"),
        ("float32", -1e39, FLOAT32 + r"-1e\+39"),
        ("float32", np.float64(1e39), FLOAT32),
        ("float32", 10**39, FLOAT32 + "1000000"),
        ("float32", 10**400, FLOAT32 + "an integer of 1329 bits"),
        ("float64", -(10**400), r"Column 'x' must have numbers of float64, from .* Received: an integer of 1329 bits"),
        ("float64", "1", r"Column 'x' must have numbers\. Received: '1'"),
    ],
)
@pytest.mark.parametrize("is_list", [False, True], ids=["scalar", "list"])
def test_values_that_a_column_cannot_hold(dtype, value, message, is_list):
    with pytest.raises(ValueError, match=message):
        column(dtype, is_list, [[value]] if is_list else [value])


@pytest.mark.parametrize(
    ("dtype", "rule"), [("int32", "numbers of int32"), ("float64", "numbers"), ("bool", "booleans")]
)
def test_integers_that_python_does_not_write_in_digits(dtype, rule):
    with pytest.raises(ValueError, match=rf"Column 'x' must have {rule}.* Received: an integer of 16610 bits"):
        column(dtype, False, [-(10**5000)])


def test_numbers_that_a_column_holds(recwarn):
    largest = float(np.finfo(np.float32).max)
    values = [largest, -largest, 10**38, 3, 0.1, np.float32(0.5), np.int8(-4), float("inf"), float("-inf")]
    expected = [largest, -largest, np.float32(1e38), 3, np.float32(0.1), 0.5, -4, np.inf, -np.inf]
    for kept in (column("float32", False, values).to_numpy(), column("float32", True, [values])[0]):
        assert kept.dtype == np.float32
        np.testing.assert_array_equal(kept, np.array(expected, np.float32))
    assert column("float64", False, [1.7e308, 10**308]).tolist() == [1.7e308, 1e308]
    assert not recwarn.list


def test_errors_stay_short():
    with pytest.raises(ValueError, match=r"Column 'x' must have numbers\. Received: 'a{199}\.\.\.$"):
        column("float32", False, [10**6 * "a"])


@pytest.mark.parametrize("is_list", [False, True], ids=["scalar", "list"])
def test_nulls(is_list):
    def kept(dtype, values):
        found = column(dtype, is_list, [values, []] if is_list else values)
        return found[0] if is_list else found.to_numpy()

    nulls = [None, float("nan"), pd.NA, np.float32("nan")]
    numbers = kept("float32", [0.5, *nulls])
    assert numbers.dtype == np.float32
    np.testing.assert_array_equal(numbers, [0.5, *[np.nan] * 4])
    strings = list(kept("object", ["a", *nulls]))
    assert strings[:2] == ["a", None]
    assert strings[2] != strings[2]  # what a workflow's functions see is what they were fitted on
    assert pd.isna(np.array(strings, object)).tolist() == [False, True, True, True, True]
    assert strings[3] is None
    assert pd.isna(kept("object", [None])).all()
    for dtype, what in (("int64", "integers"), ("uint8", "integers"), ("bool", "booleans")):
        for null in nulls:
            with pytest.raises(ValueError, match=rf"Column 'x' must have {what}\. Received: (None|nan|<NA>)"):
                kept(dtype, [null])
    for other in (1.5, True, b"a", float("inf")):
        with pytest.raises(ValueError, match=r"Column 'x' must have strings\. Received: "):
            kept("object", [other])


def test_no_list_for_a_null():
    for dtype in ("object", "float32"):
        with pytest.raises(ValueError, match=r"Column 'x' must have a list in each row\. Received: None"):
            column(dtype, True, [[], None])


@pytest.mark.parametrize("is_list", [False, True], ids=["scalar", "list"])
def test_strings_that_cannot_be_encoded(is_list):
    fine = ["Köln", "\U0001f600", ""]
    assert list(column("object", is_list, [fine] if is_list else fine)) == ([fine] if is_list else fine)
    with pytest.raises(ValueError, match=r"Column 'x' must have strings that UTF-8 can encode\. Received: '\\ud800a'"):
        column("object", is_list, [["b", "\ud800a"]] if is_list else ["b", "\ud800a"])
