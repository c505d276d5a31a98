"""DotInteraction beside keras_rs.layers.DotInteraction, and as any Keras layer."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from merlin_models.layers import DotInteraction

keras_rs = pytest.importorskip("keras_rs", reason="keras-rs is the layer to compare with")


def vectors(rng, features=7, batch=5, dim=12):
    return [rng.normal(size=(batch, dim)).astype(np.float32) for _ in range(features)]


@pytest.mark.parametrize("self_interaction", [False, True])
@pytest.mark.parametrize("skip_gather", [False, True])
@pytest.mark.parametrize("features", [1, 2, 7, 33])
def test_same_numbers_as_keras_rs(rng, self_interaction, skip_gather, features):
    options = {"self_interaction": self_interaction, "skip_gather": skip_gather}
    inputs = vectors(rng, features)
    ours, theirs = DotInteraction(**options), keras_rs.layers.DotInteraction(**options)
    if features == 1 and not self_interaction and not skip_gather:
        assert tuple(ours(inputs).shape) == (5, 0)  # keras-rs fails on the empty list of pairs
        return
    actual, expected = ops.convert_to_numpy(ours(inputs)), ops.convert_to_numpy(theirs(inputs))
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    assert ours.compute_output_shape([(None, 12)] * features) == (None, expected.shape[1])


@pytest.mark.parametrize(("dtype", "unit"), [("float32", 1e-6), ("mixed_float16", 2e-3), ("mixed_bfloat16", 2e-2)])
def test_same_gradient_as_keras_rs(rng, dtype, unit):
    inputs = [tf.constant(vector) for vector in vectors(rng)]
    weights = tf.constant(rng.normal(size=(5, 21)), tf.float32)
    results = []
    for layer in (DotInteraction(dtype=dtype), keras_rs.layers.DotInteraction(dtype=dtype)):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            loss = tf.reduce_sum(tf.cast(layer(inputs), tf.float32) * weights)
        results.append(np.stack(tape.gradient(loss, inputs)))
    np.testing.assert_allclose(*results, rtol=unit, atol=unit * np.abs(results[1]).max())


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float32"])
def test_in_a_functional_model(rng, policy, tmp_path):
    bottom, others = keras.Input((16,)), keras.Input((4, 16))
    layer = DotInteraction(order="upper", concat_first=True, pad_to=8, dtype=policy)
    output = layer([bottom, others])
    assert output.shape == (None, 32)  # 16 + 10 products, padded
    assert output.dtype == layer.compute_dtype
    model = keras.Model([bottom, others], keras.layers.Dense(1, dtype="float32")(output))
    model.compile("sgd", "mse")
    inputs = [rng.normal(size=(6, 16)).astype(np.float32), rng.normal(size=(6, 4, 16)).astype(np.float32)]
    before = model.evaluate(inputs, np.ones(6), verbose=0)
    model.fit(inputs, np.ones(6), epochs=3, verbose=0)
    assert model.evaluate(inputs, np.ones(6), verbose=0) < before
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(model.predict(inputs, verbose=0), again.predict(inputs, verbose=0))


def test_config_round_trip():
    options = {"self_interaction": True, "order": "upper", "concat_first": True, "pad_to": 4, "precision": "float32"}
    layer = DotInteraction.from_config(DotInteraction(**options).get_config())
    assert {name: layer.get_config()[name] for name in options} == options


def test_output_shapes():
    layer = DotInteraction(concat_first=True, pad_to=8)
    parts = [(None, 16), (None, 4, 16)]
    assert layer.compute_output_shape(parts) == layer.compute_output_shape(tuple(parts)) == (None, 32)
    assert layer.compute_output_shape((None, 5, 16)) == (None, 32)
    assert layer((keras.ops.ones((2, 16)), keras.ops.ones((2, 4, 16)))).shape == (2, 32)


def test_wrong_arguments(rng):
    with pytest.raises(ValueError, match=r"order must be one of \('lower', 'upper'\). Received: 'left'"):
        DotInteraction(order="left")
    with pytest.raises(ValueError, match=r"precision must be one of .* Received: 'half'"):
        DotInteraction(precision="half")
    with pytest.raises(ValueError, match=r"pad_to must be an integer in \[1, 1024\]. Received: 0"):
        DotInteraction(pad_to=0)
    with pytest.raises(ValueError, match=r"skip_gather must not be combined"):
        DotInteraction(skip_gather=True, pad_to=8)
    layer, inputs = DotInteraction(), vectors(rng)
    with pytest.raises(ValueError, match=r"rank 2 or 3. Received rank 1 at index 1"):
        layer([inputs[0], inputs[1][0]])
    with pytest.raises(ValueError, match=r"one last dimension. Received: \(5, 12\) at index 0 and \(5, 6\) at index 1"):
        layer([inputs[0], inputs[1][:, :6]])
    with pytest.raises(ValueError, match=r"inputs must hold at least one tensor"):
        layer([])
