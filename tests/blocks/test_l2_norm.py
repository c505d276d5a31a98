"""L2Norm: known lengths, dictionaries, zeros, and float16's range."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import merlin_models.tf as ml


def test_by_hand():
    np.testing.assert_allclose(
        ml.L2Norm()(np.array([[3.0, 4.0], [0.0, 0.0], [0.0, -2.0]])), [[0.6, 0.8], [0, 0], [0, -1]]
    )


def test_dictionary_and_rank_3(rng):
    inputs = {"a": rng.normal(size=(2, 5)), "b": rng.normal(size=(2, 3, 4))}
    outputs = ml.L2Norm()(inputs)
    assert sorted(outputs) == ["a", "b"]
    for name, value in inputs.items():
        expected = value / np.linalg.norm(value, axis=-1, keepdims=True)
        np.testing.assert_allclose(outputs[name], expected, rtol=1e-5)
    assert ml.L2Norm().compute_output_shape((None, 7)) == (None, 7)


@pytest.mark.parametrize("scale", [1e-5, 1.0, 6e4])
def test_float16_neither_overflows_nor_vanishes(rng, scale):
    inputs = (rng.uniform(0.5, 1, (4, 8)) * scale).astype(np.float16)
    outputs = ml.L2Norm(dtype="mixed_float16")(inputs)
    assert outputs.dtype == "float16"
    np.testing.assert_allclose(np.linalg.norm(np.asarray(outputs, np.float32), axis=-1), np.ones(4), rtol=2e-3)


def test_empty_batch():
    assert ml.L2Norm()(np.zeros((0, 4))).shape == (0, 4)


def test_config():
    block = ml.L2Norm.from_config(ml.L2Norm(epsilon=1e-3, name="unit").get_config())
    assert (block.epsilon, block.name) == (1e-3, "unit")
    np.testing.assert_allclose(block(np.array([[1e-4, 0.0]])), [[0.1, 0.0]], rtol=1e-6)
    assert isinstance(keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(block)), ml.L2Norm)


def test_wrong_epsilon():
    with pytest.raises(ValueError, match=r"epsilon must be positive. Received: 0"):
        ml.L2Norm(epsilon=0)
