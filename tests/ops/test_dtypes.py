"""The kernels' own 2-byte floats: every bit pattern, and rounding, against NumPy and ml_dtypes."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf

from merlin_models.ops import embedding_bag, to_bags


def flushed(values: np.ndarray) -> np.ndarray:
    """TensorFlow's threads flush float32 subnormals to zero, so values below 2^-126 say nothing about our code."""
    return (np.abs(values.astype(np.float32)) < 2.0**-126) & (values.astype(np.float32) != 0)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("dim", [1, 16])  # one by one, and in vectors
def test_every_value_survives(dtype, dim, device):
    values = np.arange(2**16, dtype=np.uint16).view(dtype)
    values = values[np.isfinite(values.astype(np.float32)) & ~flushed(values)]
    values = values[: len(values) // dim * dim].reshape(-1, dim)
    with tf.device(f"/{device}:0"):
        (output,) = embedding_bag([tf.constant(values)], [to_bags(np.arange(len(values)))], combiners="sum")
        (wide,) = embedding_bag(
            [tf.constant(values)], [to_bags(np.arange(len(values)))], combiners="sum", output_dtype=tf.float32
        )
    np.testing.assert_array_equal(output.numpy(), values)
    np.testing.assert_array_equal(wide.numpy(), values.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("dim", [1, 16])
def test_rounding_to_nearest_even(dtype, dim, rng, device):
    bits = rng.integers(0, 2**32, 160_000, dtype=np.uint32)
    exact = np.arange(2**16, dtype=np.uint32) << 16
    halfway = exact | 0x8000
    special = np.array([0x7F800000, 0xFF800000, 0x7FC00000, 0x477FE000, 0x477FEFFF, 0x477FF000, 0x33000000], np.uint32)
    values = np.concatenate([bits, exact, halfway, np.resize(special, 16 * 7)]).view(np.float32)
    values = values[~np.isnan(values) & ~flushed(values)]
    values = values[: len(values) // dim * dim].reshape(-1, dim)
    with tf.device(f"/{device}:0"):
        (output,) = embedding_bag(
            [tf.constant(values)], [to_bags(np.arange(len(values)))], combiners="sum", output_dtype=tf.as_dtype(dtype)
        )
    with np.errstate(over="ignore"):
        expected = values.astype(dtype)
    np.testing.assert_array_equal(output.numpy().view(np.uint16) & 0x7FFF, expected.view(np.uint16) & 0x7FFF)
