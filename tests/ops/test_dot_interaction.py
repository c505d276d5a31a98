"""dot_interaction as a TensorFlow op: against its reference, the reference against differences, graphs and errors."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from merlin_models.ops import dot_interaction, dot_interaction_reference

DEVICES = ["cpu:0", pytest.param("gpu:0", marks=pytest.mark.gpu)]


def loss_of(x, weights, **options):
    return float((dot_interaction_reference(x, **options)[0] * weights).sum())


@pytest.mark.parametrize("order", ["lower", "upper"])
@pytest.mark.parametrize("self_interaction", [False, True])
def test_the_references_gradient(rng, order, self_interaction):
    options = {"order": order, "self_interaction": self_interaction, "concat_first": True, "pad_to": 4}
    x = [rng.normal(size=(2, 5)), rng.normal(size=(2, 3, 5))]
    output, _ = dot_interaction_reference(x, **options)
    weights = rng.normal(size=output.shape)
    _, grads = dot_interaction_reference(x, weights, **options)
    step = 1e-6
    for part, grad in zip(x, grads, strict=True):
        for place in np.ndindex(part.shape):
            value = part[place]
            part[place] = value + step
            above = loss_of(x, weights, **options)
            part[place] = value - step
            below = loss_of(x, weights, **options)
            part[place] = value
            assert abs((above - below) / (2 * step) - grad[place]) < 1e-6


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [tf.float32, tf.float16, tf.bfloat16])
@pytest.mark.parametrize("graph", [False, True])
def test_output_and_gradient(rng, device, dtype, graph):
    options = {"order": "upper", "self_interaction": True, "concat_first": True, "pad_to": 8}
    parts = [tf.cast(rng.normal(size=shape), dtype) for shape in ((9, 20), (9, 5, 20), (9, 20))]
    wide = [tf.cast(part, tf.float64).numpy() for part in parts]

    def run(parts):
        with tf.GradientTape() as tape:
            tape.watch(parts)
            output = dot_interaction(parts, precision="float32", **options)
        return output, tape.gradient(output, parts, output)

    with tf.device(device):
        output, grads = (tf.function(run) if graph else run)(parts)
        expected, expected_grads = dot_interaction_reference(wide, tf.cast(output, tf.float64).numpy(), **options)
    unit = {tf.float32: 1e-6, tf.float16: 2e-3, tf.bfloat16: 2e-2}[dtype]
    for actual, wanted in zip([output, *grads], [expected, *expected_grads], strict=True):
        assert actual.dtype == dtype
        actual = tf.cast(actual, tf.float64).numpy()
        np.testing.assert_allclose(actual, wanted, rtol=unit, atol=unit * np.abs(wanted).max())


@pytest.mark.parametrize("device", DEVICES)
def test_empty_batches_and_no_pairs(device):
    with tf.device(device):
        for shape, width in (((0, 4, 8), 6), ((3, 1, 8), 0)):
            x = tf.zeros(shape)
            with tf.GradientTape() as tape:
                tape.watch(x)
                output = dot_interaction(x)
            assert output.shape == (shape[0], width)
            gradient = tape.gradient(output, x)
            assert gradient.shape == shape
            assert not np.any(gradient.numpy())


def test_shapes_in_a_graph():
    @tf.function(input_signature=[tf.TensorSpec((None, 8)), tf.TensorSpec((None, 6, 8))])
    def pairs(bottom, others):
        output = dot_interaction([bottom, others], concat_first=True, pad_to=8)
        assert output.shape.as_list() == [None, 32]
        return output

    assert pairs(tf.zeros((3, 8)), tf.zeros((3, 6, 8))).shape == (3, 32)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None))])
    def unknown(x):
        return dot_interaction(x)

    assert unknown(tf.zeros((2, 3, 4))).shape == (2, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"features must be at most 128 together. Received: 129"):
        unknown(tf.zeros((2, 129, 4)))


def test_wrong_arguments():
    x = tf.zeros((2, 3, 4))
    with pytest.raises(ValueError, match=r"features must hold at least one tensor"):
        dot_interaction([])
    with pytest.raises(TypeError, match=r"must be float32, float16 or bfloat16. Received: float64 at index 0"):
        dot_interaction(tf.cast(x, tf.float64))
    with pytest.raises(TypeError, match=r"one dtype. Received: float32 at index 0 and float16 at index 1"):
        dot_interaction([x, tf.cast(x, tf.float16)])
    with pytest.raises(ValueError, match=r"rank 2 or 3. Received shape: \(4,\) at index 0"):
        dot_interaction(x[0, 0])
    with pytest.raises(ValueError, match=r"one last dimension. Received: 4 at index 0 and 2 at index 1"):
        dot_interaction([x, x[:, :, :2]])
    with pytest.raises(ValueError, match=r"last dimension of features must be in \[1, 1024\]. Received: 1025"):
        dot_interaction(tf.zeros((1, 2, 1025)))
    with pytest.raises(ValueError, match=r"features must be 1 to 128 together. Received: 129"):
        dot_interaction(tf.zeros((1, 129, 2)))
    with pytest.raises(ValueError, match=r"order must be one of"):
        dot_interaction(x, order="left")
    with pytest.raises(ValueError, match=r"precision must be one of"):
        dot_interaction(x, precision="int8")
    with pytest.raises(ValueError, match=r"pad_to must be an integer"):
        dot_interaction(x, pad_to=2000)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"one batch size|Dimension"):
        dot_interaction([x, x[:1]])


def test_second_derivatives_are_refused():
    x = tf.random.normal((2, 3, 4))
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            y = tf.reduce_sum(dot_interaction(x) ** 2)
        gradient = inner.gradient(y, x)
    with pytest.raises(LookupError, match="MerlinDotInteractionGrad"):
        outer.gradient(gradient, x)
