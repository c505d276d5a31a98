"""Dense beside keras.layers.Dense: the same numbers, the bias' gradient too."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

import merlin_models.tf as ml
from merlin_models.layers import Dense


def results(layer, x, upstream, training=True):
    """The output, and the gradients of kernel, bias and input."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = layer(x, training=training)
        loss = tf.reduce_sum(tf.cast(output, tf.float32) * upstream)
    kernel, bias = (variable.value for variable in layer.trainable_variables)
    return [np.asarray(each, np.float64) for each in (output, *tape.gradient(loss, [kernel, bias, x]))]


def assert_close(actual, expected, unit):
    """Within some units of the largest."""
    size = np.abs(expected).max() if expected.size else 0.0
    np.testing.assert_allclose(actual, expected, rtol=unit, atol=unit * size + 1e-30)


@pytest.mark.parametrize(
    ("policy", "unit"), [("float32", 2e-6), ("mixed_float16", 4e-3), ("mixed_bfloat16", 3e-2)], ids=lambda p: str(p)
)
@pytest.mark.parametrize("shape", [(7, 4), (1, 3), (0, 5), (3, 5, 6), (513, 33)], ids=str)
@pytest.mark.parametrize("units", [1, 17])
def test_numbers_of_keras(rng, on_device, policy, unit, shape, units):
    ours, theirs, exact = (
        kind(units, dtype=dtype)
        for kind, dtype in ((Dense, policy), (keras.layers.Dense, policy), (keras.layers.Dense, "float64"))
    )
    x = tf.constant(rng.normal(size=shape), tf.float32)
    upstream = tf.constant(rng.normal(size=(*shape[:-1], units)), tf.float32)
    for layer in (ours, theirs, exact):
        layer.build(shape)
    ours.bias.assign(rng.normal(size=units))
    theirs.set_weights(ours.get_weights())
    exact.set_weights(ours.get_weights())
    for actual, expected in zip(results(ours, x, upstream), results(exact, x, upstream), strict=True):
        assert_close(actual, expected, unit)
    # On a GPU Keras' gradient of the bias adds up with atomic operations: each time in another order.
    names = ("output", "kernel", "bias", "inputs")
    for name, *pair in zip(names, results(ours, x, upstream, False), results(theirs, x, upstream, False), strict=True):
        if name == "bias" and on_device == "gpu":
            assert_close(*pair, unit)
        else:
            np.testing.assert_array_equal(*pair)


def test_gradient_of_the_bias_in_float64(rng):
    layer = Dense(9)
    x = tf.constant(rng.normal(size=(1000, 4)), tf.float32)
    upstream = rng.normal(size=(1000, 9))
    *_, bias, _ = results(layer, x, tf.constant(upstream, tf.float32))
    np.testing.assert_allclose(bias, upstream.sum(axis=0), atol=1e-4)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_trains_saves_and_loads(rng, tmp_path, jit_compile):
    x, y = rng.normal(size=(64, 5)).astype("float32"), rng.normal(size=(64, 1)).astype("float32")
    fitted = []
    for kind in (Dense, keras.layers.Dense):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((5,)), kind(8, activation="relu"), kind(3, use_bias=False), kind(1)])
        model.compile("adam", "mse", jit_compile=jit_compile)
        model.fit(x, y, batch_size=16, epochs=3, verbose=0, shuffle=False)
        fitted.append(model)
    for actual, expected in zip(*(model.get_weights() for model in fitted), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)
    fitted[0].save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [type(layer) for layer in loaded.layers] == [Dense] * 3
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), fitted[0].predict(x, verbose=0))


def test_quantizes_and_takes_lora(rng):
    x = rng.normal(size=(32, 5)).astype("float32")
    model = keras.Sequential([keras.Input((5,)), Dense(8)])
    before = model.predict(x, verbose=0)
    model.layers[0].quantize("int8")
    np.testing.assert_allclose(model.predict(x, verbose=0), before, atol=0.1)
    layer = Dense(3, lora_rank=2)
    layer.build((None, 5))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x, training=True) ** 2)
    assert len(layer.trainable_variables) == 3  # the bias and two of low rank
    assert all(each is not None for each in tape.gradient(loss, [v.value for v in layer.trainable_variables]))


def test_blocks_have_it():
    block = ml.MLPBlock([4, 2])
    assert [type(layer) for layer in block.layers] == [Dense, Dense]
