"""MLPBlock."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from merlin_models.blocks import MLPBlock


def test_by_hand():
    mlp = MLPBlock([2, 1], no_activation_last_layer=True, kernel_initializer="ones", bias_initializer="ones")
    # relu([1 - 3 + 1] * 2) = [0, 0], then 0 + 0 + 1;  relu([2 + 3 + 1] * 2) = [6, 6], then 13
    np.testing.assert_array_equal(mlp(np.array([[1.0, -3.0], [2.0, 3.0]])), [[1], [13]])
    linear = MLPBlock([1], activation=None, use_bias=False, kernel_initializer="ones")
    np.testing.assert_array_equal(linear(np.array([[1.0, -3.0]])), [[-2]])


def test_order_of_layers():
    mlp = MLPBlock([4, 2], dropout=0.5, normalization="batch_norm")
    kinds = [type(layer).__name__ for layer in mlp]
    assert kinds == ["Dense", "Dropout", "BatchNormalization"] * 2
    assert mlp.dimensions == [4, 2]


def test_activation_for_each_layer():
    mlp = MLPBlock([4, 3, 2], activation=["relu", "tanh", None])
    assert [layer.activation.__name__ for layer in mlp] == ["relu", "tanh", "linear"]


def test_layers_draw_different_numbers():
    first, second = MLPBlock([4, 4], kernel_initializer=keras.initializers.RandomNormal())
    first.build((None, 4))
    second.build((None, 4))
    assert not np.array_equal(first.kernel, second.kernel)


def test_normalization_layer_is_copied():
    mlp = MLPBlock([4, 2], normalization=keras.layers.LayerNormalization(epsilon=0.5))
    assert mlp[1] is not mlp[3]
    assert mlp[3].epsilon == 0.5
    assert mlp(np.ones((3, 5))).shape == (3, 2)


def test_filter_and_dictionary():
    mlp = MLPBlock([2], filter=["a"])
    mlp({"a": np.ones((1, 3)), "b": np.ones((1, 5))})
    assert mlp[-1].kernel.shape == (3, 2)


def test_regularizers():
    mlp = MLPBlock([1], activation=None, kernel_initializer="ones", kernel_regularizer="l2", bias_regularizer="l1")
    mlp(np.ones((1, 3)))
    assert float(sum(mlp.losses)) == pytest.approx(3 * 0.01)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"activation": ["tanh", None], "dropout": 0.2, "normalization": "batch_norm", "filter": "a"},
        {
            "normalization": keras.layers.LayerNormalization(),
            "kernel_regularizer": keras.regularizers.L2(0.1),
        },
        {
            "no_activation_last_layer": True,
            "use_bias": False,
            "kernel_initializer": "he_normal",
            "block_name": "top",
        },
        {"activity_regularizer": "l1", "dtype": "mixed_bfloat16", "name": "tower"},
    ],
)
def test_config_round_trip(options):
    mlp, inputs = MLPBlock([3, 2], **options), {"a": np.ones((2, 4))}
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(mlp))
    assert again.get_config() == mlp.get_config()
    mlp(inputs)
    again(inputs)
    again.set_weights(mlp.get_weights())
    np.testing.assert_array_equal(again(inputs), mlp(inputs))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dimensions": []}, "dimensions must be one or several positive integers"),
        ({"dimensions": [3, 0]}, r"Received: \[3, 0\]"),
        ({"dimensions": [3], "dropout": 1.0}, r"dropout must be None or in \[0, 1\). Received: 1.0"),
        (
            {"dimensions": [3], "normalization": "layer"},
            "normalization must be 'batch_norm', a layer or None",
        ),
        (
            {"dimensions": [3, 2], "activation": ["relu"]},
            "have the length of dimensions, 2. Received: 1 activations",
        ),
    ],
)
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        MLPBlock(**options)


def test_mixed_precision():
    mlp = MLPBlock([3], dtype="mixed_float16")
    assert keras.backend.standardize_dtype(mlp(np.ones((2, 4), np.float32)).dtype) == "float16"
    assert keras.backend.standardize_dtype(mlp[0].kernel.dtype) == "float32"
